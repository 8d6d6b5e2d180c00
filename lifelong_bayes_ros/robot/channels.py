"""The parts of a robot file that say what state a robot publishes, and how it enters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .messages import ARRAY, FIELDS, JOINT_STATE, has_field
from .names import full_name
from .section import Finite, Joint, Name, Positive, Section, TopicName

if TYPE_CHECKING:
    from .spec import RobotSpec

DIFFERENCE = 'difference'  # field of a channel that is reckoned from the one it is derived from
UNSTAMPED = (ARRAY,)  # types of messages without a header


class Source(Section):
    """One topic the robot publishes its state on.

    `rate` is how often it comes, in Hz; if not given, it is expected once a control period.
    Messages without a header take the stamp of the newest other source; where there is none, the
    time of their arrival.
    """

    topic: TopicName
    type: Literal[
        'sensor_msgs/msg/JointState',
        'nav_msgs/msg/Odometry',
        'sensor_msgs/msg/Imu',
        'std_msgs/msg/Float64MultiArray',
        'geometry_msgs/msg/PoseStamped',
    ]
    rate: Positive | None = None


class Channel(Section):
    """One number of the state vector and where it comes from: scale · reading + offset.

    `encode` tells the dynamics how it enters: `value` as it is, `angle` as cosine and sine with
    wrapped differences, `none` not at all (a position that the dynamics do not depend on), `wrap`
    not at all but with wrapped differences (a heading that the dynamics do not depend on). With
    `field: difference` it has no source: it is the change of the channel that it is the
    `derivative_of`, per second, for robots that publish no velocity.
    """

    name: Name
    source: str | None = None
    field: str
    joint: Joint | None = None
    scale: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    offset: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    unit: str = ''
    encode: Literal['value', 'angle', 'none', 'wrap'] = 'value'
    derivative_of: str | None = None
    low: Finite | None = None
    high: Finite | None = None

    @property
    def wraps(self) -> bool:
        """Whether it is an angle, so that a full turn is no difference."""
        return self.encode in ('angle', 'wrap')


def check_channels(spec: RobotSpec) -> None:
    """Refuse channels that their sources cannot give, or that contradict each other.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    names, taken = spec.state_names, {}
    for channel in spec.state:
        where = f'state.{channel.name}'
        if channel.derivative_of is not None and channel.derivative_of not in names:
            raise ValueError(
                f'{where}.derivative_of: {channel.derivative_of!r} is not a '
                f'state channel; use one of {names}'
            )
        if channel.derivative_of == channel.name:
            raise ValueError(f'{where}.derivative_of: it is its own derivative; name the position')
        if channel.scale == 0:
            raise ValueError(f'{where}.scale: 0 would lose the reading; use another scale')
        if channel.field == DIFFERENCE:
            _check_difference(spec, channel)
            place = channel.derivative_of
        else:
            _check_source(spec, channel)
            topic = full_name(spec.sources[channel.source].topic)
            place = topic, channel.joint, channel.field
        if place in taken:
            raise ValueError(
                f'{where}: is the same reading as state.{taken[place]}; remove one, or correct '
                'its source, joint or field'
            )
        taken[place] = channel.name
        if channel.wraps:
            for key in ('low', 'high'):
                limit = getattr(channel, key)
                if limit is not None and abs(limit) > math.pi:
                    raise ValueError(
                        f'{where}.{key}: {limit:g} is outside ±π, where '
                        f'{channel.encode} keeps it; bring it within, or use encode: value'
                    )
        if channel.low is not None and channel.high is not None and channel.low >= channel.high:
            raise ValueError(f'{where}: low {channel.low} must be below high {channel.high}')
    idle = sorted(set(spec.sources) - {c.source for c in spec.state})
    if idle:
        raise ValueError(f'sources.{idle[0]}: no channel is taken from it; remove it or use it')


def _check_difference(spec: RobotSpec, channel: Channel) -> None:
    where = f'state.{channel.name}'
    if channel.derivative_of is None:
        raise ValueError(f'{where}: field difference needs `derivative_of:`, the position')
    for key, default in (('source', None), ('joint', None), ('scale', 1.0), ('offset', 0.0)):
        if getattr(channel, key) != default:
            raise ValueError(
                f'{where}.{key}: a difference is reckoned from {channel.derivative_of}; '
                f'leave {key} out'
            )
    if spec.state[spec.state_names.index(channel.derivative_of)].field == DIFFERENCE:
        raise ValueError(
            f'{where}.derivative_of: {channel.derivative_of} is a difference itself; '
            'name a channel that is measured'
        )


def _check_source(spec: RobotSpec, channel: Channel) -> None:
    where = f'state.{channel.name}'
    if channel.source is None:
        raise ValueError(f'{where}.source: missing; use one of {sorted(spec.sources)}')
    if channel.source not in spec.sources:
        raise ValueError(
            f'{where}.source: {channel.source!r} is not among the sources '
            f'{sorted(spec.sources)}; add it there or correct the name'
        )
    kind = spec.sources[channel.source].type
    if kind == JOINT_STATE and channel.joint is None:
        raise ValueError(f'{where}: a JointState source needs `joint:`')
    if kind != JOINT_STATE and channel.joint is not None:
        raise ValueError(f'{where}.joint: {kind} has no joints; leave joint out')
    if not has_field(kind, channel.field):
        raise ValueError(
            f'{where}.field: {channel.field!r} is not in {kind}; '
            f'use one of {", ".join(FIELDS[kind])}, or {DIFFERENCE}'
        )
