"""Runs whose results are kept in files, so that an interrupted bench goes on where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import UserError
from ..learning.store import write_atomically
from .lives import watched
from .sweep import Failure, Job, run_here
from .units import code_hash

Status = Callable[[str, float], None]


class KeptJob(Job, Protocol):
    """A job that can say what its result depends on beside the code."""

    @property
    def name(self) -> str:
        """Of its file."""

    def facts(self) -> list[Any]:
        """What decides the result, as JSON holds it."""


Unit = TypeVar('Unit', bound=KeptJob)


def run_kept(
    units: Sequence[Unit], out: Path, jobs: int, status: Status
) -> dict[Unit, dict[str, Any]]:
    """Results of all units: those that `out` holds, and the others run in `jobs` processes.

    A result found is used only if it was made by the same code from the same facts.

    Raises:
        UserError: a unit failed; the results of the others are kept.
    """
    keys = {unit: key_of(unit) for unit in units}
    found = {unit: kept(out / f'{unit.name}.json', keys[unit]) for unit in units}
    todo = [unit for unit in units if found[unit] is None]
    for number, outcome in watched(todo, run_here, jobs, status):
        unit = todo[number]
        if isinstance(outcome, Failure):
            raise UserError(f'{unit} failed: {outcome}')
        result = {'key': keys[unit], 'result': outcome}
        write_atomically(out / f'{unit.name}.json', json.dumps(result).encode())
        found[unit] = outcome
    return found


def key_of(unit: KeptJob) -> str:
    """Hash of what decides a unit's result."""
    own = Path(inspect.getfile(type(unit))).read_text()
    return hashlib.sha256(json.dumps([*unit.facts(), own, code_hash()]).encode()).hexdigest()[:16]


def kept(path: Path, key: str) -> dict[str, Any] | None:
    """The result in a file, if it was made under this key."""
    try:
        found = json.loads(path.read_text())
        return found['result'] if found['key'] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
