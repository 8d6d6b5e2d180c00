"""ROS messages and what they mean to the core, both ways. Pure functions.

Numbers survive exactly; how the numbers of a transition are laid out is in `robot.wire`.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Vector3
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import (
    Float32MultiArray,
    Float64MultiArray,
    MultiArrayDimension,
    MultiArrayLayout,
    String,
    UInt8MultiArray,
)

from ..control import choice_wire
from ..control.policy_posterior import Choice, Senses
from ..errors import UserError
from ..robot import wire
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .topics import STATE_TYPES

AXES = 'xyz'
ANGLES = ('roll', 'pitch', 'yaw')


# ---------------------------------------------------------------------- stamps
def to_ns(stamp: Time) -> int:
    """Nanoseconds of a header stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_stamp(stamp_ns: int) -> Time:
    """Header stamp of a time in nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


# ---------------------------------------------------------------------- robot state
def _names(group: str, parts: Iterable[str]) -> list[str]:
    return [f'{group}.{part}' for part in parts]


FIELDS = {
    JointState: ['position', 'velocity', 'effort'],
    Odometry: [
        *_names('position', AXES),
        *_names('orientation', ANGLES),
        *_names('velocity', AXES),
        *_names('body_velocity', AXES),
        *_names('rotation', AXES),
    ],
    Imu: [
        *_names('orientation', ANGLES),
        *_names('angular_velocity', AXES),
        *_names('linear_acceleration', AXES),
    ],
}
"""What a channel's `field` may be for each message type.

