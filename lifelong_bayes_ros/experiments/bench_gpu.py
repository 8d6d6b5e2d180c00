"""What a CUDA device takes over, beside one thread of the CPU next to it: rows of `bench gpu`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.candidate import Job
from ..learning.learner import Learner
from ..learning.settings import LearnerConfig
from ..memory.regimes import NOMINAL
from ..memory.reservoir import Sample
from ..robot.spec import load_robot
from .bench_planner import plan_seconds
from .priors import prior_for
from .published import report_object, row
from .schedule import load_life
from .streams import transitions

Status = Callable[[str, float], None]

PLANNED, LEARNED = 'quad', 'arm'  # the robots; random commands keep the arm where it can move
BIG = {'through': 'all', 'draws': 8, 'candidates': 4096, 'horizon': 30, 'beta': 0.5}
USUAL = {'through': 'all', 'draws': 8, 'candidates': 128, 'horizon': 15, 'beta': 0.5}
ROUNDS = 1000  # plans on the device: 10 s of control at 100 Hz
FEW = 20  # of the same on the CPU, where a big one takes half a second
JOBS = 5


def gpu_report(status: Status) -> dict[str, Any]:
    """Measure, and return the report object.

    Raises:
        UserError: torch sees no CUDA device.
    """
    if not torch.cuda.is_available():
        raise UserError(
            f'bench gpu: torch {torch.__version__} sees no CUDA device; run it on a machine with '
            'one, with a torch that is built for it'
        )
    torch.set_num_threads(1)
    planned, learned = (
        prior_for(load_robot(robot), progress=lambda share, what: status(what, share))
        for robot in (PLANNED, LEARNED)
    )
    rows = plan_rows(planned, status) + trunk_rows(learned, status)
    return report_object('bench gpu', [0], rows)


def plan_rows(prior: Prior, status: Status) -> list[dict[str, Any]]:
    """Plans of two sizes. They end with a copy to the host, so the wall's clock sees all."""
    gpu, rows = torch.cuda.get_device_name(), []
    for share, (settings, bar) in enumerate(((BIG, 10.0), (USUAL, None))):
        what = '8 draws × {candidates} candidates × horizon {horizon}'.format_map(settings)
        status(f'planning, {what}', 0.2 * share)
        there = plan_seconds(prior, settings, ROUNDS, 'cuda', time.perf_counter)
        here = plan_seconds(prior, settings, FEW, 'cpu', time.perf_counter)
        rows += [
            row(f'plan, {what}, {gpu}, median', _median(there), 'ms', 'lower', None),
            row(f'the same, p99 of {ROUNDS}: 100 Hz', _p99(there), 'ms', 'lower', bar),
            row('the same, one thread of the CPU, median', _median(here), 'ms', 'lower', None),
        ]
    return rows


def trunk_rows(prior: Prior, status: Status, jobs: int = JOBS) -> list[dict[str, Any]]:
    """One job of the background: the trunk learns from a window of transitions."""
    job, rows = _job(prior), []
    for device in ('cuda', 'cpu'):
        status(f'learning a trunk on {device}', 0.5)
        seconds, busy = [], []
        for _ in range(jobs + 1):
            started, used = time.perf_counter(), time.thread_time()
            job.learn(torch.device(device))
            seconds.append(time.perf_counter() - started)
            busy.append(time.thread_time() - used)
        what = f'trunk, {job.steps} steps of the rule on {len(job.recent)} transitions, {device}'
        rows += [
            row(f'{what}, median', float(np.median(seconds[1:])), 's', 'lower', None),
            row('of it, on the CPU', float(np.median(busy[1:])), 's', 'lower', None),
        ]
    return rows


def _job(prior: Prior) -> Job:
    """A job of the learner's size on a stream of random commands."""
    config, spec = LearnerConfig(), prior.dynamics.spec
    found, past = [], prior.dynamics.history().astype(np.float32)
    for t in transitions(spec, load_life(spec.name), 0):
        if len(found) == config.trunk_window:
            break
        if t.usable:
            found.append(Sample(t.state, t.action, past, t.next_state, t.stamp_ns, 0))
        past = np.concatenate([t.action[None], past[:-1]])
    head = Learner(prior, config).nominal
    return Job(
        prior=prior,
        recent=tuple(found),
        memory={NOMINAL: ()},
        heads={NOMINAL: head},
        regime=NOMINAL,
        theta=head.posterior.mean.numpy().copy(),
        noise=prior.noise,
        steps=config.trunk_steps * config.trunk_every,
        seed=0,
    )


def _median(seconds: list[float]) -> float:
    return 1e3 * float(np.median(seconds))


def _p99(seconds: list[float]) -> float:
    return 1e3 * float(np.percentile(seconds, 99))
