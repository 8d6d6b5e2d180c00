"""What a robot file leads to: topics, limits and sizes, and what looks wrong but may be meant."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from . import mjcf
from .channels import DIFFERENCE, Channel
from .command import TRAJECTORY
from .messages import JOINT_STATE, ODOMETRY, POSE
from .names import check_topics, full_name
from .spec import RobotSpec
from .yamltext import KEY, line_of

SENSOR_QOS = 'best effort, volatile, keep last 200'
COMMAND_QOS = 'reliable, volatile, keep last 1'
GOAL_QOS = 'reliable, volatile, keep last 10'
RATES = {  # field of a position: the fields of its source that can be its derivative
    JOINT_STATE: {'position': ('velocity',)},
    ODOMETRY: {
        **{f'position.{axis}': (f'velocity.{axis}',) for axis in 'xyz'},
        'orientation.roll': ('rotation.x',),
        'orientation.pitch': ('rotation.y',),
        'orientation.yaw': ('rotation.z',),
    },
}


@dataclass(frozen=True)
class Connection:
    """A topic that the nodes share with the robot or its operator; `rate` in Hz, if known."""

    direction: str  # subscribe or publish
    what: str
    topic: str
    type: str
    qos: str
    rate: float | None


def connections(spec: RobotSpec, namespace: str) -> list[Connection]:
    """Every topic that robot and operator have to do with, by its full name."""
    control = 1 / spec.period
    found = [
        Connection(
            'subscribe',
            f'state source {name}',
            full_name(source.topic, namespace),
            source.type,
            SENSOR_QOS,
            source.rate or control,
        )
        for name, source in spec.sources.items()
    ]
    found += [
        Connection(
            'subscribe',
            f'outcome {name}',
            full_name(outcome.topic, namespace),
            outcome.type,
            SENSOR_QOS,
            None,
        )
        for name, outcome in spec.outcomes.items()
    ]
    if spec.goal_input is not None:
        topic = full_name(spec.goal_input.topic, namespace)
        found.append(Connection('subscribe', 'goal', topic, spec.goal_input.type, GOAL_QOS, None))
    topic = full_name(spec.command.topic, namespace)
    found.append(Connection('publish', 'command', topic, spec.command.type, COMMAND_QOS, control))
    return found


def check_names(spec: RobotSpec, file: Path, namespace: str) -> None:
    """Look at the topics of a valid robot file once more, for nodes in another namespace.

    Raises:
        UserError: two that differ elsewhere are one there; names file, line and key.
    """
    try:
        check_topics(spec, namespace)
    except ValueError as error:
        raise _fault(file, KEY.match(str(error))[0], str(error)) from None


def check_model(spec: RobotSpec, file: Path) -> None:
    """Look at the model that a robot is drawn with; one that only learns is loaded without.

    Raises:
        UserError: it cannot be read, or has no such `tip`; names file, line and key.
    """
    if spec.view is None or spec.view.model is None:
        return
    key = 'view.model'
    try:
        model = mjcf.load_model(spec.view.model)
        if spec.view.tip is not None:
            key = 'view.tip'
            model.site(spec.view.tip)
    except UserError as error:
        raise _fault(file, key, str(error)) from None


def _fault(file: Path, key: str, said: str) -> UserError:
    """What is wrong with a key of a file that was read before."""
    line = line_of(yaml.compose(file.read_text('utf-8'), yaml.SafeLoader), key.split('.'))
    return UserError(f'{file}:{line}: {key}: {said.removeprefix(f"{key}: ")}')


def warnings(spec: RobotSpec) -> list[str]:
    """What may be meant, but often is not: key, what is odd, and the mend."""
    unseen = [] if spec.view else ['view: not given; RViz shows nothing of the robot or its plans']
    return [*_of_sources(spec), *_of_channels(spec), *_of_actions(spec), *_of_times(spec), *unseen]


def _of_sources(spec: RobotSpec) -> list[str]:
    found, first = [], {}
    for name, source in spec.sources.items():
        other = first.setdefault(full_name(source.topic), name)
        if other != name:
            found.append(
                f'sources.{name}.topic: {source.topic} is that of sources.{other}, too, so each '
                'message is read twice; take all channels from one of them, unless two '
                'publishers send different joints on it'
            )
    return found


def _of_channels(spec: RobotSpec) -> list[str]:
    found = []
    tracked = {*spec.goal.track, *(spec.goal_input.track if spec.goal_input else ())}
    for channel in spec.state:
        where = f'state.{channel.name}'
        if channel.name in tracked and not channel.wraps:
            lacking = [k for k in ('low', 'high') if getattr(channel, k) is None]
            if lacking:
                found.append(
                    f'{where}: without {" and ".join(lacking)}: no goal is out of its reach; '
                    'give its limits'
                )
        if channel.derivative_of is not None:
            position = spec.state[spec.state_names.index(channel.derivative_of)]
            found += [f'{where}: {fault}' for fault in _odd_derivative(spec, channel, position)]
        if channel.field.startswith('orientation.') and not channel.wraps:
            found.append(
                f'{where}.encode: {channel.field} jumps by a turn at ±π; use angle, or wrap if '
                'the dynamics do not depend on it'
            )
    moving = {c.derivative_of for c in spec.state}
    for name in spec.goal.track:
        if name not in moving and spec.goal.track[name].along is None and not spec.cost.rate:
            channel = spec.state[spec.state_names.index(name)]
            if channel.field.startswith('position'):
                found.append(
                    f'goal.track.{name}: no channel is its derivative and cost.rate is empty: '
                    'nothing damps the approach; add one, with field: difference if need be'
                )
    return found


def _odd_derivative(spec: RobotSpec, rate: Channel, position: Channel) -> list[str]:
    odd = []
    if position.unit and rate.unit and rate.unit != f'{position.unit}/s':
        odd.append(
            f'unit {rate.unit} is not that of a derivative of {position.name}, '
            f'{position.unit}/s; correct one of them'
        )
    if rate.field == DIFFERENCE:
        return odd
    if rate.source != position.source or rate.joint != position.joint:
        theirs = [f'{c.source}{f", joint {c.joint}" if c.joint else ""}' for c in (rate, position)]
        odd.append(
            f'derivative_of {position.name}, but it comes from {theirs[0]} and that from '
            f'{theirs[1]}; correct one of them'
        )
        return odd
    known = RATES.get(spec.sources[rate.source].type, {}).get(position.field)
    if known is not None and rate.field not in known:
        odd.append(
            f'derivative_of {position.name}, but {rate.field} is not the derivative of '
            f'{position.field}; use {" or ".join(known)}, or leave derivative_of out'
        )
    elif rate.scale != position.scale:
        odd.append(
            f'scale {rate.scale:g} is not that of {position.name}, {position.scale:g}, whose '
            'derivative it is; use the same'
        )
    return odd


def _of_actions(spec: RobotSpec) -> list[str]:
    found = []
    for action in spec.action:
        if action.slew is None:
            found.append(
                f'action.{action.name}: without slew it may jump over its whole range within '
                'one step; give the change per s that the robot bears'
            )
    fields = {action.field for action in spec.action}
    if spec.command.type == TRAJECTORY and 'positions' not in fields:
        found.append(
            'command: joint_trajectory_controller takes points with positions, unless it is told '
            'otherwise; check that it takes ' + ' and '.join(sorted(map(str, fields)))
        )
    if spec.command.type.endswith('Stamped') and not spec.command.frame:
        found.append('command.frame: empty; most controllers want the base frame, e.g. base_link')
    return found


def _of_times(spec: RobotSpec) -> list[str]:
    found, control = [], 1 / spec.period
    for name, source in spec.sources.items():
        if source.rate is not None and source.rate < 0.9 * control:
            found.append(
                f'sources.{name}.rate: {source.rate:g} Hz is slower than control, '
                f'{control:g} Hz; states come only so often: raise period to {1 / source.rate:g}'
            )
        if source.type == POSE and len(spec.sources) == 1 and not spec.differences:
            found.append(
                f'sources.{name}: a PoseStamped holds no velocity; add channels with '
                f'field: {DIFFERENCE}'
            )
    if len(spec.sources) > 1 and spec.slop >= spec.period:
        found.append(f'slop: {spec.slop:g} s is a whole period; readings would be paired wrongly')
    if spec.max_age < 2 * spec.period:
        found.append(
            f'max_age: {spec.max_age:g} s is less than two periods: one lost message stops the '
            f'robot; use {4 * spec.period:g} or more'
        )
    if not spec.stamped:
        found.append(
            'sources: none has a header, so times are those of arrival; learning is better with '
            'a stamped source'
        )
    return found


def report(spec: RobotSpec, namespace: str) -> dict[str, Any]:
    """All of it as plain data; sizes are those of the vectors."""
    return {
        'robot': spec.name,
        'period': spec.period,
        'frame': spec.frame,
        'connections': [asdict(connection) for connection in connections(spec, namespace)],
        'state': [_row(channel, ('unit', 'encode', 'low', 'high')) for channel in spec.state],
        'action': [
            _row(action, ('unit', 'low', 'high', 'neutral', 'slew', 'jerk'))
            for action in spec.action
        ],
        'safe_action': spec.safe_action.model_dump(),
        'sizes': {'state': len(spec.state), 'action': len(spec.action)},
        'warnings': warnings(spec),
    }


def _row(part: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    place = '.'.join(filter(None, (getattr(part, 'source', None), part.joint, part.field)))
    return {'name': part.name, 'place': place, **{key: getattr(part, key) for key in keys}}
