"""Structured Kalman filter: the network stays, about ten physical numbers are tracked."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...blr import Gaussian
from ...dynamics.model import DELAYS, Prior
from .kalman import Kalman

ACTUATOR_SD, BIAS_SD, DELAY_SD, OFFSET_SD = 0.2, 0.2, 0.3, 0.3
SHARE = 0.005  # random walk: covariance moved towards the prior per transition


class Structured(Kalman):
    """Actuator gain, bias and delay, and a constant added to each output, under a random walk."""

    name: ClassVar[str] = 'structured'

    def __init__(self, prior: Prior, seed: int) -> None:
        dynamics = prior.dynamics
        ds, nf = dynamics.nominal.shape
        da = len(dynamics.spec.action)
        tangents = 2 * da + DELAYS
        basis = np.zeros((dynamics.size, tangents + ds))
        basis[ds * nf :, :tangents] = np.eye(tangents)
        # The last raw feature is 1: this head turns φ back into it.
        constant = np.linalg.solve(dynamics.trunk.whiten, np.eye(nf)[-1])
        for output in range(ds):
            basis[output * nf : (output + 1) * nf, tangents + output] = constant
        sd = np.repeat([ACTUATOR_SD, BIAS_SD, DELAY_SD, OFFSET_SD], [da, da, DELAYS, ds])
        super().__init__(prior, seed, np.diag(sd**2), basis, confidence=0.01)

    def drift(self, posterior: Gaussian) -> Gaussian:
        return posterior.widen(self.start.covariance, SHARE)
