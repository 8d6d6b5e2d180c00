"""What the tests of the core share: a small prior, streams of steps, and plants linear in θ."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.dynamics.head import Head
from lifelong_bayes_ros.dynamics.model import DELAYS, Dynamics, Prior
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.dynamics.trunk import Encoder, Trunk
from lifelong_bayes_ros.learning.pretrain import PretrainConfig, pretrain
from lifelong_bayes_ros.memory.reservoir import Sample
from lifelong_bayes_ros.robot.spec import load_robot
from lifelong_bayes_ros.robot.transitions import Flag, Transition

QUAD = load_robot('quad')
HOME = []
LOSS = [{'actuator_gain': {'actuator': 'left', 'factor': 0.5}}]
SMALL = PretrainConfig(
    width=16,
    regimes=8,
    per_regime=150,
    nominal=1500,
    steps=300,
    family=12,
    per_family=150,
    per_hypothesis=100,
)


@cache
def tiny_prior() -> Prior:
    """A prior of the quadrotor, pre-trained in two seconds."""
    return pretrain(sim.make('quad'), QUAD, SMALL)


def stream(shifts: list[dict], steps: int, seed: int, first: int = 0) -> list[Transition]:
    """Noisy single steps of the shifted quadrotor from random states, with no delay."""
    plant = sim.make('quad')
    plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
    rng = np.random.default_rng(seed)
    x = plant.sample_states(rng, steps)
    u = plant.sample_actions(rng, steps).astype(np.float32)
    x_next = plant.one_step(x, u.astype(float), np.repeat(u[:, None], DELAYS, axis=1))
    x, x_next = (
        QUAD.wrap(a + plant.sensor_noise * rng.standard_normal(a.shape)).astype(np.float32)
        for a in (x, x_next)
    )
    return [
        Transition(x[i], u[i], x_next[i], 0.03, (n + 1) * QUAD.period_ns, Flag(0), n, 0)
        for i, n in enumerate(range(first, first + steps))
    ]


def random_dynamics(robot: str = 'quad', width: int = 4, seed: int = 0) -> Dynamics:
    """A robot's dynamics with random weights."""
    spec, rng = load_robot(robot), np.random.default_rng(seed)
    encoder = Encoder.of(spec)
    di = len(encoder.values) + 2 * len(encoder.angles) + len(spec.action)
    size = width + di + 1
    trunk = Trunk(
        encoder,
        mean=rng.normal(size=di),
        scale=rng.uniform(0.5, 5.0, di),
        w1=rng.normal(size=(di, width)),
        b1=rng.normal(size=width),
        w2=0.3 * rng.normal(size=(width, width)),
        b2=rng.normal(size=width),
        whiten=np.eye(size) + 0.1 * np.triu(rng.normal(size=(size, size))),
    )
    ds = len(spec.state)
    return Dynamics(spec, trunk, rng.normal(size=(ds, size)), rng.uniform(0.1, 0.5, ds))


def random_step(dynamics: Dynamics, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A random state, command and past commands, in the float32 that a topic carries."""
    spec = dynamics.spec
    x = rng.normal(size=len(spec.state))
    u, *past = rng.uniform(spec.action_low, spec.action_high, (1 + DELAYS, len(spec.action)))
    return tuple(np.float32(a).astype(float) for a in (x, u, np.array(past)))


def linear_samples(
    dynamics: Dynamics, theta: np.ndarray, noise: np.ndarray, seed: int
) -> Iterator[Sample]:
    """Endless steps of the plant whose parameters are θ."""
    rng = np.random.default_rng(seed)
    for stamp in range(10**9):
        x, u, past = random_step(dynamics, rng)
        y = dynamics.design(x, u, past) @ theta + np.sqrt(noise) * rng.standard_normal(len(noise))
        yield Sample(x, u, past, dynamics.spec.wrap(x + dynamics.scale * y), stamp, 0)


def observe(dynamics: Dynamics, head: Head, sample: Sample, fixed: Noise | None = None) -> Head:
    """The head after one sample; with `fixed`, its noise does not learn."""
    design = torch.tensor(dynamics.design(sample.x, sample.u, sample.past))
    target = dynamics.target(sample.x, sample.x_next)
    head = head.update(head.predict(design, target))
    return head if fixed is None else head.replace(noise=fixed)


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    """From numpy."""
    return Gaussian(torch.tensor(mean), torch.tensor(covariance))
