"""ROS messages and what they mean to the core, both ways. Pure functions.

Numbers survive exactly; how the numbers of a transition are laid out is in `robot.wire`, what
state messages hold in `robot.messages`.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Quaternion, Vector3
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import (
    Bool,
    Float32MultiArray,
    Float64,
    Float64MultiArray,
    Int32,
    MultiArrayDimension,
    MultiArrayLayout,
    String,
    UInt8MultiArray,
)

from ..errors import UserError
from ..robot import messages, wire
from ..robot.channels import Channel
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .commands import checked_command, command_from_msg, command_to_msg, layout
from .topics import OUTCOME_TYPES

__all__ = [
    'action_from_msg',
    'action_to_msg',
    'bytes_to_msg',
    'command_from_msg',
    'command_to_msg',
    'event_to_msg',
    'from_named',
    'json_to_msg',
    'msg_to_bytes',
    'named',
    'outcome_message',
    'read_channels',
    'read_outcome',
    'state_messages',
    'table_from_msg',
    'table_to_msg',
    'to_ns',
    'to_stamp',
    'transition_from_msg',
    'transition_to_msg',
]


# ---------------------------------------------------------------------- stamps
def to_ns(stamp: Time) -> int:
    """Nanoseconds of a header stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_stamp(stamp_ns: int) -> Time:
    """Header stamp of a time in nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


# ---------------------------------------------------------------------- robot state
def read_channels(
    spec: RobotSpec, source: str, message: Any, received_ns: int = 0
) -> tuple[int, dict[str, float]]:
    """Stamp in nanoseconds and the value of every channel of a source.

    A message without a header gets `received_ns`.

    Raises:
        UserError: a joint is missing, or its value is; an orientation is no rotation.
    """
    channels = [c for c in spec.state if c.source == source]
    if isinstance(message, Float64MultiArray):
        readings = [messages.array_value(message, source, c.field) for c in channels]
    elif isinstance(message, JointState):
        readings = [messages.joint_value(message, source, c.joint, c.field) for c in channels]
    else:
        read = messages.READERS[spec.sources[source].type]
        fields = read(message, {c.field for c in channels})
        readings = [fields[c.field] for c in channels]
    stamp_ns = to_ns(message.header.stamp) if hasattr(message, 'header') else received_ns
    return stamp_ns, {
        c.name: c.scale * r + c.offset for c, r in zip(channels, readings, strict=True)
    }


def state_messages(spec: RobotSpec, stamp_ns: int, x: np.ndarray) -> dict[str, Any]:
    """The message of every source for a state [ds]: what `read_channels` reads back."""
    sent = {}
    for name, source in spec.sources.items():
        channels = [
            (c, (float(x[i]) - c.offset) / c.scale)
            for i, c in enumerate(spec.state)
            if c.source == name
        ]
        message = _WRITERS[source.type](channels)
        if hasattr(message, 'header'):
            message.header.stamp = to_stamp(stamp_ns)
            message.header.frame_id = spec.frame
        sent[name] = message
    return sent


Readings = Sequence[tuple[Channel, float]]


def _to_joint_state(readings: Readings) -> JointState:
    joints = list(dict.fromkeys(c.joint for c, _ in readings))
    message = JointState(name=joints)
    for field in messages.FIELDS[messages.JOINT_STATE]:
        values = {c.joint: value for c, value in readings if c.field == field}
        if values:
            setattr(message, field, array('d', [values.get(j, 0.0) for j in joints]))
    return message


def _to_array(readings: Readings) -> Float64MultiArray:
    values = {int(messages.ENTRY.fullmatch(c.field)[1]): value for c, value in readings}
    data = [values.get(i, 0.0) for i in range(max(values) + 1)]
    return Float64MultiArray(data=array('d', data))


def _to_odometry(readings: Readings) -> Odometry:
    fields = {c.field: value for c, value in readings}
    message = Odometry()
    _set_pose(message.pose.pose, fields)
    if any(name.startswith('velocity.') for name in fields):
        q = message.pose.pose.orientation
        body = messages.turn((q.w, -q.x, -q.y, -q.z), _ungroup('velocity', fields))
    else:
        body = _ungroup('body_velocity', fields)
    message.twist.twist.linear = _to_vector(body)
    message.twist.twist.angular = _to_vector(_ungroup('rotation', fields))
    return message


def _to_imu(readings: Readings) -> Imu:
    fields = {c.field: value for c, value in readings}
    return Imu(
        orientation=_to_quaternion(fields),
        angular_velocity=_to_vector(_ungroup('angular_velocity', fields)),
        linear_acceleration=_to_vector(_ungroup('linear_acceleration', fields)),
    )


def _to_pose(readings: Readings) -> PoseStamped:
    message = PoseStamped()
    _set_pose(message.pose, {c.field: value for c, value in readings})
    return message


_WRITERS = {
    messages.JOINT_STATE: _to_joint_state,
    messages.ODOMETRY: _to_odometry,
    messages.IMU: _to_imu,
    messages.POSE: _to_pose,
    messages.ARRAY: _to_array,
}


def _set_pose(pose: Any, fields: Mapping[str, float]) -> None:
    pose.position.x, pose.position.y, pose.position.z = _ungroup('position', fields)
    pose.orientation = _to_quaternion(fields)


def _to_quaternion(fields: Mapping[str, float]) -> Quaternion:
    angles = _ungroup('orientation', fields, messages.ANGLES)
    w, x, y, z = messages.quaternion(*angles)
    return Quaternion(w=w, x=x, y=y, z=z)


def _to_vector(v: Sequence[float]) -> Vector3:
    return Vector3(x=v[0], y=v[1], z=v[2])


def _ungroup(
    group: str, fields: Mapping[str, float], parts: Iterable[str] = messages.AXES
) -> tuple[float, ...]:
    return tuple(fields.get(f'{group}.{part}', 0.0) for part in parts)


# ---------------------------------------------------------------------- outcomes
def read_outcome(spec: RobotSpec, name: str, message: Any) -> tuple[int | None, Any]:
    """Stamp in nanoseconds, None where the message has none, and the reading of an outcome.

    Raises:
        UserError: a joint is missing, or its value is.
    """
    outcome = spec.outcomes[name]
    if not isinstance(message, JointState):
        return None, message.data
    value = messages.joint_value(message, f'outcomes.{name}', outcome.joint, outcome.field)
    return to_ns(message.header.stamp), value


def outcome_message(spec: RobotSpec, name: str, label: float, stamp_ns: int) -> Any:
    """A message that `read_outcome` reads a value of this label from."""
    outcome = spec.outcomes[name]
    kind = OUTCOME_TYPES[outcome.type]
    if kind is Bool:
        return Bool(data=bool(label))
    if kind is Int32:
        return Int32(data=label)
    if kind is String:
        return String(data=outcome.classes[label])
    value = float(label)
    if outcome.above is not None:
        value = outcome.above + (1.0 if label else -1.0)
    if kind is Float64:
        return Float64(data=value)
    message = JointState(name=[outcome.joint])
    setattr(message, outcome.field, array('d', [value]))
    message.header.stamp = to_stamp(stamp_ns)
    return message


# ---------------------------------------------------------------------- transitions
def transition_to_msg(spec: RobotSpec, transition: Transition) -> Float32MultiArray:
    """A transition as labelled parts, one dimension of the layout each, one after another."""
    data = array('f', wire.encode(transition).tobytes())
    parts = {**wire.sizes(spec), wire.whose(spec): 0}
    return Float32MultiArray(layout=layout(parts), data=data)


def transition_from_msg(spec: RobotSpec, message: Float32MultiArray) -> Transition:
    """The transition of `transition_to_msg`.

    Raises:
        UserError: its layout is not that of this robot, or it is of another one.
    """
    transition = wire.decode(spec, message)
    wire.check_robot(spec, message)
    return transition


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
    return to_ns(message.header.stamp), checked_command(spec, np.array(message.position))


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
