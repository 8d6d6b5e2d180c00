"""A planar quadrotor: rotors left (−x) and right (+x), thrust along the body's z axis.

Positive pitch, about +y, lowers the +x side, so that thrust pulls towards +x.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import MujocoRobot


class Quad(MujocoRobot):
    """State x, z, pitch and their rates; action: thrust of each rotor in newtons."""

    NAME: ClassVar[str] = 'quad'
    STATE: ClassVar[tuple[str, ...]] = ('x', 'z', 'pitch', 'vx', 'vz', 'q')
    ACTION: ClassVar[tuple[str, ...]] = ('left', 'right')
    PAYLOAD_BODY: ClassVar[str] = 'quad'
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = (0.003, 0.003, 0.003, 0.01, 0.01, 0.02)
    SUBSTEPS: ClassVar[int] = 6
    PAYLOAD_FAMILY: ClassVar[float] = 0.6
    FRICTION_FAMILY: ClassVar[float] = 0.02

    def has_crashed(self, state: np.ndarray) -> bool:
        """On the floor, out of the arena or turned over."""
        return self.left_the_arena(state) or bool(abs(state[2]) > 1.4)

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]: wherever, tilted, moving and turning."""
        spread = np.array([1.0, 0.5, 0.45, 1.5, 1.5, 2.5])
        states = rng.standard_normal((n, 6)) * spread
        states[:, 1] += 1.5
        states[:, 2] = np.clip(states[:, 2], -1.3, 1.3)
        return states
