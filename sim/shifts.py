"""Disturbances as objects: each changes the plant, and all of them compose.

In YAML a shift is a mapping with one key, e.g. `{payload: {mass: 0.35}}`; the shipped life
`examples/every_shift` writes one of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np

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
    moves: ClassVar[bool] = False  # whether it depends on time

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(f'{self.kind}.{field.name}', str(field.type), getattr(self, field.name))

    @property
    def label(self) -> str:
        """What it changes, for people: the kind, and the part where it names one."""
        parts = [getattr(self, name, None) for name in ('actuator', 'joint', 'channel')]
        return ' '.join([self.kind, *(p for p in parts if p)]).replace('_', ' ')

    def apply(self, robot: MujocoRobot) -> None:
        """Change the plant."""
        raise TypeError('a Shift acts only through one of its kinds')

    def at(self, seconds: float) -> Shift:
        """The shift as it is this long after it came into force."""
        return self

    @property
    def farthest(self) -> Shift:
        """The shift as far from its start as it gets."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The YAML form, which `shift_from_dict` reads."""
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Shift):
                value = value.to_dict()
            values[field.name] = list(value) if isinstance(value, tuple) else value
        return {self.kind: values}


@dataclass(frozen=True)
class ForceLaw(Shift):
    """A disturbance whose force depends on the motion, at every step of the integrator."""

    def apply(self, robot: MujocoRobot) -> None:
        """Let the law act."""
        robot.laws.append(self)

    def act(self, robot: MujocoRobot, data: mujoco.MjData) -> None:
        """Add to the forces on a plant about to be stepped; its positions and speeds are new."""
        raise TypeError('a ForceLaw acts only through one of its kinds')


# ---------------------------------------------------------------------- actuators
@dataclass(frozen=True)
class ActuatorGain(Shift):
    """One actuator gives `factor` times what is commanded; may be negative."""

    actuator: str
    factor: float
    kind: ClassVar[str] = 'actuator_gain'

    def apply(self, robot: MujocoRobot) -> None:
        """Scale the actuator."""
        robot.gain[_actuator(robot, self)] *= self.factor


@dataclass(frozen=True)
class ActuatorBias(Shift):
    """One actuator gives `offset` more than is commanded, in its unit."""

    actuator: str
    offset: float
    kind: ClassVar[str] = 'actuator_bias'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the actuator's output."""
        robot.offset[_actuator(robot, self)] += self.offset


@dataclass(frozen=True)
class DeadZone(Shift):
    """Commands within ± `width` of zero do nothing; those beyond lose as much."""

    actuator: str
    width: float
    kind: ClassVar[str] = 'dead_zone'

    def apply(self, robot: MujocoRobot) -> None:
        """Widen the dead zone."""
        robot.dead_zone[_actuator(robot, self)] += self.width


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
        robot.postpone(np.eye(1, self.steps + 1, self.steps)[0])


@dataclass(frozen=True)
class ActuatorLag(Shift):
    """All actuators follow their commands through a first-order filter, `seconds` its time."""

    seconds: float
    kind: ClassVar[str] = 'actuator_lag'

    def apply(self, robot: MujocoRobot) -> None:
        """Spread commands over the steps after them, by the filter's mean over each step."""
        longest = 4 * robot.robot_spec.period
        if self.seconds > longest:
            raise UserError(
                f'actuator_lag.seconds: {self.seconds} s is too slow for robot '
                f'{robot.robot_spec.name}; give at most {longest:g}'
            )
        if self.seconds == 0:
            return
        ratio = robot.robot_spec.period / self.seconds
        kept = np.exp(-ratio)
        late = (1 - kept) / ratio  # share of a step's mean that earlier commands make up
        older = (1 - kept) * kept ** np.arange(20 * robot.history)
        weights = np.concatenate([[1 - late], late * older])
        robot.postpone(weights / weights.sum())


