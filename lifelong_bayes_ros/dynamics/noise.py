"""Observation noise learned online: an inverse-gamma per output with a short memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MEMORY = 0.98  # keeps about 50 transitions
PRIOR_WEIGHT = 0.5  # transitions that the pre-trained variance counts for
GUARD_DOF = 40.0  # degrees of freedom after an event: noise must not absorb a shift
CAP = 6.0  # one residual counts at most this many variances
PULL = (1 - MEMORY) * PRIOR_WEIGHT  # towards the pre-trained variance, per transition
FLOOR = PULL / (1 + PULL)  # share of it that is left of an output which never errs


@dataclass(frozen=True)
class Noise:
    """Variance of each output [ds]: mean estimate β/ν with ν degrees of freedom."""

    beta: np.ndarray
    dof: float
    prior: np.ndarray

    @classmethod
    def start(cls, variance: np.ndarray, prior: np.ndarray) -> Noise:
        """Start from a variance [ds], held firmly as after an event."""
        return cls(variance * GUARD_DOF, GUARD_DOF, prior)

    @cached_property
    def variance(self) -> np.ndarray:
        """Current estimate [ds]."""
        return self.beta / self.dof

    def hold(self) -> Noise:
        """The same variance, held firmly: right after an event."""
        return Noise.start(self.variance, self.prior)

    def update(self, square: np.ndarray) -> Noise:
        """Learn from expected squared residuals [ds] under the updated posterior."""
        square = np.minimum(square, CAP * self.variance)
        return Noise(
            MEMORY * self.beta + square + PULL * self.prior,
            MEMORY * self.dof + 1 + PULL,
            self.prior,
        )
