"""What is kept of one run: one method through one life with one seed, as a small JSON object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..learning.report import Event
from .life import Trace
from .schedule import Life

COLUMNS = (
    'score',
    'epistemic',
    'aleatoric',
    'error',
    'nis',
    'inside',
    'plan_seconds',
    'learn_seconds',
    'learn_cpu',
    'background_cpu',
)


@dataclass(frozen=True)
class Run:
    """One method through one life with one seed."""

    name: str  # of the life, e.g. `quad` or `outside/quad_drag`
    life: Life
    method: str
    seed: int
    period: float  # seconds per control step
    outputs: list[str]  # state channels
    trace: Trace
    off_policy: list[list[float]]  # per phase and output, see `ModelErrors`
    open_loop: dict[int, list[float]]  # steps ahead: per phase
    nominal: dict[int, list[float]]  # the same by the nominal model from the same readings
    memory: int  # bytes at the end of the life


def to_json(run: Run) -> dict[str, Any]:
    """The run as an object that `json` writes; numbers keep six digits, NaN becomes null."""
    trace = run.trace
    names = sorted({name for known in trace.regimes for name in known})
    if len(names) == 1:  # it tells no regimes apart
        names = []
    return {
        'name': run.name,
        'life': run.life.model_dump(mode='json'),
        'method': run.method,
        'seed': run.seed,
        'period': run.period,
        'outputs': run.outputs,
        'trace': {column: _numbers(getattr(trace, column)) for column in COLUMNS},
        'crashes': [step for step, crashed in enumerate(trace.crashed) if crashed],
        'regimes': {n: _numbers([p.get(n, 0.0) for p in trace.regimes], 3) for n in names},
        'events': [asdict(e) for e in trace.events],
        'off_policy': [_numbers(row) for row in run.off_policy],
        'open_loop': {str(h): _numbers(v) for h, v in run.open_loop.items()},
        'nominal': {str(h): _numbers(v) for h, v in run.nominal.items()},
        'memory': run.memory,
    }


def from_json(data: dict[str, Any]) -> Run:
    """The run that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it did not.
    """
    columns = {name: _floats(data['trace'][name]) for name in COLUMNS}
    steps = range(len(columns['score']))
    crashes = set(data['crashes'])
    regimes = [{n: p[step] for n, p in data['regimes'].items()} for step in steps]
    trace = Trace(
        **columns,
        crashed=[step in crashes for step in steps],
        regimes=regimes if data['regimes'] else [],
        events=[Event(**e) for e in data['events']],
    )
    return Run(
        data['name'],
        Life.model_validate(data['life']),
        data['method'],
        data['seed'],
        data['period'],
        data['outputs'],
        trace,
        [_floats(row) for row in data['off_policy']],
        {int(h): _floats(v) for h, v in data['open_loop'].items()},
        {int(h): _floats(v) for h, v in data['nominal'].items()},
        data['memory'],
    )


def _numbers(values: list[float], digits: int = 6) -> list[float | None]:
    return [float(f'{v:.{digits}g}') if math.isfinite(v) else None for v in values]


def _floats(values: list[float | None]) -> list[float]:
    return [math.nan if v is None else v for v in values]