# ---------------------------------------------------------------------- body and surroundings
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
    """A steady force in newtons, in the robot's plane, on the body that the wind catches."""

    force: tuple[float, float]
    kind: ClassVar[str] = 'wind'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the external force."""
        robot.wind[list(robot.PLANE)] += self.force


@dataclass(frozen=True)
class Tilt(Shift):
    """Base or ground is tilted by `angle` rad, so that weight also pulls towards +x."""

    angle: float
    kind: ClassVar[str] = 'tilt'

    def apply(self, robot: MujocoRobot) -> None:
        """Turn gravity."""
        x, y, z = robot.model.opt.gravity
        c, s = np.cos(self.angle), np.sin(self.angle)
        robot.model.opt.gravity[:] = c * x - s * z, y, s * x + c * z


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
    """Coulomb friction, N or N m, of one joint, or of every joint if none is named."""

    loss: float
    joint: str | None = None
    kind: ClassVar[str] = 'friction'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the friction loss."""
        robot.dry_friction[slice(None) if self.joint is None else _joint(robot, self)] += self.loss


@dataclass(frozen=True)
class JointSpring(Shift):
    """A spring of `stiffness` N/m or N m/rad on a joint, at ease at position `rest`."""

    joint: str
    stiffness: float
    rest: float = 0.0
    kind: ClassVar[str] = 'joint_spring'

    def apply(self, robot: MujocoRobot) -> None:
        """Add a spring; two on one joint are at ease in between."""
        model, joint = robot.model, _joint(robot, self)
        old = model.jnt_stiffness[joint]
        total = old + self.stiffness
        if total > 0:
            moment = old * model.qpos_spring[joint] + self.stiffness * self.rest
            model.qpos_spring[joint] = moment / total
            model.jnt_stiffness[joint] = total


@dataclass(frozen=True)
class Wall(Shift):
    """A wall across the x axis, 0.1 m thick, with its near side at `x` m: to be run into."""

    x: float
    kind: ClassVar[str] = 'wall'

    def apply(self, robot: MujocoRobot) -> None:
        """Put it there and let bodies touch."""
        wall = robot.model.geom('wall').id
        robot.model.geom_pos[wall, 0] = self.x + robot.model.geom_size[wall, 0]
        robot.model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_CONTACT)


# ---------------------------------------------------------------------- force laws
@dataclass(frozen=True)
class QuadraticDrag(ForceLaw):
    """F = −`coefficient` |v| v, in N s²/m², on the body that the wind catches."""

    coefficient: float
    kind: ClassVar[str] = 'quadratic_drag'

    def act(self, robot: MujocoRobot, data: mujoco.MjData) -> None:
        """Add the drag of the body's centre of mass."""
        mujoco.mj_kinematics(robot.model, data)
        mujoco.mj_comPos(robot.model, data)
        mujoco.mj_comVel(robot.model, data)
        speeds = np.empty(6)  # about and along the axes of the world
        mujoco.mj_objectVelocity(
            robot.model, data, mujoco.mjtObj.mjOBJ_BODY, robot.body, speeds, 0
        )
        v = speeds[3:]
        data.xfrc_applied[robot.body, :3] -= self.coefficient * np.linalg.norm(v) * v


@dataclass(frozen=True)
class Stiction(ForceLaw):
    """Dry friction of a joint that falls from `breakaway` to `sliding` as it starts to move.

    Stribeck's curve: sliding + (breakaway − sliding) exp(−(speed / `speed`)²), N or N m.
    """

    joint: str
    breakaway: float
    sliding: float
    speed: float = 0.2
    kind: ClassVar[str] = 'stiction'

    def act(self, robot: MujocoRobot, data: mujoco.MjData) -> None:
        """Add to the friction loss of this step."""
        joint = _joint(robot, self)
        extra = (self.breakaway - self.sliding) * np.exp(-((data.qvel[joint] / self.speed) ** 2))
        robot.model.dof_frictionloss[joint] += self.sliding + extra

    def apply(self, robot: MujocoRobot) -> None:
        """Let the law act on a joint that there is."""
        _joint(robot, self)
        super().apply(robot)


