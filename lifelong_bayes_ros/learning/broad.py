"""The prior of a robot of which nothing is known but its file: it learns from scratch.

Features are random (Rahimi and Recht, 2007): an exact Gaussian over their weights is a smooth prior
over functions. Nothing is predicted to change, but for what the file says is the derivative of
something, which integrates.
"""

from __future__ import annotations

import numpy as np

from ..dynamics.model import Dynamics, Prior
from ..dynamics.trunk import Encoder, Trunk
from ..robot.spec import Channel, RobotSpec
from .learner import LearnerConfig
from .pretrain import PretrainConfig, covariance_of

SECONDS = 0.3  # in which a command or a speed takes a channel through its typical size
SAMPLES = 2000  # random states and commands that features are scaled on
VARIANCE = 1.0  # of a prediction, in units of y
NOISE = 0.1  # standard deviation, in units of y
# The family is everything: life starts in the middle of it, and a walk through it would forget
# in seconds what it takes minutes to learn.
SCRATCH = LearnerConfig(confidence_home=1.0, random_walk=1e-6)


def broad_prior(spec: RobotSpec, config: PretrainConfig | None = None, seed: int = 0) -> Prior:
    """A prior from the robot file alone; for a learner with the settings `SCRATCH`.

    Args:
        spec: the robot; limits, goal and `derivative_of` give the sizes of its channels.
        config: width of the trunk and variances of the actuator's errors.
        seed: of the random features.
    """
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    size = np.array([typical_size(spec, c) for c in spec.state])
    centre = np.array([_centre(spec, c) for c in spec.state])
    scale = size * spec.period / SECONDS
    encoder = Encoder.of(spec)
    x = centre + size * rng.uniform(-1, 1, (SAMPLES, len(size)))
    u = rng.uniform(spec.action_low, spec.action_high, (SAMPLES, len(spec.action)))
    inputs = encoder(x, u)
    di, h = inputs.shape[1], config.width

    def weight(*shape: int, fan: int) -> np.ndarray:
        return rng.standard_normal(shape) / np.sqrt(fan)

    arrays = {
        'w1': weight(di, h, fan=di),
        'b1': weight(h, fan=1),
        'w2': weight(h, h, fan=h),
        'b2': weight(h, fan=1),
    }
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    trunk = Trunk(encoder, mean, std, **arrays, whiten=np.eye(h + di + 1))
    raw = trunk.raw(x, u)
    # Not decorrelated: weights along what hardly varies must not count as much as the others.
    whiten = np.diag(1 / np.sqrt(np.mean(np.square(raw), axis=0)))
    trunk = Trunk(encoder, mean, std, **arrays, whiten=whiten)
    nominal = np.zeros((len(size), trunk.size))
    for rate, channel in enumerate(spec.state):
        if channel.derivative_of is not None and rate in encoder.values:
            of = spec.state_names.index(channel.derivative_of)
            at = list(encoder.values).index(rate)
            column = h + at
            unit = spec.period / scale[of]
            nominal[of, column] += unit * std[at] / whiten[column, column]
            nominal[of, -1] += unit * mean[at] / whiten[-1, -1]
    covariance, floor = broad_covariance(spec, nominal.shape, config)
    noise = np.full(len(size), NOISE**2)
    precision = {n: np.full(a.shape, 1.0) for n, a in arrays.items()}
    return Prior(Dynamics(spec, trunk, nominal, scale), covariance, floor, noise, precision)


def broad_covariance(
    spec: RobotSpec, shape: tuple[int, int], config: PretrainConfig
) -> tuple[np.ndarray, np.ndarray]:
    """P₀ [n, n] and its floor [n] where no family is known, for a head of `shape` [ds, nf]."""
    ds, nf = shape
    return covariance_of(np.eye(ds * nf) * VARIANCE / nf, spec, shape, config)


def typical_size(spec: RobotSpec, channel: Channel) -> float:
    """About how far a channel goes from its centre, in its own unit.

    It is half the range of its limits, 1 rad for an angle, or the amplitude of its goal; that of
    a derivative is once through what it is the derivative of in `SECONDS`. Otherwise 1.
    """
    if channel.low is not None and channel.high is not None:
        return (channel.high - channel.low) / 2
    if channel.encode == 'angle':
        return 1.0
    wave = spec.goal.track.get(channel.name)
    if wave is not None and wave.amplitude:
        return abs(wave.amplitude)
    if channel.derivative_of not in (None, channel.name):
        of = spec.state[spec.state_names.index(channel.derivative_of)]
        if of.derivative_of is None:
            return typical_size(spec, of)
    return 1.0


def _centre(spec: RobotSpec, channel: Channel) -> float:
    if channel.low is not None and channel.high is not None:
        return (channel.high + channel.low) / 2
    wave = spec.goal.track.get(channel.name)
    return 0.0 if wave is None else wave.center
