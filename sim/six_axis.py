"""A six-axis arm whose drives regulate joint speeds, as behind a forward velocity controller."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import MujocoRobot

JOINTS = ('waist', 'shoulder', 'elbow', 'wrist_roll', 'wrist_pitch', 'flange')


class SixAxis(MujocoRobot):
    """State: angles of six joints and their rates; action: commanded joint speeds in rad/s."""

    NAME: ClassVar[str] = 'six_axis'
    STATE: ClassVar[tuple[str, ...]] = (*JOINTS, *(f'{joint}_rate' for joint in JOINTS))
    ACTION: ClassVar[tuple[str, ...]] = tuple(f'{joint}_speed' for joint in JOINTS)
    PAYLOAD_BODY: ClassVar[str] = 'tool'
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (0.1, 0.0, 0.0)
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = (0.0005,) * 6 + (0.005,) * 6
    SUBSTEPS: ClassVar[int] = 5
    PAYLOAD_FAMILY: ClassVar[float] = 6.0
    WIND_FAMILY: ClassVar[float] = 15.0
    FRICTION_FAMILY: ClassVar[float] = 0.0

    def has_crashed(self, state: np.ndarray) -> bool:
        """Beyond a joint's stop, or spinning."""
        return self.left_the_arena(state) or bool(np.max(np.abs(state[6:])) > 10.0)

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]: around the task and well beyond it."""
        centre = np.array([0.0, 0.7, -1.0, 0.0, 0.3, 0.0])
        spread = np.array([0.7, 0.5, 0.5, 0.7, 0.6, 0.7])
        angles = centre + spread * rng.standard_normal((n, 6))
        rates = np.array([1.0, 0.9, 1.0, 1.4, 1.4, 1.4]) * rng.standard_normal((n, 6))
        return self.robot_spec.wrap(np.concatenate([angles, rates], axis=1))
