"""What planning costs: rows of `bench planner`, by the time that its thread has the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros_sim.base import MujocoRobot

from ..control.cost import Cost
from ..control.noise import Noise, autoregressive
from ..control.optimizers import Mppi
from ..control.planner import Planner
from ..dynamics.belief import Belief
from ..dynamics.model import Prior
from ..robot.spec import RobotSpec, load_robot
from ..robot.transitions import State
from .baselines.frozen import Frozen
from .priors import prior_for
from .published import report_object, row

Status = Callable[[str, float], None]

ROBOTS = ('quad', 'arm', 'diffdrive', 'cartpole')
WIDTH = 64  # of the trunks that pre-training makes
ROUNDS = 200
LIFE = 150  # steps of each closed loop
START = 50  # of them not scored: a start that both planners need


def planner_report(
    status: Status, seeds: Sequence[int] = (0, 1, 2), steps: int = LIFE
) -> dict[str, Any]:
    """Measure, and return the report object."""
    priors = {}
    for robot in ROBOTS:
        spec = load_robot(robot)
        priors[robot] = prior_for(spec, progress=lambda share, what: status(what, share))
    rows = speed_rows(priors['quad'], status)
    rows += simulator_rows(priors, seeds, steps, status)
    return report_object('bench planner', list(seeds), rows)


# ---------------------------------------------------------------------- speed
def speed_rows(prior: Prior, status: Status, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Plans through all draws and through the mean, and the share of the matrix product's rate."""
    status('planning on one thread', 0.0)
    draws = {'through': 'all', 'draws': 8, 'candidates': 128, 'horizon': 15, 'beta': 0.5}
    mean = {'through': 'mean', 'candidates': 256, 'horizon': 15}
    through, plan = (plan_seconds(prior, s, rounds) for s in (draws, mean))
    rate = product_rate(rounds=rounds)
    flops = rollout_flops(prior, 8 * 128 * 15)
    rolled = roll_seconds(prior, draws, rounds)
    cpu = 'CPU of the thread, median'
    return [
        row(
            f'plan, 8 draws × 128 candidates × horizon 15, width 64, {cpu}',
            1e3 * float(np.median(through)),
            'ms',
            'lower',
            6.0,
            3.5,
        ),
        row('the same, p99', 1e3 * float(np.percentile(through, 99)), 'ms', 'lower', None),
        row(
            f'plan, mean, 256 candidates × horizon 15, width 64, {cpu}',
            1e3 * float(np.median(plan)),
            'ms',
            'lower',
            1.5,
            0.8,
        ),
        row('the same, p99', 1e3 * float(np.percentile(plan, 99)), 'ms', 'lower', None),
        row(
            'share of the measured sgemm rate at width 64, rollout of 8 draws',
            flops / float(np.median(rolled)) / rate,
            '',
            'higher',
            0.4,
            0.6,
        ),
        row('sgemm rate at width 64, one thread', rate * 1e-9, 'GFLOP/s', 'higher', None),
    ]


def planner_of(prior: Prior, settings: dict[str, Any], device: str = 'cpu') -> Planner:
    """A planner with other settings than the robot file's, in one iteration."""
    spec = prior.dynamics.spec
    planner = spec.planner.model_dump() | {'iterations': 1} | settings
    spec = RobotSpec.model_validate(spec.model_dump() | {'planner': planner})
    return Planner(_with(prior, spec).dynamics, device=device)


def plan_seconds(
    prior: Prior,
    settings: dict[str, Any],
    rounds: int,
    device: str = 'cpu',
    clock: Callable[[], float] = time.thread_time,
) -> list[float]:
    """Seconds of each of many plans, one control period apart."""
    planner, belief = planner_of(prior, settings, device), some_belief(prior)
    x, past = _start(prior.dynamics.spec), prior.dynamics.history()
    seconds = []
    for n in range(rounds + 5):
        stamp = (n + 1) * prior.dynamics.spec.period_ns
        started = clock()
        planner.plan(belief, stamp, x, past)
        seconds.append(clock() - started)
    return seconds[5:]


