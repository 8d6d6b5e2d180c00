"""What a model is off by, on average, where the robot is now."""

from __future__ import annotations

import numpy as np

SHARE = 0.02  # of the mean residual that a step makes up
CLIP = 3.0  # standard deviations of the prior's noise that a step tells at most


class Offset:
    """Mean residual of each output [ds], forgotten exponentially.

    The disturbance of offset-free model-predictive control (Pannocchia & Rawlings 2003, AIChE
    Journal 49(2)): a controller that plans with it has no lasting error, however small
    the bias is that the model has left. A bias of the posterior itself would hold everywhere;
    this one holds near the robot.
    """

    def __init__(self, noise: np.ndarray) -> None:
        """Nothing is known; `noise` [ds] is the variance of a residual that nothing is off by."""
        self._most = CLIP * np.sqrt(noise)
        self.reset()

    def reset(self) -> None:
        """Nothing is known again: another plant, another model, or another place."""
        self.mean = np.zeros_like(self._most)

    def follow(self, residual: np.ndarray) -> None:
        """Learn from a residual [ds] of the model alone, this offset left out."""
        told = np.minimum(np.maximum(residual, -self._most), self._most)
        self.mean = self.mean + SHARE * (told - self.mean)
