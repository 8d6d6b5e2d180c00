"""The `bench` command: figures, beside the bar that each has to meet."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..learning.store import write_atomically
from ..robot.spec import load_robot
from .agents import METHODS
from .demo import STALL
from .lives import Status, life_command, report_object, row
from .priors import prior_for

STEPS = 600
ROBOTS = ['quad', 'arm', 'diffdrive', 'cartpole']
KEPT = Path('out/bench')
PAGE = Path('BENCHMARKS.md')


def run_bench(what: str, status: Status, hz: float | None = None) -> dict[str, Any]:
    """Measure one thing and return its report object; `hz` is the rate of `realtime`.

    Raises:
        UserError: a node failed.
    """
    if what == 'loop':
        rows = [r for robot in ('quad', 'arm') for r in bench_loop(robot, status)]
        return report_object('bench loop', [0], rows)
    if what == 'life':
        report = life_command(ROBOTS, range(10), KEPT / 'life', status, jobs=2)
        return {k: v for k, v in report.items() if k not in ('lives', 'summaries')}
    if what == 'stream':
        from .bench_stream import stream_command

        report = stream_command(list(METHODS), list(range(10)), KEPT / 'stream', status, jobs=2)
        return {k: v for k, v in report.items() if k != 'tables'}
    if what == 'safety':
        from .bench_safety import safety_report

        return safety_report(status)
    if what == 'policy':
        from .bench_policy import policy_report

        return policy_report(status, range(10), KEPT / 'policy')
    if what == 'merge':
        from .bench_merge import merge_report

        return merge_report(status)
    if what == 'realtime':
        from .bench_realtime import HZ, realtime_report

        return realtime_report(status, HZ if hz is None else hz)
    if what == 'ros':
        from .bench_ros import ros_report

        return ros_report(status)
    if what == 'planner':
        from .bench_planner import planner_report

        return planner_report(status)
    if what == 'gpu':
        from .bench_gpu import gpu_report

        return gpu_report(status)
    if what == 'risk':
        from .bench_risk import risk_report

        return risk_report(status, range(10), KEPT / 'risk')
    # scikit-learn and the peers are needed for these only.
    if what == 'optimizer':
        from .bench_optimizer import optimizer_report

        return optimizer_report(status)
    if what == 'memory':
        from .bench_memory import memory_report

        return memory_report(status)
    from .bench_quality import quality_report

    return quality_report(status)


COMMANDS = {
    'gpu': 'lifelong-bayes bench gpu',
    'life': 'lifelong-bayes life --robots quad,arm,diffdrive,cartpole --seeds 10 --jobs 2',
    'loop': 'lifelong-bayes bench loop',
    'memory': 'lifelong-bayes bench memory',
    'merge': 'lifelong-bayes bench merge',
    'optimizer': 'lifelong-bayes bench optimizer',
    'planner': 'lifelong-bayes bench planner',
    'policy': 'lifelong-bayes bench policy',
    'quality': 'lifelong-bayes bench quality',
    'realtime': 'lifelong-bayes bench realtime',
    'risk': 'lifelong-bayes bench risk',
    'ros': 'lifelong-bayes bench ros',
    'safety': 'lifelong-bayes bench safety',
    'stream': 'lifelong-bayes bench stream',
}


def run_all(status: Status) -> dict[str, Any]:
    """Measure everything that has not been measured yet and can be here; write BENCHMARKS.md."""
    import torch

    reports = {}
    for what in COMMANDS:
        kept = KEPT / f'{what}.json'
        if not kept.is_file():
            if what == 'gpu' and not torch.cuda.is_available():
                continue
            write_atomically(kept, json.dumps(run_bench(what, status)).encode())
        reports[what] = json.loads(kept.read_text())
    write_atomically(PAGE, benchmarks_page(reports).encode())
    return report_object(
        'bench all', list(range(10)), [r for v in reports.values() for r in v['rows']]
    )


def benchmarks_page(reports: dict[str, dict[str, Any]]) -> str:
    """All rows as Markdown, under the commands that print them."""
    lines = [
        '# Benchmarks',
        '',
        'Written by `make bench`, which runs the commands below and keeps each result in '
        f'`{KEPT}`;',
        'remove a file there to measure again.',
    ]
    for what, report in reports.items():
        versions = ', '.join(f'{k} {v}' for k, v in report['versions'].items())
        lines += ['', f'## `{COMMANDS[what]}`', '', f'{report["machine"]}; {versions}', '']
        lines += ['| | value | unit | bar | met |', '|---|---|---|---|---|']
        for r in report['rows']:
            sign = '≥' if r['better'] == 'higher' else '≤'
            bar = '' if r['bar'] is None else f'{sign} {r["bar"]:g}'
            met = {None: '', True: 'yes', False: '**no**'}[r['ok']]
            value = 'none' if r['value'] is None else f'{r["value"]:.4g}'
            lines.append(f'| {r["name"]} | {value} | {r["unit"]} | {bar} | {met} |')
    return '\n'.join(lines) + '\n'


def bench_loop(robot: str, status: Status) -> list[dict[str, Any]]:
    """Latency from a state's publication to its answer at the robot, by the wall clock.

    All nodes run as processes of their own, in real time; the simulated robot measures, as a real
    one would see it: state out, command in, through the policy's planner.
    """
    from ..nodes.bringup import Bringup

    spec = load_robot(robot)
    prior_for(spec, progress=lambda share, what: status(what, share))
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            'robot': robot,
            'life': spec.name,
            'sim': True,
            'realtime': True,
            'steps': STEPS,
        }
        with Bringup(settings, Path(folder), private=True) as bringup:
            truths, figures = listen_to(bringup)
            status('starting the nodes', 0.0)
            bringup.start()
            moved_at = time.monotonic()
            while not (truths and truths[-1]['done']):
                before = len(truths)
                bringup.spin(0.1)
                if len(truths) > before:
                    moved_at = time.monotonic()
                status(f'{robot} in real time', len(truths) / STEPS)
                for name in bringup.watch():
                    raise UserError(bringup.obituary(name))
                if time.monotonic() - moved_at > STALL:
                    raise UserError(f'no step for {STALL:.0f} s after step {len(truths)}')
            until = time.monotonic() + 3.0  # diagnostics come once a second
            while time.monotonic() < until:
                bringup.spin(0.1)
    latencies = 1e3 * np.concatenate([t['latencies'] for t in truths])
    sent = int(figures['transition_streamer: transitions']['sent'])
    received = int(figures['learner: learning']['transitions'])
    lost = int(figures['learner: learning']['lost'])
    planned = float(figures['policy: control']['plan ms p50'])
    return [
        row(f'{robot}: stamp to command, p50', float(np.median(latencies)), 'ms', 'lower', None),
        row(
            f'{robot}: stamp to command, p99',
            float(np.percentile(latencies, 99)),
            'ms',
            'lower',
            1e3 * spec.period,
        ),
        row(f'{robot}: of which planning, p50', planned, 'ms', 'lower', None),
        row(
            f'{robot}: steps without a fresh command',
            truths[-1]['late'] / STEPS,
            'share',
            'lower',
            0.05,
        ),
        row(f'{robot}: transitions sent', sent, '', 'higher', STEPS),
        row(f'{robot}: transitions received', received, '', 'higher', sent),
        row(f'{robot}: transitions dropped', lost, '', 'lower', 0),
    ]


def listen_to(bringup: Any) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """What the simulated robot and the diagnostics say, as it comes in."""
    from ..nodes import topics

    truths: list[dict[str, Any]] = []
    figures: dict[str, dict[str, str]] = {}

    def on_diagnostics(message: Any) -> None:
        for status in message.status:
            figures[status.name] = {v.key: v.value for v in status.values}

    node = bringup.node
    node.create_subscription(
        topics.REGIME.type,
        topics.REGIME.name,
        lambda message: truths.append(json.loads(message.data)),
        topics.REGIME.qos,
    )
    node.create_subscription(
        topics.DIAGNOSTICS.type, topics.DIAGNOSTICS.name, on_diagnostics, topics.DIAGNOSTICS.qos
    )
    return truths, figures
