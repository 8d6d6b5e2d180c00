"""A pole on a cart, pushed along a track: from hanging to upright, and there it stays.

The angle is measured from the vertical, positive when the pole leans towards +x.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import MujocoRobot
from .shifts import ActuatorGain, Shift


class CartPole(MujocoRobot):
    """State x, angle and their rates; action: force on the cart in newtons."""

    NAME: ClassVar[str] = 'cartpole'
    STATE: ClassVar[tuple[str, ...]] = ('x', 'angle', 'speed', 'angle_speed')
    ACTION: ClassVar[tuple[str, ...]] = ('force',)
    PAYLOAD_BODY: ClassVar[str] = 'pole'
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.5)
    START: ClassVar[dict[str, float]] = {'angle': np.pi}  # hanging
    SENSOR_NOISE: ClassVar[tuple[float, ...]] = (0.002, 0.002, 0.01, 0.02)
    SUBSTEPS: ClassVar[int] = 8
    GAIN_FAMILY: ClassVar[tuple[float, float]] = (0.3, 1.2)
    PAYLOAD_FAMILY: ClassVar[float] = 1.2
    WIND_FAMILY: ClassVar[float] = 1.0
    FRICTION_FAMILY: ClassVar[float] = 0.0
    REVERSED_FAMILY: ClassVar[float] = 0.4  # share of actuators that push the wrong way

    def has_crashed(self, state: np.ndarray) -> bool:
        """At the end of the track or whirling."""
        return self.left_the_arena(state) or bool(abs(state[3]) > 30.0)

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]: anywhere on the track, at any angle."""
        states = rng.standard_normal((n, 4)) * [0.8, 1.0, 1.5, 5.0]
        states[:, 1] = rng.uniform(-np.pi, np.pi, n)
        return states

    def candidates(self, rng: np.random.Generator) -> list[Shift]:
        """As of any robot, and motors that are connected the wrong way round."""
        shifts = super().candidates(rng)
        reversed_ = rng.random() < self.REVERSED_FAMILY
        return [
            ActuatorGain(s.actuator, -s.factor) if isinstance(s, ActuatorGain) and reversed_ else s
            for s in shifts
        ]
