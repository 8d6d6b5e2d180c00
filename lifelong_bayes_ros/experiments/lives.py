"""The `life` command: methods through lives over seeds, beside the frozen model and the oracle."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..learning.store import write_atomically
from ..paths import cache_dir, check_writable
from ..robot.spec import RobotSpec
from .agents import METHODS, Setting, Status
from .aggregate import grouped, over_seeds, phases_over_seeds
from .life import Trace, run_life
from .metrics import Figures, Summary, figures
from .priors import prior_for
from .published import report_object, row
from .record import Run, from_json, to_json
from .report import draw_run, source_of
from .rows import life_rows
from .schedule import Life, load_lives
from .summary import draw_summary
from .sweep import Failure, Job, Outcome, ray_module, run_here, run_on_ray
from .tables import write_tables
from .units import Shelf, Unit, trainings

__all__ = ['Status', 'life_command', 'report_object', 'result', 'row', 'run_baselines', 'run_ours']

REFERENCES = ('frozen', 'oracle')  # every method is judged beside these
Notify = Callable[[str], None]  # a line for the person who waits


# ---------------------------------------------------------------------- one life, in this process
def run_method(
    spec: RobotSpec, life: Life, method: str, seed: int, status: Status = lambda what, share: None
) -> Trace:
    """One method through a life."""
    prior = prior_for(spec, progress=lambda share, what: status(what, share))
    agent = METHODS[method].make(Setting(spec, prior, life, seed, status))
    return run_life(
        spec,
        life,
        agent,
        seed,
        lambda step: status(f'{method} through the life', step / life.steps),
    )


def run_baselines(
    spec: RobotSpec, life: Life, seed: int, status: Status = lambda what, share: None
) -> dict[str, Trace]:
    """The frozen model and the oracle through a life."""
    return {method: run_method(spec, life, method, seed, status) for method in REFERENCES}


def run_ours(
    spec: RobotSpec, life: Life, seed: int, status: Status = lambda what, share: None
) -> Trace:
    """The learner through a life, without ROS."""
    return run_method(spec, life, 'ours', seed, status)


def result(robot: str, seed: int, traces: dict[str, Trace], summary: Summary) -> dict[str, Any]:
    """What is kept of one life as JSON."""
    ours = traces['ours']
    return {
        'robot': robot,
        'seed': seed,
        'summary': asdict(summary),
        'coverage90': float(np.mean(ours.inside)) if ours.inside else None,
        'crashes': {name: int(np.sum(t.crashed)) for name, t in traces.items()},
        'events': [asdict(e) for e in ours.events],
        'score': {name: t.score for name, t in traces.items()},
    }


# ---------------------------------------------------------------------- many
def life_command(
    lives: Sequence[str],
    seeds: Sequence[int],
    out: Path | None,
    status: Status,
    methods: Sequence[str] = ('ours',),
    jobs: int = 1,
    ray: str | None = None,
    notify: Notify = lambda line: None,
) -> dict[str, Any]:
    """Run methods through lives.

    Args:
        lives: names (a robot's own life is named after it) or files.
        seeds: of every random stream.
        out: folder for results and pictures; what it holds already is not run again. None: none.
        status: told what is going on and the share done of all.
        methods: names in `METHODS`; the frozen model and the oracle are run beside them anyway.
        jobs: processes of this machine, each on one thread.
        ray: address of a Ray cluster to run on instead.
        notify: told what a person should know.

    Returns:
        The object of `--json`: rows, `lives` (figures of every unit), `summaries` (of a method in
        a life, over seeds) and `failed`.

    Raises:
        UserError: unknown life or method, `out` cannot be written, or pre-training failed.
    """
    chosen = [name for name in METHODS if name in methods or name in REFERENCES]
    units = [
        Unit(name, life, method, seed)
        for name, life in load_lives(lives).items()
        for seed in seeds
        for method in chosen
    ]
    if ray:
        ray_module()  # before anything takes long
    if out:
        check_writable(out, '--out')
    _train(units, jobs, status)
    shelf = Shelf(out / 'units') if out else None
    runs, failed = _run(units, shelf, jobs, ray, status, notify)
    found = []
    for unit in units:
        key = (unit.name, unit.seed)
        three = [runs.get((*key, m)) for m in (unit.method, *REFERENCES)]
        if all(three):
            found.append(figures(*three))
    report = report_object('life', list(seeds), life_rows(found))
    report['lives'] = [asdict(f) for f in found]
    report['summaries'] = _summaries(found)
    report['failed'] = failed
    report = without_nan(report)
    if out:
        _draw(out, runs, found, chosen, status)
        write_tables(report['summaries'], out / 'tables.txt')
        write_atomically(out / 'report.json', json.dumps(report, allow_nan=False).encode())
    return report


def _train(units: Sequence[Unit], jobs: int, status: Status) -> None:
    """Train what the cache does not hold, before many processes need it at once."""
    todo = [t for t in trainings(units) if not t.file.is_file()]
    for number, outcome in watched(todo, run_here, jobs, status):
        if isinstance(outcome, Failure):
            raise UserError(f'{todo[number]} failed: {outcome}')
    # Some methods train networks of their own, and tell first here if they lack something.
    for robot, method in dict.fromkeys((u.life.robot, u.method) for u in units):
        unit = next(u for u in units if (u.life.robot, u.method) == (robot, method))
        unit.agent(lambda what, share, r=robot, m=method: status(f'{r}, {m}: {what}', share))


def _run(
    units: Sequence[Unit],
    shelf: Shelf | None,
    jobs: int,
    ray: str | None,
    status: Status,
    notify: Notify,
) -> tuple[dict[tuple, Run], list[dict[str, str]]]:
    """Runs by (life, seed, method), and the units that failed."""
    runs: dict[tuple, Run] = {}
    outdated: Counter[str] = Counter()
    todo = []
    for unit in units:
        run, why = shelf.find(unit) if shelf else (None, '')
        if run is None:
            todo.append(unit)
            outdated.update([why] if why else [])
        else:
            runs[unit.name, unit.seed, unit.method] = run
    for why, count in outdated.items():
        notify(f'{count} kept of {len(units)} runs cannot be used, {why}: run again')
    if runs:
        notify(f'{len(runs)} of {len(units)} runs were found in {shelf.folder}')
    failed = []

    def on_ray(todo: Sequence[Job], _: int, watch: Any) -> Any:
        robots = dict.fromkeys(unit.life.robot for unit in units)
        files = [f for r in robots for f in cache_dir().glob(f'{r}-*.safetensors')]
        return run_on_ray(todo, ray, files, watch)

    try:
        for number, outcome in watched(todo, on_ray if ray else run_here, jobs, status):
            unit = todo[number]
            if isinstance(outcome, Failure):
                failed.append({'unit': str(unit), 'error': outcome})
                notify(f'{unit} failed: {outcome}')
                continue
            key = (unit.name, unit.seed, unit.method)
            runs[key] = shelf.keep(unit, outcome) if shelf else from_json(outcome)
    except KeyboardInterrupt:
        if shelf:
            done = f'{len(runs)} of {len(units)} runs are kept'
            notify(f'{done}; the same command goes on from there')
        raise
    return runs, failed


def watched(todo: Sequence[Job], execute: Any, jobs: int, status: Status) -> Iterator[Outcome]:
    """Outcomes as they come, while `status` is told the share done of all."""
    done = 0

    def watch(shares: dict[int, float]) -> None:
        names = [str(todo[number]) for number in shares]
        running = names[0] + (f' and {len(names) - 1} more' if len(names) > 1 else '')
        share = (done + sum(shares.values())) / len(todo)
        status(f'{done} of {len(todo)} done; now {running}', share)

    for outcome in execute(todo, jobs, watch) if todo else ():
        done += 1
        yield outcome


def _summaries(found: Sequence[Figures]) -> list[dict[str, Any]]:
    return [
        {
            'life': name,
            'method': method,
            'seeds': [f.seed for f in seeds],
            'life_mean': {k: v._asdict() for k, v in over_seeds(seeds).items()},
            'phases': [
                {k: v._asdict() if isinstance(v, tuple) else v for k, v in phase.items()}
                for phase in phases_over_seeds(seeds)
            ],
        }
        for name, methods in grouped(found).items()
        for method, seeds in methods.items()
    ]


def _draw(
    out: Path,
    runs: dict[tuple, Run],
    found: Sequence[Figures],
    methods: Sequence[str],
    status: Status,
) -> None:
    """One picture per life and seed, where there is none of these runs, and one of all."""
    pairs = list(dict.fromkeys((f.name, f.seed) for f in found))
    for index, (name, seed) in enumerate(pairs):
        path = out / 'pictures' / f'{name.replace("/", "-")}-{seed}.png'
        shown = {m: runs[name, seed, m] for m in methods if (name, seed, m) in runs}
        text = json.dumps([to_json(run) for run in shown.values()])
        source = hashlib.sha256(text.encode()).hexdigest()
        if source_of(path) == source:
            continue
        status(f'drawing {name} seed {seed}', index / len(pairs))
        mine = {f.method: f for f in found if (f.name, f.seed) == (name, seed)}
        draw_run(shown, mine, path, source)
    if found:
        draw_summary(found, out / 'summary.png')


def without_nan(value: Any) -> Any:
    """The same with null for what is no number, as JSON wants it."""
    if isinstance(value, dict):
        return {str(k): without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
