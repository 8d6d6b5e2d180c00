"""Commands as the robot's controllers take them, both ways. Pure functions."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Twist, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ..errors import UserError
from ..robot import wire
from ..robot.command import BY_JOINT
from ..robot.spec import RobotSpec


def command_to_msg(spec: RobotSpec, command: np.ndarray, now: Time | None = None) -> Any:
    """A command [da] as the message of the robot file's type.

    Args:
        spec: the robot.
        command: in the order of the file.
        now: goes into the header of the types that have one. That of a JointTrajectory stays
            zero: it is to begin when it comes.
    """
    values = np.asarray(command, np.float64)
    message = COMMAND_TYPES[spec.command.type]()
    if isinstance(message, Float64MultiArray):  # each dimension of the layout names one action
        message.layout = layout(dict.fromkeys(spec.action_names, 1))
        message.data = array('d', values.tobytes())
        return message
    if hasattr(message, 'header'):
        message.header.frame_id = spec.command.frame
        if now is not None and not isinstance(message, JointTrajectory):
            message.header.stamp = now
    if spec.command.type not in BY_JOINT:
        twist = getattr(message, 'twist', message)
        for action, value in zip(spec.action, values.tolist(), strict=True):
            part, axis = action.field.split('.')
            setattr(getattr(twist, part), axis, value)
        return message
    joints, names = _joints(spec), 'name'
    place = message
    if isinstance(message, JointTrajectory):
        ns = round((spec.command.reach or spec.period) * 1e9)
        reach = Duration(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)
        place, names = JointTrajectoryPoint(time_from_start=reach), 'joint_names'
        message.points = [place]
    setattr(message, names, joints)
    for field in dict.fromkeys(a.field for a in spec.action):
        given = {
            a.joint: v
            for a, v in zip(spec.action, values.tolist(), strict=True)
            if a.field == field
        }
        # A joint without a value of this kind has none in the message: not a number, not zero.
        setattr(place, field, array('d', [given.get(j, np.nan) for j in joints]))
    return message


def command_from_msg(spec: RobotSpec, message: Any) -> np.ndarray:
    """The command [da]; joints may come in any order, an array without a layout is taken as it is.

    Raises:
        UserError: wrong size or names, or not finite.
    """
    if isinstance(message, Float64MultiArray):
        if message.layout.dim:
            wire.check_layout(dict.fromkeys(spec.action_names, 1), message, 'command')
        return checked_command(spec, np.array(message.data))
    if spec.command.type not in BY_JOINT:
        twist = getattr(message, 'twist', message)
        values = [
            getattr(getattr(twist, p), a) for p, a in (b.field.split('.') for b in spec.action)
        ]
        return checked_command(spec, np.array(values))
    place, names = message, getattr(message, 'joint_names', None)
    if names is None:
        names = message.name
    else:
        if len(message.points) != 1:
            raise UserError(
                f'command: the trajectory has {len(message.points)} points; send one, to be '
                'reached next'
            )
        place = message.points[0]
    names = list(names)
    values = []
    for action in spec.action:
        given = getattr(place, action.field)
        if action.joint not in names or names.index(action.joint) >= len(given):
            raise UserError(
                f'command: no {action.field} for joint {action.joint!r}; it has {len(given)} for '
                f'the joints {names}'
            )
        values.append(given[names.index(action.joint)])
    return checked_command(spec, np.array(values))


def checked_command(spec: RobotSpec, command: np.ndarray) -> np.ndarray:
    """A command, if it is one finite number for each action.

    Raises:
        UserError: it is not.
    """
    if command.shape != (len(spec.action),) or not np.isfinite(command).all():
        raise UserError(
            f'command: got {command.tolist()}, expected {len(spec.action)} finite numbers '
            f'{spec.action_names}'
        )
    return command


def layout(sizes: Mapping[str, int]) -> MultiArrayLayout:
    """One dimension for each labelled part, one after another."""
    return MultiArrayLayout(
        dim=[MultiArrayDimension(label=k, size=n, stride=n) for k, n in sizes.items()]
    )


def _joints(spec: RobotSpec) -> list[str]:
    return list(dict.fromkeys(action.joint for action in spec.action))


COMMAND_TYPES: dict[str, type] = {
    'std_msgs/msg/Float64MultiArray': Float64MultiArray,
    'trajectory_msgs/msg/JointTrajectory': JointTrajectory,
    'geometry_msgs/msg/Twist': Twist,
    'geometry_msgs/msg/TwistStamped': TwistStamped,
    'sensor_msgs/msg/JointState': JointState,
}
