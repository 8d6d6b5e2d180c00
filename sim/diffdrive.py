"""A vehicle with two driven wheels and a caster, seen from above.

Wheel motors regulate wheel speed, so that the ground speed follows a command with a lag of
mass over twice their stiffness; tyres resist sliding sideways as a stiff viscous damper does.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import MujocoRobot
from .shifts import ActuatorBias, Shift


class DiffDrive(MujocoRobot):
    """State x, y, heading and the speeds in its own frame; action: wheel speeds in rad/s."""

    NAME: ClassVar[str] = 'diffdrive'
    STATE: ClassVar[tuple[str, ...]] = ('x', 'y', 'heading', 'forward', 'lateral', 'yaw_rate')
    ACTION: ClassVar[tuple[str, ...]] = ('left', 'right')
    PAYLOAD_BODY: ClassVar[str] = 'base'
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (-0.15, 0.0, 0.05)
    PLANE: ClassVar[tuple[int, int]] = (0, 1)
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = (0.003, 0.003, 0.003, 0.01, 0.01, 0.02)
    SUBSTEPS: ClassVar[int] = 5
    GAIN_FAMILY: ClassVar[tuple[float, float]] = (0.3, 1.2)
    PAYLOAD_FAMILY: ClassVar[float] = 12.0
    WIND_FAMILY: ClassVar[float] = 10.0
    FRICTION_FAMILY: ClassVar[float] = 0.0
    BIAS_FAMILY: ClassVar[tuple[float, ...]] = (3.0, 3.0)  # in the actions' unit

    def observed(self, positions: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """States [..., ds]: speeds along and across the heading."""
        c, s = np.cos(positions[..., 2]), np.sin(positions[..., 2])
        vx, vy, yaw_rate = np.moveaxis(speeds, -1, 0)
        own = np.stack([c * vx + s * vy, c * vy - s * vx, yaw_rate], axis=-1)
        return np.concatenate([positions, own], axis=-1)

    def motion(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and speeds along the axes of the world."""
        c, s = np.cos(states[..., 2]), np.sin(states[..., 2])
        forward, lateral, yaw_rate = np.moveaxis(states[..., 3:], -1, 0)
        speeds = np.stack([c * forward - s * lateral, s * forward + c * lateral, yaw_rate], -1)
        return states[..., :3], speeds

    def has_crashed(self, state: np.ndarray) -> bool:
        """Out of the arena or spinning."""
        return self.left_the_arena(state) or bool(abs(state[5]) > 15.0)

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]: wherever, in any direction, driving, sliding and turning."""
        states = rng.standard_normal((n, 6)) * [1.0, 1.0, 1.0, 0.6, 0.1, 1.2]
        states[:, 2] = rng.uniform(-np.pi, np.pi, n)
        return states

    def candidates(self, rng: np.random.Generator) -> list[Shift]:
        """As of any robot, and motors that run on their own."""
        shifts = super().candidates(rng)
        bias = np.array(self.BIAS_FAMILY)
        offsets = rng.uniform(-bias, bias)
        return shifts + [ActuatorBias(a, float(o)) for a, o in zip(self.ACTION, offsets)]
