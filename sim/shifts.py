"""Disturbances as objects: each changes the plant, and all of them compose.

In YAML a shift is a mapping with one key, e.g. `{payload: {mass: 0.35}}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from lifelong_bayes_ros.errors import UserError

if TYPE_CHECKING:
    from .base import MujocoRobot


@dataclass(frozen=True)
class Shift:
    """A disturbance. `apply` acts on a plant that has just been made nominal."""

    kind: ClassVar[str] = ''

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
        names = robot.spec.action_names
        if self.actuator not in names:
            raise UserError(
                f'actuator_gain.actuator: robot {robot.spec.name} has no {self.actuator!r}; '
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
        if not 0 <= robot.delay <= robot.max_delay:
            raise UserError(f'delay.steps: {robot.delay} is not within 0 to {robot.max_delay}')


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
    expected = {f.name: f.type for f in fields(KINDS[kind])}
    if not isinstance(values, Mapping) or set(values) != set(expected):
        got = sorted(values) if isinstance(values, Mapping) else values
        raise UserError(f'shift {kind}: give exactly the fields {sorted(expected)}, got {got}')
    return KINDS[kind](
        **{name: _value(f'{kind}.{name}', expected[name], values[name]) for name in expected}
    )


def _value(where: str, kind: str, value: Any) -> Any:
    if kind == 'str':
        good = isinstance(value, str)
    elif kind == 'int':
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif kind == 'float':
        good = _number(value) and not (where in NOT_NEGATIVE and value < 0)
    else:
        good = isinstance(value, list | tuple) and len(value) == 2 and all(map(_number, value))
    if not good:
        need = {'str': 'a name', 'int': 'a whole number ≥ 0', 'float': 'a finite number'}
        need['float'] += ' ≥ 0' if where in NOT_NEGATIVE else ''
        raise UserError(
            f'shift {where}: got {value!r}; give {need.get(kind, "two finite numbers")}'
        )
    return tuple(map(float, value)) if isinstance(value, list | tuple) else value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
