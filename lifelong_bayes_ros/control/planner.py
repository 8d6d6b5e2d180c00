"""Sampling-based model predictive control through the Belief."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics.belief import Belief, predict
from ..dynamics.model import Dynamics
from ..memory.regimes import NEW
from .arrays import NUMPY, Arrays
from .chance import Chance
from .cost import Cost
from .goals import Goal
from .native import native_rollout
from .native_cost import native_cost
from .noise import Noise, autoregressive, coloured
from .optimizers import OPTIMIZERS
from .rollout import Rollout
from .slewing import Slewing

if TYPE_CHECKING:
    from ..blr.graph import Graph

VAST = 1e6  # variance of what is not known at all
RED = 2.0  # exponent of iCEM's noise where the robot file gives none
MOST_GRAPHS = 16  # shapes of a search's rounds; each keeps its states on the device


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
    Where slew limits bind, all plans keep them, from the command sent last on.
    """

    def __init__(self, dynamics: Dynamics, seed: int = 0, device: str = 'cpu') -> None:
        """Begin without a plan. On a `device` of torch other than `cpu` plans are weighed there.

        Raises:
            UserError: torch cannot use the device.
        """
        self.spec = dynamics.spec
        self.settings = settings = self.spec.planner
        self.beta = settings.beta
        self.max_belief_age = 1.0  # s after which a belief is as good as none
        on_torch = device != 'cpu' or settings.engine == 'torch'
        self.arrays = Arrays(device) if on_torch else NUMPY
        self._native = settings.engine == 'native' and not on_torch
        self.cost = native_cost(self.spec) if self._native else Cost(self.spec, self.arrays)
        self.chance = Chance(self.spec, self.arrays)
        self.slewing = Slewing(self.spec, self.arrays)
        self.optimizer = OPTIMIZERS[settings.optimizer](self.spec, self.arrays)
        exponent = settings.colour
        if exponent is None and settings.optimizer == 'icem':
            exponent = RED
        if exponent is None:
            taken = autoregressive(settings.horizon, settings.correlation)
        else:
            taken = coloured(settings.horizon, exponent)
        normal = self.arrays.normal(seed)
        self.noise = Noise(taken, len(self.spec.action), normal, self.arrays)
        self._rolled: Any = None  # what rolls out where plans are weighed
        self._graphs: dict[Any, Graph] = {}
        self.adopt(dynamics)
        self.reset()

    def reset(self) -> None:
        """Forget the last plan."""
        self.optimizer.reset()
        self._stamp_ns: int | None = None

    def aim(self, goal: Goal) -> None:
        """Follow another goal from now on."""
        if not np.array_equal(goal.weights, self.cost.goal.weights):
            self._graphs.clear()  # which know those of the last one
        self.cost.aim(goal)

    def narrow(self, low: np.ndarray, high: np.ndarray) -> None:
        """Search among commands within low and high [da] from now on."""
        self._graphs.clear()  # which know those of before
        self.optimizer.narrow(low, high)

    def adopt(self, dynamics: Dynamics) -> None:
        """Roll out with another trunk from now on."""
        self.dynamics = dynamics
        self.rollout = native_rollout(dynamics) if self._native else Rollout(dynamics)
        if self.arrays is NUMPY:
            self._rolled = self.rollout
        elif self._rolled is None:
            from .torch_rollout import TorchRollout

            self._rolled = TorchRollout(self.rollout, self.arrays)
        elif not self._rolled.adopt(self.rollout):
            self._graphs.clear()

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
        cost, host = self._judge(belief, stamp_ns, x, past), self.arrays.host
        for round_ in range(self.settings.iterations):
            if round_ or proposals is None:
                plans = self.optimizer.ask(self.noise, count, round_)
            else:
                tried = np.clip(proposals, self.optimizer.low, self.optimizer.high)
                plans = self.optimizer.ask(self.noise, max(count - len(tried), 1), round_)
                plans = self.arrays.lib.concatenate([plans, self.arrays.array(tried)])
            plans, total, penalty = cost(plans)
            penalty = None if penalty is None else host(penalty)
            self.optimizer.tell(host(plans), host(total), penalty)
        found = self.optimizer.plan.copy()
        if self.slewing:  # a mean keeps slew limits but for rounding
            found = host(self.slewing(self.arrays.array(found), self.arrays.array(past[0])))
        return Plan(stamp_ns, found, self.optimizer.spread)

    def rest(self) -> None:
        """Do in an idle moment what the next plan need not wait for."""
        self.noise.prepare()

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
    ) -> Callable[[Any], tuple[Any, Any, Any]]:
        """What tells of plans [n, h, da] what `_weigh` does."""
        array, rolled = self.arrays.array, self._rolled
        target = self.cost.target(stamp_ns + self.spec.period_ns, self.settings.horizon)
        # Looked at once: another β may come while a late plan goes on.
        through, beta = self.through, self.beta
        if through == 'mean':
            weights = rolled.mean(belief)
        else:
            weights = rolled.draws(belief, self.settings.draws)
        weigh = partial(self._weigh, through, beta > 0)
        caution = 1.0
        if beta or self.chance:
            caution += self.settings.careful * self.doubt(belief, stamp_ns)
        variance = self._variance(belief, x, past) if self.chance else np.zeros(0)
        values = (x, past, past[0], target, variance, caution, beta * caution)
        given = (*(array(v) for v in values), *weights)

        def cost(plans: Any) -> tuple[Any, Any, Any]:
            if not self.arrays.on_cuda:
                return weigh(plans, *given)
            inputs = (plans, *given)
            key = through, beta > 0, *(i.shape for i in inputs)
            graph = self._graphs.get(key)
            if graph is None:
                from ..blr.graph import Graph

                if len(self._graphs) == max(MOST_GRAPHS, 4 * self.settings.iterations):
                    self._graphs.clear()
                graph = self._graphs[key] = Graph(weigh, inputs, self.arrays.device)
            return graph(*inputs)

        return cost

    def _weigh(
        self,
        through: str,
        spread: bool,
        plans: Any,
        x: Any,
        past: Any,
        previous: Any,
        target: Any,
        variance: Any,
        caution: Any,
        beta: Any,
        *weights: Any,
    ) -> tuple[Any, Any, Any]:
        """Plans [n, h, da] as slew limits let them be, their cost [n] under the weights of a
        rollout, and the penalty [n] of constraints; all of these are arrays.

        `spread`: whether that of the cost over the draws counts, with weight `beta`.
        """
        rolled, penalty = self._rolled, None
        run = {'mean': rolled.run, 'draw': rolled.run_shared, 'all': rolled.run_all}[through]
        if self.slewing:
            plans = self.slewing(plans, previous)
        with np.errstate(over='ignore', invalid='ignore'):  # a wrong model may run away
            states = run(weights, x, plans, past)
            if self.chance:
                members = states if states.ndim == 4 else states[None]
                penalty = self.chance(members, variance, caution)
            total = self.cost(states, plans, previous, target)
            if states.ndim == 4:  # under each draw
                each, total = total, total.mean(axis=0)
                if spread:
                    lib = self.arrays.lib
                    total = total + beta * lib.sqrt(lib.square(each - total).mean(axis=0))
        return plans, total, penalty

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
