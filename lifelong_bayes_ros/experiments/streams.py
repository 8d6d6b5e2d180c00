"""Open-loop streams: random commands on a plant that shifts and goes back, the same for everybody.

No controller chooses the data, so methods are compared on what they learn from the same
transitions, and they are judged where no data need ever have been: on operating states and
commands drawn at random, without noise, one step and several steps ahead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros_sim.base import MujocoRobot

from ..dynamics.belief import Belief
from ..dynamics.model import DELAYS, Dynamics, Prior
from ..learning.codec import fingerprint
from ..learning.intervals import student_quantile
from ..robot.spec import RobotSpec, load_robot
from ..robot.transitions import State, Transition, TransitionBuilder
from .agents import METHODS, Agent, Setting
from .priors import prior_for
from .schedule import Life

CHECKPOINTS = (10, 20, 50, 100, 200, 500, 2000)  # transitions after a change
HORIZONS = (5, 15)  # steps of an open-loop prediction
RESET = 100  # transitions between two random states
PAUSE_NS = 1_000_000_000  # what a reset takes
KEEP, SPREAD = 0.9, 0.6  # Ornstein-Uhlenbeck commands: correlation, sd in half ranges
SAMPLES, RUNS = 1000, 200  # one-step transitions and open-loop runs to judge by
FACTOR = 7.0  # by which an error is to be cut
DIVERGED = 1e3  # an open-loop prediction that leaves the numbers counts as this wrong, in units
SHIFTED, NOMINAL = 'shifted', 'nominal'
# Where the one-step error is looked at: at every transition first, then ever more seldom.
GRID = frozenset(
    {*range(41), *CHECKPOINTS, *np.unique(np.geomspace(40, 2000, 80).astype(int)).tolist()}
)


@dataclass(frozen=True)
class Unit:
    """A method on a stream with a seed: `life` shifts first and is nominal then."""

    name: str  # of the stream
    life: Life
    method: str
    seed: int

    def __str__(self) -> str:
        return f'{self.name} {self.method} seed {self.seed}'

    def run(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Errors and coverage of both halves after so many transitions, and seconds spent."""
        spec = load_robot(self.life.robot)
        prior = prior_for(spec)
        return run_stream(spec, prior, self, progress)


def run_stream(
    spec: RobotSpec, prior: Prior, unit: Unit, progress: Callable[[float], None]
) -> dict[str, Any]:
    """A unit with the prior of its robot."""
    agent = METHODS[unit.method].make(Setting(spec, prior, unit.life, unit.seed))
    result: dict[str, Any] = {}
    seconds: list[float] = []
    others = time.process_time() - time.thread_time()
    background: list[float] = []
    start = 0
    stream = iter(_data(spec, unit.life, unit.seed))
    for phase, (regime, steps) in enumerate(unit.life.phases):
        test = _test(spec, prior, unit.life.regimes[regime], unit.seed, phase)
        half: dict[str, Any] = {k: {} for k in ('error', 'per_output', 'coverage', 'open_loop')}
        _judge(half, test, agent, 0, start)
        for k in range(1, steps + 1):
            for transition in stream:
                before = time.thread_time()
                agent.observe(transition)
                spent = time.thread_time() - before
                if transition.usable:
                    seconds.append(spent)
                    before, others = others, time.process_time() - time.thread_time()
                    background.append(max(others - before, 0.0))
                    break
            _judge(half, test, agent, k, start + k - 1)
        start += steps
        result[regime] = half
        progress(start / unit.life.steps)
    # Of the processor: in this thread while learning, and in all others since the step before.
    result['seconds'] = [round(s, 7) for s in seconds]
    result['background'] = [round(s, 7) for s in background]
    return result


KEPT: dict[str, dict[Any, Any]] = {'data': {}, 'test': {}}  # the last ones: methods share them


def _data(spec: RobotSpec, life: Life, seed: int) -> list[Transition]:
    """Transitions of a life, in order, until its last usable one."""

    def make() -> list[Transition]:
        found, left = [], life.steps
        for transition in transitions(spec, life, seed):
            found.append(transition)
            left -= transition.usable
            if not left:
                return found
        return found

    return _kept('data', (spec.dump(), life.model_dump_json(), seed), make)


def _test(
    spec: RobotSpec, prior: Prior, shifts: list[dict[str, Any]], seed: int, phase: int
) -> HeldOut:
    key = (spec.dump(), fingerprint(prior), json.dumps(shifts), seed, phase, SAMPLES, RUNS)
    return _kept('test', key, lambda: HeldOut.of(spec, prior, shifts, seed, phase))


