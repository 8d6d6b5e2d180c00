"""The state of a first robot file: its sources and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .channels import DIFFERENCE
from .draft_text import name_of, plain, unique
from .messages import JOINT_STATE, ODOMETRY, POSE
from .observation import Seen, Series, candidates, series


@dataclass(frozen=True)
class Drafted:
    """A channel to be written, by keys and values, and what was seen of it or of its position."""

    keys: dict[str, str | float]
    seen: Series

    @property
    def name(self) -> str:
        """Its name."""
        return self.keys['name']

    @property
    def tracked(self) -> bool:
        """Whether a goal can be given for it: a position with limits."""
        return 'low' in self.keys

    @property
    def text(self) -> str:
        """The line of the file."""
        return f'{{{", ".join(f"{k}: {plain(v)}" for k, v in self.keys.items())}}}'


def sources(topics: Sequence[Seen]) -> dict[str, Seen]:
    """The topic that tells most of the robot's motion, by the name that its source gets.

    Raises:
        UserError: there is none.
    """

    def best(kind: str, word: str) -> list[Seen]:
        found = [s for s in topics if s.type == kind and s.messages]
        found = [s for s in found if kind != JOINT_STATE or s not in candidates([s])]
        return sorted(found, key=lambda s: (word not in s.topic, -len(s.messages), s.topic))[:1]

    joints, odometry = best(JOINT_STATE, 'joint_states'), best(ODOMETRY, 'odom')
    poses = best(POSE, 'pose')
    # A vehicle's wheels turn in its joint states, too; its motion is what is to be learned.
    chosen = odometry or joints or poses
    if not chosen:
        types = sorted({s.type for s in topics if s.messages})
        raise UserError(
            f'no JointState, Odometry or PoseStamped was seen; there is {types or "nothing"}; '
            'record or publish one of these topics'
        )
    return {name_of(seen.topic.strip('/').split('/')[-1]): seen for seen in chosen}


def channels(chosen: Mapping[str, Seen]) -> list[Drafted]:
    """The channels of all sources: positions, then what is known of their rates."""
    taken: set[str] = set()
    found = []
    for source, seen in chosen.items():
        draw = _joints if seen.type == JOINT_STATE else _vehicle_or_body
        found += draw(source, seen, taken)
    return found


def left_out(chosen: Mapping[str, Seen]) -> list[str]:
    """Joints that never moved while others did."""
    found = [s for seen in chosen.values() if seen.type == JOINT_STATE for s in positions(seen)]
    return [s.joint for s in found if not s.moves and any(o.moves for o in found)]


def positions(seen: Seen) -> list[Series]:
    """The positions of joints."""
    return [s for s in series(seen) if s.field == 'position']


def _joints(source: str, seen: Seen, taken: set[str]) -> list[Drafted]:
    rates = {s.joint: s for s in series(seen) if s.field == 'velocity'}
    joints = positions(seen)
    moving = [s for s in joints if s.moves] or joints
    names = {s.joint: unique(name_of(s.joint), taken) for s in moving}
    rows = [
        Drafted(
            {
                'name': names[s.joint],
                'source': source,
                'joint': s.joint,
                'field': 'position',
                'unit': 'rad',
                'encode': 'value',
                **_limits(s),
            },
            s,
        )
        for s in moving
    ]
    for s in moving:
        keys = {'name': unique(f'{names[s.joint]}_rate', taken)}
        rate = rates.get(s.joint)
        if rate is None or (s.moves and not np.any(rate.values)):  # none that is measured
            keys |= {'field': DIFFERENCE}
        else:
            keys |= {'source': source, 'joint': s.joint, 'field': 'velocity'}
        rows.append(Drafted(keys | {'unit': 'rad/s', 'derivative_of': names[s.joint]}, s))
    return rows


BODY = {  # field of a position: name, unit, field of its rate and that one's name
    'position.x': ('x', 'm', 'velocity.x', 'vx'),
    'position.y': ('y', 'm', 'velocity.y', 'vy'),
    'position.z': ('z', 'm', 'velocity.z', 'vz'),
    'orientation.roll': ('roll', 'rad', 'rotation.x', 'roll_rate'),
    'orientation.pitch': ('pitch', 'rad', 'rotation.y', 'pitch_rate'),
    'orientation.yaw': ('heading', 'rad', 'rotation.z', 'yaw_rate'),
}
GROUND = ('position.x', 'position.y', 'orientation.yaw')


def _vehicle_or_body(source: str, seen: Seen, taken: set[str]) -> list[Drafted]:
    by = {s.field: s for s in series(seen)}
    vehicle = 'position.z' in by and not by['position.z'].moves
    # On the ground all three, whatever little of them was seen to move.
    fields = [f for f in BODY if f in by and (f in GROUND if vehicle else by[f].moves)]
    rows, rates = [], []
    for place in fields:
        name, unit, rate, rate_name = BODY[place]
        name, s = unique(name, taken), by[place]
        keys = {'name': name, 'source': source, 'field': place, 'unit': unit}
        rows.append(
            Drafted(keys | ({'encode': 'none', **_limits(s)} if unit == 'm' else ANGLE), s)
        )
        measured = seen.type == ODOMETRY
        if vehicle and measured and unit == 'm':  # its own speeds, below
            continue
        own = {'source': source, 'field': rate} if measured else {'field': DIFFERENCE}
        keys = {'name': unique(rate_name, taken), **own, 'unit': f'{unit}/s'}
        rates.append(Drafted(keys | {'derivative_of': name}, s))
    if vehicle and seen.type == ODOMETRY:
        sideways = by['body_velocity.y'].moves
        for field, name in (('body_velocity.x', 'forward'), ('body_velocity.y', 'lateral')):
            if name == 'forward' or sideways:
                keys = {'name': unique(name, taken), 'source': source, 'field': field}
                rates.append(Drafted(keys | {'unit': 'm/s'}, by[field]))
    return rows + rates


ANGLE = {'encode': 'angle'}


def _limits(s: Series) -> dict[str, float]:
    margin = wider(s, 0.2)
    return {'low': s.low - margin, 'high': s.high + margin}


def wider(s: Series, share: float) -> float:
    """How far limits go beyond what was seen: a share of it, and so far that rounding bears it."""
    return max(share * (s.high - s.low), 0.02 * max(abs(s.low), abs(s.high)), 0.05)
