"""Goal messages read into goals, checked against the robot."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry, Path
from trajectory_msgs.msg import JointTrajectory

from ..control.goals import Goal, Trajectory, Velocity, along_path
from ..errors import UserError
from ..robot.messages import odometry_fields
from ..robot.spec import RobotSpec
from .codecs import to_ns


def read_goal(spec: RobotSpec, message: Any, now_ns: int) -> Goal:
    """The goal that a message of the robot file's `goal_input` type asks for.

    A stamp of zero means `now_ns`, the time of the robot's newest state.

    Raises:
        UserError: in an unknown frame, of the wrong length, in the past, not finite, or out of the
            robot's reach.
    """
    reader = {
        JointTrajectory: _trajectory,
        Path: _path,
        PoseStamped: _pose,
        Twist: _twist,
    }[type(message)]
    return reader(spec, message, now_ns)


def _trajectory(spec: RobotSpec, message: JointTrajectory, now_ns: int) -> Trajectory:
    weights = spec.goal_input.track
    joints = {spec.state[i].joint: name for name, i in zip(weights, spec.index(list(weights)))}
    names = list(message.joint_names)
    if sorted(names) != sorted(joints):
        raise UserError(f'goal: joint_names are {names}, robot {spec.name} takes {list(joints)}')
    start = to_ns(message.header.stamp) or now_ns
    order = [names.index(joint) for joint in joints]
    points = message.points
    given = {len(p.velocities) > 0 for p in points}
    if len(given) > 1:
        raise UserError('goal: some points have velocities and some have not; give all or none')
    return Trajectory(
        spec,
        weights,
        [start + to_ns_of(p.time_from_start) for p in points],
        _table('positions', [p.positions for p in points], order),
        _table('velocities', [p.velocities for p in points], order) if True in given else None,
        now_ns,
    )


def to_ns_of(duration: Any) -> int:
    """Nanoseconds of a duration message."""
    return duration.sec * 1_000_000_000 + duration.nanosec


def _table(what: str, rows: list[Any], order: list[int]) -> np.ndarray:
    for i, row in enumerate(rows):
        if len(row) != len(order):
            raise UserError(f'goal: point {i} has {len(row)} {what} for {len(order)} joints')
    return np.array([[row[j] for j in order] for row in rows]).reshape(len(rows), len(order))


def _path(spec: RobotSpec, message: Path, now_ns: int) -> Trajectory:
    _check_header(spec, message.header, now_ns)
    rows = [_place(spec, pose.pose) for pose in message.poses]
    values = np.array(rows).reshape(len(rows), len(spec.goal_input.track))
    return along_path(spec, spec.goal_input.track, values, spec.goal_input.speed, now_ns)


def _pose(spec: RobotSpec, message: PoseStamped, now_ns: int) -> Trajectory:
    _check_header(spec, message.header, now_ns)
    place = [_place(spec, message.pose)]
    return Trajectory(spec, spec.goal_input.track, [now_ns], place, now_ns=now_ns)


def _check_header(spec: RobotSpec, header: Any, now_ns: int) -> None:
    if header.frame_id != spec.frame:
        raise UserError(
            f'goal: in the unknown frame {header.frame_id!r}; robot {spec.name} takes goals in '
            f'{spec.frame!r}'
        )
    stamp_ns = to_ns(header.stamp)
    if stamp_ns and now_ns - stamp_ns > spec.goal_input.max_age * 1e9:
        age = (now_ns - stamp_ns) * 1e-9
        raise UserError(
            f'goal: stamped {age:.1f} s ago, goal_input.max_age is {spec.goal_input.max_age:g} s; '
            "stamp it with the robot's time, or with zero"
        )


def _place(spec: RobotSpec, pose: Any) -> list[float]:
    message = Odometry()
    message.pose.pose = pose
    channels = [spec.state[i] for i in spec.index(list(spec.goal_input.track))]
    try:
        fields = odometry_fields(message, {c.field for c in channels})
    except UserError as error:
        raise UserError(f'goal: {error}') from None
    return [fields[c.field] for c in channels]


def _twist(spec: RobotSpec, message: Twist, now_ns: int) -> Velocity:
    fields = {}
    for axis in 'xyz':
        linear = getattr(message.linear, axis)
        fields |= {f'velocity.{axis}': linear, f'body_velocity.{axis}': linear}
        fields[f'rotation.{axis}'] = getattr(message.angular, axis)
    channels = [spec.state[i] for i in spec.index(list(spec.goal_input.track))]
    values = np.array([fields[c.field] for c in channels])
    until = now_ns + round(spec.goal_input.timeout * 1e9)
    return Velocity(spec, spec.goal_input.track, values, until)
