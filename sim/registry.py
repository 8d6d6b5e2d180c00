"""Simulated robots by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import getfile
from pathlib import Path
from typing import Any

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot

from .arm import Arm
from .base import MujocoRobot
from .cartpole import CartPole
from .diffdrive import DiffDrive
from .mobile_base import MobileBase
from .quad import Quad
from .shifts import shift_from_dict
from .six_axis import SixAxis

ROBOTS: dict[str, type[MujocoRobot]] = {
    r.NAME: r for r in (Arm, MobileBase, CartPole, DiffDrive, Quad, SixAxis)
}


def robot_names() -> list[str]:
    """Names of the simulated robots."""
    return sorted(ROBOTS)


def make(name: str, spec: RobotSpec | None = None, seed: int = 0) -> MujocoRobot:
    """A simulated robot, described by its shipped robot file unless another is given.

    Raises:
        UserError: unknown robot, or a robot file with other channels than the simulator has.
    """
    if name not in ROBOTS:
        raise UserError(f'unknown simulated robot {name!r}; use one of {", ".join(ROBOTS)}')
    return ROBOTS[name](spec or load_robot(name), seed)


def sources(name: str) -> list[Path]:
    """Files that decide how a robot moves: its model, its class and its bases, the shifts."""
    robot = ROBOTS[name]
    folder = Path(__file__).parent
    own = {Path(getfile(c)) for c in robot.__mro__ if issubclass(c, MujocoRobot)}
    return sorted({*own, folder / 'shifts.py', folder / f'{robot.MODEL or name}.xml'})


def check_regimes(name: str, regimes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Try the shifts of every regime on a robot.

    Raises:
        UserError: unknown robot, or shifts that are wrong or do not fit it; names the regime.
    """
    robot = make(name)
    for regime, shifts in regimes.items():
        try:
            robot.set_shifts([shift_from_dict(shift) for shift in shifts])
        except UserError as error:
            raise UserError(f'regimes.{regime}: {error}') from None
