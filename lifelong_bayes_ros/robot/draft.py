"""A first robot file, written from what was seen of a robot; a person then edits it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError
from .draft_command import action_lines, frame_of
from .draft_state import Drafted, channels, left_out, sources
from .draft_text import EDIT, name_of, plain
from .observation import Seen, candidates

FASTEST = 50.0  # Hz of control that a first file asks for at most
SLOWEST = 0.1


def draft(topics: Sequence[Seen], name: str) -> str:
    """The text of a robot file, with comments that tell what to edit.

    Raises:
        UserError: nothing that was seen tells a robot's state, or nothing takes commands.
    """
    chosen = sources(topics)
    commands = candidates(seen for seen in topics if seen not in chosen.values())
    if not commands:
        raise UserError(
            'no topic that takes commands was seen; start the controller that takes a Float64'
            'MultiArray, JointTrajectory, Twist, TwistStamped or JointState, or record its topic'
        )
    found = channels(chosen)
    if not found:
        raise UserError(
            f'{", ".join(s.topic for s in chosen.values())}: no finite numbers came; '
            'let the robot publish its state and try again'
        )
    main = next(iter(chosen.values()))
    period = _period(chosen.values(), commands[0])
    lines = [
        '# A first robot file, written from what a robot published. It knows no more than was',
        '# seen meanwhile: check every line, above all those marked EDIT.',
        f'name: {plain(name_of(name))}',
        f'period: {period:g}  {_why(main)}',
        f'frame: {plain(frame_of(main))}',
        f'max_age: {max(0.2, 4 * period):g}  # s without state before the safe action',
        'sources:',
    ]
    for source, seen in chosen.items():
        rate = f', rate: {seen.rate:.3g}' if seen.rate else ''
        topic, kind = plain(seen.topic), plain(seen.type)
        lines.append(f'  {plain(source)}: {{topic: {topic}, type: {kind}{rate}}}')
    lines.append(f'state:  {EDIT} limits are the range that was seen, and some more')
    lines += [f'  - {channel.text}' for channel in found]
    if still := left_out(chosen):
        lines.append(f'  {EDIT} left out, for they never moved: {", ".join(map(repr, still))}')
    lines += [*action_lines(commands, chosen.values()), *_task(found), *_view(found)]
    return '\n'.join(lines) + '\n'


def _period(sources: Iterable[Seen], command: Seen) -> float:
    rates = [seen.rate or FASTEST for seen in sources]
    if command.messages and command.rate:
        rates.append(command.rate)
    return float(f'{1 / max(min(*rates, FASTEST), SLOWEST):.3g}')


def _why(main: Seen) -> str:
    if main.rate is None:
        return f'{EDIT} s; too few messages came to measure a rate'
    return f'# s; {main.topic} came at {main.rate:.3g} Hz'


def _task(found: Sequence[Drafted]) -> list[str]:
    """Sections `goal` and `cost`: stay where it mostly was."""
    tracked = [c for c in found if c.tracked] or list(found[:1])
    centers = {c.name: float(np.median(c.seen.values)) for c in tracked}
    damped = {c.keys.get('derivative_of') for c in found}
    weights = ', '.join(f'{plain(n)}: 10.0' for n in centers)
    rates = ', '.join(f'{plain(n)}: 0.5' for n in centers if n in damped)
    return [
        f'goal:  {EDIT} stay where it mostly was; amplitude and period would make it move',
        '  track:',
        *(f'    {plain(n)}: {{center: {plain(v)}}}' for n, v in centers.items()),
        '  scale: 0.1  # of the score exp(-distance / scale)',
        'cost:',
        f'  track: {{{weights}}}',
        f'  rate: {{{rates}}}',
        '  action: 0.01',
        '  action_rate: 0.01',
        '  limit: 100.0',
    ]


def _view(found: Sequence[Drafted]) -> list[str]:
    """Section `view`: how RViz shows it; none for what no kind of view fits."""
    at = {c.keys['field']: plain(c.name) for c in found}
    joints = [plain(c.name) for c in found if c.keys['field'] == 'position']
    view = ''
    if {'position.x', 'position.y', 'orientation.yaw'} <= at.keys():
        x, y, heading = at['position.x'], at['position.y'], at['orientation.yaw']
        view = f'kind: vehicle, x: {x}, y: {y}, heading: {heading}, size: 0.3'
    elif {'position.x', 'position.z'} <= at.keys():
        pitch = at.get('orientation.pitch')
        view = f'kind: body, x: {at["position.x"]}, z: {at["position.z"]}'
        view += (f', pitch: {pitch}' if pitch else '') + ', size: 0.3'
    elif joints:
        lengths = ', '.join(['0.3'] * len(joints))
        view = f'kind: chain, joints: [{", ".join(joints)}], lengths: [{lengths}], size: 0.05'
    if not view:
        return [f'{EDIT} no `view` fits what was seen: RViz will show nothing of it']
    return [f'view: {{{view}}}  {EDIT} how RViz shows it; lengths and size in metres']
