"""One control tick: state and Belief in, safe command and its uncertainty out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from ..dynamics.belief import Belief, Spread, predict, predict_means
from ..dynamics.model import DELAYS, Dynamics
from ..memory.regimes import NEW
from ..robot.transitions import State
from .fence import Outlook, Rates
from .goals import FileGoal, Goal
from .planner import Plan, Planner
from .policy_posterior import Advice, Advised, Adviser, Choice
from .probing import Probe
from .safety import Safety

NUDGE = 0.01  # of a command's half range, for derivatives


@dataclass(frozen=True)
class Act:
    """What came of a tick. `command` is None when the robot must be left alone.

    `late`: the plan was not there in time, so that the last one went on. `authority`: the share of
    the command's range that safety granted. `choice`: what the planner chose in time, for a policy
    posterior to learn from, `advice` what that posterior would do, once it has learned, and
    `alone`: it acted, since the plan was late.
    """

    stamp_ns: int
    command: np.ndarray | None
    plan: Plan | None
    spread: Spread | None
    stale: bool
    seconds: float
    late: bool = False
    authority: float = 1.0
    choice: Choice | None = None
    alone: bool = False
    advice: Advice | None = None


class Controller:
    """Plans through the newest Belief; falls back on the nominal model when it is stale.

    A tick has two halves: `think`, which takes long and may run in a thread of its own, and
    `answer`, which is quick. `act` is both.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        seed: int = 0,
        max_belief_age: float = 1.0,
        safety: Safety | None = None,
        device: str = 'cpu',
    ) -> None:
        """`safety`: the stage that all commands to the robot go through; its own if not given.

        `device`: of torch, where plans are weighed.
        """
        self.dynamics, self.device = dynamics, device
        self.planner = Planner(dynamics, seed, device)
        self.safety = safety or Safety(dynamics.spec)
        self.max_belief_age = max_belief_age
        self.adviser = Adviser(dynamics) if dynamics.spec.policy.used else None
        self.probe = Probe(dynamics.spec, seed)
        self.forget()

    @property
    def max_belief_age(self) -> float:
        """Seconds after which a belief is stale."""
        return self.planner.max_belief_age

    @max_belief_age.setter
    def max_belief_age(self, seconds: float) -> None:
        self.planner.max_belief_age = seconds

    def reset(self) -> None:
        """Forget the past, at the start of a life."""
        self.forget()
        self.safety.reset()

    def forget(self) -> None:
        """Forget what was planned, but not what was sent."""
        self.planner.reset()
        self.probe.reset()
        self._last: Plan | None = None
        self.choice: Choice | None = None  # of the last tick

    def adopt(self, dynamics: Dynamics) -> None:
        """Plan with another trunk from now on; the running plan goes on."""
        self.dynamics = dynamics
        self.planner.adopt(dynamics)
        if self.adviser is not None:
            self.adviser.senses.adopt(dynamics)

    def aim(self, goal: Goal | None) -> None:
        """Follow another goal from the next plan on; None: the robot file's."""
        self.planner.aim(goal or FileGoal(self.dynamics.spec))

    @property
    def past(self) -> np.ndarray:
        """Commands already sent [DELAYS, da], newest first."""
        return self.safety.sent[:DELAYS]

    def act(self, state: State, belief: Belief) -> Act:
        """Choose the command for a state."""
        started = time.perf_counter()
        plan = self.think(state, belief, self.past)
        return self.answer(state, belief, plan, started)

    def think(self, state: State, belief: Belief, past: np.ndarray) -> Plan:
        """Plan from a state after past commands [DELAYS, da]."""
        belief = self._believed(state, belief)
        if self.adviser is None:
            return self.planner.plan(belief, state.stamp_ns, state.x, past)
        inputs = self._sense(state, belief, past)
        advice = self.adviser.advise(inputs)
        proposals = self.adviser.proposals(advice)
        plan = self.planner.plan(belief, state.stamp_ns, state.x, past, proposals)
        return Advised(**vars(plan), inputs=inputs, regime=belief.regime, advice=advice)

    def answer(self, state: State, belief: Belief, plan: Plan | None, started: float) -> Act:
        """Command for a state by its plan; without one, by the policy posterior.

        Where that may not act or is not sure, by the last plan, moved on in time. A last plan that
        is over, or none, leads to the safe action.
        """
        late, stale = plan is None, self._stale(state, belief)
        choice, alone = None, False
        past = np.array(self.past)
        belief = self._believed(state, belief)
        if plan is None:
            advice = self._advice(state, belief, past)
            plan = None if advice is None else self.adviser.alone(advice, state.stamp_ns)
            alone = plan is not None
            if not alone and self._last is not None:
                plan = self._moved(self._last, state.stamp_ns)
        else:
            self._last, advice = plan, getattr(plan, 'advice', None)
            if self.adviser is not None and np.isfinite(plan.actions).all():
                choice = self.adviser.choice(plan)
        spread, wanted, command = None, None, None
        if plan is not None:
            wanted = np.asarray(plan.actions[0], np.float32)
            if not stale:
                wanted = self.probe.add(wanted, belief, self.safety)
            outlook = None
            if np.isfinite(wanted).all():
                spread = self._predict(belief, state, wanted, past)
                outlook = self._outlook(belief, state, wanted, past, spread, stale)
            command = self.safety.check(wanted, outlook, state.stamp_ns)
        else:
            # Planning is late, nothing else is wrong: an answer to each state all the same.
            command = self.safe_action(state, belief, counted=False)
        if command is None:
            spread = None
        elif spread is None or not np.array_equal(command, wanted):
            spread = self._predict(belief, state, command, past)
        self.choice = choice
        seconds = time.perf_counter() - started
        authority = self.safety.authority if plan is not None else 0.0
        return Act(
            *(state.stamp_ns, command, plan, spread, stale, seconds),
            *(late, authority, choice, alone, advice),
        )

    def safe_action(self, state: State, belief: Belief, counted: bool = True) -> np.ndarray | None:
        """The safe action in a state, which the Belief may help to brake with.

        `counted`: as one of its ticks, after which silence follows.
        """
        if not self.safety.needs_outlook:
            return self.safety.safe_action(counted=counted)
        last, past, stale = self.safety.last, np.array(self.past), self._stale(state, belief)
        belief = self._believed(state, belief)
        spread = self._predict(belief, state, last, past)
        outlook = self._outlook(belief, state, last, past, spread, stale)
        return self.safety.safe_action(outlook, counted)

    def take_up(self, plan: Plan) -> None:
        """Let a plan that came late be the last one, for ticks whose own is late."""
        self._last = plan

    # ------------------------------------------------------------------ the policy posterior
    def _sense(self, state: State, belief: Belief, past: np.ndarray) -> np.ndarray:
        spec, cost = self.dynamics.spec, self.planner.cost
        target = cost.target(state.stamp_ns + spec.period_ns, spec.planner.horizon)
        return self.adviser.senses(belief, state.x, past, target, cost.goal.weights)

    def _advice(self, state: State, belief: Belief, past: np.ndarray) -> Advice | None:
        """What the policy posterior would do without a plan, where it may."""
        if self.adviser is None or not self.adviser.settings.alone:
            return None
        return self.adviser.advise(self._sense(state, belief, past))

    # ------------------------------------------------------------------ the Belief
    def _stale(self, state: State, belief: Belief) -> bool:
        return belief.stamp_ns > 0 and self._age(state, belief) > self.max_belief_age

    def _age(self, state: State, belief: Belief) -> float:
        return (state.stamp_ns - belief.stamp_ns) * 1e-9 if belief.stamp_ns > 0 else 0.0

    def _believed(self, state: State, belief: Belief) -> Belief:
        if not self._stale(state, belief):
            return belief
        theta = self.dynamics.nominal_theta.astype(np.float32)
        return replace(belief.anywhere(), theta=theta, mode='nominal')

    def _predict(self, belief: Belief, state: State, u: np.ndarray, past: np.ndarray) -> Spread:
        return predict(self.dynamics, belief, state.x.astype(float), u.astype(float), past)

    def _outlook(
        self,
        belief: Belief,
        state: State,
        wanted: np.ndarray,
        past: np.ndarray,
        spread: Spread,
        stale: bool,
    ) -> Outlook:
        spec = self.dynamics.spec
        gain, rates = np.zeros((len(spec.state), len(wanted))), None
        if self.safety.needs_outlook:
            steps = NUDGE * spec.action_half_range
            steps = np.where(wanted < spec.neutral, steps, -steps)
            nudged = wanted.astype(float) + np.diag(steps)
            x = state.x.astype(float)
            means = predict_means(self.dynamics, belief, x, nudged, past)
            gain = (spec.wrap(means - spread.mean) / steps[:, None]).T
            if self.safety.needs_rates:
                commands = np.vstack([wanted.astype(float), nudged])
                means = np.vstack([spread.mean, means])
                rates = self._rates(belief, x, commands, means, past, steps, spread.epistemic)
        trust = spec.safety.stale if stale else 1.0
        unknown = belief.regimes.get(NEW, 0.0)  # probability
        trust *= 1.0 - unknown * (1.0 - spec.safety.new_regime)
        return Outlook(
            wanted.astype(float),
            spread.mean,
            gain,
            np.sqrt(spread.epistemic + spread.aleatoric),
            spread.ood,
            max(self._age(state, belief), 0.0),
            trust,
            rates,
        )

    def _rates(
        self,
        belief: Belief,
        x: np.ndarray,
        commands: np.ndarray,
        means: np.ndarray,
        past: np.ndarray,
        steps: np.ndarray,
        epistemic: np.ndarray,
    ) -> Rates:
        """Rates at the end of a step: of two steps with the same command, over their time.

        `commands` [1 + da, da] are the wanted one, and each of its entries moved by `steps` [da];
        `means` [1 + da, ds] what they lead to from x [ds].
        """
        spec = self.dynamics.spec
        then = [np.vstack([u, past[:-1]]) for u in commands]
        ahead = [
            predict_means(self.dynamics, belief, m, u[None], p)[0]
            for m, u, p in zip(means, commands, then, strict=True)
        ]
        rates = spec.wrap(np.stack(ahead) - x) / (2 * spec.period)
        gain = ((rates[1:] - rates[0]) / steps[:, None]).T
        # Where an acceleration is misjudged, a rate is off by twice the way that it costs.
        return Rates(rates[0], gain, 2 * np.sqrt(epistemic) / spec.period)

    def _moved(self, plan: Plan, stamp_ns: int) -> Plan | None:
        """A plan as it stands at a later time; None once it is over."""
        passed = round((stamp_ns - plan.stamp_ns) / self.dynamics.spec.period_ns)
        if not 0 <= passed < len(plan.actions):
            return None
        tail = np.repeat(plan.actions[-1:], passed, axis=0)
        return replace(
            plan, stamp_ns=stamp_ns, actions=np.concatenate([plan.actions[passed:], tail])
        )