def roll_seconds(prior: Prior, settings: dict[str, Any], rounds: int) -> list[float]:
    """Seconds of rolling all candidates out through all draws, without noise and costs."""
    planner, belief = planner_of(prior, settings), some_belief(prior)
    spec, rng = prior.dynamics.spec, np.random.default_rng(0)
    shape = (planner.settings.candidates, planner.settings.horizon, len(spec.action))
    actions = rng.uniform(spec.action_low, spec.action_high, shape).astype(np.float32)
    draws = planner.rollout.draws(belief, planner.settings.draws)
    x, past, seconds = _start(spec), prior.dynamics.history(), []
    for _ in range(rounds + 5):
        started = time.thread_time()
        planner.rollout.run_all(draws, x, actions, past)
        seconds.append(time.thread_time() - started)
    return seconds[5:]


def rollout_flops(prior: Prior, steps: int) -> float:
    """Multiplications and additions of matrices and vectors in so many steps of the model.

    Values and their tangents along a change of command go through two layers and a head.
    """
    trunk, (ds, nf) = prior.dynamics.trunk, prior.dynamics.nominal.shape
    di, width = trunk.w1.shape
    da = len(prior.dynamics.spec.action)
    values = di * width + width * width + nf * ds
    tangents = da * width + width * width + (width + da) * ds
    return 2.0 * (values + tangents) * steps


def product_rate(rows: int = 2048, width: int = WIDTH, rounds: int = ROUNDS) -> float:
    """Floating-point operations per second of a float32 matrix product of this width."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, width), np.float32)
    b = rng.standard_normal((width, width), np.float32)
    out, seconds, often = np.empty_like(a), [], 10
    for _ in range(rounds):
        started = time.thread_time()
        for _ in range(often):
            np.matmul(a, b, out=out)
        seconds.append(time.thread_time() - started)
    return 2.0 * rows * width**2 * often / float(np.median(seconds[2:]))


def some_belief(prior: Prior, seed: int = 0, draws: int = 16) -> Belief:
    """A Belief around the nominal plant, with actuators that are a little off."""
    rng, dynamics = np.random.default_rng(seed), prior.dynamics
    factor = rng.multivariate_normal(
        np.zeros(dynamics.size), prior.covariance, draws, method='eigh'
    )
    theta = dynamics.nominal_theta.copy()
    theta[dynamics.nominal.size :] += 0.02
    return Belief(
        1,
        1,
        theta.astype(np.float32),
        (0.1 * factor.T / np.sqrt(draws)).astype(np.float32),
        np.full(len(prior.noise), 0.01, np.float32),
        prior.noise.astype(np.float32),
        40.0,
        {'nominal': 1.0},
        'nominal',
        'learned',
    )


def _start(spec: RobotSpec) -> np.ndarray:
    return np.zeros(len(spec.state), np.float32)


def _with(prior: Prior, spec: RobotSpec) -> Prior:
    return replace(prior, dynamics=replace(prior.dynamics, spec=spec))


# ---------------------------------------------------------------------- against the simulator
class SimulatorPlanner:
    """MPPI through MuJoCo itself: the plant as it is, from a noisy reading, one thread."""

    def __init__(self, spec: RobotSpec, robot: MujocoRobot, seed: int) -> None:
        self.spec, self.robot = spec, robot
        self.cost, self.optimizer = Cost(spec), Mppi(spec)
        planner, normal = spec.planner, np.random.default_rng(seed).standard_normal
        taken = autoregressive(planner.horizon, planner.correlation)
        self.noise = Noise(taken, len(spec.action), lambda shape: normal(shape, np.float32))
        self._data = mujoco.MjData(robot.model)

    def plan(self, stamp_ns: int, x: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The command [da] for a reading x [ds]; plans are one control period apart."""
        settings = self.spec.planner
        self.optimizer.shift(1)
        target = self.cost.target(stamp_ns + self.spec.period_ns, settings.horizon)
        for round_ in range(settings.iterations):
            plans = self.optimizer.ask(self.noise, settings.candidates, round_)
            states = self.states(x, plans)
            self.optimizer.tell(plans, self.cost(states, plans, last.astype(np.float32), target))
        return self.optimizer.plan[0]

    def states(self, x: np.ndarray, plans: np.ndarray) -> np.ndarray:
        """States [n, h, ds] after each command of plans [n, h, da]."""
        robot, n = self.robot, len(plans)
        start = np.concatenate([[0.0], *robot.motion(np.asarray(x, float))])
        held = np.zeros((n, plans.shape[1] * robot.SUBSTEPS, robot.model.nu))
        held[..., : plans.shape[2]] = np.repeat(plans, robot.SUBSTEPS, axis=1)
        states, _ = rollout.rollout(robot.model, self._data, np.tile(start, (n, 1)), held)
        positions, speeds = np.split(
            states[:, robot.SUBSTEPS - 1 :: robot.SUBSTEPS, 1:], 2, axis=2
        )
        return robot.observed(positions, speeds).astype(np.float32)


