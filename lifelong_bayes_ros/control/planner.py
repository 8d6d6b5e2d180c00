"""Sampling-based model predictive control through the Belief: MPPI (Williams et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics
from .cost import Cost
from .rollout import Rollout

DIVERGED = np.float32(1e9)  # cost of a candidate whose prediction left the numbers


@dataclass(frozen=True)
class Plan:
    """Commands [h, da] from `stamp_ns` on; spread of the weighted candidates' first ones [da]."""

    stamp_ns: int
    actions: np.ndarray
    spread: np.ndarray


class Planner:
    """MPPI with autocorrelated noise and a warm start, float32."""

    def __init__(self, dynamics: Dynamics, seed: int = 0) -> None:
        self.spec = dynamics.spec
        self.rollout = Rollout(dynamics)
        self.cost = Cost(self.spec)
        self.rng = np.random.default_rng(seed)
        self._low = self.spec.action_low.astype(np.float32)
        self._high = self.spec.action_high.astype(np.float32)
        self._half = self.spec.action_half_range.astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the last plan."""
        shape = (self.spec.planner.horizon, 1)
        self._mean = np.tile(self.spec.neutral.astype(np.float32), shape)
        self._stamp_ns: int | None = None

    def adopt(self, dynamics: Dynamics) -> None:
        """Roll out with another trunk from now on."""
        self.rollout = Rollout(dynamics)

    def plan(
        self,
        belief: Belief,
        stamp_ns: int,
        x: np.ndarray,
        past: np.ndarray,
        proposals: np.ndarray | None = None,
    ) -> Plan:
        """Plan from state x [ds] at `stamp_ns`, after past commands [DELAYS, da].

        `proposals` [P, h, da] are tried in place of as many random candidates.
        """
        settings = self.spec.planner
        self._shift(stamp_ns)
        target = self.cost.target(stamp_ns + self.spec.period_ns, settings.horizon)
        weights = self.rollout.weights(belief.theta)
        for _ in range(settings.iterations):
            candidates = self._mean + self._noise()
            if proposals is not None and len(proposals):
                candidates[-len(proposals) :] = proposals[: len(candidates) - 1]
            candidates = np.clip(candidates, self._low, self._high)
            states = self.rollout.run(weights, x, candidates, past)
            cost = self.cost(states, candidates, past[0].astype(np.float32), target)
            sane = cost < DIVERGED  # false where it is not a number
            cost = np.where(sane, cost, DIVERGED)
            typical = cost[sane].mean() if sane.any() else DIVERGED
            # The scale of the costs varies by orders of magnitude along a life.
            scale = settings.temperature * float(typical - cost.min()) + 1e-9
            likelihood = np.exp(-(cost - cost.min()) / scale)
            likelihood /= likelihood.sum()
            self._mean = np.tensordot(likelihood, candidates, axes=1).astype(np.float32)
        first = candidates[:, 0] - self._mean[0]
        spread = np.sqrt(likelihood @ np.square(first))
        return Plan(stamp_ns, self._mean.copy(), spread)

    def _shift(self, stamp_ns: int) -> None:
        """Move the last plan on by the steps that have passed."""
        if self._stamp_ns is not None:
            passed = round((stamp_ns - self._stamp_ns) / self.spec.period_ns)
            if not 0 <= passed < self.spec.planner.horizon:
                self.reset()
            elif passed:
                tail = np.repeat(self._mean[-1:], passed, axis=0)
                self._mean = np.concatenate([self._mean[passed:], tail])
        self._stamp_ns = stamp_ns

    def _noise(self) -> np.ndarray:
        """Noise [n, h, da]; the first candidate is the last plan itself."""
        settings = self.spec.planner
        shape = (settings.candidates, settings.horizon, len(self._half))
        noise = self.rng.standard_normal(shape, np.float32)
        keep = np.float32(settings.correlation)
        fresh = np.float32(np.sqrt(1 - keep**2))
        for h in range(1, settings.horizon):
            noise[:, h] = keep * noise[:, h - 1] + fresh * noise[:, h]
        noise[0] = 0
        return noise * (np.float32(settings.noise) * self._half)
