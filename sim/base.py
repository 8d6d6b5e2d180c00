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

from .shifts import ActuatorGain, Damping, Friction, Payload, Shift, Wind

START_NS = 1_000_000_000
RESET_NS = 1_000_000_000
CHANGED = (
    'body_mass',
    'body_inertia',
    'body_ipos',
    'body_iquat',
    'dof_damping',
    'dof_frictionloss',
)


class MujocoRobot(gymnasium.Env):
    """State is [positions, velocities] in the order of the robot file; no terminations.

    A crash scores 0, puts the robot back on the moving reference and lets `RESET_NS` of
    simulated time pass, so that whoever watches the stamps sees a gap, as on a real robot that
    someone picks up.
    """

    NAME: ClassVar[str] = ''
    STATE: ClassVar[tuple[str, ...]] = ()
    ACTION: ClassVar[tuple[str, ...]] = ()
    PAYLOAD_BODY: ClassVar[str] = ''  # also the body that the wind catches
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    PAYLOAD_FAMILY: ClassVar[float] = 0.5  # largest payload of the task family, kg
    WIND_FAMILY: ClassVar[float] = 4.0  # strongest wind, N
    FRICTION_FAMILY: ClassVar[float] = 0.3
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = ()
    SUBSTEPS: ClassVar[int] = 5
    max_delay: ClassVar[int] = 3
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
        # Not `spec`: gymnasium keeps its own registration there.
        self.robot_spec = spec
        self.sensor_noise = np.array(self.SENSOR_NOISE)
        self.model = mujoco.MjModel.from_xml_path(
            str(Path(__file__).with_name(f'{self.NAME}.xml'))
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
        self._body = self.model.body(self.PAYLOAD_BODY).id
        self._dofs = self.model.nv
        n = len(spec.state)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            spec.action_low, spec.action_high, dtype=np.float64
        )
        self.np_random = np.random.default_rng(seed)
        self.shifts: list[Shift] = []
        self.set_shifts([])
        self._start(START_NS)

    # ------------------------------------------------------------------ the life
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a life on the goal's reference, with `options['shifts']` in force."""
        super().reset(seed=seed)
        self.set_shifts((options or {}).get('shifts', []))
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
        self._advance(self.data, self._forces(self._sent[self.delay]))
        self.stamp_ns += self.robot_spec.period_ns
        state = self.true_state
        crashed = not np.isfinite(state).all() or self.has_crashed(state)
        score = 0.0 if crashed else self.robot_spec.score(self.stamp_ns, state)
        if crashed:
            self._start(self.stamp_ns + RESET_NS)
        return self._observe(), score, False, False, self._info(crashed)

    def recover(self) -> np.ndarray:
        """Put the robot back on the reference, as after a crash; returns a reading [ds]."""
        self._start(self.stamp_ns + RESET_NS)
        return self._observe()

    @property
    def true_state(self) -> np.ndarray:
        """State [ds] without noise, angles wrapped."""
        return self.robot_spec.wrap(np.concatenate([self.data.qpos, self.data.qvel]))

    def set_shifts(self, shifts: Sequence[Shift]) -> None:
        """Replace the active shifts; the motion goes on.

        Raises:
            UserError: a shift does not fit this robot; the plant is nominal then.
        """
        self._make_nominal()
        self.shifts = []
        try:
            for shift in shifts:
                shift.apply(self)
        except UserError:
            self._make_nominal()
            raise
        self.shifts = list(shifts)
        mujoco.mj_setConst(self.model, self._scratch)

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
        force = rng.uniform(-self.WIND_FAMILY, self.WIND_FAMILY, 2)
        candidates: list[Shift] = [
            ActuatorGain(name, float(rng.uniform(0.4, 1.2))) for name in self.ACTION
        ]
        candidates += [
            Payload(float(rng.uniform(0, self.PAYLOAD_FAMILY))),
            Wind((float(force[0]), float(force[1]))),
            Damping(float(np.exp(rng.uniform(np.log(0.5), np.log(5.0))))),
            Friction(float(rng.uniform(0, self.FRICTION_FAMILY))),
        ]
        chosen = rng.random(len(candidates)) < 0.5
        return [shift for shift, take in zip(candidates, chosen, strict=True) if take]

    def one_step(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """Next states [n, ds] without noise, under the active shifts; the life is not disturbed.

        Args:
            states: [n, ds].
            actions: commands [n, da].
            previous: commands before [n, k, da], newest first.
        """
        data, half = self._scratch, self._dofs
        if self.delay > 0:
            actions = previous[:, self.delay - 1]
        result = np.empty(np.shape(states))
        for i, (state, forces) in enumerate(zip(states, self._forces(actions), strict=True)):
            data.qpos[:] = state[:half]
            data.qvel[:] = state[half:]
            data.qacc_warmstart[:] = 0
            self._advance(data, forces)
            result[i, :half] = data.qpos
            result[i, half:] = data.qvel
        return self.robot_spec.wrap(result)

    # ------------------------------------------------------------------ for shifts
    def add_mass(self, mass: float, radius: float = 0.03) -> None:
        """Fix a solid sphere to the payload body at its payload point."""
        model, body = self.model, self._body
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

    def _make_nominal(self) -> None:
        for name, value in self._nominal.items():
            getattr(self.model, name)[:] = value
        self.gain = np.ones(len(self.ACTION))
        self.wind = np.zeros(6)
        self.delay = 0
        self.noise_factor = 1.0
        mujoco.mj_setConst(self.model, self._scratch)

    # ------------------------------------------------------------------ physics
    def _forces(self, actions: np.ndarray) -> np.ndarray:
        return self.gain * np.clip(
            actions, self.robot_spec.action_low, self.robot_spec.action_high
        )

    def _advance(self, data: mujoco.MjData, forces: np.ndarray) -> None:
        data.ctrl[:] = forces
        data.xfrc_applied[self._body] = self.wind
        mujoco.mj_step(self.model, data, self.SUBSTEPS)

    def _start(self, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        mujoco.mj_resetData(self.model, self.data)
        position, velocity = self.robot_spec.reference(stamp_ns)
        for i, name in enumerate(self.robot_spec.goal.track):
            at = self.STATE.index(name)
            if at < self._dofs:
                self.data.qpos[at] = position[0, i]
                self.data.qvel[at] = velocity[0, i]
        self._sent = [self.robot_spec.neutral] * (self.max_delay + 1)

    def _observe(self) -> np.ndarray:
        noise = self.sensor_noise * self.np_random.standard_normal(len(self.sensor_noise))
        return self.robot_spec.wrap(self.true_state + self.noise_factor * noise)

    def _info(self, crashed: bool) -> dict[str, Any]:
        return {'state': self.true_state, 'stamp_ns': self.stamp_ns, 'crashed': crashed}