def simulator_rows(
    priors: dict[str, Prior], seeds: Sequence[int], steps: int, status: Status
) -> list[dict[str, Any]]:
    """Closed loops of the shipped robots as built: through the model, and through MuJoCo."""
    rows, faster, scores = [], [], []
    for number, (name, prior) in enumerate(priors.items()):
        seconds: dict[str, list[float]] = {'model': [], 'MuJoCo': []}
        score: dict[str, list[float]] = {'model': [], 'MuJoCo': []}
        for seed in seeds:
            status(f'{name}: through the model and through MuJoCo', number / len(priors))
            for how in seconds:
                got, took = closed_loop(prior, seed, steps, how == 'MuJoCo')
                score[how].append(got)
                seconds[how] += took
        ms = {how: 1e3 * float(np.median(s)) for how, s in seconds.items()}
        mean = {how: float(np.mean(s)) for how, s in score.items()}
        faster.append(ms['MuJoCo'] / ms['model'])
        scores.append(mean['model'] / mean['MuJoCo'])
        rows += [
            row(f'{name}: plan through the model, median CPU', ms['model'], 'ms', 'lower', None),
            row(f'{name}: plan through MuJoCo, median CPU', ms['MuJoCo'], 'ms', 'lower', None),
            row(f'{name}: score through the model', mean['model'], '', 'higher', None),
            row(f'{name}: score through MuJoCo', mean['MuJoCo'], '', 'higher', None),
        ]
    what = f'same candidates, one core, {len(priors)} robots'
    return [
        row(
            f'planning faster than through MuJoCo itself, {what}, least',
            min(faster),
            '×',
            'higher',
            10.0,
            20.0,
        ),
        row(
            f'score / through MuJoCo itself, {what}, mean',
            float(np.mean(scores)),
            '',
            'higher',
            0.97,
        ),
        *rows,
    ]


def closed_loop(
    prior: Prior, seed: int, steps: int, through_mujoco: bool
) -> tuple[float, list[float]]:
    """Mean score, and seconds of processor per plan, of the robot as built."""
    spec = prior.dynamics.spec
    env = sim.make(spec.name, spec=spec, seed=seed)
    agent = Frozen(prior, seed)
    simulator = SimulatorPlanner(spec, sim.make(spec.name, spec=spec), seed)
    reading, info = env.reset(seed=seed)
    last, scores, seconds = spec.neutral, [], []
    for step in range(steps):
        stamp = info['stamp_ns']
        belief = agent.belief(step)
        started = time.thread_time()
        if through_mujoco:
            command = simulator.plan(stamp, reading, last)
        else:
            controller = agent.controller
            state = State(stamp, reading.astype(np.float32))
            command = controller.think(state, belief, controller.past).actions[0]
            controller.safety.check(command)
        seconds.append(time.thread_time() - started)
        last = command.astype(float)
        reading, score, _, _, info = env.step(last)
        scores.append(score)
    return float(np.mean(scores[START * steps // LIFE :])), seconds
