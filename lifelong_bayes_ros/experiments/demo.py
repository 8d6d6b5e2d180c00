"""The main job: one life through real ROS 2 nodes, beside the frozen model and the oracle."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..errors import UserError
from ..learning.store import STATE, write_atomically
from ..robot.spec import RobotSpec, load_robot, robot_names
from .bag import read_trace
from .life import Trace
from .lives import result, run_baselines, run_ours
from .metrics import summarise
from .page import PAGE, PICTURE, REPORT
from .priors import prior_for
from .report import draw_life, print_summary
from .schedule import Life, life_names, load_life

STALL = 60.0  # s of wall time without a step after which the run is given up
MARK = '.lifelong-bayes-demo'  # file that a demo writes first: it may clear that folder later
EPISODES = 2  # consolidations that a demo must have seen


class Monitor:
    """What the nodes say while they run, for the live display."""

    def __init__(self, bringup: Any, life: Life) -> None:
        from ..nodes import codecs, topics

        self.life = life
        self.step = 0
        self.regime = life.regime_at(0)
        self.late = 0
        self.scores: list[float] = []
        self.uncertainty: dict[str, float] = {}
        self.learner: dict[str, float] = {}
        self.events: list[str] = []
        self.done = False
        self.moved_at = time.monotonic()
        self._from_named = codecs.from_named
        for topic, callback in (
            (topics.REGIME, self._on_truth),
            (topics.UNCERTAINTY, self._on_uncertainty),
            (topics.LEARNER_STATE, self._on_learner),
            (topics.EVENT, self._on_event),
        ):
            bringup.node.create_subscription(topic.type, topic.name, callback, topic.qos)

    def _on_truth(self, message: Any) -> None:
        truth = json.loads(message.data)
        self.step, self.regime, self.done = truth['step'] + 1, truth['regime'], truth['done']
        self.late = truth.get('late', 0)
        self.scores.append(truth['score'])
        self.moved_at = time.monotonic()

    def _on_uncertainty(self, message: Any) -> None:
        self.uncertainty = self._from_named(message)[1]

    def _on_learner(self, message: Any) -> None:
        self.learner = self._from_named(message)[1]

    def _on_event(self, message: Any) -> None:
        event = json.loads(message.data)
        name = event.get('regime') or ', '.join(event.get('regimes', []))
        self.events.append(f'step {event["step"]}: {event["event"]} {name}'.rstrip())

    def view(self) -> Group:
        """The display."""
        table = Table.grid(padding=(0, 2))
        recent = np.mean(self.scores[-25:]) if self.scores else float('nan')
        known = {k: v for k, v in self.learner.items() if k.startswith('regime.')}
        likely = max(known, key=known.get).removeprefix('regime.') if known else '-'
        epistemic = [v for k, v in self.uncertainty.items() if k.endswith('.epistemic')]
        table.add_row('step', f'{self.step} of {self.life.steps}')
        table.add_row('score, last 25 steps', f'{recent:.2f}')
        table.add_row('hidden regime / believed', f'{self.regime} / {likely}')
        table.add_row('surprise', f'{self.learner.get("surprise.fast", float("nan")):.2f}')
        table.add_row('epistemic sd, mean', f'{np.mean(epistemic or [np.nan]):.4f}')
        bar = ProgressBar(total=self.life.steps, completed=self.step, width=60)
        return Group(bar, table, *self.events[-4:])


def run_demo(
    robot: str, seed: int, out: Path, realtime: bool, late_budget: float, as_json: bool
) -> int:
    """Run the demo; returns the exit status.

    Raises:
        UserError: no shipped robot with a life, `out` holds something else, or a node failed.
    """
    known = [name for name in robot_names() if name in life_names()]
    if robot not in known:
        raise UserError(f'--robot {robot!r}: give one of {", ".join(known)}')
    console = Console(stderr=True)
    spec, life = load_robot(robot), load_life(robot)
    _clear(out)
    with console.status('pre-training') as status:
        prior_for(
            spec,
            progress=lambda share, what: status.update(
                f'pre-training the task prior of {spec.name} in simulation (once): '
                f'{what}, {share:.0%}'
            ),
        )
    started = time.perf_counter()
    spawn = multiprocessing.get_context('spawn')
    # Ctrl-C is for this process, which ends the other one.
    with spawn.Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        # Beside a run in real time nothing else may take the processor.
        early = None if realtime else pool.apply_async(_compare, (spec, life, seed))
        faults, late = _through_ros(spec, life, seed, out, realtime, console)
        if faults:
            raise UserError('\n'.join(faults))
        with console.status('the frozen model and the oracle through the same life (once)'):
            pending = early or pool.apply_async(run_baselines, (spec, life, seed))
            others = pending.get()
    report, code = _report(spec, life, seed, out, others, realtime, late, late_budget)
    report['seconds'] = time.perf_counter() - started
    write_atomically(out / REPORT, json.dumps(report).encode())
    if as_json:
        print(json.dumps(report))
    for fault in report['faults']:
        console.print(f'[red]{fault}[/red]')
    console.print(f'{report["seconds"]:.0f} s')
    for what in ('report.png', 'report.json', 'bag', 'state'):
        console.print(str(out / what), highlight=False)
    return code


def _compare(spec: RobotSpec, life: Life, seed: int) -> dict[str, Trace]:
    """Who the run is compared with; `without ROS` is the same learner."""
    return run_baselines(spec, life, seed) | {'without ROS': run_ours(spec, life, seed)}


def _clear(out: Path) -> None:
    """Make room for a new run, but only where an earlier one was; what others put there stays.

    Raises:
        UserError: something is there, and no demo has made that folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    mark = out / MARK
    if not mark.is_file() and (foreign := sorted(p.name for p in out.iterdir())):
        raise UserError(
            f'{out} holds {foreign[0]!r} and was not made by a demo; give another --out, or '
            'move it away'
        )
    mark.touch()
    for name in ('bag', 'state', 'log'):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for name in (REPORT, 'report.png', PAGE, PICTURE):
        (out / name).unlink(missing_ok=True)


