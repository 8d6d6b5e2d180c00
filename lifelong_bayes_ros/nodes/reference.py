"""Topics, services and parameters of the nodes as a page, read from the code.

`python -m lifelong_bayes_ros.nodes.reference > docs/reference.md` writes the page anew.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ..robot.names import NAMESPACE
from . import topics
from .base import LIMITS, SHARED, BaseNode, Parameter
from .table import COMMON, SETTINGS, TABLE, UP_DEFAULTS, NodeEntry
from .topics import COMMAND_TYPES, FIXED, GOAL_TYPES, STATE_TYPES, type_name

HEAD = f"""# Topics, services and parameters

This page is made from the code by `python -m lifelong_bayes_ros.nodes.reference`; a test holds it
against the code. Names are relative to the namespace of the nodes (`{NAMESPACE}` unless it is
remapped), but for those that begin with `/`. What the fields of each topic hold is in the README.
"""

# What a node declares only once it has read its robot file, see `nodes.operator`.
OF_THE_ROBOT = {
    'policy': [
        (
            f'`{LIMITS}ACTION.{end}`',
            f'`{end}` of the action',
            '`low` to `high` of the action',
            'while running',
            f'{end}est command of the action of this name, in its unit, inside the robot file',
        )
        for end in ('low', 'high')
    ]
}


def node_class(entry: NodeEntry) -> type[BaseNode]:
    """The class of a node of the table."""
    values = vars(importlib.import_module(entry.module)).values()
    kinds = (v for v in values if isinstance(v, type) and issubclass(v, BaseNode))
    return next(k for k in kinds if k is not BaseNode)


def services(entry: NodeEntry) -> Iterator[tuple[str, str]]:
    """Name and type of every service that a node offers, by its source."""
    source = Path(importlib.import_module(entry.module).__file__).read_text('utf-8')
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == 'self.serve':
            kind, name = call.args[:2]
            yield ast.literal_eval(name), f'std_srvs/srv/{ast.unparse(kind)}'


def quality(profile: QoSProfile) -> str:
    """A profile in words."""
    words = ['reliable' if profile.reliability == ReliabilityPolicy.RELIABLE else 'best effort']
    if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        words.append('transient local')
    return ', '.join([*words, f'depth {profile.depth}'])


def shown(value: object) -> str:
    """A default value."""
    if value == '':
        return 'empty'
    return f'`{str(value).lower() if isinstance(value, bool) else value}`'


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    heading = list(heading)
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def page() -> str:
    """The whole page."""
    parts = [HEAD, '## Topics\n']
    fixed = (
        (f'`{t.name}`', type_name(t), quality(t.qos), f'`{t.node}`' if t.node else 'any')
        for t in FIXED
    )
    parts.append(table(('topic', 'type', 'quality of service', 'publisher'), fixed))
    parts.append(
        'The robot file names the others: state comes by `sources` as '
        f'{", ".join(STATE_TYPES)}, subscribed as {quality(topics.qos.SENSOR)}, which matches '
        'every publisher (the policy outside lockstep: depth 1, the newest alone); '
        f'commands leave by `command` as {", ".join(COMMAND_TYPES)} ({quality(topics.qos.COMMAND)}'
        f'); goals come by `goal_input` as {", ".join(GOAL_TYPES)} '
        f'({quality(topics.qos.TELEMETRY)}).\n'
    )
    parts.append('## Services\n')
    offered = (
        (f'`{entry.name}/{name.removeprefix("~/")}`', kind)
        for entry in TABLE
        for name, kind in services(entry)
    )
    parts.append(table(('service', 'type'), offered))
    parts.append(
        'Every node is a lifecycle node with the services that these have (`change_state`, '
        '`get_state`, ...).\n'
    )
    parts.append('## Parameters\n')
    parts.append('Of every node:\n')
    parts.append(_parameters(SHARED))
    for entry in TABLE:
        if node_class(entry).PARAMETERS:
            parts.append(f'### {entry.name}\n')
            more = OF_THE_ROBOT.get(entry.name, [])
            parts.append(_parameters(node_class(entry).PARAMETERS, more))
    parts.append('## Settings of launch files and of `lifelong-bayes up`\n')
    parts.append(
        table(
            ('setting', 'meaning'), ((f'`{s.name}`', s.description) for s in (*SETTINGS, *COMMON))
        )
    )
    told = '; '.join(f'`{name}`: {words}' for name, words in UP_DEFAULTS.items())
    parts.append(f'What `lifelong-bayes up` takes where it is not given: {told}.\n')
    return '\n'.join(parts)


def _parameters(rows: Iterable[Parameter], more: Iterable[Iterable[str]] = ()) -> str:
    lines = []
    for row in rows:
        limits = '' if row.low is None or row.high is None else f'{row.low:g} to {row.high:g}'
        changes = 'while running' if row.live else 'at the start'
        lines.append((f'`{row.name}`', shown(row.default), limits, changes, row.description))
    return table(('parameter', 'default', 'range', 'may be set', 'meaning'), [*lines, *more])


if __name__ == '__main__':
    print(page(), end='')
