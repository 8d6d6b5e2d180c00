"""The prior of a robot of which nothing is known but its file: it learns from scratch.

Features are random (Rahimi and Recht, 2007): an exact Gaussian over their weights is a smooth
prior over functions. Nothing is predicted to change, but for what the file says is the derivative
of something, which integrates.
"""

from __future__ import annotations

import numpy as np

from ..dynamics.model import Dynamics, Prior
from ..dynamics.trunk import Encoder, Trunk
from ..robot.spec import Channel, RobotSpec
from .pretrain import PretrainConfig, covariance_of
from .settings import LearnerConfig

MARGIN = 4.0  # times as far and as fast as its goal a robot may move
FORCE = 10.0  # times as hard as that motion needs its actuators may push
PERIOD = 1.0  # seconds of a motion that no goal describes
SAMPLES = 2000  # random states and commands that features are scaled on
VARIANCE = 10.0  # of a prediction, in units of y: they are guesses
NOISE = 1.0  # standard deviation, in units of y
# The family is everything: life starts in the middle of it, and a walk through it would forget
# in seconds what it takes minutes to learn.
# Whoever knows nothing has no nominal plant to fall back on.
SCRATCH = LearnerConfig(confidence_home=1.0, random_walk=1e-6, guard_weight=0.0)


def broad_prior(spec: RobotSpec, config: PretrainConfig | None = None, seed: int = 0) -> Prior:
    """A prior from the robot file alone; for a learner with the settings `SCRATCH`.

    Args:
        spec: the robot; limits, goal and `derivative_of` give the sizes of its channels.
        config: width of the trunk and variances of the actuator's errors.
        seed: of the random features.
    """
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    size, scale = sizes(spec)
    encoder = Encoder.of(spec)
    x, u = operating_range(spec, rng, SAMPLES)
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
    isotropic = np.eye(nominal.size) * VARIANCE / trunk.size
    covariance, floor = covariance_of(isotropic, spec, nominal.shape, config)
    noise = np.full(len(size), NOISE**2)
    precision = {n: np.full(a.shape, 1.0) for n, a in arrays.items()}
    return Prior(Dynamics(spec, trunk, nominal, scale), covariance, floor, noise, precision)


def operating_range(
    spec: RobotSpec, rng: np.random.Generator, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """States [n, ds] and commands [n, da] all over where the robot file lets the robot go."""
    size = sizes(spec)[0]
    centre = np.array([_centre(spec, c) for c in spec.state])
    x = centre + size * rng.uniform(-1, 1, (n, len(size)))
    return x, rng.uniform(spec.action_low, spec.action_high, (n, len(spec.action)))


def sizes(spec: RobotSpec) -> tuple[np.ndarray, np.ndarray]:
    """How far channels go from their centre [ds], and how far within one control step [ds].

    A channel moves like its goal's wave, but `MARGIN` times as far; without one, by half the range
    of its limits, or 1 of its unit, within `PERIOD`. Speeds are those of such motions; actuators
    change what no other channel is the derivative of by up to `FORCE` times as much as they need.
    """
    rated = {c.derivative_of for c in spec.state}
    size, step = [], []
    for channel in spec.state:
        moved, order = channel, 0
        while moved.derivative_of is not None and order < len(spec.state):
            moved, order = spec.state[spec.state_names.index(moved.derivative_of)], order + 1
        wave = spec.goal.track.get(moved.name)
        if wave is not None and wave.amplitude:
            far, period = abs(wave.amplitude), wave.period
        else:
            bounded = moved.low is not None and moved.high is not None
            far, period = (moved.high - moved.low) / 2 if bounded else 1.0, PERIOD
        omega = 2 * np.pi / period
        size.append(MARGIN * far * omega**order)
        step.append((1 if channel.name in rated else FORCE) * size[-1] * omega * spec.period)
    return np.array(size), np.array(step)


def _centre(spec: RobotSpec, channel: Channel) -> float:
    if channel.low is not None and channel.high is not None:
        return (channel.high + channel.low) / 2
    wave = spec.goal.track.get(channel.name)
    return 0.0 if wave is None else wave.center
