"""Disturbances as objects: each changes the plant, and all of them compose.

In YAML a shift is a mapping with one key, e.g. `{payload: {mass: 0.35}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from lifelong_bayes_ros.errors import UserError

if TYPE_CHECKING:
    from .base import MujocoRobot


@dataclass(frozen=True)
class Shift:
    """A disturbance. `apply` acts on a plant that is nominal but for the shifts before it.

    Raises:
        UserError: wrong type or value of a field.
    """

    kind: ClassVar[str] = ''

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(f'{self.kind}.{field.name}', str(field.type), getattr(self, field.name))

    def apply(self, robot: MujocoRobot) -> None:
        """Change the plant."""
        raise TypeError('a Shift acts only through one of its kinds')

    def to_dict(self) -> dict[str, Any]:
        """The YAML form, which `shift_from_dict` reads."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {self.kind: values}


@dataclass(frozen=True)
class ActuatorGain(Shift):
    """One actuator gives `factor` times what is commanded; may be negative."""

    actuator: str
    factor: float
    kind: ClassVar[str] = 'actuator_gain'

    def apply(self, robot: MujocoRobot) -> None:
        """Scale the actuator."""
        names = robot.robot_spec.action_names
        if self.actuator not in names:
            raise UserError(
                f'actuator_gain.actuator: robot {robot.robot_spec.name} has no {self.actuator!r}; '
                f'use one of {names}'
            )
        robot.gain[names.index(self.actuator)] *= self.factor


@dataclass(frozen=True)
class Payload(Shift):
    """A load of `mass` kg at the robot's payload point."""

    mass: float
    kind: ClassVar[str] = 'payload'

    def apply(self, robot: MujocoRobot) -> None:
        """Add a small solid sphere to the payload body."""
        robot.add_mass(self.mass)


@dataclass(frozen=True)
class Wind(Shift):
    """A steady force (fx, fz) in newtons on the body that the wind catches."""

    force: tuple[float, float]
    kind: ClassVar[str] = 'wind'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the external force."""
        robot.wind[0] += self.force[0]
        robot.wind[2] += self.force[1]


@dataclass(frozen=True)
class Damping(Shift):
    """Viscous damping of every joint times `factor`."""

    factor: float
    kind: ClassVar[str] = 'damping'

    def apply(self, robot: MujocoRobot) -> None:
        """Scale the damping."""
        robot.model.dof_damping[:] *= self.factor


@dataclass(frozen=True)
class Friction(Shift):
    """Coulomb friction of every joint, N or N m."""

    loss: float
    kind: ClassVar[str] = 'friction'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the friction loss."""
        robot.model.dof_frictionloss[:] += self.loss


@dataclass(frozen=True)
class Delay(Shift):
    """Commands act `steps` control steps late."""

    steps: int
    kind: ClassVar[str] = 'delay'

    def apply(self, robot: MujocoRobot) -> None:
        """Lengthen the delay."""
        robot.delay += self.steps
        if robot.delay > robot.max_delay:
            raise UserError(
                f'delay.steps: a delay of {robot.delay} steps is too long; '
                f'give at most {robot.max_delay} in all'
            )


@dataclass(frozen=True)
class SensorNoise(Shift):
    """Standard deviation of every sensor times `factor`."""

    factor: float
    kind: ClassVar[str] = 'sensor_noise'

    def apply(self, robot: MujocoRobot) -> None:
        """Scale the noise."""
        robot.noise_factor *= self.factor


KINDS = {k.kind: k for k in (ActuatorGain, Payload, Wind, Damping, Friction, Delay, SensorNoise)}
NOT_NEGATIVE = {'payload.mass', 'damping.factor', 'friction.loss', 'sensor_noise.factor'}


def shift_from_dict(data: Mapping[str, Any]) -> Shift:
    """A shift from its YAML form.

    Raises:
        UserError: unknown kind, unknown or missing field, wrong type or value.
    """
    if not isinstance(data, Mapping) or len(data) != 1:
        raise UserError(
            f'shift {data!r}: write one kind and its fields, e.g. payload: {{mass: 1}}'
        )
    kind, values = next(iter(data.items()))
    if kind not in KINDS:
        raise UserError(f'unknown shift {kind!r}; use one of {", ".join(KINDS)}')
    expected = sorted(f.name for f in fields(KINDS[kind]))
    if not isinstance(values, Mapping) or set(values) != set(expected):
        got = list(values) if isinstance(values, Mapping) else values
        raise UserError(f'shift {kind}: give exactly the fields {expected}, got {got}')
    return KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check(where: str, kind: str, value: Any) -> None:
    sign = ' ≥ 0' if where in NOT_NEGATIVE else ''
    if kind == 'str':
        good, need = isinstance(value, str), 'a name'
    elif kind == 'int':
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        need = 'a whole number ≥ 0'
    elif kind == 'float':
        good, need = _number(value) and not (sign and value < 0), f'a number{sign} within ±1e6'
    else:
        good = isinstance(value, tuple) and len(value) == 2 and all(map(_number, value))
        need = 'two numbers within ±1e6'
    if not good:
        raise UserError(f'shift {where}: got {value!r}; give {need}')


def _number(value: Any) -> bool:
    # Also false for nan.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6
