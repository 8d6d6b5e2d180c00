"""Which cores of the machine a process keeps to (Linux).

A controller that has a core of its own answers sooner: nothing is moved to and fro, and its caches
stay warm.
"""

from __future__ import annotations

import os
import re

from .errors import UserError


def cores(text: str) -> set[int]:
    """Cores of a text as `taskset -c` takes it, e.g. `0`, `0,2` or `2-3`.

    Raises:
        UserError: no such text, or this process may not run on one of them.
    """
    if not hasattr(os, 'sched_setaffinity'):
        raise UserError(f'cpus {text!r}: this system does not tell cores apart; leave it empty')
    if not re.fullmatch(r'\d+(-\d+)?(,\d+(-\d+)?)*', text):
        raise UserError(f'cpus {text!r} are no cores; write e.g. 0, 0,2 or 2-3')
    wanted: set[int] = set()
    for part in text.split(','):
        first, _, last = part.partition('-')
        wanted |= set(range(int(first), int(last or first) + 1))
    if missing := sorted(wanted - os.sched_getaffinity(0)):
        raise UserError(f'cpus {text!r}: there is no core {missing[0]} here, only {_told()}')
    if not wanted:
        raise UserError(f'cpus {text!r} are none; write the lower number first')
    return wanted


def other_cores(text: str) -> str:
    """All cores of this process but those of a text, as such a text.

    Raises:
        UserError: as for `cores`, or none is left.
    """
    wanted = cores(text)
    left = os.sched_getaffinity(0) - wanted
    if not left:
        raise UserError(f'cpus {text!r} leave no core to the other nodes; there are {_told()}')
    return ','.join(map(str, sorted(left)))


def keep_to(text: str) -> None:
    """Keep all threads of this process, and those to come, to these cores; empty: as they are.

    Raises:
        UserError: as for `cores`.
    """
    if not text:
        return
    wanted = cores(text)
    for thread in os.listdir('/proc/self/task'):
        os.sched_setaffinity(int(thread), wanted)


def _told() -> str:
    return ', '.join(map(str, sorted(os.sched_getaffinity(0))))
