"""Intervals that hold what they promise, whatever no head explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dynamics.noise import Noise

COVER = 0.9  # of what comes
RATE = 0.06  # move of the log width by a miss
NARROWEST, WIDEST = 0.75, 20.0  # what the standard deviation of the noise is multiplied by
LEAST, MOST = np.log(NARROWEST), np.log(WIDEST)


@dataclass
class Intervals:
    """Widens the noise [ds] of each output that misses more than it may, and narrows it else.

    The quantile tracker of conformal prediction (Angelopoulos, Candès & Tibshirani 2023, Conformal
    PID control for time series prediction, section 2.1) on the logarithm of the width. The learned
    noise is that of a plant that a head explains; where none does, errors depend on the state and
    on each other, and the share that is missed is all that can be relied on.
    """

    log_width: np.ndarray

    @classmethod
    def start(cls, outputs: int) -> Intervals:
        """As wide as the noise says."""
        return cls(np.zeros(outputs))

    def variance(self, noise: Noise) -> np.ndarray:
        """Variance [ds] of the noise, and of what is not explained."""
        return noise.variance * np.exp(2 * self.log_width)

    def update(self, residual: np.ndarray, epistemic: np.ndarray, noise: Noise) -> float:
        """Learn from errors [ds] of predictions; the share of outputs inside their intervals."""
        sd = np.sqrt(epistemic + self.variance(noise))
        missed = np.abs(residual) > student_quantile(noise.dof) * sd
        width = self.log_width + RATE * (missed - (1 - COVER))
        self.log_width = np.minimum(np.maximum(width, LEAST), MOST)
        return float(1 - missed.sum() / len(missed))


def student_quantile(dof: float) -> float:
    """95 % quantile of Student's t by its Cornish–Fisher expansion (error < 1e-3 for dof ≥ 11)."""
    z = 1.6448536269514722
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
