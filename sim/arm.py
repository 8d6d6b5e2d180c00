"""A two-link arm in the vertical x-z plane.

The shoulder angle is measured from the horizontal +x axis, upwards; the elbow from the first link.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import MujocoRobot


class Arm(MujocoRobot):
    """State shoulder, elbow and their rates; action: joint torques in N m."""

    NAME: ClassVar[str] = 'arm'
    STATE: ClassVar[tuple[str, ...]] = ('shoulder', 'elbow', 'shoulder_speed', 'elbow_speed')
    ACTION: ClassVar[tuple[str, ...]] = ('shoulder_torque', 'elbow_torque')
    PAYLOAD_BODY: ClassVar[str] = 'forearm'
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (0.4, 0.0, 0.0)
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = (0.002, 0.002, 0.02, 0.02)
    SUBSTEPS: ClassVar[int] = 5
    PAYLOAD_FAMILY: ClassVar[float] = 1.5
    WIND_FAMILY: ClassVar[float] = 6.0
    FRICTION_FAMILY: ClassVar[float] = 1.0

    def has_crashed(self, state: np.ndarray) -> bool:
        """A joint spins."""
        return bool(np.max(np.abs(state[2:])) > 40.0)

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]: around the task and well beyond it."""
        centre = np.array([0.5, 0.8, 0.0, 0.0])
        spread = np.array([0.8, 0.9, 2.5, 4.0])
        return self.robot_spec.wrap(centre + spread * rng.standard_normal((n, 4)))
