"""The commands of a first robot file: its actions, command topic and safe action."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError
from .command import BY_JOINT, TRAJECTORY, TWIST, TWIST_STAMPED
from .draft_state import positions, wider
from .draft_text import EDIT, name_of, plain, unique
from .messages import ARRAY, JOINT_STATE
from .observation import Seen, Series, series

FRAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_./-]*')
DEFAULTS = {  # limits of a command that was never seen, by its field; careful ones
    'linear': (0.2, 'm/s'),
    'angular': (0.3, 'rad/s'),
    'velocities': (0.2, 'rad/s'),
    'velocity': (0.2, 'rad/s'),
    'effort': (1.0, 'N m'),
    'position': (0.1, 'rad'),
    'positions': (0.1, 'rad'),
    '': (0.1, ''),
}


def action_lines(commands: Sequence[Seen], states: Iterable[Seen]) -> list[str]:
    """The sections `action`, `command` and `safe_action`, for the first of the candidates.

    Raises:
        UserError: it is not known how many values the command has.
    """
    command = commands[0]
    used = _used(command)
    told = 'limits are what was commanded' if used else 'limits are guesses, and careful'
    lines, taken, modes = [f'action:  {EDIT} {told}'], set(), set()
    rows = [(s.field, s.joint, s) for s in used] or _unseen(command, states)
    for i, (field, joint, s) in enumerate(rows):
        keys, mode = _action(command, i, field, joint, s, taken)
        modes.add(mode)
        lines.append(f'  - {{{", ".join(f"{k}: {plain(v)}" for k, v in keys.items())}}}')
    others = [f'{c.topic} ({c.type})' for c in commands[1:]]
    keys = {'topic': command.topic, 'type': command.type}
    if command.type == TWIST_STAMPED:
        keys['frame'] = frame_of(command)
    note = f'  {EDIT} or one of {", ".join(others)}' if others else ''
    text = ', '.join(f'{k}: {plain(v)}' for k, v in keys.items())
    lines.append(f'command: {{{text}}}{note}')
    lines.append(f'safe_action: {{mode: {"hold" if "hold" in modes else "zero"}, ticks: 25}}')
    return lines


def frame_of(seen: Seen) -> str:
    """The frame of a topic's headers; base_link, if there is none that a robot file takes."""
    frame = seen.frame.lstrip('/')
    return frame if FRAME.fullmatch(frame) else 'base_link'


def _action(
    command: Seen, index: int, field: str, joint: str | None, s: Series | None, taken: set[str]
) -> tuple[dict[str, str | float], str]:
    """Keys of an action, and the safe action that it bears."""
    array = command.type == ARRAY
    guess, unit = DEFAULTS['' if array else field.split('.')[0]]
    reach = max(abs(s.low), abs(s.high)) if s is not None else 0.0
    reach = reach if reach > 1e-3 else guess
    low, high = -reach, reach
    position = field.startswith('position') and not array
    if position:
        low, high = s.low - wider(s, 0.0), s.high + wider(s, 0.0)
    neutral = min(max(0.0, low), high)
    what = f'u{index}' if array else field.replace('.', '_')
    keys = {'name': unique(name_of('_'.join(filter(None, (joint, what)))) + '_command', taken)}
    keys |= {'joint': joint} if command.type in BY_JOINT else {}
    keys |= {} if array else {'field': field}
    keys |= {'unit': unit} if unit else {}
    keys |= {'low': low, 'high': high, 'neutral': neutral}
    keys |= {'slew': 10 * (high - low)}
    return keys, 'hold' if position else 'zero'


def _used(command: Seen) -> list[Series]:
    """The numbers of a command that were ever other than zero; all of an array or of joints."""
    found = [s for s in series(command) if s.field != 'time_from_start']
    if command.type == ARRAY:
        return found
    if command.type in BY_JOINT:
        first = next(
            (
                f
                for f in ('positions', 'position', 'velocities', 'velocity', 'effort')
                if any(s.field == f for s in found)
            ),
            None,
        )
        return [s for s in found if s.field == first]
    return [s for s in found if np.any(s.values)]


def _unseen(command: Seen, states: Iterable[Seen]) -> list[tuple[str, str | None, Series | None]]:
    """Actions of a command never seen, from the robot's joints or a twist's usual parts."""
    if command.type in (TWIST, TWIST_STAMPED):
        return [('linear.x', None, None), ('angular.z', None, None)]
    joints = [s for seen in states if seen.type == JOINT_STATE for s in positions(seen)]
    joints = [s for s in joints if s.moves] or joints
    if not joints:
        raise UserError(
            f'{command.topic} ({command.type}) was never sent anything, so the number of its '
            'values is unknown; record it while the robot is driven'
        )
    field = 'positions' if command.type == TRAJECTORY else 'position'
    return [(field, s.joint, None if command.type == ARRAY else s) for s in joints]
