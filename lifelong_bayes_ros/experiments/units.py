"""One unit of work: a method through a life with a seed, and the file that keeps its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lifelong_bayes_ros_sim as sim

from ..dynamics.model import Prior
from ..learning.codec import fingerprint
from ..learning.store import write_atomically
from ..robot.spec import load_robot
from .agents import METHODS, Agent, Setting, Status
from .course import points
from .life import run_life
from .priors import cached_file, oracle_for, prior_for
from .probes import ModelErrors, footprint
from .record import Run, from_json, to_json
from .schedule import Life

Progress = Callable[[float], None]  # share done


@dataclass(frozen=True)
class Unit:
    """A method through a life with a seed."""

    name: str  # of the life
    life: Life
    method: str
    seed: int

    def __str__(self) -> str:
        return f'{self.name} {self.method} seed {self.seed}'

    def agent(self, status: Status = lambda what, share: None) -> Agent:
        """Who lives it; trains what that needs, unless the cache holds it."""
        spec = load_robot(self.life.robot)
        setting = Setting(spec, prior_for(spec), self.life, self.seed, status)
        return METHODS[self.method].make(setting)

    def run(self, progress: Progress) -> dict[str, Any]:
        """Live it; the result as `to_json` writes it."""
        spec = load_robot(self.life.robot)
        prior = prior_for(spec)
        agent = self.agent()
        errors = ModelErrors(spec, self.life, prior, self.seed)
        trace = run_life(
            spec,
            self.life,
            agent,
            self.seed,
            lambda step: progress(step / self.life.steps),
            errors,
            prior.dynamics.scale,
        )
        run = Run(
            self.name,
            self.life,
            self.method,
            self.seed,
            spec.period,
            spec.state_names,
            trace,
            errors.off_policy,
            errors.open_loop,
            errors.nominal,
            footprint(agent, without=(prior, spec)),
        )
        return to_json(run)


@dataclass(frozen=True)
class Training:
    """Pre-training that units need: of the prior of a robot, or of an oracle's specialist."""

    robot: str
    regime: str = ''
    shifts: tuple = ()

    def __str__(self) -> str:
        return f'pre-training {self.robot}' + (f', oracle {self.regime}' if self.regime else '')

    def run(self, progress: Progress) -> None:
        """Train it, unless the cache holds it."""
        self.prior(lambda share, what: progress(share))

    def prior(self, progress: Callable[[float, str], None] = lambda share, what: None) -> Prior:
        """What is trained."""
        spec = load_robot(self.robot)
        if not self.regime:
            return prior_for(spec, progress=progress)
        return oracle_for(spec, list(self.shifts), progress=progress)

    @property
    def file(self) -> Path:
        """Where the cache keeps it."""
        return cached_file(load_robot(self.robot), self.shifts if self.regime else None)


def trainings(units: Iterable[Unit]) -> list[Training]:
    """What has to be trained before the units."""
    lives = {unit.name: unit.life for unit in units}.values()
    robots = dict.fromkeys(life.robot for life in lives)
    found = [Training(robot) for robot in robots]
    seen: list[tuple[str, list]] = []
    for life in lives:
        needed = (points(*regime).items() for regime in life.regimes.items())
        for point, shifts in (pair for pairs in needed for pair in pairs):
            if (life.robot, shifts) not in seen:
                seen.append((life.robot, shifts))
                found.append(Training(life.robot, point, tuple(shifts)))
    return found


# ---------------------------------------------------------------------- what is kept
class Shelf:
    """Folder of results, one file per unit; each says what it was made from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._code = code_hash()
        self._priors: dict[str, str] = {}

    def path(self, unit: Unit) -> Path:
        """File of a unit."""
        return self.folder / unit.name / f'{unit.method}-{unit.seed}.json'

    def key(self, unit: Unit) -> dict[str, str]:
        """What decides the result of a unit, as hashes by name. Priors must be trained."""
        spec = load_robot(unit.life.robot)
        if spec.name not in self._priors:
            self._priors[spec.name] = fingerprint(prior_for(spec))
        return {
            'life': _hash(unit.life.model_dump(mode='json')),
            'robot file': _hash(spec.model_dump(mode='json')),
            'prior': self._priors[spec.name],
            'code': self._code,
        }

    def find(self, unit: Unit) -> tuple[Run | None, str]:
        """The kept result of a unit, or None and why it cannot be used (empty: there is none)."""
        path = self.path(unit)
        if not path.is_file():
            return None, ''
        try:
            data = json.loads(path.read_text())
            key, run = dict(data['key']), from_json(data['run'])
        except (KeyError, TypeError, ValueError, RecursionError):
            return None, f'{path} is damaged'
        changed = [what for what, value in self.key(unit).items() if key.get(what) != value]
        if changed:
            return None, f'{" and ".join(changed)} changed since'
        if Unit(run.name, run.life, run.method, run.seed) != unit:
            return None, f'{path} is damaged'
        return run, ''

    def keep(self, unit: Unit, result: dict[str, Any]) -> Run:
        """Write the result of a unit, wholly or not at all."""
        data = {'key': self.key(unit), 'run': result}
        write_atomically(self.path(unit), json.dumps(data, allow_nan=False).encode())
        return from_json(result)


def code_hash() -> str:
    """Hash of the code that decides results: all but the nodes, and what judges and draws."""
    package = Path(__file__).parents[1]
    folders = [package / n for n in ('blr', 'control', 'dynamics', 'learning', 'memory', 'robot')]
    folders += [package / 'experiments' / 'baselines', Path(sim.__file__).parent]
    files = [f for d in folders for f in sorted(d.rglob('*')) if f.suffix in ('.py', '.c', '.xml')]
    names = (
        'agents',
        'course',
        'life',
        'oracle',
        'priors',
        'probes',
        'record',
        'schedule',
        'units',
    )
    files += [Path(__file__), *(package / 'experiments' / f'{name}.py' for name in names)]
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
