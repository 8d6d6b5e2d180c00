"""What a robot's state messages hold, by name; of rclpy's or rosbags' making, so with no ROS here.

`velocity` of an Odometry is its twist turned into the frame of its header: a twist is given in the
frame of the body, which `body_velocity` leaves as it is. Where `orientation.pitch` is the only
angle that a robot file takes from a source, the robot moves in the x-z plane and the pitch goes
full circle; otherwise it is the middle one of the angles roll, pitch, yaw and within ±90°.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import UserError

JOINT_STATE = 'sensor_msgs/msg/JointState'
ODOMETRY = 'nav_msgs/msg/Odometry'
IMU = 'sensor_msgs/msg/Imu'
POSE = 'geometry_msgs/msg/PoseStamped'
ARRAY = 'std_msgs/msg/Float64MultiArray'

AXES = 'xyz'
ANGLES = ('roll', 'pitch', 'yaw')
ENTRY = re.compile(r'data\[(\d{1,6})\]')


def _names(group: str, parts: Iterable[str]) -> list[str]:
    return [f'{group}.{part}' for part in parts]


FIELDS = {
    JOINT_STATE: ['position', 'velocity', 'effort'],
    ODOMETRY: [
        *_names('position', AXES),
        *_names('orientation', ANGLES),
        *_names('velocity', AXES),
        *_names('body_velocity', AXES),
        *_names('rotation', AXES),
    ],
    IMU: [
        *_names('orientation', ANGLES),
        *_names('angular_velocity', AXES),
        *_names('linear_acceleration', AXES),
    ],
    POSE: [*_names('position', AXES), *_names('orientation', ANGLES)],
    ARRAY: ['data[0]', 'data[1]', '...'],
}
"""What a channel's `field` may be for each type of message."""


def has_field(kind: str, field: str) -> bool:
    """Whether messages of a type have a field."""
    return bool(ENTRY.fullmatch(field)) if kind == ARRAY else field in FIELDS[kind]


def joint_value(message: Any, source: str, joint: str | None, field: str) -> float:
    """A joint's value in a JointState, wherever it stands.

    Raises:
        UserError: the message has no such joint, or no value for it.
    """
    names = list(message.name)
    try:
        index = names.index(joint)
    except ValueError:
        raise UserError(
            f'source {source}: no joint {joint!r} in the message, it has {names}; '
            'correct `joint:` in the robot file'
        ) from None
    values = getattr(message, field)
    if index >= len(values):
        raise UserError(
            f'source {source}: no {field} for joint {joint!r}: the message has {len(values)} '
            f'of them for {len(names)} joints; let the robot publish it, or take '
            f'the channel from another field'
        )
    return float(values[index])


def array_value(message: Any, source: str, field: str) -> float:
    """An entry of a Float64MultiArray.

    Raises:
        UserError: the array is too short.
    """
    index = int(ENTRY.fullmatch(field)[1])
    if index >= len(message.data):
        raise UserError(
            f'source {source}: no {field}: the message has {len(message.data)} numbers; '
            'correct `field:` in the robot file'
        )
    return float(message.data[index])


def odometry_fields(message: Any, used: set[str]) -> dict[str, float]:
    """Values of an Odometry by the names in `FIELDS`, at least those that are used."""
    twist = message.twist.twist
    body = vector(twist.linear)
    values = group('position', vector(message.pose.pose.position))
    values |= group('body_velocity', body) | group('rotation', vector(twist.angular))
    if used - values.keys():
        q = message.pose.pose.orientation
        values |= _orientation(q, used) | group('velocity', turn(_unit(q), body))
    return values


def imu_fields(message: Any, used: set[str]) -> dict[str, float]:
    """Values of an Imu by the names in `FIELDS`, at least those that are used."""
    values = group('angular_velocity', vector(message.angular_velocity))
    values |= group('linear_acceleration', vector(message.linear_acceleration))
    if used - values.keys():
        values |= _orientation(message.orientation, used)
    return values


def pose_fields(message: Any, used: set[str]) -> dict[str, float]:
    """Values of a PoseStamped by the names in `FIELDS`, at least those that are used."""
    values = group('position', vector(message.pose.position))
    if used - values.keys():
        values |= _orientation(message.pose.orientation, used)
    return values


READERS = {ODOMETRY: odometry_fields, IMU: imu_fields, POSE: pose_fields}


def vector(v: Any) -> tuple[float, float, float]:
    """The numbers of a Vector3 or Point."""
    return v.x, v.y, v.z


def group(name: str, values: Sequence[float], parts: Iterable[str] = AXES) -> dict[str, float]:
    """Values under the names of their group's parts."""
    return dict(zip(_names(name, parts), values, strict=True))


def turn(q: tuple[float, float, float, float], v: Sequence[float]) -> tuple[float, float, float]:
    """Vector v turned by the unit quaternion q: v + 2 w (a × v) + 2 a × (a × v), a = (x, y, z)."""
    w, x, y, z = q
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Unit quaternion (w, x, y, z) of a rotation about x, then y, then z, all fixed axes."""
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def _unit(q: Any) -> tuple[float, float, float, float]:
    norm = math.sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z)
    if norm < 1e-6:
        raise UserError(
            'the orientation is the zero quaternion; the robot must publish a rotation'
        )
    return q.w / norm, q.x / norm, q.y / norm, q.z / norm


def _orientation(q: Any, used: set[str]) -> dict[str, float]:
    w, x, y, z = _unit(q)
    if 'orientation.pitch' in used and not used & {'orientation.roll', 'orientation.yaw'}:
        pitch = 2 * math.atan2(y, w)
        return {'orientation.pitch': math.remainder(pitch, 2 * math.pi)}
    sine = max(-1.0, min(1.0, 2 * (w * y - x * z)))
    angles = (
        math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        math.asin(sine),
        math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
    )
    return group('orientation', angles, ANGLES)
