"""Pre-training from recordings of a real robot, where there is no simulator.

Stretches of the recordings play the part of the random regimes of a simulation: whatever the robot
went through while it was recorded is the task family.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dynamics.model import Dynamics, Prior
from ..errors import UserError
from ..robot.spec import RobotSpec
from .broad import broad_covariance
from .pretrain import Data, PretrainConfig, Progress, covariance_of, ridge, train_trunk


def pretrain_recorded(
    segments: Sequence[Data],
    spec: RobotSpec,
    config: PretrainConfig | None = None,
    seed: int = 0,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """Fit trunk, nominal head, task-family covariance and sensor noise to recorded transitions.

    The nominal head is that of all segments together. Fewer than `config.segments` segments show
    no family: its covariance is the broad one then.

    Args:
        segments: of `segmented`.
        spec: the robot.
        config: settings.
        seed: of all random streams.
        progress: called with the share done in [0, 1] and what is going on.

    Raises:
        UserError: a channel or a command never changes.
    """
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    progress(0.0, 'sorting the recording')
    everything = _join(segments)
    _check_variety(everything, spec)
    longest = max(len(s.x) for s in segments)
    equal = [_rows(s, np.resize(rng.permutation(len(s.x)), longest)) for s in segments]
    trunk, scale, precision = train_trunk(equal, everything, spec, config, seed, progress)

    progress(0.85, 'fitting the task family')

    def regression(data: Data) -> tuple[np.ndarray, np.ndarray]:
        return trunk.features(data.x, data.u), spec.wrap(data.x_next - data.x) / scale

    w0 = ridge(*regression(everything), 1e-2)
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
        covariance, floor = broad_covariance(spec, w0.shape, config, 1.0)
    else:
        heads = np.array(deviations)
        covariance, floor = covariance_of(heads.T @ heads / len(heads), spec, w0.shape, config)
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


def _check_variety(data: Data, spec: RobotSpec) -> None:
    for kind, names, values in (
        ('channel', spec.state_names, data.x),
        ('command', spec.action_names, data.u),
    ):
        still = [n for n, v in zip(names, values.T, strict=True) if np.ptp(v) == 0]
        if still:
            raise UserError(
                f'{kind} {", ".join(still)} never changes in the recording; record the robot '
                'while all of it moves, or take it out of the robot file'
            )


def _join(parts: Sequence[Data]) -> Data:
    columns = zip(*((p.x, p.u, p.x_next) for p in parts), strict=True)
    return Data(*(np.concatenate(c) for c in columns))


def _rows(data: Data, rows: np.ndarray) -> Data:
    return Data(data.x[rows], data.u[rows], data.x_next[rows])
