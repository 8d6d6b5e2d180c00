"""A robot simulated in MuJoCo: a gymnasium environment that lives through shifts and crashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot.spec import RobotSpec

from .shifts import ActuatorGain, Damping, ForceLaw, Friction, Payload, Shift, Wind

START_NS = 1_000_000_000
RESET_NS = 1_000_000_000
CHANGED = (
    'body_mass',
    'body_inertia',
    'body_ipos',
    'body_iquat',
    'dof_damping',
    'jnt_stiffness',
    'qpos_spring',
    'geom_pos',
)


class MujocoRobot(gymnasium.Env):
    """A plant and the shifts in force on it; no terminations.

    State is [positions, velocities] in the order of the robot file, unless a robot says otherwise
    in `observed` and `motion`.

    A crash puts the robot back where it starts and lets `RESET_NS` of simulated time pass, so that
    whoever watches the stamps sees a gap, as on a real robot that someone picks up. It scores 0,
    and so do the steps of as long a time after it: being put back must not pay.
    """

    NAME: ClassVar[str] = ''
    MODEL: ClassVar[str] = ''  # its MJCF file, if not of its name
    STATE: ClassVar[tuple[str, ...]] = ()
    ACTION: ClassVar[tuple[str, ...]] = ()
    OUTCOMES: ClassVar[tuple[str, ...]] = ('contact',)  # what it can sense of a step
    PAYLOAD_BODY: ClassVar[str] = ''  # also the body that the wind catches
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    PLANE: ClassVar[tuple[int, int]] = (0, 2)  # axes of the plane that it moves in
    START: ClassVar[dict[str, float]] = {}  # positions to start from, if not on the reference
    GAIN_FAMILY: ClassVar[tuple[float, float]] = (0.4, 1.2)  # actuator gains of the task family
    PAYLOAD_FAMILY: ClassVar[float] = 0.5  # largest payload, kg
    WIND_FAMILY: ClassVar[float] = 4.0  # strongest wind, N
    FRICTION_FAMILY: ClassVar[float] = 0.3  # 0: the family has no Coulomb friction
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = ()
    SUBSTEPS: ClassVar[int] = 5
    max_delay: ClassVar[int] = 3
    history: ClassVar[int] = 16  # past commands that can still act
    metadata: ClassVar[dict[str, Any]] = {'render_modes': []}

    def __init__(self, spec: RobotSpec, seed: int = 0) -> None:
        """Build the plant for a robot file.

        Raises:
            UserError: the file's channels are not those of the simulator.
        """
        for what, got, have in (
            ('state', spec.state_names, self.STATE),
            ('action', spec.action_names, self.ACTION),
        ):
            if tuple(got) != have:
                raise UserError(
                    f'robot file of {spec.name}: {what} is {got}, the simulated {self.NAME} has '
                    f'{list(have)}'
                )
        strange = [n for n, o in spec.outcomes.items() if n not in self.OUTCOMES or o.classes]
        if strange:
            raise UserError(
                f'robot file of {spec.name}: the simulated {self.NAME} does not sense outcomes '
                f'{strange}; it senses {list(self.OUTCOMES)}, without classes'
            )
        # Not `spec`: gymnasium keeps its own registration there.
        self.robot_spec = spec
        self.sensor_noise = np.array(self.SENSOR_NOISE)
        self.model = mujoco.MjModel.from_xml_path(
            str(Path(__file__).with_name(f'{self.MODEL or self.NAME}.xml'))
        )
        self.model.opt.timestep = spec.period / self.SUBSTEPS
        # Coulomb friction that stops a joint within one step. MuJoCo's takes 20 ms and, against a
        # faster deceleration, would push the joint on.
        self.model.dof_solref[:, 0] = 2 * self.model.opt.timestep
        # A motion that diverges is a crash; MuJoCo would put it back to zero in silence.
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.data = mujoco.MjData(self.model)
        self._scratch = mujoco.MjData(self.model)
        self._nominal = {name: getattr(self.model, name).copy() for name in CHANGED}
        self._gravity = self.model.opt.gravity.copy()
        self.body = self.model.body(self.PAYLOAD_BODY).id
        self._dofs = self.model.nv
        n = len(spec.state)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            spec.action_low, spec.action_high, dtype=np.float64
        )
        self.np_random = np.random.default_rng(seed)
        self.shifts: list[Shift] = []
        self.unscored = 0  # steps still to come that score 0
        self.set_shifts([])
        self._start(START_NS)

    # ------------------------------------------------------------------ the life
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a life on the goal's reference, with `options['shifts']` in force."""
        super().reset(seed=seed)
        self.set_shifts((options or {}).get('shifts', []))
        self.unscored = 0
        self._start(START_NS)
        return self._observe(), self._info(False)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold a command [da] for one control period.

        Raises:
            ValueError: wrong shape or not finite.
        """
        action = np.array(action, dtype=float)  # a copy: with a delay it acts later
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f'action {action} must be {self.action_space.shape} finite numbers')
        self._sent = [action, *self._sent[:-1]]
        self._advance(self.data, self._forces(np.array([self._sent]))[0])
        self._steps += 1
        if any(shift.moves for shift in self.shifts):
            self._apply([shift.at(self._steps * self.robot_spec.period) for shift in self.shifts])
        self.stamp_ns += self.robot_spec.period_ns
        state = self.true_state
        crashed = not np.isfinite(state).all() or self.has_crashed(state)
        score = self.robot_spec.score(self.stamp_ns, state)
        if crashed or self.unscored:
            score = 0.0
            self.unscored = max(self.unscored - 1, 0)
        if crashed:
            self.unscored = round(RESET_NS / self.robot_spec.period_ns)
            self._start(self.stamp_ns + RESET_NS)
        return self._observe(), score, False, False, self._info(crashed)

    def recover(self) -> np.ndarray:
        """Put the robot back on the reference, as after a crash; returns a reading [ds]."""
        self._start(self.stamp_ns + RESET_NS)
        return self._observe()

    @property
    def true_state(self) -> np.ndarray:
        """State [ds] without noise, angles wrapped."""
        return self.robot_spec.wrap(self.observed(self.data.qpos, self.data.qvel))

    @property
    def labels(self) -> dict[str, int]:
        """Label of each outcome of the robot file: whether it touches anything, 1 or 0."""
        return dict.fromkeys(self.robot_spec.outcomes, int(self.data.ncon > 0))

    def observed(self, positions: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """States [..., ds] of joint positions and speeds [..., nv]."""
        return np.concatenate([positions, speeds], axis=-1)

    def motion(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions and speeds [..., nv] of states [..., ds]: the inverse of `observed`."""
        return states[..., : self._dofs], states[..., self._dofs :]

    def set_shifts(self, shifts: Sequence[Shift]) -> None:
        """Replace the active shifts; the motion goes on. Those that move begin at their start.

        Raises:
            UserError: a shift does not fit this robot; the plant is nominal then.
        """
        self.shifts = []
        try:
            self._apply([shift.farthest for shift in shifts])  # must fit all the way
            self._apply([shift.at(0.0) for shift in shifts])
        except UserError:
            self._make_nominal()
            raise
        self.shifts = list(shifts)
        self._steps = 0  # since then; a crash's pause does not count

    def _apply(self, shifts: Sequence[Shift]) -> None:
        self._make_nominal()
        for shift in shifts:
            shift.apply(self)
        mujoco.mj_setConst(self.model, self._scratch)

    def left_the_arena(self, state: np.ndarray) -> bool:
        """Whether a position of a state [ds] is beyond its limits in the robot file."""
        return any(
            (channel.low is not None and value < channel.low)
            or (channel.high is not None and value > channel.high)
            for channel, value in zip(self.robot_spec.state[: self._dofs], state, strict=False)
        )

    def has_crashed(self, state: np.ndarray) -> bool:
        """Whether a state [ds] ends the flight."""
        raise TypeError(f'{type(self).__name__} does not say when it has crashed')

    # ------------------------------------------------------------------ for pre-training
    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds], on the task and well around it."""
        raise TypeError(f'{type(self).__name__} does not say where it operates')

    def sample_actions(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Commands [n, da]: half uniform over the limits, half around neutral."""
        low, high = self.robot_spec.action_low, self.robot_spec.action_high
        wide = rng.uniform(low, high, (n, len(low)))
        near = (
            self.robot_spec.neutral
            + 0.3 * self.robot_spec.action_half_range * rng.standard_normal(wide.shape)
        )
        return np.where(rng.random((n, 1)) < 0.5, wide, np.clip(near, low, high))

    def family(self, rng: np.random.Generator) -> list[Shift]:
        """A random member of the task family: some of its parameters changed."""
        candidates = self.candidates(rng)
        chosen = rng.random(len(candidates)) < 0.5
        return [shift for shift, take in zip(candidates, chosen, strict=True) if take]

    def candidates(self, rng: np.random.Generator) -> list[Shift]:
        """One random shift of everything that may change in the task family."""
        force = rng.uniform(-self.WIND_FAMILY, self.WIND_FAMILY, 2)
        shifts: list[Shift] = [
            ActuatorGain(name, float(rng.uniform(*self.GAIN_FAMILY))) for name in self.ACTION
        ]
        shifts += [
            Payload(float(rng.uniform(0, self.PAYLOAD_FAMILY))),
            Wind((float(force[0]), float(force[1]))),
            Damping(float(np.exp(rng.uniform(np.log(0.5), np.log(5.0))))),
        ]
        if self.FRICTION_FAMILY:
            shifts.append(Friction(float(rng.uniform(0, self.FRICTION_FAMILY))))
        return shifts

    def one_step(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """Next states [n, ds] without noise, under the active shifts; the life is not disturbed.

        Args:
            states: [n, ds].
            actions: commands [n, da].
            previous: commands before [n, k, da], newest first; the oldest was sent all the time
                before.
        """
        data = self._scratch
        positions, speeds = self.motion(np.asarray(states, dtype=float))
        commands = np.concatenate([np.asarray(actions)[:, None], previous], axis=1)
        missing = max(self.history + 1 - commands.shape[1], 0)
        commands = np.pad(commands, ((0, 0), (0, missing), (0, 0)), mode='edge')
        forces = self._forces(commands[:, : self.history + 1])
        after = np.empty((2, *positions.shape))
        for i in range(len(positions)):
            data.qpos[:] = positions[i]
            data.qvel[:] = speeds[i]
            data.qacc_warmstart[:] = 0
            self._advance(data, forces[i])
            after[:, i] = data.qpos, data.qvel
        return self.robot_spec.wrap(self.observed(*after))

    # ------------------------------------------------------------------ for shifts
    def add_mass(self, mass: float, radius: float = 0.03) -> None:
        """Fix a solid sphere to the payload body at its payload point."""
        model, body = self.model, self.body
        old, centre = model.body_mass[body], model.body_ipos[body].copy()
        point = np.array(self.PAYLOAD_POINT)
        total = old + mass
        if total <= 0 or mass == 0:
            return
        offset = point - centre
        # Parallel axes; both offsets lie on one line, and all bodies here are aligned with it.
        reduced = old * mass / total
        shape = 0.4 * mass * radius**2
        model.body_inertia[body] += shape + reduced * (offset @ offset - offset**2)
        model.body_ipos[body] = (old * centre + mass * point) / total
        model.body_mass[body] = total

    def postpone(self, weights: np.ndarray) -> None:
        """Let a command act spread over the steps after it, with these weights [m] that sum to 1.

        What would act later than `history` steps acts then.
        """
        taps = np.convolve(self.taps, weights)
        self.taps = np.append(taps[: self.history], taps[self.history :].sum())

    def index_of(self, what: str, name: str, names: Sequence[str]) -> int:
        """Index of a name that a shift's field `what` gives.

        Raises:
            UserError: the robot has no such name.
        """
        if name not in names:
            raise UserError(
                f'{what}: robot {self.robot_spec.name} has no {name!r}; use one of {list(names)}'
            )
        return list(names).index(name)

    @property
    def joints(self) -> list[str]:
        """Names of the joints, one for each degree of freedom."""
        return [self.model.joint(i).name for i in range(self.model.njnt)]

    def _make_nominal(self) -> None:
        for name, value in self._nominal.items():
            getattr(self.model, name)[:] = value
        self.model.opt.gravity[:] = self._gravity
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT  # nothing to touch
        actions = len(self.ACTION)
        self.gain, self.offset, self.dead_zone = np.ones(actions), *np.zeros((2, actions))
        self.taps = np.eye(1, self.history + 1)[0]  # how late commands act
        self.delay = 0
        self.wind = np.zeros(6)
        self.dry_friction = np.zeros(self._dofs)
        self.laws: list[ForceLaw] = []
        self.noise_factor = 1.0
        self.sensor_bias = np.zeros(len(self.STATE))
        self.model.dof_frictionloss[:] = 0
        mujoco.mj_setConst(self.model, self._scratch)

    # ------------------------------------------------------------------ physics
    def _forces(self, commands: np.ndarray) -> np.ndarray:
        """What the actuators give [n, da], after commands [n, history + 1, da], newest first."""
        clipped = np.clip(commands, self.robot_spec.action_low, self.robot_spec.action_high)
        acting = np.einsum('k,nkd->nd', self.taps, clipped)
        moved = np.sign(acting) * np.maximum(np.abs(acting) - self.dead_zone, 0)
        return self.gain * moved + self.offset

    def _advance(self, data: mujoco.MjData, forces: np.ndarray) -> None:
        # Force laws act anew at every step of the integrator.
        rounds, steps = (self.SUBSTEPS, 1) if self.laws else (1, self.SUBSTEPS)
        for _ in range(rounds):
            data.ctrl[: len(forces)] = forces
            data.xfrc_applied[self.body] = self.wind
            data.qfrc_applied[:] = 0
            self.model.dof_frictionloss[:] = self.dry_friction
            for law in self.laws:
                law.act(self, data)
            mujoco.mj_step(self.model, data, steps)

    def _start(self, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        mujoco.mj_resetData(self.model, self.data)
        position, velocity = self.robot_spec.reference(stamp_ns)
        for i, name in enumerate(self.robot_spec.goal.track):
            at = self.STATE.index(name)
            if name in self.START:
                self.data.qpos[at] = self.START[name]
            elif at < self._dofs:
                self.data.qpos[at] = position[0, i]
                self.data.qvel[at] = velocity[0, i]
        self._sent = [self.robot_spec.neutral] * (self.history + 1)

    def _observe(self) -> np.ndarray:
        noise = self.sensor_noise * self.np_random.standard_normal(len(self.sensor_noise))
        reading = self.true_state + self.sensor_bias + self.noise_factor * noise
        return self.robot_spec.wrap(reading)

    def _info(self, crashed: bool) -> dict[str, Any]:
        return {'state': self.true_state, 'stamp_ns': self.stamp_ns, 'crashed': crashed}
