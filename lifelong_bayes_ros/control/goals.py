"""Goals: what the robot's channels shall do from now on, as references over time.

Times are those of the robot's states, nanoseconds. A goal that cannot be followed raises
`UserError` when it is made; a goal that exists can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UserError
from ..robot.limits import CREDIBLE, beyond, rate_of
from ..robot.spec import RobotSpec

LONGEST = 1e9  # s that a path may take: stamps are 64 bits of nanoseconds


class Goal(ABC):
    """References of named channels. `weights` [ds] is what the square of their errors costs."""

    def __init__(self, spec: RobotSpec, weights: Mapping[str, float]) -> None:
        """`weights` by channel; their derivatives weigh what the robot file's `cost.rate` says."""
        self.spec = spec
        self.channels = tuple(weights)
        self._columns = spec.index(list(weights))
        rates = [(c, rate_of(spec, c)) for c in self.channels]
        self._rates = [
            (spec.state_names.index(rate.name), i, spec.cost.rate[c])
            for i, (c, rate) in enumerate(rates)
            if rate is not None and rate.name not in weights and c in spec.cost.rate
        ]
        self.weights = np.zeros(len(spec.state))
        self.weights[self._columns] = list(weights.values())
        for channel, _, weight in self._rates:
            self.weights[channel] += weight

    @abstractmethod
    def reference(self, stamp_ns: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """References of `channels` and their time derivatives, each [steps, len(channels)].

        Rows are one control period apart, the first one at `stamp_ns`.
        """

    def target(self, stamp_ns: int, steps: int) -> np.ndarray:
        """Target states [steps, ds]; channels without a reference are zero and weigh nothing."""
        value, rate = self.reference(stamp_ns, steps)
        target = np.zeros((steps, len(self.spec.state)))
        target[:, self._columns] = value
        for channel, column, _ in self._rates:
            target[:, channel] = rate[:, column]
        return target


class FileGoal(Goal):
    """The periodic goal of the robot file."""

    def __init__(self, spec: RobotSpec) -> None:
        super().__init__(spec, {c: spec.cost.track.get(c, 0.0) for c in spec.goal.track})

    def reference(self, stamp_ns: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        return self.spec.reference(stamp_ns, steps)


class Trajectory(Goal):
    """Points in time, and then the last one for good: reach, hold and follow are all this.

    Between two points the reference is a straight line or, where rates are given, the cubic
    through both points with their rates. Before the first point, its place is held. Angles turn
    the shorter way.
    """

    def __init__(
        self,
        spec: RobotSpec,
        weights: Mapping[str, float],
        times_ns: Sequence[int],
        values: np.ndarray,
        rates: np.ndarray | None = None,
        now_ns: int = 0,
    ) -> None:
        """Check and take a trajectory.

        Args:
            spec: the robot.
            weights: cost weight of each channel, in the order of the columns.
            times_ns: time of each point [k].
            values: references [k, n].
            rates: their time derivatives [k, n].
            now_ns: time of the newest state.

        Raises:
            UserError: of the wrong length, not finite, not in the order of time, over already, or
                beyond the limits or chance constraints of the robot's channels.
        """
        super().__init__(spec, weights)
        shape = (len(times_ns), len(self.channels))
        self._values = _numbers('positions', values, shape)
        self._given = rates is not None
        self._slopes = _numbers('velocities', rates, shape) if self._given else np.zeros(shape)
        steps = np.diff(np.array(times_ns, dtype=object))
        if not len(times_ns):
            raise UserError('goal: it has no points; give at least one')
        if any(step <= 0 for step in steps):
            raise UserError('goal: times must increase from point to point; put them in order')
        if times_ns[-1] < now_ns:
            late = (now_ns - times_ns[-1]) * 1e-9
            raise UserError(f"goal: it ended {late:.3f} s ago; stamp it with the robot's time")
        self._start_ns = times_ns[0]
        self._times = np.array([(t - self._start_ns) * 1e-9 for t in times_ns])
        angles = spec.angles[self._columns]
        self._values[:, angles] = np.unwrap(self._values[:, angles], axis=0)
        self._check_reach()

    def reference(self, stamp_ns: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        start = (stamp_ns - self._start_ns) * 1e-9
        return self._at(start + np.arange(steps) * self.spec.period)

    def _at(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(self._times) == 1:
            value = np.repeat(self._values, len(t), axis=0)
            return value, np.zeros_like(value)
        i = np.clip(np.searchsorted(self._times, t, side='right') - 1, 0, len(self._times) - 2)
        span = (self._times[i + 1] - self._times[i])[:, None]
        s = np.clip((t - self._times[i])[:, None] / span, 0.0, 1.0)
        a, b = self._values[i], self._values[i + 1]
        moving = ((t >= 0) & (t < self._times[-1]))[:, None]
        if not self._given:
            return a + s * (b - a), np.where(moving, (b - a) / span, 0.0)
        p, q = self._slopes[i] * span, self._slopes[i + 1] * span
        c, d = 3 * (b - a) - 2 * p - q, 2 * (a - b) + p + q
        value = a + s * (p + s * (c + s * d))
        return value, np.where(moving, (p + s * (2 * c + 3 * s * d)) / span, 0.0)

    def _check_reach(self) -> None:
        """Extremes of places and speeds, between the points too."""
        with np.errstate(all='ignore'):  # numbers of any size may come
            value, rate = self._at(self._extreme_times())
        for column, name in enumerate(self.channels):
            channel = self.spec.state[self._columns[column]]
            speed = rate_of(self.spec, name)
            seen = value[:, column]
            if channel.wraps and np.abs(seen).max() <= CREDIBLE:
                seen = np.pi - np.mod(np.pi - seen, 2 * np.pi)
            least, most = float(seen.min()), float(seen.max())
            fault = beyond(channel, least, most, self.spec.cost.chance.get(name))
            fastest = float(rate[:, column].min()), float(rate[:, column].max())
            if not fault and speed is not None:
                fault = beyond(speed, *fastest, self.spec.cost.chance.get(speed.name))
            elif not fault and not np.abs(fastest).max() <= CREDIBLE:
                fault = f'it would go at {fastest[0]:g} to {fastest[1]:g} per second'
            if fault:
                raise UserError(f'goal: {name} is out of reach: {fault}; stay within the limits')

    def _extreme_times(self) -> np.ndarray:
        """Times at which any channel is farthest or fastest: ends and extremes of the pieces."""
        times = [self._times, self._times - 1e-9]  # speeds jump at the points
        if self._given and len(self._times) > 1:
            span = np.diff(self._times)[:, None]
            a, b = self._values[:-1], self._values[1:]
            p, q = self._slopes[:-1] * span, self._slopes[1:] * span
            c, d = 3 * (b - a) - 2 * p - q, 2 * (a - b) + p + q
            with np.errstate(divide='ignore', invalid='ignore'):
                root = np.sqrt(np.maximum(c * c - 3 * d * p, 0.0))
                turns = [(-c + root) / (3 * d), (-c - root) / (3 * d), -p / (2 * c), -c / (3 * d)]
            for s in turns:
                s = np.where(np.isfinite(s) & (s > 0) & (s < 1), s, 0.0)
                times.append((self._times[:-1, None] + s * span).ravel())
        return np.unique(np.maximum(np.concatenate(times), 0.0))


class Velocity(Goal):
    """Constant velocities until `until_ns`, then standing still."""

    def __init__(
        self, spec: RobotSpec, weights: Mapping[str, float], values: np.ndarray, until_ns: int
    ) -> None:
        """Check and take velocities [n] in the order of `weights`.

        Raises:
            UserError: of the wrong length, not finite, or beyond limits or chance constraints.
        """
        super().__init__(spec, weights)
        self._values = _numbers('velocities', values, (len(self.channels),))
        self._until_ns = until_ns
        for column, value in zip(self._columns, self._values, strict=True):
            channel, value = spec.state[column], float(value)
            fault = beyond(channel, value, value, spec.cost.chance.get(channel.name))
            if fault:
                raise UserError(f'goal: out of reach: {fault}; stay within the limits')

    def reference(self, stamp_ns: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        left = (self._until_ns - stamp_ns) * 1e-9 - np.arange(steps) * self.spec.period
        value = np.where(left[:, None] > 0, self._values, 0.0)
        return value, np.zeros_like(value)


def along_path(
    spec: RobotSpec, weights: Mapping[str, float], values: np.ndarray, speed: float, now_ns: int
) -> Trajectory:
    """A path [k, n] followed from `now_ns` on at a speed, measured in its unwrapped positions.

    Raises:
        UserError: as `Trajectory`.
    """
    shape = (len(values), len(weights))
    values = _numbers('poses', values, shape)
    places = ~spec.angles[spec.index(list(weights))]
    with np.errstate(over='ignore'):
        lengths = np.linalg.norm(np.diff(values[:, places], axis=0), axis=1)
    kept = np.concatenate([[True], lengths > 1e-9])[: len(values)]  # points in one place are one
    reached = np.concatenate([[0.0], np.cumsum(lengths)])[: len(values)][kept] / speed
    if len(reached) and not reached[-1] <= LONGEST:
        raise UserError(
            f'goal: out of reach: at speed {speed:g} the path would take {reached[-1]:g} s; give '
            'a shorter one'
        )
    times = [now_ns + round(t * 1e9) for t in reached]
    return Trajectory(spec, weights, times, values[kept], now_ns=now_ns)


def _numbers(what: str, values: object, shape: tuple[int, ...]) -> np.ndarray:
    try:
        numbers = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise UserError(f'goal: {what} are not a table of numbers; give {shape}') from None
    if numbers.size == 0 and 0 in shape:
        numbers = numbers.reshape(shape)
    if numbers.shape != shape:
        raise UserError(f'goal: {what} have the shape {numbers.shape}, expected {shape}')
    if not np.isfinite(numbers).all():
        raise UserError(f'goal: {what} are not finite; send numbers')
    return numbers
