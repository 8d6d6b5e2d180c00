"""Sensor readings aligned into states, states and commands paired into transitions.

Everything downstream sees float32 values and integer nanosecond stamps, exactly what the
`transition` topic carries, so a run through ROS, a run without it and a replayed bag agree bit
for bit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from ..errors import UserError
from .outcomes import Labels
from .spec import RobotSpec


class Flag(IntFlag):
    """Why a transition is not learned from, or what ends with it."""

    FIRST = 1  # nothing came before `next_state`: `state` repeats it
    GAP = 2  # dt is not within [0.5, 1.5] control periods, or `state` is not whole
    NO_ACTION = 4  # no command was in force during the step
    EPISODE_END = 8  # last transition of its episode; does not make it unusable


LEAST_PERIODS, MOST_PERIODS = 0.5, 1.5  # that a step may take
ROUNDING = 1e-6  # of float32, in periods
UNUSABLE = Flag.FIRST | Flag.GAP | Flag.NO_ACTION


@dataclass(frozen=True)
class State:
    """Robot state x [ds] (float32, angles wrapped) at `stamp_ns`.

    `whole` is false where a difference is not known yet, because nothing came before: it is zero.
    """

    stamp_ns: int
    x: np.ndarray
    whole: bool = True


@dataclass(frozen=True)
class Transition:
    """One step: `state` [ds], `action` [da] applied from then on, `next_state` [ds], float32.

    `stamp_ns` is the time of `next_state`; `dt` in seconds; `sequence` counts all transitions
    sent, so a receiver can tell how many were lost. `outcomes` holds a label for each outcome of
    the robot file, in its order, see `robot.outcomes`.
    """

    state: np.ndarray
    action: np.ndarray
    next_state: np.ndarray
    dt: float
    stamp_ns: int
    flags: Flag
    sequence: int
    episode: int
    outcomes: tuple[float, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it tells something about the dynamics."""
        return not self.flags & UNUSABLE

    def timely(self, period: float) -> bool:
        """Whether it took about one control period, s."""
        periods = self.dt / period
        return LEAST_PERIODS - ROUNDING <= periods <= MOST_PERIODS + ROUNDING

    @property
    def ends_episode(self) -> bool:
        """Whether its episode ends with it."""
        return bool(self.flags & Flag.EPISODE_END)


