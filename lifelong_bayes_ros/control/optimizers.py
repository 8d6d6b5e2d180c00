"""Searches for the plan that costs least, by sampling: one interface, a class for each.

In each round of a plan, `ask` gives candidates, where they will be weighed, and `tell` takes what
they cost. What was found warm-starts the next plan, moved on in time by `shift`. float32
throughout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..robot.spec import RobotSpec
from .arrays import NUMPY, Arrays
from .slewing import most_per_step

DIVERGED = np.float32(1e9)  # cost of a candidate whose prediction left the numbers
SLEWS = np.float32(2.0)  # standard deviation of noise at most, in changes that a step allows
NARROWEST = 0.02  # of the spread that a search began with: it must not come to rest for good

Noise = Callable[[int], Any]  # standard normal noise [n, h, da] for n candidates, as arrays


class Optimizer(ABC):
    """A search over plans [h, da] within the limits of the command."""

    def __init__(self, spec: RobotSpec, arrays: Arrays = NUMPY) -> None:
        self.settings, self.arrays = spec.planner, arrays
        self.narrow(spec.action_low, spec.action_high)
        self._scale = np.float32(self.settings.noise) * spec.action_half_range.astype(np.float32)
        # Wider noise would hardly be more than slewing up and down all along.
        self._scale = np.minimum(self._scale, SLEWS * most_per_step(spec).astype(np.float32))
        self._start = np.tile(spec.neutral.astype(np.float32), (self.settings.horizon, 1))
        self.reset()

    def narrow(self, low: np.ndarray, high: np.ndarray) -> None:
        """Search among commands within low and high [da]."""
        self.low, self.high = low.astype(np.float32), high.astype(np.float32)

    def reset(self) -> None:
        """Forget the last plan."""
        self.plan = self._start.copy()  # best so far [h, da]
        self.spread = np.zeros(len(self.low), np.float32)  # of good plans' first commands [da]

    def shift(self, steps: int) -> None:
        """Move what was found on by the steps that have passed, fewer than the horizon."""
        self.plan = _moved(self.plan, steps)

    @abstractmethod
    def ask(self, noise: Noise, count: int, round_: int) -> Any:
        """Candidates [n, h, da] of a round, of which there are about `count` in the first."""

    @abstractmethod
    def tell(
        self, candidates: np.ndarray, cost: np.ndarray, penalty: np.ndarray | None = None
    ) -> None:
        """Take the cost [n] of candidates [n, h, da], those of `ask` and any others.

        `penalty` [n] comes on top where limits are broken, in units of the difference between a
        typical candidate's cost and the least one: so limits and task stay in proportion, whatever
        the scale of the costs.
        """

    def _within(self, plans: Any) -> Any:
        return plans.clip(self.arrays.array(self.low), self.arrays.array(self.high))


class Mppi(Optimizer):
    """Model predictive path integral control (Williams et al. 2017).

    The plan is the mean of all candidates, weighted by exp(−cost / temperature). The scale of the
    costs varies by orders of magnitude along a life, so the temperature is relative. Some
    candidates stray less than others: far ones find another way, near ones make the most of it,
    and find what room limits leave.
    """

    def ask(self, noise: Noise, count: int, round_: int) -> Any:
        array = self.arrays.array
        unit = array(_strays(self.settings.finest, count)) * noise(count)
        unit[0] = 0  # the last plan itself
        return self._within(array(self.plan) + unit * array(self._scale))

    def tell(
        self, candidates: np.ndarray, cost: np.ndarray, penalty: np.ndarray | None = None
    ) -> None:
        cost, sane = finite(cost)
        typical = cost[sane].mean() if sane.any() else DIVERGED
        # Of the task alone: broken limits must not melt what is told apart within them.
        difference = float(typical - cost.min())
        scale = self.settings.temperature * difference + 1e-9
        if penalty is not None:
            cost, _ = finite(cost + np.float32(difference) * penalty)
        likelihood = np.exp(-(cost - cost.min()) / scale)
        likelihood /= likelihood.sum()
        mean = likelihood @ candidates.reshape(len(candidates), -1)
        self.plan = mean.reshape(candidates.shape[1:]).astype(np.float32)
        first = candidates[:, 0] - self.plan[0]
        self.spread = np.sqrt(likelihood @ np.square(first))


class Icem(Optimizer):
    """The improved cross-entropy method (iCEM, Pinneri et al. 2020).

    A Gaussian over plans moves to the elites of each round, whose number of candidates shrinks;
    a share of the elites is kept for the next round and, moved on in time, for the next plan. The
    plan is the best candidate seen in the last round.
    """

    def reset(self) -> None:
        super().reset()
        self._mean = self._start.copy()
        self._sd = np.broadcast_to(self._scale, self._start.shape)
        self._kept = self._start[None][:0]

    def shift(self, steps: int) -> None:
        super().shift(steps)
        self._mean = _moved(self._mean, steps)
        kept = [_moved(plan, steps) for plan in self._kept]
        self._kept = np.array(kept, np.float32).reshape(-1, *self._start.shape)

    def ask(self, noise: Noise, count: int, round_: int) -> Any:
        if round_ == 0:
            self._sd = np.broadcast_to(self._scale, self._start.shape)
        settings, array = self.settings, self.arrays.array
        size = max(round(count * settings.shrink**-round_), 2 * settings.elites)
        mean = array(self._mean)
        fresh = mean + noise(size) * array(self._sd)
        fresh[0] = mean
        plans = [fresh, array(self._kept), array(self.plan[None])]
        return self._within(self.arrays.lib.concatenate(plans))

    def tell(
        self, candidates: np.ndarray, cost: np.ndarray, penalty: np.ndarray | None = None
    ) -> None:
        cost, sane = finite(cost)
        if penalty is not None and sane.any():
            cost, _ = finite(cost + (cost[sane].mean() - cost.min()) * penalty)
        settings = self.settings
        best = np.argsort(cost, kind='stable')[: settings.elites]
        elites, inert = candidates[best], np.float32(settings.momentum)
        self._mean = inert * self._mean + (1 - inert) * elites.mean(axis=0)
        sd = inert * self._sd + (1 - inert) * elites.std(axis=0)
        self._sd = np.maximum(sd, np.float32(NARROWEST) * self._scale)
        self._kept = elites[: round(settings.keep * settings.elites)]
        self.plan = elites[0].copy()
        self.spread = elites[:, 0].std(axis=0)


OPTIMIZERS: dict[str, type[Optimizer]] = {'mppi': Mppi, 'icem': Icem}


def finite(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs [n] with `DIVERGED` where the prediction left the numbers, and where it did not."""
    sane = cost < DIVERGED  # false where it is not a number
    return np.where(sane, cost, DIVERGED), sane


@cache
def _strays(finest: float, count: int) -> np.ndarray:
    """How far each of so many candidates strays [n, 1, 1], from `finest` to 1."""
    return np.geomspace(finest, 1.0, count, dtype=np.float32)[:, None, None]


def _moved(plan: np.ndarray, steps: int) -> np.ndarray:
    tail = np.repeat(plan[-1:], steps, axis=0)
    return np.concatenate([plan[steps:], tail])
