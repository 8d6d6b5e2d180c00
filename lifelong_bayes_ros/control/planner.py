"""Sampling-based model predictive control through the Belief."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dynamics.belief import Belief, predict
from ..dynamics.model import Dynamics
from ..memory.regimes import NEW
from .chance import Chance
from .cost import Cost
from .goals import Goal
from .native import native_rollout
from .native_cost import native_cost
from .noise import autoregressive, coloured
from .optimizers import OPTIMIZERS
from .rollout import Rollout

VAST = 1e6  # variance of what is not known at all
RED = 2.0  # exponent of iCEM's noise where the robot file gives none


@dataclass(frozen=True)
class Plan:
    """Commands [h, da] from `stamp_ns` on; spread of the best candidates' first ones [da]."""

    stamp_ns: int
    actions: np.ndarray
    spread: np.ndarray


class Planner:
    """Searches, from the last plan on, for the one that costs least under the Belief.

    Candidates are rolled out through the posterior mean, through one draw each, or through all
    draws. Through all, the cost of a plan is its mean over the draws and `beta` times its standard
    deviation over them: in units of the cost, so that ignorance counts as far as it matters for
    the task, and one β fits all robots. `beta` and `max_belief_age` may be changed at any time.
    """

    def __init__(self, dynamics: Dynamics, seed: int = 0, device: str = 'cpu') -> None:
        """Begin without a plan. On a `device` of torch other than `cpu` plans are weighed there.

        Raises:
            UserError: torch cannot use the device.
        """
        self.spec = dynamics.spec
        self.settings = self.spec.planner
        self.beta = self.settings.beta
        self.max_belief_age = 1.0  # s after which a belief is as good as none
        on_torch = device != 'cpu' or self.settings.engine == 'torch'
        self._device = device if on_torch else None
        if on_torch:
            from .torch_rollout import torch_device

            torch_device(device)  # refuses what torch cannot use
        native = self.settings.engine == 'native' and not on_torch
        self.cost = native_cost(self.spec) if native else Cost(self.spec, self._device)
        self.chance = Chance(self.spec)
        self.optimizer = OPTIMIZERS[self.settings.optimizer](self.spec)
        self.rng = np.random.default_rng(seed)
        self.adopt(dynamics)
        self.reset()

    def reset(self) -> None:
        """Forget the last plan."""
        self.optimizer.reset()
        self._stamp_ns: int | None = None

    def aim(self, goal: Goal) -> None:
        """Follow another goal from now on."""
        self.cost.aim(goal)

    def adopt(self, dynamics: Dynamics) -> None:
        """Roll out with another trunk from now on."""
        self.dynamics = dynamics
        native = self.settings.engine == 'native' and self._device is None
        self.rollout = native_rollout(dynamics) if native else Rollout(dynamics)
        self._rolled = self.rollout
        if self._device is not None:
            from .torch_rollout import TorchRollout

            self._rolled = TorchRollout(self.rollout, self._device)

    @property
    def through(self) -> str:
        """What candidates are rolled out through; a spread needs all draws."""
        return 'all' if self.beta > 0 else self.settings.through

    def plan(
        self,
        belief: Belief,
        stamp_ns: int,
        x: np.ndarray,
        past: np.ndarray,
        proposals: np.ndarray | None = None,
        candidates: int | None = None,
    ) -> Plan:
        """Plan from state x [ds] at `stamp_ns`, after past commands [DELAYS, da].

        Args:
            belief: what to plan through.
            stamp_ns: time of the state.
            x: state.
            past: past commands, newest first.
            proposals: plans [P, h, da] that take part in the first round in place of as many
                random ones, e.g. a policy's.
            candidates: how many there are in the first round, if not as the robot file says.
        """
        self._shift(stamp_ns)
        count = self.settings.candidates if candidates is None else candidates
        cost = self._judge(belief, stamp_ns, x, past)
        for round_ in range(self.settings.iterations):
            if round_ or proposals is None:
                plans = self.optimizer.ask(self._noise, count, round_)
            else:
                tried = np.clip(proposals, self.spec.action_low, self.spec.action_high)
                plans = self.optimizer.ask(self._noise, max(count - len(tried), 1), round_)
                plans = np.concatenate([plans, tried.astype(np.float32)])
            self.optimizer.tell(plans, *cost(plans))
        return Plan(stamp_ns, self.optimizer.plan.copy(), self.optimizer.spread)

    def doubt(self, belief: Belief, stamp_ns: int) -> float:
        """How little the Belief is to be trusted, from 0 to 1.

        It grows with the probability that the regime is a new one, and smoothly from half the
        greatest age of a belief on, to 1 where the belief is stale.
        """
        age = (stamp_ns - belief.stamp_ns) * 1e-9 if belief.stamp_ns > 0 else 0.0
        s = min(max(2 * age / self.max_belief_age - 1, 0.0), 1.0)
        fresh = 1 - s * s * (3 - 2 * s)
        return 1 - (1 - belief.regimes.get(NEW, 0.0)) * fresh

    def _judge(
        self, belief: Belief, stamp_ns: int, x: np.ndarray, past: np.ndarray
    ) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
        """The cost [n] of plans [n, h, da], and the penalty [n] if there are constraints."""
        rolled, array, host = self._rolled, self.cost.array, self._to_host
        target = self.cost.target(stamp_ns + self.spec.period_ns, self.settings.horizon)
        previous = array(past[0].astype(np.float32))
        run = {'mean': rolled.run, 'draw': rolled.run_shared, 'all': rolled.run_all}[self.through]
        if self.through == 'mean':
            weights = rolled.weights(belief.theta)
        else:
            weights = rolled.draws(belief, self.settings.draws)
        caution = 1.0
        if self.beta or self.chance:
            caution += self.settings.careful * self.doubt(belief, stamp_ns)
        variance = self._variance(belief, x, past) if self.chance else None

        def cost(plans: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            actions, penalty = array(plans), None
            with np.errstate(over='ignore', invalid='ignore'):  # a wrong model may run away
                states = run(weights, x, actions, past)
                if self.chance:
                    members = states if states.ndim == 4 else states[None]
                    penalty = host(self.chance(members, variance, caution, self.cost.lib))
                total = self.cost(states, actions, previous, target)
                if states.ndim == 4:
                    total = self._over_draws(total, self.beta * caution)
            return host(total), penalty

        return cost

    def _over_draws(self, cost: Any, beta: float) -> Any:
        """Cost [n] of plans from those under each draw [E, n]."""
        mean = cost.mean(axis=0)
        if not beta:
            return mean
        lib = self.cost.lib
        return mean + beta * lib.sqrt(lib.square(cost - mean).mean(axis=0))

    def _to_host(self, array: Any) -> np.ndarray:
        return array if self._device is None else array.cpu().numpy()

    def _variance(self, belief: Belief, x: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Variance of the next state [ds] that margins are for: replanning answers to the rest.

        Of noise, and of ignorance where candidates are not rolled out through draws that show it.
        """
        first = self.optimizer.plan[0].astype(float)
        spread = predict(self.dynamics, belief, x.astype(float), first, past)
        known = spread.aleatoric + (spread.epistemic if self.through == 'mean' else 0.0)
        return np.nan_to_num(known, nan=VAST, posinf=VAST)

    def _shift(self, stamp_ns: int) -> None:
        """Move the last plan on by the steps that have passed."""
        if self._stamp_ns is not None:
            passed = round((stamp_ns - self._stamp_ns) / self.spec.period_ns)
            if not 0 <= passed < self.settings.horizon:
                self.reset()
            elif passed:
                self.optimizer.shift(passed)
        self._stamp_ns = stamp_ns

    def _noise(self, count: int) -> np.ndarray:
        """Standard normal noise [n, h, da], correlated along the plan."""
        settings = self.settings
        shape = (count, settings.horizon, len(self.spec.action))
        exponent = settings.colour
        if exponent is None and settings.optimizer == 'icem':
            exponent = RED
        if exponent is None:
            return autoregressive(self.rng, shape, settings.correlation)
        return coloured(self.rng, shape, exponent)
