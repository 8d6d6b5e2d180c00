"""One life without ROS: the same pieces as the nodes, called in turn in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

import lifelong_bayes_ros_sim as sim

from ..control.controller import Controller
from ..dynamics.belief import Belief
from ..dynamics.model import Prior
from ..learning.learner import Event, Learner
from ..robot.spec import RobotSpec
from ..robot.transitions import State, StateAssembler, Transition, TransitionBuilder
from .schedule import Life


class Agent(Protocol):
    """Whoever drives the robot through a life."""

    controller: Controller

    def belief(self, step: int) -> Belief:
        """What to act on at a step."""

    def observe(self, transition: Transition) -> None:
        """Take the outcome of a step."""


class LearningAgent:
    """The system itself: learner and controller. With `learning=False` it is the frozen model."""

    def __init__(
        self, prior: Prior, seed: int, learning: bool = True, device: str = 'cpu'
    ) -> None:
        self.learner = Learner(prior, seed=seed, device=device)
        self.learner.learning = learning
        self.controller = Controller(prior.dynamics, seed)

    def belief(self, step: int) -> Belief:
        return self.learner.belief()

    def observe(self, transition: Transition) -> None:
        self.learner.observe(transition)


class OracleAgent:
    """Specialists of every regime, switched at the exact boundary."""

    def __init__(self, specialists: dict[str, Prior], life: Life, seed: int) -> None:
        self.life = life
        self.specialists = specialists
        self._beliefs = {}
        for name, prior in specialists.items():
            learner = Learner(prior, seed=seed)
            self._beliefs[name] = learner.belief()
        self._regime = life.regime_at(0)
        self.controller = Controller(specialists[self._regime].dynamics, seed)

    def belief(self, step: int) -> Belief:
        regime = self.life.regime_at(step)
        if regime != self._regime:
            self._regime = regime
            self.controller.adopt(self.specialists[regime].dynamics)
        return self._beliefs[regime]

    def observe(self, transition: Transition) -> None:
        """The oracle knows already."""


@dataclass
class Trace:
    """What happened at every control step of a life."""

    score: list[float] = field(default_factory=list)
    crashed: list[bool] = field(default_factory=list)
    epistemic: list[float] = field(default_factory=list)  # of the tracked rates, mean sd in y
    aleatoric: list[float] = field(default_factory=list)
    nis: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    regimes: list[dict[str, float]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    plan_seconds: list[float] = field(default_factory=list)
    learn_seconds: list[float] = field(default_factory=list)


def run_life(
    spec: RobotSpec,
    life: Life,
    agent: Agent,
    seed: int,
    progress: Callable[[int], None] = lambda step: None,
) -> Trace:
    """Run a life in simulation.

    Args:
        spec: the robot.
        life: regimes and phases.
        agent: who drives.
        seed: of the sensor noise; the agent has its own.
        progress: called with the number of steps done.
    """
    trace = Trace()
    for step, (score, crashed, act) in enumerate(_steps(spec, life, agent, seed)):
        trace.score.append(score)
        trace.crashed.append(crashed)
        trace.plan_seconds.append(act.seconds)
        spread = act.spread
        if spread is not None:
            scale = agent.controller.dynamics.scale
            trace.epistemic.append(float(np.mean(np.sqrt(spread.epistemic) / scale)))
            trace.aleatoric.append(float(np.mean(np.sqrt(spread.aleatoric) / scale)))
        learner = getattr(agent, 'learner', None)
        if learner is not None:
            trace.events += learner.take_events()
            trace.nis.append(learner.report.nis)
            trace.inside.append(learner.report.inside)
            trace.regimes.append(dict(learner.filter.probabilities))
            trace.learn_seconds.append(learner.report.seconds)
        progress(step + 1)
    return trace


def _steps(spec: RobotSpec, life: Life, agent: Agent, seed: int) -> Iterator[tuple]:
    env = sim.make(spec.name, spec=spec, seed=seed)
    assembler = StateAssembler(spec)
    builder = TransitionBuilder(spec, life.episode)
    shifts: list[dict] = life.shift_dicts_at(0)
    options = {'shifts': [sim.shift_from_dict(s) for s in shifts]}
    observation, _ = env.reset(seed=seed, options=options)
    state = _assemble(assembler, spec, env.stamp_ns, observation)
    for transition in builder.add_state(state):
        agent.observe(transition)
    for step in range(life.steps):
        if life.shift_dicts_at(step) is not shifts:
            shifts = life.shift_dicts_at(step)
            env.set_shifts([sim.shift_from_dict(s) for s in shifts])
        act = agent.controller.act(state, agent.belief(step))
        command = agent.controller.safety.last if act.command is None else act.command
        done = builder.add_command(state.stamp_ns, command)
        observation, score, _, _, info = env.step(command.astype(float))
        state = _assemble(assembler, spec, env.stamp_ns, observation)
        done += builder.add_state(state)
        for transition in done:
            agent.observe(transition)
        yield score, bool(info['crashed']), act


def _assemble(
    assembler: StateAssembler, spec: RobotSpec, stamp_ns: int, observation: np.ndarray
) -> State:
    values = dict(zip(spec.state_names, observation.tolist(), strict=True))
    state = None
    for source in spec.sources:
        state = assembler.update(source, stamp_ns, values)
    if state is None:
        raise RuntimeError(f'the simulator gave an unusable reading: {values}')
    return state
