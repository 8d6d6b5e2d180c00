"""The `bench` command: figures, beside the bar that each has to meet."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..robot.spec import load_robot
from .demo import STALL
from .lives import Status, report_object, row
from .priors import prior_for

STEPS = 600


def run_bench(what: str, robot: str, status: Status) -> dict[str, Any]:
    """Measure `what` and return the report object.

    Raises:
        UserError: unknown robot, or a node failed.
    """
    benches = {'loop': bench_loop}
    names = list(benches) if what == 'all' else [what]
    rows = [r for name in names for r in benches[name](robot, status)]
    return report_object(f'bench {what}', [0], rows)


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
            truths, figures = _listen(bringup)
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
    latencies = 1e3 * np.array([t['latency'] for t in truths if t['latency'] is not None])
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


def _listen(bringup: Any) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
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