def _kept(what: str, key: Any, make: Callable[[], Any]) -> Any:
    kept = KEPT[what]
    if key not in kept:
        while len(kept) > 1:
            del kept[next(iter(kept))]
        kept[key] = make()
    return kept[key]


def _judge(half: dict[str, Any], test: HeldOut, agent: Agent, k: int, step: int) -> None:
    """Judge an agent after k transitions, the last of which was `step` of the life."""
    if k not in GRID:
        return
    belief = agent.belief(step)
    dynamics = agent.controller.dynamics  # after the belief that it belongs to
    errors = test.one_step(dynamics, belief)
    half['error'][k] = float(np.sqrt(np.mean(np.square(errors))))
    if k in CHECKPOINTS or k == 0:
        half['per_output'][k] = errors.tolist()
        half['coverage'][k] = test.coverage(dynamics, belief)
        half['open_loop'][k] = test.open_loop(dynamics, belief)


def cut(errors: dict[int, float], frozen: float, factor: float = FACTOR) -> float:
    """Transitions after which the one-step error is `factor` times below the frozen model's.

    It must still be at the next look, so that no lucky draw counts. Infinite if it never is.
    """
    looks = sorted(errors)
    good = [errors[k] <= frozen / factor for k in looks]
    for i, k in enumerate(looks):
        if all(good[i : i + 2]):
            return float(k)
    return float('inf')


# ---------------------------------------------------------------------- the data
def transitions(spec: RobotSpec, life: Life, seed: int) -> Iterator[Transition]:
    """What a transition streamer would publish along a life of random commands, endlessly.

    Every `RESET` transitions, or when the robot crashes, it starts from another random state; the
    transition across that gap is marked as such and does not count as a step of the life.
    """
    plant, rng = sim.make(spec.name, spec=spec, seed=seed), np.random.default_rng(seed)
    builder = TransitionBuilder(spec)
    stamp, step, run = PAUSE_NS, 0, RESET
    while True:
        if step in life.boundaries[:-1]:
            plant.set_shifts([sim.shift_from_dict(s) for s in life.shift_dicts_at(step)])
        if run == RESET:
            x, run, stamp = _start(plant, rng), 0, stamp + PAUSE_NS
            commands = Commands(spec, rng, 1)
            yield from builder.add_state(_reading(plant, rng, stamp, x))
        u, past = commands.next()
        builder.add_command(stamp, u[0])
        x = plant.one_step(x[None], u.astype(np.float32).astype(float), past)[0]
        stamp += spec.period_ns
        step, run = step + 1, run + 1
        yield from builder.add_state(_reading(plant, rng, stamp, x))
        if plant.has_crashed(x):
            run = RESET


