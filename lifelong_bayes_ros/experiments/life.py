"""One life without ROS: the same pieces as the nodes, called in turn in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

import lifelong_bayes_ros_sim as sim

from ..learning.learner import Event
from ..robot.spec import RobotSpec
from ..robot.transitions import State, StateAssembler, TransitionBuilder
from .agents import Agent
from .schedule import Life


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
