"""Goal messages read into goals, checked against the robot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry, Path
from trajectory_msgs.msg import JointTrajectory

from ..control.goals import Goal, Trajectory, Velocity, along_path
from ..errors import UserError
from ..robot.messages import AXES, odometry_fields
from ..robot.spec import RobotSpec
from .codecs import to_ns

TWIST_FIELDS = {'linear': ('velocity', 'body_velocity'), 'angular': ('rotation',)}


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
    if message.header.frame_id:  # joints need none
        _check_frame(spec, message.header)
    start = to_ns(message.header.stamp) or now_ns
    ahead = (start - now_ns) * 1e-9
    if ahead > spec.goal_input.max_age:
        raise _untimely(spec, ahead, 'ahead')
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
    for pose in message.poses:
        if pose.header.frame_id:
            _check_frame(spec, pose.header)
    rows = [_place(spec, pose.pose) for pose in message.poses]
    values = np.array(rows).reshape(len(rows), len(spec.goal_input.track))
    return along_path(spec, spec.goal_input.track, values, spec.goal_input.speed, now_ns)


def _pose(spec: RobotSpec, message: PoseStamped, now_ns: int) -> Trajectory:
    _check_header(spec, message.header, now_ns)
    place = [_place(spec, message.pose)]
    return Trajectory(spec, spec.goal_input.track, [now_ns], place, now_ns=now_ns)


def _check_frame(spec: RobotSpec, header: Any) -> None:
    if header.frame_id != spec.frame:
        raise UserError(
            f'goal: in the unknown frame {header.frame_id!r}; robot {spec.name} takes goals in '
            f'{spec.frame!r}'
        )


def _check_header(spec: RobotSpec, header: Any, now_ns: int) -> None:
    _check_frame(spec, header)
    stamp_ns = to_ns(header.stamp)
    age = (now_ns - stamp_ns) * 1e-9
    if stamp_ns and abs(age) > spec.goal_input.max_age:
        raise _untimely(spec, abs(age), 'ago' if age > 0 else 'ahead')


def _untimely(spec: RobotSpec, seconds: float, when: str) -> UserError:
    return UserError(
        f'goal: stamped {seconds:.1f} s {when}, goal_input.max_age is '
        f"{spec.goal_input.max_age:g} s; stamp it with the robot's time, or with zero"
    )


def _check_finite(what: str, *parts: Any) -> None:
    """Refuse parts of a message that hold no numbers, whether the robot follows them or not."""
    for part in parts:
        for name in part.get_fields_and_field_types():
            if not math.isfinite(getattr(part, name)):
                raise UserError(f'goal: {what}.{name} is {getattr(part, name)}, not finite')


def _place(spec: RobotSpec, pose: Any) -> list[float]:
    _check_finite('position', pose.position)
    _check_finite('orientation', pose.orientation)
    message = Odometry()
    message.pose.pose = pose
    channels = [spec.state[i] for i in spec.index(list(spec.goal_input.track))]
    try:
        fields = odometry_fields(message, {c.field for c in channels})
    except UserError as error:
        raise UserError(f'goal: {error}') from None
    return [fields[c.field] for c in channels]


def _twist(spec: RobotSpec, message: Twist, now_ns: int) -> Velocity:
    _check_finite('linear', message.linear)
    _check_finite('angular', message.angular)
    channels = [spec.state[i] for i in spec.index(list(spec.goal_input.track))]
    used = {c.field for c in channels}
    fields = {}
    for part, groups in TWIST_FIELDS.items():
        for axis in AXES:
            value, names = getattr(getattr(message, part), axis), {f'{g}.{axis}' for g in groups}
            if value and not names & used:
                raise UserError(
                    f'goal: {part}.{axis} is {value:g}, but robot {spec.name} follows only '
                    f'{sorted(used)}; leave it 0'
                )
            fields |= dict.fromkeys(names, value)
    values = np.array([fields[c.field] for c in channels])
    until = now_ns + round(spec.goal_input.timeout * 1e9)
    return Velocity(spec, spec.goal_input.track, values, until)
