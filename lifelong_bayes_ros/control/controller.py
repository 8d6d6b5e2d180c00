"""One control tick: state and Belief in, safe command and its uncertainty out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from ..dynamics.belief import Belief, Spread, predict
from ..dynamics.model import DELAYS, Dynamics
from ..robot.transitions import State
from .planner import Plan, Planner
from .safety import Safety


@dataclass(frozen=True)
class Act:
    """What came of a tick. `command` is None when the robot must be left alone."""

    stamp_ns: int
    command: np.ndarray | None
    plan: Plan | None
    spread: Spread | None
    stale: bool
    seconds: float


class Controller:
    """Plans through the newest Belief; falls back on the nominal model when it is stale."""

    def __init__(
        self,
        dynamics: Dynamics,
        seed: int = 0,
        max_belief_age: float = 1.0,
        safety: Safety | None = None,
    ) -> None:
        """`safety`: the stage that all commands to the robot go through; its own if not given."""
        self.dynamics = dynamics
        self.planner = Planner(dynamics, seed)
        self.safety = safety or Safety(dynamics.spec)
        self.max_belief_age = max_belief_age
        self.reset()

    def reset(self) -> None:
        """Forget the past, e.g. at activation."""
        self.planner.reset()
        self.safety.reset()

    def adopt(self, dynamics: Dynamics) -> None:
        """Plan with another trunk from now on; the running plan goes on."""
        self.dynamics = dynamics
        self.planner.adopt(dynamics)

    @property
    def past(self) -> np.ndarray:
        """Commands already sent [DELAYS, da], newest first."""
        return self.safety.sent[:DELAYS]

    def act(self, state: State, belief: Belief) -> Act:
        """Choose the command for a state."""
        started = time.perf_counter()
        age = (state.stamp_ns - belief.stamp_ns) * 1e-9
        stale = belief.stamp_ns > 0 and age > self.max_belief_age
        if stale:
            theta = self.dynamics.nominal_theta.astype(np.float32)
            belief = replace(belief, theta=theta, mode='nominal')
        past = self.past
        plan = self.planner.plan(belief, state.stamp_ns, state.x, past)
        command = self.safety.check(plan.actions[0])
        if command is None:
            return Act(state.stamp_ns, None, plan, None, stale, time.perf_counter() - started)
        u = command.astype(float)
        spread = predict(self.dynamics, belief, state.x.astype(float), u, past)
        return Act(state.stamp_ns, command, plan, spread, stale, time.perf_counter() - started)
