"""The policy against the clock: plan, safety and publishing beside a learner, over DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import UserError
from ..robot.spec import RobotSpec, load_robot
from .demo import STALL
from .priors import prior_for
from .published import report_object, row
from .schedule import load_life

Status = Callable[[str, float], None]

ROBOT = 'quad'
HZ = 100.0
SECONDS = 60.0
BUSY = 2  # processes that want a core each
SETTLE = 3.0  # s until the last figures are there: diagnostics come once a second


def realtime_report(status: Status, hz: float = HZ, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure, and return the report object.

    Raises:
        UserError: a rate that is none, or a node failed.
    """
    if not 1 <= hz <= 1000:
        raise UserError(f'--hz {hz:g}: give a control rate from 1 to 1000')
    spec = load_robot(ROBOT)
    spec = RobotSpec.model_validate(spec.model_dump() | {'period': 1 / hz})
    prior_for(spec, progress=lambda share, what: status(what, share))
    rows = []
    for busy in (0, BUSY):
        with busy_processes(busy):
            rows += _rows(spec, _measure(spec, round(hz * seconds), busy, status), busy)
    return report_object(f'bench realtime --hz {hz:g}', [0], rows)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that do nothing but want a core each."""
    loop = [sys.executable, '-c', 'while True: pass']
    running = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _measure(spec: RobotSpec, steps: int, busy: int, status: Status) -> dict[str, Any]:
    """Figures of the policy, and every command that the robot was sent, with its state's stamp."""
    from ..nodes import topics
    from ..nodes.bringup import Bringup
    from ..nodes.codecs import action_from_msg

    what = f'{1 / spec.period:g} Hz beside {busy} busy processes'
    commands: list[tuple[int, np.ndarray]] = []
    figures: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        robot, life = robot_and_life(Path(folder), spec, steps)
        settings = {'robot': robot, 'life': life, 'sim': True, 'realtime': True, 'steps': steps}
        settings |= own_core()
        with Bringup(settings, Path(folder) / 'logs', private=True) as bringup:

            def on_action(message: Any) -> None:
                commands.append(action_from_msg(spec, message))

            def on_diagnostics(message: Any) -> None:
                for entry in message.status:
                    figures[entry.name] = {v.key: v.value for v in entry.values}

            for topic, callback in (
                (topics.ACTION, on_action),
                (topics.DIAGNOSTICS, on_diagnostics),
            ):
                bringup.node.create_subscription(topic.type, topic.name, callback, topic.qos)
            status('starting the nodes', 0.0)
            bringup.start()
            done, moved_at = 0, time.monotonic()
            while done < steps:
                bringup.spin(0.1)
                now = int(figures.get('sim_robot: simulation', {}).get('step', 0))
                if now > done:
                    done, moved_at = now, time.monotonic()
                    status(what, done / steps)
                for name in bringup.watch():
                    raise UserError(bringup.obituary(name))
                if time.monotonic() - moved_at > STALL:
                    raise UserError(f'no step for {STALL:.0f} s after step {done}')
            until = time.monotonic() + SETTLE
            while time.monotonic() < until:
                bringup.spin(0.1)
    return {
        'policy': figures['policy: control'],
        'sim': figures['sim_robot: simulation'],
        'unsafe': _unsafe(spec, [command for _, command in commands]),
        'commands': len({stamp for stamp, _ in commands}),
    }


def robot_and_life(folder: Path, spec: RobotSpec, steps: int) -> tuple[str, str]:
    """The robot at its rate, and its own life stretched over so many steps."""
    robot, life = folder / 'robot.yaml', load_life(ROBOT)
    robot.write_text(spec.dump())
    phases = [(name, max(round(n * steps / life.steps), 1)) for name, n in life.phases]
    text = life.model_dump(mode='json') | {'phases': [list(phase) for phase in phases]}
    (folder / 'life.yaml').write_text(yaml.safe_dump(text))
    return str(robot), str(folder / 'life.yaml')


def own_core() -> dict[str, str]:
    """The setting that gives the control path a core of its own, where there is more than one."""
    here = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    return {'control_cpus': str(here[0])} if len(here) > 1 else {}


def _unsafe(spec: RobotSpec, commands: list[np.ndarray]) -> int:
    """Commands that are not finite, out of range, or too fast after the one before."""
    count, last = 0, spec.neutral
    slack = 1e-6 * (spec.action_high - spec.action_low)
    slew = np.array([np.inf if a.slew is None else a.slew for a in spec.action]) * spec.period
    for command in commands:
        inside = (command >= spec.action_low - slack) & (command <= spec.action_high + slack)
        count += not (inside & (np.abs(command - last) <= slew + slack)).all()
        last = command
    return count


def _rows(spec: RobotSpec, found: dict[str, Any], busy: int) -> list[dict[str, Any]]:
    policy = {k: float(v) for k, v in found['policy'].items() if _is_number(v)}
    ticks = policy['ticks']
    late = policy.get('late plans', 0.0)
    what = f'{ROBOT} at {1 / spec.period:g} Hz' + (f', {busy} busy processes' if busy else '')

    def lower(name: str, value: float, unit: str, *bars: float | None) -> dict[str, Any]:
        return row(f'{what}: {name}', value, unit, 'lower', *(bars or (None,)))

    quiet = (7.0, None) if not busy else (None, None)
    return [
        lower('plan, safety and publishing, p50', policy['tick ms p50'], 'ms'),
        lower('plan, safety and publishing, p99', policy['tick ms p99'], 'ms', *quiet),
        lower(
            'plan, safety and publishing, p99.9',
            policy['tick ms p99.9'],
            'ms',
            None,
            None if busy else 5.0,
        ),
        lower('late plans', 100 * late / ticks, '%', *((None,) if busy else (0.1, 0.0))),
        lower('late plans without a safe command', policy.get('late, silent', 0.0), '', 0, 0),
        lower('unsafe commands', found['unsafe'], '', 0, 0),
        row(f'{what}: states answered', ticks, '', 'higher', None),
        row(f'{what}: commands that the robot got', found['commands'], '', 'higher', None),
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