class Commands:
    """Ornstein-Uhlenbeck commands [n, da] around neutral, within the limits."""

    def __init__(self, spec: RobotSpec, rng: np.random.Generator, n: int) -> None:
        self._spec, self._rng = spec, rng
        self._z = rng.standard_normal((n, len(spec.action)))
        self._past = np.stack([self._command() for _ in range(DELAYS)][::-1], axis=1)

    def _command(self) -> np.ndarray:
        fresh = self._rng.standard_normal(self._z.shape)
        self._z = KEEP * self._z + np.sqrt(1 - KEEP**2) * fresh
        u = self._spec.neutral + SPREAD * self._spec.action_half_range * self._z
        return np.clip(u, self._spec.action_low, self._spec.action_high)

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Commands [n, da] and those before [n, DELAYS, da], newest first."""
        u, past = self._command(), self._past
        self._past = np.concatenate([u[:, None], past[:, :-1]], axis=1)
        return u, past


def _start(plant: MujocoRobot, rng: np.random.Generator) -> np.ndarray:
    while plant.has_crashed(x := plant.sample_states(rng, 1)[0]):
        pass
    return x


def _reading(plant: MujocoRobot, rng: np.random.Generator, stamp: int, x: np.ndarray) -> State:
    noisy = x + plant.noise_factor * plant.sensor_noise * rng.standard_normal(len(x))
    return State(stamp, plant.robot_spec.wrap(noisy).astype(np.float32))


# ---------------------------------------------------------------------- the test
@dataclass(frozen=True)
class HeldOut:
    """Held-out steps of one regime: states all over, commands as on the stream.

    Errors are in units of y of the prior, whatever scale a method has.
    """

    spec: RobotSpec
    scale: np.ndarray
    x: np.ndarray
    u: np.ndarray
    past: np.ndarray
    x_next: np.ndarray
    noise: np.ndarray  # of the readings before and after [2, n, ds]
    runs: np.ndarray  # true states along open-loop runs [RUNS, 1 + h, ds]
    commands: list[tuple[np.ndarray, np.ndarray]]
    # Features of the last Dynamics, which is the first.
    _design: list[Any] = field(default_factory=list, init=False, compare=False)

    @classmethod
    def of(
        cls, spec: RobotSpec, prior: Prior, shifts: list[dict[str, Any]], seed: int, phase: int
    ) -> HeldOut:
        """The test of a regime; seeds and phases have different ones."""
        rng = np.random.default_rng([seed, phase, 1])
        plant = sim.make(spec.name, spec=spec, seed=seed)
        plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        x = plant.sample_states(rng, SAMPLES)
        u, past = Commands(spec, rng, SAMPLES).next()
        noise = plant.noise_factor * plant.sensor_noise * rng.standard_normal((2, *x.shape))
        walk = Commands(spec, rng, RUNS)
        commands = [walk.next() for _ in range(max(HORIZONS))]
        runs = [plant.sample_states(rng, RUNS)]
        for step in commands:
            runs.append(plant.one_step(runs[-1], *step))
        x_next = plant.one_step(x, u, past)
        scale = prior.dynamics.scale
        return cls(spec, scale, x, u, past, x_next, noise, np.stack(runs, axis=1), commands)

    def one_step(self, dynamics: Dynamics, belief: Belief) -> np.ndarray:
        """Root mean square error of one step without noise, per output [ds]."""
        if not self._design or self._design[0] is not dynamics:
            self._design[:] = dynamics, dynamics.columns(self.x, self.u, self.past)
        change = _apply_all(dynamics, self._design[1], belief.theta[:, None])[..., 0]
        return self._rms(self.x + change - self.x_next)

    def coverage(self, dynamics: Dynamics, belief: Belief) -> float:
        """Share of noisy readings inside their 90 % interval, mean over outputs."""
        x = self.x + self.noise[0]
        design = dynamics.columns(x, self.u, self.past)
        mean = x + _apply_all(dynamics, design, belief.theta[:, None])[..., 0]
        draws = _apply_all(dynamics, design, belief.factor)
        variance = np.sum(np.square(draws), axis=-1) + dynamics.scale**2 * belief.noise
        error = self.spec.wrap(self.x_next + self.noise[1] - mean)
        inside = np.abs(error) <= student_quantile(belief.noise_dof) * np.sqrt(variance)
        return float(np.mean(inside))

    def open_loop(self, dynamics: Dynamics, belief: Belief) -> dict[int, float]:
        """Root mean square error after so many steps, mean over outputs."""
        x, errors = self.runs[:, 0], {}
        with np.errstate(over='ignore', invalid='ignore'):
            for h, (u, past) in enumerate(self.commands, start=1):
                x = x + apply(dynamics, belief.theta, x, u, past)
                if h in HORIZONS:
                    error = self._rms(x - self.runs[:, h])
                    errors[h] = float(np.sqrt(np.mean(np.square(error))))
        return errors

    def _rms(self, error: np.ndarray) -> np.ndarray:
        error = np.nan_to_num(self.spec.wrap(error) / self.scale, nan=DIVERGED)
        return np.sqrt(np.mean(np.square(np.clip(error, -DIVERGED, DIVERGED)), axis=0))


def apply(
    dynamics: Dynamics, theta: np.ndarray, x: np.ndarray, u: np.ndarray, past: np.ndarray
) -> np.ndarray:
    """Change of state [n, ds], scale · H θ, of states [n, ds], commands and past [n, k, da]."""
    w, g, b, c = dynamics.split(np.asarray(theta, dtype=float))
    direction = u * g + b * dynamics.spec.action_half_range
    direction = direction + np.einsum('k,nkd->nd', c, past - u[:, None])
    raw, tangent = dynamics.trunk.raw_and_tangent(x, u, direction)
    whiten = dynamics.trunk.whiten
    return dynamics.scale * (raw @ (whiten @ w.T) + tangent @ (whiten @ dynamics.nominal.T))


def _apply_all(
    dynamics: Dynamics, design: tuple[np.ndarray, np.ndarray], thetas: np.ndarray
) -> np.ndarray:
    """As `apply`, [n, ds, E], for parameters [size, E] at features and columns of `columns`."""
    phi, columns = design
    ds, nf = dynamics.nominal.shape
    thetas = np.asarray(thetas, dtype=float)
    heads, tail = thetas[: ds * nf].reshape(ds, nf, -1), thetas[ds * nf :]
    linear = np.stack([phi @ head for head in heads], axis=1)
    return dynamics.scale[:, None] * (linear + columns @ tail)