`velocity` of an Odometry is its twist turned into the frame of its header: a twist is given in the
frame of the body, which `body_velocity` leaves as it is. Where `orientation.pitch` is the only
angle that a robot file takes from a source, the robot moves in the x-z plane and the pitch goes
full circle; otherwise it is the middle one of the angles roll, pitch, yaw and within ±90°.
"""


def check_fields(spec: RobotSpec) -> None:
    """Check that every channel's `field` exists in the message of its source.

    Raises:
        UserError: it does not; names the fields that do.
    """
    for channel in spec.state:
        source = spec.sources[channel.source]
        possible = FIELDS[STATE_TYPES[source.type]]
        if channel.field not in possible:
            raise UserError(
                f'robot {spec.name}: state.{channel.name}.field: {channel.field!r} is not in '
                f'{source.type}; use one of {", ".join(possible)}'
            )


def read_channels(spec: RobotSpec, source: str, message: Any) -> tuple[int, dict[str, float]]:
    """Stamp in nanoseconds and the value of every channel of a source.

    Raises:
        UserError: a joint is missing, or its value is; an orientation is no rotation.
    """
    channels = [c for c in spec.state if c.source == source]
    if isinstance(message, JointState):
        values = {c.name: _joint_value(message, source, c.joint, c.field) for c in channels}
    else:
        used = {c.field for c in channels}
        fields = (
            odometry_fields(message, used)
            if isinstance(message, Odometry)
            else _imu(message, used)
        )
        values = {c.name: fields[c.field] for c in channels}
    return to_ns(message.header.stamp), values


def state_messages(spec: RobotSpec, stamp_ns: int, x: np.ndarray) -> dict[str, Any]:
    """The message of every source for a state [ds]: what `read_channels` reads back."""
    messages = {}
    for name, source in spec.sources.items():
        channels = [(i, c) for i, c in enumerate(spec.state) if c.source == name]
        kind = STATE_TYPES[source.type]
        if kind is JointState:
            joints = list(dict.fromkeys(c.joint for _, c in channels))
            message = JointState(name=joints)
            for field in FIELDS[JointState]:
                values = {c.joint: float(x[i]) for i, c in channels if c.field == field}
                if values:
                    setattr(message, field, array('d', [values.get(j, 0.0) for j in joints]))
        else:
            fields = {c.field: float(x[i]) for i, c in channels}
            message = _to_odometry(fields) if kind is Odometry else _to_imu(fields)
        message.header.stamp = to_stamp(stamp_ns)
        message.header.frame_id = spec.frame
        messages[name] = message
    return messages


def _joint_value(message: JointState, source: str, joint: str | None, field: str) -> float:
    try:
        index = message.name.index(joint)
    except ValueError:
        raise UserError(
            f'source {source}: no joint {joint!r} in the message, it has {list(message.name)}; '
            'correct `joint:` in the robot file'
        ) from None
    values = getattr(message, field)
    if index >= len(values):
        raise UserError(
            f'source {source}: no {field} for joint {joint!r}: the message has {len(values)} '
            f'of them for {len(message.name)} joints; let the robot publish it, or take '
            f'the channel from another field'
        )
    return values[index]


def odometry_fields(message: Odometry, used: set[str]) -> dict[str, float]:
    """Values of an Odometry by the names in `FIELDS`, at least those that are used."""
    twist = message.twist.twist
    body = _vector(twist.linear)
    position, q = message.pose.pose.position, message.pose.pose.orientation
    values = {**_group('position', _vector(position)), **_group('body_velocity', body)}
    values |= _group('rotation', _vector(twist.angular))
    if used - values.keys():
        values |= _orientation(q, used)
        values |= _group('velocity', _turn(_unit(q), body))
    return values


def _imu(message: Imu, used: set[str]) -> dict[str, float]:
    values = _group('angular_velocity', _vector(message.angular_velocity))
    values |= _group('linear_acceleration', _vector(message.linear_acceleration))
    if used - values.keys():
        values |= _orientation(message.orientation, used)
    return values


def _to_odometry(fields: Mapping[str, float]) -> Odometry:
    message = Odometry()
    position = message.pose.pose.position
    position.x, position.y, position.z = _ungroup('position', fields)
    q = _quaternion(*_ungroup('orientation', fields, ANGLES))
    w, x, y, z = q
    message.pose.pose.orientation = Quaternion(w=w, x=x, y=y, z=z)
    if any(name.startswith('velocity.') for name in fields):
        body = _turn((w, -x, -y, -z), _ungroup('velocity', fields))
    else:
        body = _ungroup('body_velocity', fields)
    message.twist.twist.linear = _to_vector(body)
    message.twist.twist.angular = _to_vector(_ungroup('rotation', fields))
    return message


def _to_imu(fields: Mapping[str, float]) -> Imu:
    w, x, y, z = _quaternion(*_ungroup('orientation', fields, ANGLES))
    return Imu(
        orientation=Quaternion(w=w, x=x, y=y, z=z),
        angular_velocity=_to_vector(_ungroup('angular_velocity', fields)),
        linear_acceleration=_to_vector(_ungroup('linear_acceleration', fields)),
    )


def _vector(v: Any) -> tuple[float, float, float]:
    return v.x, v.y, v.z


def _to_vector(v: Sequence[float]) -> Vector3:
    return Vector3(x=v[0], y=v[1], z=v[2])


def _group(group: str, values: Sequence[float], parts: Iterable[str] = AXES) -> dict[str, float]:
    return dict(zip(_names(group, parts), values, strict=True))


def _ungroup(
    group: str, fields: Mapping[str, float], parts: Iterable[str] = AXES
) -> tuple[float, ...]:
    return tuple(fields.get(name, 0.0) for name in _names(group, parts))


def _unit(q: Quaternion) -> tuple[float, float, float, float]:
    norm = math.sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z)
    if norm < 1e-6:
        raise UserError(
            'the orientation is the zero quaternion; the robot must publish a rotation'
        )
    return q.w / norm, q.x / norm, q.y / norm, q.z / norm


def _orientation(q: Quaternion, used: set[str]) -> dict[str, float]:
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
    return _group('orientation', angles, ANGLES)


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
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


def _turn(q: tuple[float, float, float, float], v: Sequence[float]) -> tuple[float, float, float]:
    """Vector v turned by the unit quaternion q: v + 2 w (a × v) + 2 a × (a × v), a = (x, y, z)."""
    w, x, y, z = q
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


# ---------------------------------------------------------------------- transitions
def transition_to_msg(spec: RobotSpec, transition: Transition) -> Float32MultiArray:
    """A transition as labelled parts, one dimension of the layout each, one after another."""
    data = array('f', wire.encode(transition).tobytes())
    return Float32MultiArray(layout=_layout(wire.sizes(spec)), data=data)


def transition_from_msg(spec: RobotSpec, message: Float32MultiArray) -> Transition:
    """The transition of `transition_to_msg`.

    Raises:
        UserError: its layout is not that of this robot.
    """
    return wire.decode(spec, message)


def choice_to_msg(choice: Choice) -> Float32MultiArray:
    """A choice of the planner as labelled parts; the label of the last names the regime."""
    data = array('f', choice_wire.encode(choice).tobytes())
    return Float32MultiArray(layout=_layout(choice_wire.sizes(choice)), data=data)


def choice_from_msg(senses: Senses, message: Float32MultiArray) -> Choice:
    """The choice of `choice_to_msg`.

    Raises:
        UserError: its layout is not that of this robot.
    """
    return choice_wire.decode(senses, message)


def _layout(sizes: Mapping[str, int]) -> MultiArrayLayout:
    return MultiArrayLayout(
        dim=[MultiArrayDimension(label=k, size=n, stride=n) for k, n in sizes.items()]
    )


# ---------------------------------------------------------------------- named channels
def named(values: Mapping[str, float], stamp_ns: int, frame: str = '') -> JointState:
    """Named channels, as a JointState whose positions are the values: PlotJuggler's lines."""
    message = JointState(name=list(values), position=array('d', map(float, values.values())))
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = frame
    return message


