"""Probing: small excitation by which regimes that look alike at rest can be told apart.

A regime can only be identified under excitation: a worn wheel that stands still is like a new one.
Doublets, a step to one side and the same to the other, in random directions (a pseudo-random
binary sequence; Ljung 1999, chapter 13) excite every command and leave the robot where it was.
"""

from __future__ import annotations

import numpy as np

from ..dynamics.belief import Belief
from ..robot.spec import RobotSpec
from .safety import Safety

HOLD = 2  # steps of each half of a doublet
LEAST = 0.5  # authority below which nothing is added


class Probe:
    """Adds excitation to a command before the safety stage, which has the last word on it."""

    def __init__(self, spec: RobotSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self.reset()

    def reset(self) -> None:
        """Begin anew, with the same random numbers."""
        self._rng = np.random.default_rng(self._seed)
        self._step = 0
        self._signs = np.zeros(len(self._spec.action))
        self._interventions = 0

    def add(self, wanted: np.ndarray, belief: Belief, safety: Safety) -> np.ndarray:
        """The command [da], float32, with excitation where it is allowed.

        It is while the entropy of the regimes is above the robot file's, and safety, at the last
        check, has granted at least half of the range and had nothing to change. A doublet that has
        begun is ended early by safety only; its size goes with the authority.
        """
        probing = self._spec.probing
        if not probing.amplitude:
            return wanted
        before, self._interventions = self._interventions, safety.interventions.total()
        if safety.stopped or safety.authority < LEAST or self._interventions != before:
            self._step = 0
            return wanted
        if self._step == 0:
            if belief.entropy <= probing.entropy:
                return wanted
            self._signs = self._rng.choice((-1.0, 1.0), len(self._signs))
        side = 1.0 if self._step < HOLD else -1.0
        self._step = (self._step + 1) % (2 * HOLD)
        size = safety.authority * probing.amplitude * self._spec.action_half_range
        pushed = wanted + side * size * self._signs
        low, high = self._spec.action_low, self._spec.action_high
        return np.clip(pushed, low, high).astype(np.float32)
