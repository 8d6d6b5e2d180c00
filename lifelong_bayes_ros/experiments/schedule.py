"""A life: one uninterrupted stream of hidden regimes, described in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from ..errors import UserError
from ..paths import share_dir
from ..robot.spec import Section, parse_yaml

Steps = Annotated[int, Field(ge=1)]


class Life(Section):
    """Regimes as lists of shifts, the order in which they come, and the length of an episode."""

    robot: str
    regimes: dict[str, list[dict[str, Any]]]
    phases: Annotated[list[tuple[str, Steps]], Field(min_length=1)]
    episode: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode='after')
    def _known(self) -> Life:
        unknown = sorted({name for name, _ in self.phases} - set(self.regimes))
        if unknown:
            raise ValueError(
                f'phases: unknown regime {unknown}; use one of {sorted(self.regimes)}'
            )
        return self

    @cached_property
    def boundaries(self) -> list[int]:
        """First step of each phase, and the number of steps in all."""
        return [0, *np.cumsum([steps for _, steps in self.phases]).tolist()]

    @property
    def steps(self) -> int:
        """Length of the life in control steps."""
        return self.boundaries[-1]

    @cached_property
    def shift_steps(self) -> list[int]:
        """First steps of the phases in which other shifts are in force than in the one before."""
        regimes = [self.regimes[name] for name, _ in self.phases]
        pairs = zip(regimes[:-1], regimes[1:], self.boundaries[1:-1], strict=True)
        return [step for before, after, step in pairs if before != after]

    def phase_at(self, step: int) -> int:
        """Index of the phase that a step belongs to; the last one after the end."""
        index = int(np.searchsorted(self.boundaries, step, side='right')) - 1
        return min(index, len(self.phases) - 1)

    def began(self, step: int) -> int:
        """First step since which the regime of a step has been in force."""
        phase = self.phase_at(step)
        while phase > 0 and self.phases[phase - 1][0] == self.phases[phase][0]:
            phase -= 1
        return self.boundaries[phase]

    def regime_at(self, step: int) -> str:
        """Name of the regime in force at a step."""
        return self.phases[self.phase_at(step)][0]

    def shift_dicts_at(self, step: int) -> list[dict[str, Any]]:
        """Shifts in force at a step, as the simulator's `shift_from_dict` reads them."""
        return self.regimes[self.regime_at(step)]

    def home_steps(self) -> int:
        """Length of the first phase, the nominal plant; 0: it is shifted already."""
        return 0 if self.shift_dicts_at(0) else self.phases[0][1]


def life_names() -> list[str]:
    """Names of the shipped lives: of robots first, then those in folders."""
    shipped = (p.relative_to(_folder()).with_suffix('') for p in _folder().rglob('*.yaml'))
    return [p.as_posix() for p in sorted(shipped, key=lambda p: (len(p.parts), p))]


def load_life(life: str | Path) -> Life:
    """A shipped life by name, e.g. the robot's or `outside/quad_drag`, or a life file by path.

    Raises:
        UserError: unknown life, unreadable file, unknown key, wrong type or value, shifts that do
            not fit.
    """
    path = _life_path(str(life))
    try:
        text = path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read as text: {error}') from None
    loaded = parse_yaml(Life, text, str(path))
    try:
        from lifelong_bayes_ros_sim import check_regimes
    except ImportError:  # without MuJoCo a life can still be read
        return loaded
    try:
        check_regimes(loaded.robot, loaded.regimes)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    return loaded


def load_lives(lives: Sequence[str]) -> dict[str, Life]:
    """Lives by name or path; the name of a folder of shipped lives stands for all in it.

    Raises:
        UserError: as `load_life`; or two different files with one name.
    """
    found: dict[str, Life] = {}
    for wanted in lives:
        inside = sorted((_folder() / wanted).glob('*.yaml')) if wanted else []
        for text in [f'{wanted}/{p.stem}' for p in inside] or [wanted]:
            path, life = _life_path(text), load_life(text)
            shipped = path.is_relative_to(_folder())
            name = text if shipped and not text.endswith('.yaml') else path.stem
            if found.setdefault(name, life) != life:
                raise UserError(f'two lives are named {name!r}; rename one of the files')
    return found


def _folder() -> Path:
    return share_dir() / 'config' / 'lives'


def _life_path(text: str) -> Path:
    folder = _folder()
    path = Path(text) if text.endswith(('.yaml', '.yml')) else folder / f'{text}.yaml'
    if not path.is_file():
        known = ', '.join(life_names())
        raise UserError(f'unknown life {text!r}; shipped lives are {known}, or give a YAML file')
    return path
