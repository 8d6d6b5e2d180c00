"""A random walk with the task-family prior: the simplest honest baseline of the learner."""

from __future__ import annotations

from typing import ClassVar

from ...blr import Gaussian
from ...dynamics.model import Prior
from .kalman import Kalman

SHARE = 0.02  # covariance moved towards the prior per transition


class Walk(Kalman):
    """Exact head that always doubts a little: no surprise, no memory, no guard."""

    name: ClassVar[str] = 'walk'

    def __init__(self, prior: Prior, seed: int) -> None:
        super().__init__(prior, seed, prior.covariance, confidence=0.01)

    def drift(self, posterior: Gaussian) -> Gaussian:
        return posterior.widen(self.start.covariance, SHARE)