@dataclass(frozen=True)
class Coupling(ForceLaw):
    """A force on `joint` of `factor` times the speed of joint `source`, as a cross-wind's moment.

    With `quadratic` it is `factor` times |speed| speed.
    """

    source: str
    joint: str
    factor: float
    quadratic: bool = False
    kind: ClassVar[str] = 'coupling'

    def apply(self, robot: MujocoRobot) -> None:
        """Let the law act between joints that there are."""
        robot.index_of('coupling.source', self.source, robot.joints)
        _joint(robot, self)
        super().apply(robot)

    def act(self, robot: MujocoRobot, data: mujoco.MjData) -> None:
        """Add the force."""
        speed = data.qvel[robot.joints.index(self.source)]
        size = abs(speed) if self.quadratic else 1.0
        data.qfrc_applied[robot.joints.index(self.joint)] += self.factor * size * speed


@dataclass(frozen=True)
class SlipInTurns(ForceLaw):
    """Wheels lose grip in turns: they give `factor` times their speed in a sharp one.

    The loss grows with the yaw rate; half of it is there at `yaw_rate`, rad/s.
    """

    factor: float
    yaw_rate: float = 0.2
    kind: ClassVar[str] = 'slip_in_turns'

    def apply(self, robot: MujocoRobot) -> None:
        """Let the law act on a robot that yaws."""
        robot.index_of('slip_in_turns', 'yaw_rate', robot.STATE)
        super().apply(robot)

    def act(self, robot: MujocoRobot, data: mujoco.MjData) -> None:
        """Scale what the wheels give."""
        turning = data.qvel[robot.joints.index('heading')] ** 2
        data.ctrl *= 1 - (1 - self.factor) * turning / (turning + self.yaw_rate**2)


# ---------------------------------------------------------------------- sensors
@dataclass(frozen=True)
class SensorNoise(Shift):
    """Standard deviation of every sensor times `factor`."""

    factor: float
    kind: ClassVar[str] = 'sensor_noise'

    def apply(self, robot: MujocoRobot) -> None:
        """Scale the noise."""
        robot.noise_factor *= self.factor


@dataclass(frozen=True)
class SensorBias(Shift):
    """One channel of the state reads `offset` too much, in its unit."""

    channel: str
    offset: float
    kind: ClassVar[str] = 'sensor_bias'

    def apply(self, robot: MujocoRobot) -> None:
        """Add to the reading."""
        at = robot.index_of('sensor_bias.channel', self.channel, robot.STATE)
        robot.sensor_bias[at] += self.offset


# ---------------------------------------------------------------------- in time
@dataclass(frozen=True)
class Drift(Shift):
    """A shift that goes from `start` to `end`, two of one kind, as time passes in its regime.

    `shape` ramp: evenly within `seconds`, then it stays. wave: there and back as
    (1 − cos(2π t / seconds)) / 2. Time is that of the control steps since the regime began.
    """

    start: Shift
    end: Shift
    seconds: float
    shape: str = 'ramp'
    kind: ClassVar[str] = 'drift'
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in ('ramp', 'wave'):
            raise UserError(f'shift drift.shape: got {self.shape!r}; give ramp or wave')
        if self.start.moves or type(self.start) is not type(self.end):
            raise UserError(
                f'shift drift: start is {self.start.kind}, end is {self.end.kind}; '
                'give two of one kind, neither of them a drift'
            )
        for field in fields(self.start):
            pair = getattr(self.start, field.name), getattr(self.end, field.name)
            if 'float' not in str(field.type) and pair[0] != pair[1]:
                raise UserError(
                    f'shift drift: {self.start.kind}.{field.name} goes from {pair[0]!r} to '
                    f'{pair[1]!r}; give the same at start and end'
                )

    def at(self, seconds: float) -> Shift:
        """The shift on its way."""
        share = min(seconds / self.seconds, 1.0)
        if self.shape == 'wave':
            share = float(0.5 - 0.5 * np.cos(2 * np.pi * seconds / self.seconds))
        values: dict[str, Any] = {}
        for field in fields(self.start):
            a, b = getattr(self.start, field.name), getattr(self.end, field.name)
            if field.type == 'float':
                values[field.name] = (1 - share) * a + share * b
            elif 'float' in str(field.type):
                pairs = zip(a, b, strict=True)
                values[field.name] = tuple((1 - share) * x + share * y for x, y in pairs)
        return replace(self.start, **values)

    @property
    def farthest(self) -> Shift:
        """Where it goes."""
        return self.end


