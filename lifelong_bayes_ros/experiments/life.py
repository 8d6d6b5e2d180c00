"""One life without ROS: the same pieces as the nodes, called in turn in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros_sim.base import MujocoRobot

from ..control.controller import Act
from ..control.rollout import Rollout
from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics
from ..learning.intervals import student_quantile
from ..learning.report import Event
from ..robot.spec import RobotSpec
from ..robot.transitions import State, StateAssembler, TransitionBuilder
from .agents import Agent
from .schedule import Life


@dataclass
class Trace:
    """What happened at every control step of a life.

    Errors and spreads are those of the one-step prediction that the controller acted on, whoever
    made it, against the next state observed, per output in units of y (`Dynamics.scale` of the
    prior); not a number where the step tells nothing, e.g. after a crash.
    """

    score: list[float] = field(default_factory=list)
    crashed: list[bool] = field(default_factory=list)
    epistemic: list[float] = field(default_factory=list)  # sd, mean over outputs
    aleatoric: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)  # squared, mean over outputs
    nis: list[float] = field(default_factory=list)  # squared error over variance, mean
    inside: list[float] = field(default_factory=list)  # share of outputs in their 90 % interval
    regimes: list[dict[str, float]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # `step` is that of the life, from 0
    plan_seconds: list[float] = field(default_factory=list)
    learn_seconds: list[float] = field(default_factory=list)  # by the clock on the wall
    learn_cpu: list[float] = field(default_factory=list)  # of the processor, in this thread
    background_cpu: list[float] = field(default_factory=list)  # in all others


class Learning:
    """Time that an agent takes for itself during a step, measured where it is entered."""

    def __init__(self) -> None:
        self.seconds = 0.0  # on the wall
        self.cpu = 0.0  # of the processor, in this thread
        self.background = 0.0  # in other threads of this process, during the whole step
        self._others = time.process_time() - time.thread_time()

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._wall
        self.cpu += time.thread_time() - self._cpu

    def stop(self) -> Learning:
        """End the step."""
        self.background = max(time.process_time() - time.thread_time() - self._others, 0.0)
        return self


@dataclass(frozen=True)
class Moment:
    """One control step, as its observers see it."""

    step: int
    env: MujocoRobot
    agent: Agent
    belief: Belief  # acted on, with these dynamics and this rollout
    dynamics: Dynamics
    rollout: Rollout
    state: np.ndarray  # before [ds]
    past: np.ndarray  # commands before [DELAYS, da], newest first
    command: np.ndarray  # [da]
    next_state: np.ndarray  # [ds]
    act: Act
    score: float
    crashed: bool
    learning: Learning  # time that the agent took for itself


def run_life(
    spec: RobotSpec,
    life: Life,
    agent: Agent,
    seed: int,
    progress: Callable[[int], None] = lambda step: None,
    observer: Callable[[Moment], None] = lambda moment: None,
    scale: np.ndarray | None = None,
) -> Trace:
    """Run a life in simulation.

    Args:
        spec: the robot.
        life: regimes and phases.
        agent: who drives.
        seed: of the sensor noise; the agent has its own.
        progress: called with the number of steps done.
        observer: called after every step; it must not change what it sees.
        scale: unit of each output [ds] for errors and spreads; the agent's own if not given.
    """
    trace = Trace()
    scale = agent.controller.dynamics.scale if scale is None else scale
    for moment in _moments(spec, life, agent, seed):
        _note(trace, moment, spec, scale)
        observer(moment)
        progress(moment.step + 1)
    return trace


def _note(trace: Trace, moment: Moment, spec: RobotSpec, scale: np.ndarray) -> None:
    trace.score.append(moment.score)
    trace.crashed.append(moment.crashed)
    trace.plan_seconds.append(moment.act.seconds)
    trace.learn_seconds.append(moment.learning.seconds)
    trace.learn_cpu.append(moment.learning.cpu)
    trace.background_cpu.append(moment.learning.background)
    trace.events += [replace(e, step=moment.step) for e in moment.agent.take_events()]
    trace.regimes.append(dict(moment.belief.regimes))
    spread = moment.act.spread
    columns = (trace.epistemic, trace.aleatoric, trace.error, trace.nis, trace.inside)
    if spread is None:
        for column in columns:
            column.append(float('nan'))
        return
    dof = moment.belief.noise_dof
    error = spec.wrap(moment.next_state.astype(float) - spread.mean)
    # The spread holds the variance of the noise, a Student-t interval its scale.
    sd = np.sqrt(spread.epistemic + spread.aleatoric * (dof - 2) / dof)
    seen = (
        float(np.mean(np.square(error / scale))),
        float(np.mean(np.square(error) / (spread.epistemic + spread.aleatoric))),
        float(np.mean(np.abs(error) <= student_quantile(dof) * sd)),
    )
    if moment.crashed:  # it was put back on the reference
        seen = (float('nan'),) * 3
    spreads = [float(np.mean(np.sqrt(v) / scale)) for v in (spread.epistemic, spread.aleatoric)]
    for column, value in zip(columns, (*spreads, *seen), strict=True):
        column.append(value)


def _moments(spec: RobotSpec, life: Life, agent: Agent, seed: int) -> Iterator[Moment]:
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
        learning = Learning()
        with learning:
            belief = agent.belief(step)
        past = np.array(agent.controller.past)
        dynamics, rollout = agent.controller.dynamics, agent.controller.planner.rollout
        act = agent.controller.act(state, belief)
        command = agent.controller.safety.last if act.command is None else act.command
        done = builder.add_command(state.stamp_ns, command)
        observation, score, _, _, info = env.step(command.astype(float))
        before, state = state, _assemble(assembler, spec, env.stamp_ns, observation)
        for name, label in env.labels.items():
            builder.labels.put(name, env.stamp_ns, label)
        done += builder.add_state(state)
        with learning:
            for transition in done:
                agent.observe(transition)
        yield Moment(
            step,
            env,
            agent,
            belief,
            dynamics,
            rollout,
            before.x,
            past,
            np.array(command),
            state.x,
            act,
            score,
            bool(info['crashed']),
            learning.stop(),
        )


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
