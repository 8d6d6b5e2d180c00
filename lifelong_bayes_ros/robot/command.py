"""The parts of a robot file that say what commands a robot takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from .messages import ARRAY, AXES, JOINT_STATE
from .section import Finite, FrameOrNone, Joint, Name, Positive, Section, TopicName

if TYPE_CHECKING:
    from .spec import RobotSpec

TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
TWIST = 'geometry_msgs/msg/Twist'
TWIST_STAMPED = 'geometry_msgs/msg/TwistStamped'
_TWIST_FIELDS = [f'{part}.{axis}' for part in ('linear', 'angular') for axis in AXES]
COMMAND_FIELDS: dict[str, list[str]] = {
    ARRAY: [],
    TRAJECTORY: ['positions', 'velocities', 'accelerations', 'effort'],
    TWIST: _TWIST_FIELDS,
    TWIST_STAMPED: _TWIST_FIELDS,
    JOINT_STATE: ['position', 'velocity', 'effort'],
}
"""What an action's `field` may be for each type of command; an array goes by order alone."""
BY_JOINT = (TRAJECTORY, JOINT_STATE)


class Action(Section):
    """One number of the command vector: limits, neutral value, slew limit per second.

    `jerk` limits how fast the slew itself changes, per second squared. `field` and, for types that
    name joints, `joint` say where in the message it goes.
    """

    name: Name
    field: str | None = None
    joint: Joint | None = None
    unit: str = ''
    low: Finite
    high: Finite
    neutral: Finite = 0.0
    slew: Positive | None = None
    jerk: Positive | None = None

    @model_validator(mode='after')
    def _ordered(self) -> Action:
        if not self.low < self.high:
            raise ValueError(f'low {self.low} must be below high {self.high}')
        if not self.low <= self.neutral <= self.high:
            raise ValueError(f'neutral {self.neutral} must lie within [{self.low}, {self.high}]')
        return self


class Command(Section):
    """The topic that the robot takes commands on.

    An array holds the actions in the order of the file, as forward controllers of ros2_control
    take them. `frame` goes into the header of the types that have one. `reach` is the time, in s,
    that a JointTrajectory gives the robot to get to its one point; if not given, a control period.
    """

    topic: TopicName = 'command'
    type: Literal[
        'std_msgs/msg/Float64MultiArray',
        'trajectory_msgs/msg/JointTrajectory',
        'geometry_msgs/msg/Twist',
        'geometry_msgs/msg/TwistStamped',
        'sensor_msgs/msg/JointState',
    ] = ARRAY
    frame: FrameOrNone = ''
    reach: Annotated[float, Field(ge=1e-3, le=3600)] | None = None


def check_command(spec: RobotSpec) -> None:
    """Refuse actions that have no place in the command message.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    kind, taken = spec.command.type, {}
    possible = COMMAND_FIELDS[kind]
    if spec.command.reach is not None and kind != TRAJECTORY:
        raise ValueError(f'command.reach: {kind} has no time to reach a point in; leave it out')
    for action in spec.action:
        where = f'action.{action.name}'
        if not possible and action.field is not None:
            raise ValueError(
                f'{where}.field: {kind} holds the actions in their order; leave field out'
            )
        if possible and action.field not in possible:
            raise ValueError(
                f'{where}.field: {action.field or "missing"}: {kind} has {", ".join(possible)}; '
                'use one of these'
            )
        if (action.joint is not None) != (kind in BY_JOINT):
            raise ValueError(
                f'{where}.joint: '
                + (
                    f'missing; {kind} names the joint of each value'
                    if kind in BY_JOINT
                    else f'{kind} names no joints; leave joint out'
                )
            )
        place = action.joint, action.field
        if possible and place in taken:
            raise ValueError(
                f'{where}: goes to the same place as action {taken[place]}; '
                'give each its own field or joint'
            )
        taken[place] = action.name