def from_named(message: JointState) -> tuple[int, dict[str, float]]:
    """Stamp and values of `named`."""
    return to_ns(message.header.stamp), dict(zip(message.name, message.position, strict=True))


# ---------------------------------------------------------------------- commands
def command_to_msg(spec: RobotSpec, command: np.ndarray) -> Float64MultiArray:
    """A command [da]; each dimension of the layout names one action."""
    return Float64MultiArray(
        layout=_layout(dict.fromkeys(spec.action_names, 1)),
        data=array('d', np.asarray(command, np.float64).tobytes()),
    )


def command_from_msg(spec: RobotSpec, message: Float64MultiArray) -> np.ndarray:
    """The command [da]; a message without a layout, as many tools send it, is taken as it is.

    Raises:
        UserError: wrong size or names, or not finite.
    """
    if message.layout.dim:
        wire.check_layout(dict.fromkeys(spec.action_names, 1), message, 'command')
    command = np.array(message.data)
    return _checked_command(spec, command)


def action_to_msg(
    spec: RobotSpec,
    stamp_ns: int,
    command: np.ndarray,
    planned: np.ndarray | None = None,
    spread: np.ndarray | None = None,
) -> JointState:
    """The command [da] that answers the state of `stamp_ns`.

    It is in `position`; `velocity` holds what the planner wanted before safety, `effort` the
    spread of its candidates. Both are empty for a safe action.
    """
    message = JointState(name=spec.action_names)
    message.header.stamp = to_stamp(stamp_ns)
    for field, values in (('position', command), ('velocity', planned), ('effort', spread)):
        if values is not None:
            setattr(message, field, array('d', np.asarray(values, np.float64).tobytes()))
    return message


def action_from_msg(spec: RobotSpec, message: JointState) -> tuple[int, np.ndarray]:
    """Stamp of the state that is answered, and the command [da].

    Raises:
        UserError: wrong size or names, or not finite.
    """
    if list(message.name) != spec.action_names:
        raise UserError(
            f'action: has {list(message.name)}, robot {spec.name} takes {spec.action_names}'
        )
    return to_ns(message.header.stamp), _checked_command(spec, np.array(message.position))


def _checked_command(spec: RobotSpec, command: np.ndarray) -> np.ndarray:
    if command.shape != (len(spec.action),) or not np.isfinite(command).all():
        raise UserError(
            f'command: got {command.tolist()}, expected {len(spec.action)} finite numbers '
            f'{spec.action_names}'
        )
    return command


# ---------------------------------------------------------------------- bytes, events, tables
def bytes_to_msg(data: bytes) -> UInt8MultiArray:
    """Bytes as a message."""
    return UInt8MultiArray(data=array('B', data))


def msg_to_bytes(message: UInt8MultiArray) -> bytes:
    """The bytes of `bytes_to_msg`."""
    return bytes(message.data)


def json_to_msg(content: Mapping[str, Any]) -> String:
    """A mapping as JSON text."""
    return String(data=json.dumps(content))


def event_to_msg(event: str, stamp_ns: int, step: int, detail: Mapping[str, Any]) -> String:
    """Something that happened, as JSON with `event`, `stamp_ns`, `step` and its details."""
    return json_to_msg({'event': event, 'stamp_ns': stamp_ns, 'step': step, **detail})


def table_to_msg(table: np.ndarray, labels: Sequence[str]) -> Float32MultiArray:
    """An array as a message with one label for each axis, row after row."""
    strides = np.cumprod(table.shape[::-1])[::-1].tolist()
    return Float32MultiArray(
        layout=MultiArrayLayout(
            dim=[
                MultiArrayDimension(label=label, size=size, stride=stride)
                for label, size, stride in zip(labels, table.shape, strides, strict=True)
            ]
        ),
        data=array('f', table.astype(np.float32).tobytes()),
    )


def table_from_msg(message: Float32MultiArray, labels: Sequence[str]) -> np.ndarray:
    """The array of `table_to_msg`.

    Raises:
        UserError: other labels, or sizes that do not fit its data.
    """
    dim = message.layout.dim
    shape = [d.size for d in dim]
    if [d.label for d in dim] != list(labels) or math.prod(shape) != len(message.data):
        raise UserError(
            f'expected axes {list(labels)}, got {[(d.label, d.size) for d in dim]} '
            f'with {len(message.data)} numbers'
        )
    return np.array(message.data, dtype=np.float32).reshape(shape)