def _through_ros(
    spec: RobotSpec, life: Life, seed: int, out: Path, realtime: bool, console: Console
) -> tuple[list[str], int]:
    """The life through the nodes; returns what went wrong and how many steps were late."""
    from ..nodes.bringup import Bringup

    settings = {
        'robot': spec.name,
        'life': life.robot,
        'seed': seed,
        'sim': True,
        'viz': True,
        'realtime': realtime,
        'state_dir': str((out / 'state').absolute()),
        'resume': False,
        'out': str((out / 'bag').absolute()),
    }
    faults = []
    with Bringup(settings, out / 'log', private=True) as bringup:
        monitor = Monitor(bringup, life)
        with console.status(f'starting {len(bringup.starts)} nodes'):
            bringup.start()
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while not monitor.done and not faults:
                for _ in range(100):
                    bringup.spin(0.002)
                live.update(monitor.view())
                for name in bringup.watch():
                    faults.append(bringup.obituary(name))
                if time.monotonic() - monitor.moved_at > STALL:
                    faults.append(
                        f'no step for {STALL:.0f} s after step {monitor.step}; '
                        f'see the logs in {out / "log"}'
                    )
    return faults, monitor.late


def _report(
    spec: RobotSpec,
    life: Life,
    seed: int,
    out: Path,
    others: dict[str, Trace],
    realtime: bool,
    late: int,
    late_budget: float,
) -> tuple[dict[str, Any], int]:
    """Read the bag, compare, draw, judge."""
    traces = {'ours': read_trace(out / 'bag'), **others}
    steps = len(traces['ours'].score)
    if steps != life.steps:
        raise UserError(f'the bag holds {steps} of {life.steps} steps; see {out / "log"}')
    scores = {name: np.array(t.score) for name, t in traces.items()}
    summary = summarise(life, scores['ours'], scores['frozen'], scores['oracle'])
    # A trunk is rolled back, too.
    consolidated = sum(
        e.event in ('consolidated', 'rolled_back') and e.detail.get('what') != 'trunk'
        for e in traces['ours'].events
    )
    faults = []
    if not summary.gap_closed > 0:
        faults.append(f'nothing was learned: gap closed {summary.gap_closed:.2f}')
    if consolidated < EPISODES:
        faults.append(f'{consolidated} consolidations, expected at least {EPISODES}')
    if realtime and late > late_budget * life.steps:
        faults.append(
            f'deadline: {late} of {life.steps} steps came late, the budget is {late_budget:.0%}'
        )
    if not (out / 'state' / STATE).is_file():
        faults.append('the learner did not save its state')
    how = 'in real time' if realtime else 'in lockstep'
    title = f'{spec.name}, seed {seed}: one life of hidden regimes through ROS 2, {how}'
    draw_life(life, spec.period, traces, summary, out / 'report.png', title)
    console = Console(stderr=True)
    print_summary(console, summary)
    difference = None
    if 'without ROS' in traces:
        difference = float(np.abs(scores['ours'] - scores['without ROS']).max())
        console.print(
            f'largest difference of a score to the same life without ROS: {difference:g}'
        )
        if difference > 1e-5:
            faults.append(f'the nodes changed the result: a score differs by {difference:g}')
    report = result(spec.name, seed, traces, summary)
    report |= {'realtime': realtime, 'late': late, 'faults': faults}
    report['difference_without_ros'] = difference
    return report, int(bool(faults))
