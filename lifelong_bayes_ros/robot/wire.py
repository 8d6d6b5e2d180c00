"""A transition as the labelled float32 numbers of the `transition` topic.

Integers that float32 cannot hold travel as 16-bit words, the most significant one first. Needs no
ROS: nodes and bag readers share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from .outcomes import UNKNOWN
from .spec import RobotSpec
from .transitions import Flag, Transition

ROBOT = 'robot '  # begins the label
LIMITS = {  # of whole numbers; of all others those of a word of 16 bits
    'flags': (0, sum(Flag)),
    'episode': (0, 2**24),  # that float32 holds
    'outcomes': (UNKNOWN, 2**15),
}


def sizes(spec: RobotSpec) -> dict[str, int]:
    """Labels of the layout, in order, and how many numbers each has.

    `s`, `a`, `s_next` in the order of the robot file, `dt` in seconds, `flags` of
    `robot.transitions.Flag`, `sequence` and `stamp` (nanoseconds) in 16-bit words, and, where the
    robot file names outcomes, `outcomes`: their labels, -1 where unknown, or NaN of a number.
    """
    ds, da = len(spec.state), len(spec.action)
    return {
        's': ds,
        'a': da,
        's_next': ds,
        'dt': 1,
        'flags': 1,
        'sequence': 2,
        'episode': 1,
        'stamp': 4,
        **({'outcomes': len(spec.outcomes)} if spec.outcomes else {}),
    }


def whose(spec: RobotSpec) -> str:
    """The label, without numbers, that ends the layout: which robot it is."""
    return f'{ROBOT}{spec.name} {spec.fingerprint}'


def check_robot(spec: RobotSpec, message: Any) -> None:
    """Check that a transition is of this very robot, if it says of which it is.

    Raises:
        UserError: it is of another one, or of one with another robot file.
    """
    for dim in message.layout.dim:
        if dim.label.startswith(ROBOT) and dim.label != whose(spec):
            other = dim.label.removeprefix(ROBOT).split()[0]
            raise UserError(
                f'transition of robot {other}, or of another robot file of it, not of {spec.name} '
                'as it is here; start all nodes with the same robot file, and each robot in a '
                'namespace of its own'
            )


def encode(transition: Transition) -> np.ndarray:
    """The numbers of a transition, float32, in the order of `sizes`."""
    parts = (
        transition.state,
        transition.action,
        transition.next_state,
        [transition.dt],
        [transition.flags],
        _words(transition.sequence, 2),
        [transition.episode],
        _words(transition.stamp_ns, 4),
        transition.outcomes,
    )
    return np.concatenate(parts, dtype=np.float32, casting='unsafe')


def decode(spec: RobotSpec, message: Any) -> Transition:
    """The transition in a Float32MultiArray, of rclpy's or rosbags' making.

    Raises:
        UserError: its layout is not that of this robot, or what counts in it is no number.
    """
    expected = sizes(spec)
    check_layout(expected, message, f'transition of robot {spec.name}')
    data = np.array(message.data, dtype=np.float32)
    part, start = {}, 0
    for label, size in expected.items():
        part[label] = data[start : start + size]
        start += size
    kinds = [o.kind for o in spec.outcomes.values()]
    numbers = np.array([isinstance(kind, float) for kind in kinds], bool)
    labels = part.get('outcomes', np.zeros(0))
    whole = {label: part[label] for label in ('flags', 'sequence', 'episode', 'stamp')}
    for label, counts in (whole | {'outcomes': labels[~numbers]}).items():
        least, most = LIMITS.get(label, (0, 0xFFFF))
        if not all(least <= n <= most and n == int(n) for n in counts.tolist()):
            raise UserError(
                f'transition of robot {spec.name}: {label} is {counts.tolist()}, expected whole '
                f'numbers from {least} to {most}, as transition_streamer sends them'
            )
    return Transition(
        part['s'],
        part['a'],
        part['s_next'],
        float(part['dt'][0]),
        _number(part['stamp']),
        Flag(int(part['flags'][0])),
        _number(part['sequence']),
        int(part['episode'][0]),
        tuple(float(n) if real else int(n) for n, real in zip(labels, numbers, strict=True)),
    )


def check_layout(expected: Mapping[str, int], message: Any, what: str) -> None:
    """Check labels and sizes of a multi-array message.

    Raises:
        UserError: naming the label, what was expected and what came.
    """
    got = {d.label: d.size for d in message.layout.dim if not d.label.startswith(ROBOT)}
    for label, size in expected.items():
        if got.get(label) != size:
            raise UserError(
                f'{what}: {label} has size {got.get(label, "none")}, expected {size}; '
                'start all nodes with the same robot file'
            )
    if list(got) != list(expected) or len(message.data) != sum(expected.values()):
        raise UserError(
            f'{what}: has {len(message.data)} numbers as {list(got)}, '
            f'expected {sum(expected.values())} as {list(expected)}'
        )


def _words(number: int, count: int) -> list[int]:
    return [(number >> 16 * k) & 0xFFFF for k in reversed(range(count))]


def _number(words: np.ndarray) -> int:
    number = 0
    for word in words:
        number = number << 16 | int(word)
    return number
