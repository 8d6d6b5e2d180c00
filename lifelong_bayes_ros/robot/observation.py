"""What was seen of a robot's topics, in a bag or live: what a first file is made from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

from ..errors import UserError
from .command import BY_JOINT, COMMAND_FIELDS, TRAJECTORY
from .messages import ARRAY, FIELDS, JOINT_STATE, READERS

STATE_TYPES = tuple(FIELDS)
COMMAND_TYPES = tuple(COMMAND_FIELDS)
MOST = 20_000  # messages of a topic that are kept


@dataclass
class Seen:
    """A topic: its messages of the state and command types, and who is at its ends.

    `times` are arrivals in seconds, see `in_robot_time`; `taken` tells that somebody other than a
    recorder listens, where that is known.
    """

    topic: str
    type: str
    messages: list[Any] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    taken: bool = False

    def add(self, message: Any, seconds: float) -> None:
        """Take a message, up to as many as are needed."""
        if len(self.messages) < MOST:
            self.messages.append(message)
            self.times.append(seconds)

    @property
    def rate(self) -> float | None:
        """Messages per second, by the median interval; none: fewer than three came."""
        intervals = np.diff(self.times)
        middle = float(np.median(intervals)) if len(intervals) >= 2 else 0.0
        return 1 / middle if middle > 0 else None

    @property
    def frame(self) -> str:
        """Frame of the header, if there is one."""
        header = getattr(self.messages[0], 'header', None) if self.messages else None
        return header.frame_id if header is not None else ''


def in_robot_time(topics: Iterable[Seen]) -> None:
    """Count times as the stamps of headers do: a simulated robot may run slower than its recorder.

    Topics with stamps get those as their times; arrivals of others are stretched as those were.
    """
    speeds, others = [], []
    for seen in topics:
        stamps = [_stamp(message) for message in seen.messages]
        if stamps and stamps[-1] > stamps[0] and seen.times[-1] > seen.times[0]:
            speeds.append((stamps[-1] - stamps[0]) / (seen.times[-1] - seen.times[0]))
            seen.times = stamps
        else:
            others.append(seen)
    for seen in others if speeds else ():
        seen.times = [t * float(np.median(speeds)) for t in seen.times]


def _stamp(message: Any) -> float:
    """Seconds of the header; 0: there is none, or nobody has filled it."""
    header = getattr(message, 'header', None)
    return 0.0 if header is None else header.stamp.sec + 1e-9 * header.stamp.nanosec


@dataclass(frozen=True)
class Series:
    """One number over the messages of a topic [n]; a joint's has its name."""

    field: str
    values: np.ndarray
    joint: str | None = None

    @property
    def low(self) -> float:
        """Smallest value."""
        return float(self.values.min())

    @property
    def high(self) -> float:
        """Largest value."""
        return float(self.values.max())

    @property
    def moves(self) -> bool:
        """Whether it changes by more than the noise of an encoder at rest."""
        return self.high - self.low > 2e-3


def series(seen: Seen) -> list[Series]:
    """The numbers that a topic's messages hold, where all are finite."""
    if seen.type in BY_JOINT:
        found = _of_joints(seen)
    elif seen.type == ARRAY:
        size = min((len(m.data) for m in seen.messages), default=0)
        found = [(f'data[{i}]', [m.data[i] for m in seen.messages], None) for i in range(size)]
    elif seen.type in READERS:
        fields = FIELDS[seen.type]
        rows = [_read(seen.type, m, fields) for m in seen.messages]
        found = [(f, [r[f] for r in rows if f in r], None) for f in fields]
    else:
        twists = [getattr(m, 'twist', m) for m in seen.messages]
        fields = COMMAND_FIELDS[seen.type]
        found = [(f, [attrgetter(f)(t) for t in twists], None) for f in fields]
    return [
        Series(name, np.array(values, float), joint)
        for name, values, joint in found
        if len(values) and all(map(math.isfinite, values))
    ]


def _read(kind: str, message: Any, fields: Iterable[str]) -> dict[str, float]:
    try:
        return READERS[kind](message, set(fields))
    except UserError:  # no orientation
        return {}


def _of_joints(seen: Seen) -> list[tuple[str, list[float], str | None]]:
    fields = [f for f in COMMAND_FIELDS[seen.type] if f != 'accelerations']
    values: dict[tuple[str, str], list[float]] = {}
    for message in seen.messages:
        names = list(message.name if seen.type == JOINT_STATE else message.joint_names)
        places = [message] if seen.type == JOINT_STATE else list(message.points)
        for place in places:
            for name in fields:
                for joint, value in zip(names, getattr(place, name), strict=False):
                    values.setdefault((joint, name), []).append(float(value))
    return [(name, numbers, joint) for (joint, name), numbers in values.items()]


def candidates(topics: Iterable[Seen]) -> list[Seen]:
    """Topics that may be the robot's command topic, the likeliest first.

    A JointState is a command only if its name says so, and a trajectory is one in any case.
    """
    found = []
    for seen in topics:
        told = any(word in seen.topic for word in ('command', 'cmd', 'effort', 'setpoint'))
        unlikely = seen.type in (JOINT_STATE, ARRAY) and not told
        if seen.type in COMMAND_TYPES and not (
            unlikely and not (seen.taken and seen.type == ARRAY)
        ):
            score = 4 * bool(seen.messages) + 2 * seen.taken + told + (seen.type != TRAJECTORY)
            found.append((-score, seen.topic, seen))
    return [seen for _, _, seen in sorted(found, key=lambda f: f[:2])]