class StateAssembler:
    """Newest reading of every source, aligned into states at the control rate.

    A state is complete when every source has a reading within `slop` of the newest one. Readings
    that arrive faster than the control rate are thinned by their stamps. Readings without a stamp
    are held beside those that have one, for `max_age`. What is skipped is counted in `skipped` by
    reason.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.skipped: Counter[str] = Counter()
        self._names = {s: [c.name for c in spec.state if c.source == s] for s in spec.sources}
        self._timed = spec.stamped or list(spec.sources)  # sources that set the time
        self.reset()

    def reset(self) -> None:
        """Forget all readings, e.g. after time ran backwards."""
        self._stamps: dict[str, int] = {}
        self._values: dict[str, float] = {}
        self._before: tuple[int, np.ndarray] | None = None  # stamp and values of the last state
        self.last: State | None = None

    def update(self, source: str, stamp_ns: int, values: Mapping[str, float]) -> State | None:
        """Take one reading; returns a new state when it completes one.

        Args:
            source: name of the source in the robot file.
            stamp_ns: header stamp, nanoseconds; of arrival, where the message has none.
            values: value of each channel of that source.

        Raises:
            UserError: a channel of the source is missing.
        """
        names = self._names[source]
        missing = [n for n in names if n not in values]
        if missing:
            raise UserError(f'source {source}: no value for {missing}; got {sorted(values)}')
        if source not in self._timed:
            stamp_ns = max((self._stamps[s] for s in self._timed if s in self._stamps), default=-1)
            if stamp_ns < 0:  # not before there is a time
                return None
        previous = self._stamps.get(source)
        if previous is not None and stamp_ns < previous:
            self.skipped['time ran backwards'] += 1
            self.reset()
        elif stamp_ns == previous and source in self._timed:
            self.skipped['repeated stamp'] += 1
            return None
        if not all(np.isfinite(values[n]) for n in names):
            self.skipped['not finite'] += 1
            return None
        self._stamps[source] = stamp_ns
        self._values.update({n: values[n] for n in names})
        if len(self._stamps) < len(self._names) or source not in self._timed:
            return None
        return self._complete()

    def _complete(self) -> State | None:
        timed = [self._stamps[s] for s in self._timed]
        newest = max(timed)
        longest = max(self.spec.max_age, self.spec.slop) * 1e9
        old = newest - min(self._stamps.values()) > longest
        if old or newest - min(timed) > self.spec.slop * 1e9:
            self.skipped['sources apart in time'] += 1
            return None
        if self.last is not None and newest - self.last.stamp_ns < 0.75 * self.spec.period_ns:
            return None
        x = self.spec.wrap(np.array([self._values.get(n, 0.0) for n in self.spec.state_names]))
        whole = self._differ(x, newest)
        self.last = State(newest, x.astype(np.float32), whole)
        self._before = newest, x
        return self.last

    def _differ(self, x: np.ndarray, stamp_ns: int) -> bool:
        """Fill in the differences of a state [ds]; returns whether they are known."""
        if not self.spec.differences or self._before is None:
            return not self.spec.differences
        stamp_before, x_before = self._before
        seconds = (stamp_ns - stamp_before) * 1e-9
        if seconds > 1.5 * self.spec.period:  # their mean would be old
            return False
        change = self.spec.wrap(x - x_before)
        for i, position in self.spec.differences:
            x[i] = change[position] / seconds
        return True


class TransitionBuilder:
    """Pairs consecutive states with the command in force between them.

    Commands carry the stamp of the state they answer. A command that answers a state may arrive
    after the next state; the pair waits for it up to the robot file's `max_age` of state time and
    then falls back on the command still in force.
    """

    def __init__(self, spec: RobotSpec, episode_length: int = 0) -> None:
        """`episode_length` transitions end an episode by themselves; 0 leaves that to callers."""
        self.spec = spec
        self.episode_length = episode_length
        self.episode = 0
        self.sequence = 0
        self.labels = Labels(spec)  # to be given readings
        self._in_episode = 0
        self._end_requested = False
        # Where stamps are times of arrival, those of a state here and at who answers it differ.
        self._tolerance_ns = 0 if spec.stamped else spec.period_ns // 4
        self._states: deque[State] = deque()
        self._commands: deque[tuple[int, np.ndarray]] = deque()

    def add_state(self, state: State) -> list[Transition]:
        """Take the next state; returns the transitions that became complete."""
        if not self._states or state.stamp_ns <= self._states[-1].stamp_ns:
            if self._states:  # time ran backwards
                self._states.clear()
                self._commands.clear()
            self._states.append(state)
            nothing = np.zeros(len(self.spec.action), np.float32)
            return [self._emit(state, nothing, state, Flag.FIRST)]
        self._states.append(state)
        return self._complete()

    def add_command(self, stamp_ns: int, action: np.ndarray) -> list[Transition]:
        """Take the command [da] that answers the state of `stamp_ns`."""
        if self._commands and stamp_ns <= self._commands[-1][0]:
            return []
        self._commands.append((stamp_ns, np.asarray(action, np.float32)))
        return self._complete()

    def end_episode(self) -> None:
        """The next transition ends the episode."""
        self._end_requested = True

    def _complete(self) -> list[Transition]:
        done = []
        while len(self._states) >= 2:
            first, second = self._states[0], self._states[1]
            newest = self._states[-1].stamp_ns
            at_once = first.stamp_ns + self._tolerance_ns  # an answer to it is this late at most
            answered = bool(self._commands) and (
                self._commands[-1][0] >= first.stamp_ns - self._tolerance_ns
            )
            if not answered and newest - first.stamp_ns < self.spec.max_age * 1e9:
                break
            while len(self._commands) >= 2 and self._commands[1][0] <= at_once:
                self._commands.popleft()
            action, flags = np.zeros(len(self.spec.action), np.float32), Flag.NO_ACTION
            if self._commands:
                since = at_once - self._commands[0][0]
                if 0 <= since <= self.spec.max_age * 1e9:
                    action, flags = self._commands[0][1], Flag(0)
            done.append(self._emit(first, action, second, flags))
            self._states.popleft()
        return done

    def _emit(self, first: State, action: np.ndarray, second: State, flags: Flag) -> Transition:
        elapsed = second.stamp_ns - first.stamp_ns
        timely = LEAST_PERIODS <= elapsed / self.spec.period_ns <= MOST_PERIODS
        if not flags & Flag.FIRST and not (timely and first.whole and second.whole):
            flags |= Flag.GAP
        self._in_episode += 1
        if self._end_requested or self._in_episode == self.episode_length:
            flags |= Flag.EPISODE_END
        transition = Transition(
            first.x,
            action,
            second.x,
            float(np.float32(elapsed * 1e-9)),
            second.stamp_ns,
            flags,
            self.sequence,
            self.episode,
            self.labels.take(first.stamp_ns, second.stamp_ns),
        )
        self.sequence += 1
        if transition.ends_episode:
            self.episode += 1
            self._in_episode = 0
            self._end_requested = False
        return transition
