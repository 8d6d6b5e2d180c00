"""The graph as processes over DDS: latency, processor time of each node, rates, and the start."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..robot.spec import RobotSpec, load_robot
from .bench_realtime import Status, own_core, robot_and_life
from .demo import STALL
from .priors import prior_for
from .published import report_object, row

ROBOT = 'quad'
HZ = 100.0
STEPS = 3000
SENSOR_HZ = (550, 1100, 2000)
SENSOR_SECONDS = 5.0
LOOK_SECONDS = 10.0


def ros_report(status: Status) -> dict[str, Any]:
    """Measure, and return the report object.

    Raises:
        UserError: a node failed.
    """
    spec = load_robot(ROBOT)
    spec = RobotSpec.model_validate(spec.model_dump() | {'period': 1 / HZ})
    prior_for(spec, progress=lambda share, what: status(what, share))
    load = os.getloadavg()[0]
    rows = [*_loop(spec, status), *_sensors(spec, status)]
    rows.append(row('load average of the machine before', load, '', 'lower', None))
    return report_object('bench ros', [0], rows)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, all threads, user and system (Linux).

    By the process's own clock (CPUCLOCK_SCHED): `/proc/PID/stat` counts ticks of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | 2)


def _loop(spec: RobotSpec, status: Status) -> list[dict[str, Any]]:
    """The whole graph in real time, first with nobody looking, then with a display."""
    from ..nodes import topics
    from ..nodes.bringup import Bringup
    from .bench import listen_to  # which imports this module

    with tempfile.TemporaryDirectory() as folder:
        robot, life = robot_and_life(Path(folder), spec, STEPS)
        settings = {'robot': robot, 'life': life, 'sim': True, 'realtime': True, 'viz': True}
        settings |= own_core()
        with Bringup(settings, Path(folder) / 'logs', private=True) as bringup:
            truths, figures = listen_to(bringup)
            status('starting the nodes', 0.0)
            started = time.monotonic()
            bringup.start()
            seconds = time.monotonic() - started
            before, since = _cpu(bringup), time.monotonic()
            moved_at, count = since, 0
            while not (truths and truths[-1]['done']):
                bringup.spin(0.1)
                if len(truths) > count:
                    count, moved_at = len(truths), time.monotonic()
                status(f'{ROBOT} at {HZ:g} Hz', count / STEPS)
                for name in bringup.watch():
                    raise UserError(bringup.obituary(name))
                if time.monotonic() - moved_at > STALL:
                    raise UserError(f'no step for {STALL:.0f} s after step {count}')
            passed = time.monotonic() - since
            shares = {n: (s - before[n]) / passed for n, s in _cpu(bringup).items()}
        settings['steps'] = round(3 * LOOK_SECONDS * HZ)
        with Bringup(settings, Path(folder) / 'logs2', private=True) as bringup:
            status('display', 0.0)
            bringup.start()
            pictures: list[Any] = []
            idle = _share(bringup, 'uncertainty_viz')
            for topic in (topics.MARKERS, topics.PREDICTED_PATH, topics.PREDICTED_POSE):
                bringup.node.create_subscription(
                    topic.type, topic.name, pictures.append, topic.qos
                )
            looked = _share(bringup, 'uncertainty_viz')
            shown = len(pictures) / 3 / LOOK_SECONDS
    latencies = 1e3 * np.concatenate([t['latencies'] for t in truths])
    p50, p99 = np.percentile(latencies, (50, 99))
    what = f'{ROBOT} at {HZ:g} Hz'
    planning = float(figures['policy: control']['plan ms p50'])
    return [
        row('from start to active, all nodes', seconds, 's', 'lower', 10.0),
        row(f'{what}: stamp to command, p50', float(p50), 'ms', 'lower', 2.0),
        row(f'{what}: stamp to command, p99', float(p99), 'ms', 'lower', 6.0),
        row(f'{what}: of which planning and safety, p50', planning, 'ms', 'lower', None),
        *(
            row(f'{what}: {name}, share of a core', 100 * share, '%', 'lower', None)
            for name, share in shares.items()
        ),
        row('pictures per second while somebody looks', shown, '1/s', 'higher', None),
        row('display while nobody looks, share of a core', 100 * idle, '%', 'lower', None),
        row('display at 5 Hz while somebody looks', 100 * looked, '%', 'lower', None),
        row('markers at 5 Hz, share of a core', 100 * (looked - idle), '%', 'lower', 2.0),
    ]


def _cpu(bringup: Any) -> dict[str, float]:
    return {name: cpu_seconds(p.pid) for name, p in bringup.processes.items()}


def _share(bringup: Any, name: str) -> float:
    """Share of a core that a node takes over some seconds, after as many to settle."""
    for _ in range(2):
        before, since = _cpu(bringup)[name], time.monotonic()
        while time.monotonic() - since < LOOK_SECONDS / 2:
            bringup.spin(0.05)
    return (_cpu(bringup)[name] - before) / (time.monotonic() - since)


def _sensors(spec: RobotSpec, status: Status) -> list[dict[str, Any]]:
    """Readings that a publisher in another process offers, and how many of them come in."""
    from ..nodes import topics
    from ..nodes.bringup import Bringup
    from ..nodes.codecs import state_messages
    from ..nodes.table import Common
    from .bench import listen_to

    rows, best = [], 0.0
    x = spec.wrap(np.zeros(len(spec.state))).astype(np.float32)
    (source, topic), *_ = topics.state_topics(spec).items()
    with tempfile.TemporaryDirectory() as folder:
        robot, _ = robot_and_life(Path(folder), spec, STEPS)
        only = Common(nodes='transition_streamer')
        with Bringup({'robot': robot}, Path(folder), private=True, common=only) as bringup:
            _, figures = listen_to(bringup)
            output = bringup.node.create_publisher(topic.type, topic.name, topic.qos)
            bringup.start()
            _until(bringup, lambda: output.get_subscription_count() > 0, 'a subscriber')
            stamp_ns = 0
            for hz in SENSOR_HZ:
                status(f'{hz} readings per second', hz / SENSOR_HZ[-1])
                count = round(hz * SENSOR_SECONDS)
                before = _readings(figures)
                started = time.perf_counter()
                for k in range(count):
                    stamp_ns += round(1e9 / hz)
                    output.publish(state_messages(spec, stamp_ns, x)[source])
                    time.sleep(max(started + (k + 1) / hz - time.perf_counter(), 0.0))
                offered = count / (time.perf_counter() - started)
                until = time.monotonic() + 3.0  # diagnostics come once a second
                while time.monotonic() < until:
                    bringup.spin(0.05)
                got = _readings(figures) - before
                rows.append(
                    row(
                        f'lost of readings at {hz} Hz', 100 * (1 - got / count), '%', 'lower', None
                    )
                )
                if got == count:
                    best = max(best, offered)
    return [row('sensor input without loss', best, 'Hz', 'higher', 500.0), *rows]


def _readings(figures: dict[str, dict[str, str]]) -> int:
    return int(figures.get('transition_streamer: transitions', {}).get('readings', 0))


def _until(bringup: Any, done: Any, what: str) -> None:
    deadline = time.monotonic() + STALL
    while not done():
        bringup.spin(0.05)
        if time.monotonic() > deadline:
            raise UserError(f'{what}: not within {STALL:.0f} s')
