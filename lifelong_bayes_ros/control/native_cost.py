"""Costs of plans in compiled C: the same as numpy's, in one pass over the predicted states."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..blr.kernel import PRECISE, library_of
from ..robot.spec import RobotSpec
from .cost import Cost
from .goals import Goal

SOURCE = Path(__file__).with_name('cost.c')


class Terms(ctypes.Structure):
    """Sizes, weights and addresses; see cost.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ('values', 'commands', 'action')),
        *(
            (name, ctypes.c_void_p)
            for name in (
                'target',
                'track',
                'damping',
                'limit',
                'low',
                'high',
                'turn',
                'per_turn',
                'neutral',
                'per_half',
            )
        ),
        *((name, ctypes.c_float) for name in ('use', 'change')),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The compiled costs, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the planner')
    if library is not None:
        library.plan_costs.restype = None
        library.plan_costs.argtypes = [
            ctypes.c_void_p,
            *[ctypes.c_int64] * 2,
            *[ctypes.c_void_p] * 4,
        ]
    return library


def native_cost(spec: RobotSpec) -> Cost:
    """A compiled cost, or numpy's where there is no compiler."""
    return Cost(spec) if load() is None else NativeCost(spec)


class NativeCost(Cost):
    """The cost of a robot file, computed in C."""

    def aim(self, goal: Goal) -> None:
        super().aim(goal)
        self._steps = 0  # that the terms were made for

    def __call__(self, states: Any, actions: Any, previous: Any, target: Any) -> Any:
        n, steps, _ = actions.shape
        if steps != self._steps:
            self._make_terms(steps)
        shape = n, steps, len(self.spec.state)
        if states.shape[-3:] != shape or target.shape != shape[1:]:
            raise ValueError(
                f'states {states.shape} and target {target.shape} of {n} plans of {steps} steps'
            )
        # Named, so that they outlive the call that is given their addresses.
        rolled, plans, last, wanted = (
            np.ascontiguousarray(a, np.float32) for a in (states, actions, previous, target)
        )
        self._terms.target = wanted.ctypes.data
        costs = np.empty(states.shape[:-2], np.float32)
        load().plan_costs(
            ctypes.addressof(self._terms),
            costs.size // n,
            n,
            rolled.ctypes.data,
            plans.ctypes.data,
            last.ctypes.data,
            costs.ctypes.data,
        )
        return costs

    def _make_terms(self, steps: int) -> None:
        spec, size = self.spec, (steps, len(self.spec.state))
        to_end = self.to_end(steps)
        limit = np.zeros(size[1])
        low, high = np.full(size[1], -np.inf), np.full(size[1], np.inf)
        limit[self._bounded] = spec.cost.limit
        low[self._bounded], high[self._bounded] = self._low, self._high
        kept = {
            'track': to_end * self.goal.weights.astype(np.float32),
            'damping': to_end * self._damping.astype(np.float32),
            'limit': to_end * limit,
            'low': low,
            'high': high,
            'turn': np.where(spec.angles, 2 * np.pi, 0.0),
            'per_turn': np.where(spec.angles, 1 / (2 * np.pi), 0.0),
        }
        self._kept = {  # their addresses are handed out
            name: np.ascontiguousarray(np.broadcast_to(array, size), np.float32)
            for name, array in kept.items()
        } | {'neutral': self._neutral, 'per_half': 1 / self._half}
        terms = Terms(steps * size[1], steps * len(spec.action), len(spec.action))
        for name, array in self._kept.items():
            setattr(terms, name, array.ctypes.data)
        terms.use, terms.change = spec.cost.action / steps, spec.cost.action_rate / steps
        self._terms, self._steps = terms, steps
