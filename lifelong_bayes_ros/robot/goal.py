"""The part of a robot file that says which goals a robot takes by topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .section import NonNegative, Positive, Section, TopicName

if TYPE_CHECKING:
    from .spec import Channel, RobotSpec

TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
PATH = 'nav_msgs/msg/Path'
POSE = 'geometry_msgs/msg/PoseStamped'
TWIST = 'geometry_msgs/msg/Twist'
FIELDS = {  # of the robot's state that a goal of each type can give
    TRAJECTORY: ('position',),
    PATH: ('position.', 'orientation.'),
    POSE: ('position.', 'orientation.'),
    TWIST: ('velocity.', 'body_velocity.', 'rotation.'),
}


class GoalInput(Section):
    """The topic that goals come on.

    `track` names the state channels that a goal gives a reference for, and their cost weights;
    derivatives of these weigh what `cost.rate` says. A path is followed at `speed` (unit of its
    positions per s). A velocity holds for `timeout` s, then the robot is to stand. Goals stamped
    more than `max_age` s ago or ahead are refused; a trajectory, which is stamped with its start,
    may have begun earlier, but must not be over. With `required` the robot keeps its safe action
    until it has a goal; otherwise the file's `goal` is followed meanwhile.
    """

    topic: TopicName = 'goal'
    type: Literal[
        'trajectory_msgs/msg/JointTrajectory',
        'nav_msgs/msg/Path',
        'geometry_msgs/msg/PoseStamped',
        'geometry_msgs/msg/Twist',
    ]
    track: Annotated[dict[str, NonNegative], Field(min_length=1)]
    speed: Positive = 0.5
    timeout: Positive = 0.5
    max_age: Positive = 5.0
    required: bool = False


def check_goal_input(spec: RobotSpec) -> None:
    """Refuse channels that goals of the type cannot give.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    if spec.goal_input is None:
        return
    possible = [c.name for c in spec.state if _given(spec, c)]
    unknown = sorted(set(spec.goal_input.track) - set(possible))
    if unknown:
        raise ValueError(
            f'goal_input.track: {spec.goal_input.type} gives no reference for channel {unknown}; '
            f'use {f"one of {possible}" if possible else "another type"}'
        )


def _given(spec: RobotSpec, channel: Channel) -> bool:
    kind = spec.goal_input.type
    if channel.source is None:  # reckoned from another one
        return False
    if (kind == TRAJECTORY) != spec.sources[channel.source].type.endswith('JointState'):
        return False
    return channel.field.startswith(FIELDS[kind])
