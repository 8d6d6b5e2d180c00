"""Figures over seeds: means with bootstrap intervals, for each life, method and phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .metrics import WINDOWS, Figures, PhaseFigures, bootstrap


class Estimate(NamedTuple):
    """Mean over seeds and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Of those values that are numbers."""
    known = [v for v in values if math.isfinite(v)]
    mean = float(np.mean(known)) if known else math.nan
    return Estimate(mean, *bootstrap(known))


def steps_to_90(phase: PhaseFigures) -> int:
    """t90, or the whole phase if that was too short."""
    return phase.last - phase.first if phase.t90 is None else phase.t90


def _over_shifts(value: Callable[[PhaseFigures], float]) -> Callable[[Figures], float]:
    return lambda f: _mean([value(p) for p in f.shifts])


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan


# What is told of a method in a life, one number per seed.
PER_RUN: dict[str, Callable[[Figures], float]] = {
    'score': lambda f: f.score,
    'gap_closed': lambda f: f.gap_closed,
    'gap_closed_end': lambda f: f.gap_closed_end,
    'home': lambda f: f.home,
    't90': lambda f: _median([steps_to_90(p) for p in f.shifts if p.visit == 1]),
    't90_return': lambda f: _median([steps_to_90(p) for p in f.shifts if p.visit > 1]),
    'drop': _over_shifts(lambda p: p.drop),
    'coverage': lambda f: _mean([p.coverage for p in f.phases]),
    'coverage_early': _over_shifts(lambda p: p.coverage_early),
    **{
        f'nrmse_{a}_{b}': _over_shifts(lambda p, k=k: p.nrmse[k])
        for k, (a, b) in enumerate(WINDOWS)
    },
    'open_loop_5': lambda f: _mean([p.open_loop[5] for p in f.phases]),
    'open_loop_15': lambda f: _mean([p.open_loop[15] for p in f.phases]),
    'off_policy': lambda f: _mean([x for p in f.phases for x in p.off_policy]),
    'off_policy_frozen': lambda f: _mean([x for p in f.phases for x in p.off_policy_frozen]),
    'off_policy_oracle': lambda f: _mean([x for p in f.phases for x in p.off_policy_oracle]),
    'rise': _over_shifts(lambda p: p.rise),
    'rise_epistemic': _over_shifts(lambda p: p.rise_epistemic),
    'worst_phase': lambda f: f.worst_phase,
    'worst_window': lambda f: f.worst_window,
    'far_events': lambda f: sum(f.far.values()),
    'learn_ms': lambda f: f.learn_ms[0],
    'learn_ms_p99': lambda f: f.learn_ms[1],
    'learn_wall_ms': lambda f: f.learn_wall_ms[0],
    'plan_ms': lambda f: f.plan_ms[0],
    'compute': _over_shifts(lambda p: p.compute),
    'memory': lambda f: f.memory,
    'crashes': lambda f: f.crashes,
}

PER_PHASE: dict[str, Callable[[PhaseFigures], float]] = {
    'score': lambda p: p.score,
    'frozen': lambda p: p.frozen,
    'oracle': lambda p: p.oracle,
    't90': lambda p: steps_to_90(p) if p.shift else math.nan,
    'drop': lambda p: p.drop,
    'coverage': lambda p: p.coverage,
    'coverage_early': lambda p: p.coverage_early,
    **{f'nrmse_{a}_{b}': lambda p, k=k: p.nrmse[k] for k, (a, b) in enumerate(WINDOWS)},
    'detected': lambda p: math.nan if p.detected is None else p.detected,
    'recalled': lambda p: math.nan if p.recalled is None else p.recalled,
    'rise': lambda p: p.rise,
    'rise_epistemic': lambda p: p.rise_epistemic,
    'off_policy': lambda p: _mean(p.off_policy),
    'off_policy_frozen': lambda p: _mean(p.off_policy_frozen),
    'off_policy_oracle': lambda p: _mean(p.off_policy_oracle),
    'open_loop_5': lambda p: p.open_loop[5],
    'open_loop_15': lambda p: p.open_loop[15],
    'open_loop_15_nominal': lambda p: p.open_loop_nominal[15],
}


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def grouped(found: Sequence[Figures]) -> dict[str, dict[str, list[Figures]]]:
    """Figures by life and method, in the order in which they come."""
    groups: dict[str, dict[str, list[Figures]]] = {}
    for one in found:
        groups.setdefault(one.name, {}).setdefault(one.method, []).append(one)
    return groups


def over_seeds(seeds: Sequence[Figures]) -> dict[str, Estimate]:
    """Every figure of `PER_RUN` over the seeds of a method in a life."""
    return {name: estimate([value(f) for f in seeds]) for name, value in PER_RUN.items()}


def phases_over_seeds(seeds: Sequence[Figures]) -> list[dict[str, Any]]:
    """Every figure of `PER_PHASE`, phase by phase."""
    return [
        {'regime': phases[0].regime, 'visit': phases[0].visit}
        | {name: estimate([value(p) for p in phases]) for name, value in PER_PHASE.items()}
        for phases in zip(*(f.phases for f in seeds), strict=True)
    ]
