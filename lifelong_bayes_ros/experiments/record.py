"""What is kept of one run: one method through one life with one seed, as a small JSON object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, model_validator

from ..learning.report import Event
from .life import Trace
from .probes import HORIZONS
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


Numbers = list[float | None]  # None: not a number


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


class _Kept(BaseModel):
    """What `to_json` writes, in full."""

    name: str
    life: Life
    method: str
    seed: int
    period: float
    outputs: list[str]
    trace: dict[str, Numbers]
    crashes: list[int]
    regimes: dict[str, Numbers]
    events: list[Event]
    off_policy: list[Numbers]
    open_loop: dict[int, Numbers]
    nominal: dict[int, Numbers]
    memory: int

    @model_validator(mode='after')
    def _whole(self) -> _Kept:
        by_step = [*self.trace.values(), *self.regimes.values()]
        by_phase = [self.off_policy, *self.open_loop.values(), *self.nominal.values()]
        whole = (
            self.trace.keys() == set(COLUMNS)
            and self.open_loop.keys() == self.nominal.keys() == set(HORIZONS)
            and all(len(v) == self.life.steps for v in by_step)
            and all(len(v) == len(self.life.phases) for v in by_phase)
            and all(len(v) == len(self.outputs) for v in self.off_policy)
        )
        if not whole:
            raise ValueError('parts are missing')
        return self


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
        ValueError: it did not, or not all of it is there.
    """
    kept = _Kept.model_validate(data)
    steps = range(kept.life.steps)
    crashes = set(kept.crashes)
    regimes = {name: _floats(values) for name, values in kept.regimes.items()}
    trace = Trace(
        **{name: _floats(values) for name, values in kept.trace.items()},
        crashed=[step in crashes for step in steps],
        regimes=[{n: p[step] for n, p in regimes.items()} for step in steps] if regimes else [],
        events=kept.events,
    )
    return Run(
        kept.name,
        kept.life,
        kept.method,
        kept.seed,
        kept.period,
        kept.outputs,
        trace,
        [_floats(row) for row in kept.off_policy],
        {h: _floats(v) for h, v in kept.open_loop.items()},
        {h: _floats(v) for h, v in kept.nominal.items()},
        kept.memory,
    )


def _numbers(values: list[float], digits: int = 6) -> Numbers:
    return [float(f'{v:.{digits}g}') if math.isfinite(v) else None for v in values]


def _floats(values: Numbers) -> list[float]:
    return [math.nan if v is None else v for v in values]
