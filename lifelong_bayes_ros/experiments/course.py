"""The course of a life: which plant is in force at every step, also along a drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import lifelong_bayes_ros_sim as sim

from .schedule import Life

POINTS = 5  # plants along a drift

Shifts = Sequence[dict[str, Any]]


def points(regime: str, shifts: Shifts) -> dict[str, Shifts]:
    """Plants without drift to train specialists on: the regime's own, or `POINTS` on its way."""
    objects = [sim.shift_from_dict(s) for s in shifts]
    # A wave comes back the way it went.
    ends = [s.seconds / (2 if s.shape == 'wave' else 1) for s in objects if s.moves]
    if not ends:
        return {regime: shifts}
    times = np.linspace(0.0, max(ends), POINTS)
    return {f'{regime} at {t:.3g} s': [s.at(t).to_dict() for s in objects] for t in times}


class Course:
    """Which specialist is the right one at a step of a life."""

    def __init__(self, life: Life, period: float) -> None:
        self.life, self.period = life, period
        self.points = {name: points(name, shifts) for name, shifts in life.regimes.items()}
        self._drifts = {
            name: [sim.shift_from_dict(s) for s in life.regimes[name]]
            for name, found in self.points.items()
            if len(found) > 1
        }
        self._places = {
            name: np.array([_numbers(p) for p in self.points[name].values()])
            for name in self._drifts
        }

    def at(self, step: int) -> str:
        """Name of the point whose plant is nearest to the one at a step."""
        regime = self.life.regime_at(step)
        if regime not in self._drifts:
            return regime
        seconds = (step - self.life.began(step)) * self.period
        now = _numbers([s.at(seconds).to_dict() for s in self._drifts[regime]])
        places = self._places[regime]
        reach = np.maximum(np.ptp(places, axis=0), 1e-12)
        nearest = np.argmin(np.sum(np.square((places - now) / reach), axis=1))
        return list(self.points[regime])[int(nearest)]


def _numbers(value: Any) -> list[float]:
    """All numbers of shifts, in order."""
    if isinstance(value, Mapping):
        return [n for part in value.values() for n in _numbers(part)]
    if isinstance(value, list | tuple):
        return [n for part in value for n in _numbers(part)]
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return [float(value)] if known else []