KINDS: dict[str, type[Shift]] = {
    k.kind: k
    for k in (
        ActuatorGain,
        ActuatorBias,
        DeadZone,
        Delay,
        ActuatorLag,
        Payload,
        Wind,
        Tilt,
        Damping,
        Friction,
        JointSpring,
        Wall,
        QuadraticDrag,
        Stiction,
        Coupling,
        SlipInTurns,
        SensorNoise,
        SensorBias,
        Drift,
    )
}
NOT_NEGATIVE = {
    'payload.mass',
    'damping.factor',
    'friction.loss',
    'sensor_noise.factor',
    'dead_zone.width',
    'actuator_lag.seconds',
    'joint_spring.stiffness',
    'quadratic_drag.coefficient',
    'stiction.breakaway',
    'stiction.sliding',
    'slip_in_turns.factor',
}
POSITIVE = {'stiction.speed', 'slip_in_turns.yaw_rate', 'drift.seconds'}


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
    known = {f.name: f for f in fields(KINDS[kind])}
    needed = {name for name, f in known.items() if f.default is MISSING}
    if not isinstance(values, Mapping) or not needed <= set(values) <= set(known):
        got = list(values) if isinstance(values, Mapping) else values
        optional = sorted(set(known) - needed)
        also = f' and, if you like, {optional}' if optional else ''
        raise UserError(f'shift {kind}: give exactly the fields {sorted(needed)}{also}, got {got}')
    return KINDS[kind](**{k: _from_yaml(str(known[k].type), v) for k, v in values.items()})


def _from_yaml(kind: str, value: Any) -> Any:
    if kind == 'Shift':
        return shift_from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def _actuator(robot: MujocoRobot, shift: ActuatorGain | ActuatorBias | DeadZone) -> int:
    names = robot.robot_spec.action_names
    return robot.index_of(f'{shift.kind}.actuator', shift.actuator, names)


def _joint(robot: MujocoRobot, shift: Friction | JointSpring | Stiction | Coupling) -> int:
    return robot.index_of(f'{shift.kind}.joint', str(shift.joint), robot.joints)


def _check(where: str, kind: str, value: Any) -> None:
    sign = ' ≥ 0' if where in NOT_NEGATIVE else ' > 0' if where in POSITIVE else ''
    if kind in ('str', 'str | None'):
        good = isinstance(value, str) or (value is None and kind != 'str')
        need = 'a name'
    elif kind == 'bool':
        good, need = isinstance(value, bool), 'true or false'
    elif kind == 'Shift':
        good, need = isinstance(value, Shift), 'a shift'
    elif kind == 'int':
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        need = 'a whole number ≥ 0'
    elif kind == 'float':
        good = _number(value) and not (sign and value < 0) and not (sign == ' > 0' and value == 0)
        need = f'a number{sign} within ±1e6'
    else:
        good = isinstance(value, tuple) and len(value) == 2 and all(map(_number, value))
        need = 'two numbers within ±1e6'
    if not good:
        raise UserError(f'shift {where}: got {value!r}; give {need}')


def _number(value: Any) -> bool:
    # Also false for nan.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6
