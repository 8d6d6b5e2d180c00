"""Pre-training from recordings of a real robot, where there is no simulator.

Stretches of the recordings play the part of the random regimes of a simulation: whatever the robot
went through while it was recorded is the task family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..dynamics.model import Dynamics, Prior
from ..errors import UserError
from ..robot.spec import RobotSpec
from .broad import operating_range, sizes
from .pretrain import Data, PretrainConfig, Progress, covariance_of, ridge, train_trunk

VARIANCE = 1.0  # of a prediction, in units of y, that no segment needs to have shown
WEIGHT = 0.1  # of a transition: neighbours tell much the same, and feedback hides causes
ENOUGH = 38_400  # transitions of a recording that get all training steps
LEAST_STEPS = 1 / 8  # share of them that the smallest recording gets
STILL = 1e-5  # of what the robot file lets a channel do; what varies less teaches nothing
ROUNDING = float(np.finfo(np.float32).eps)  # of a reading on its topic, relative
WILD = 10.0  # times as far from the median as nearly all readings; beyond, it is no motion
MOST = (0.1, 0.5, 0.9)  # quantiles: nearly all readings lie between, however wild the others are


def pretrain_recorded(
    segments: Sequence[Data],
    spec: RobotSpec,
    config: PretrainConfig | None = None,
    seed: int = 0,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """Fit trunk, nominal head, task-family covariance and sensor noise to recorded transitions.

    The nominal head is that of all segments together. To the covariance of the segments' heads
    comes what the recording leaves open of a broad one. Fewer than `config.segments` segments show
    no family: the broad one is all there is then. For a learner with the settings `broad.SCRATCH`.

    Args:
        segments: of `segmented`.
        spec: the robot.
        config: settings.
        seed: of all random streams.
        progress: called with the share done in [0, 1] and what is going on.

    Raises:
        UserError: a channel or a command never changes, or by the same amount in every step.
    """
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    progress(0.0, 'sorting the recording')
    everything = _join(segments)
    _check_variety(everything, spec)
    longest = max(len(s.x) for s in segments)
    equal = [_rows(s, np.resize(rng.permutation(len(s.x)), longest)) for s in segments]
    # A robot at its task sees little of where it may go. Features whitened there alone would
    # explode elsewhere, and passes without end over little data would bend them.
    wide = operating_range(spec, rng, len(everything.x))
    home = tuple(np.concatenate(p) for p in zip((everything.x, everything.u), wide, strict=True))
    share = float(np.clip(len(everything.x) / ENOUGH, LEAST_STEPS, 1))
    steps = round(config.steps * share)
    config = replace(config, steps=steps)
    trunk, scale, precision = train_trunk(equal, home, spec, config, seed, progress)

    progress(0.85, 'fitting the task family')

    def regression(data: Data) -> tuple[np.ndarray, np.ndarray]:
        return trunk.features(data.x, data.u), spec.wrap(data.x_next - data.x) / scale

    w0 = ridge(*regression(everything), 1.0)
    deviations, errors = [], []
    for segment in segments:
        phi, y = regression(segment)
        left = y - phi @ w0.T
        deviations.append(ridge(phi, left, 1.0).ravel())
        # Noise is what a segment's own head leaves over, so that regimes do not pass for noise.
        held = np.arange(len(y)) % 10 == 9
        own = ridge(phi[~held], left[~held], 1.0)
        errors.append(np.mean(np.square(left[held] - phi[held] @ own.T), axis=0))
    noise = np.median(errors, axis=0)  # the robot changed within some segments
    if len(segments) < config.segments:
        family = np.eye(w0.size) * VARIANCE / trunk.size
    else:
        heads = np.array(deviations)
        weight = WEIGHT / len(segments)  # the segments do not agree: they count as one
        left_open = _unseen(regression(everything)[0] * weight**0.5, noise)
        family = heads.T @ heads / len(heads) + left_open
    covariance, floor = covariance_of(family, spec, w0.shape, config)
    progress(1.0, 'done')
    return Prior(Dynamics(spec, trunk, w0, scale), covariance, floor, noise, precision)


def segmented(stretches: Sequence[Data], least: int) -> list[Data]:
    """Segments of at least `least` transitions, of stretches without a break, in time order.

    Long stretches are cut into equal parts, for the robot may change within; short ones are joined
    with those after them, or, at the end, with what came before. Empty if all are too short.
    """
    segments: list[Data] = []
    waiting: list[Data] = []
    for stretch in stretches:
        waiting.append(stretch)
        count = sum(len(s.x) for s in waiting)
        if count >= least:
            joined, waiting = _join(waiting), []
            parts = np.array_split(np.arange(count), count // least)
            segments += [_rows(joined, part) for part in parts]
    if waiting and segments:
        segments[-1] = _join([segments[-1], *waiting])
    return segments


def without_wild(stretches: Sequence[Data], spec: RobotSpec) -> list[Data]:
    """The same without the transitions of which a reading, or its change, is out of all range.

    Standard deviations would not tell, for a wild reading makes them large. What the robot file
    lets a channel do is the least range, for a robot may be at rest most of the time.
    """
    if not stretches:
        return []
    size, step = sizes(spec)
    values = [np.hstack([s.x, s.x_next, spec.wrap(s.x_next - s.x)]) for s in stretches]
    low, middle, high = np.quantile(np.concatenate(values), MOST, axis=0)
    reach = np.maximum(high - middle, middle - low)
    reach = WILD * np.maximum(reach, np.concatenate([size, size, step]))
    near = [(np.abs(v - middle) <= reach).all(axis=1) for v in values]
    return [_rows(s, kept) for s, kept in zip(stretches, near, strict=True)]


def _unseen(phi: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Covariance [ds·nf, ds·nf] of the broad prior after features φ [n, nf]: what they left open.

    `noise` is the variance of each output [ds].
    """
    nf, ds = phi.shape[1], len(noise)
    values, vectors = np.linalg.eigh(phi.T @ phi)
    covariance = np.zeros((ds, nf, ds, nf))
    for j, variance in enumerate(noise):
        left = 1 / (values / variance + nf / VARIANCE)
        covariance[j, :, j] = (vectors * left) @ vectors.T
    return covariance.reshape(ds * nf, ds * nf)


def _check_variety(data: Data, spec: RobotSpec) -> None:
    size, step = sizes(spec)
    change = spec.wrap(data.x_next - data.x)
    rounding = ROUNDING * np.abs(data.x).max(axis=0)
    never = 'never changes in'
    same = 'changes by the same amount, or not at all, in every step of'
    for kind, names, values, least, what in (
        ('channel', spec.state_names, data.x, STILL * size, never),
        ('command', spec.action_names, data.u, STILL * spec.action_half_range, never),
        # The unit of what is predicted is its standard deviation.
        ('channel', spec.state_names, change, np.maximum(STILL * step, rounding), same),
    ):
        still = [n for n, s in zip(names, values.std(axis=0) <= least, strict=True) if s]
        if still:
            raise UserError(
                f'{kind} {", ".join(still)} {what} the recording; record the robot while all of '
                'it moves, or take it out of the robot file'
            )


def _join(parts: Sequence[Data]) -> Data:
    columns = zip(*((p.x, p.u, p.x_next) for p in parts), strict=True)
    return Data(*(np.concatenate(c) for c in columns))


def _rows(data: Data, rows: np.ndarray) -> Data:
    return Data(data.x[rows], data.u[rows], data.x_next[rows])
