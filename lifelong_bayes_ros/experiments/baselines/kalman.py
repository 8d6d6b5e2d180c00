"""An exact Gaussian over θ, or over a few directions of it: a Kalman filter on the design."""

from __future__ import annotations

import numpy as np
import torch

from ...blr import Gaussian
from ...dynamics.head import Head, Prediction
from ...dynamics.model import Prior
from .base import Baseline

DRAWS = 16  # posterior draws in a Belief


class Kalman(Baseline):
    """θ = θ₀ + B z with an exact posterior over z; `drift` is what time does to it."""

    def __init__(
        self,
        prior: Prior,
        seed: int,
        covariance: np.ndarray,
        basis: np.ndarray | None = None,
        confidence: float = 1.0,
    ) -> None:
        """Start at z = 0.

        Args:
            prior: model, noise and θ₀.
            seed: of the planner and the draws.
            covariance: prior covariance of z [k, k].
            basis: B [n, k]; the identity if not given.
            confidence: share of the prior covariance that life starts with.
        """
        super().__init__(prior, seed)
        self.basis = basis
        mean = torch.zeros(len(covariance), dtype=torch.float64)
        self.start = Gaussian(mean, torch.tensor(covariance))
        self.head = Head(Gaussian(mean, confidence * self.start.covariance), self.noise)

    def drift(self, posterior: Gaussian) -> Gaussian:
        """The posterior one step later, before anything is observed."""
        return posterior

    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        design = self.dynamics.design(x, u, past)
        target = self.dynamics.target(x, x_next) - design @ self.dynamics.nominal_theta
        directions = design if self.basis is None else design @ self.basis
        self.condition(torch.tensor(directions), target)

    def condition(self, design: torch.Tensor, target: np.ndarray) -> Prediction:
        """Predict and condition on what z explains, target [ds] = design [ds, k] · z + e."""
        self.head = self.head.replace(posterior=self.drift(self.head.posterior))
        prediction = self.head.predict(design, target)
        self.head = self.head.update(prediction)
        self.noise = self.head.noise
        return prediction

    def theta(self) -> np.ndarray:
        return self.dynamics.nominal_theta + self._lift(self.head.posterior.mean.numpy())

    def factor(self) -> np.ndarray:
        size = self.head.posterior.size
        draws = self.head.posterior.factor().numpy() @ self.rng.standard_normal((size, DRAWS))
        return self._lift(draws) / np.sqrt(DRAWS)

    def _lift(self, z: np.ndarray) -> np.ndarray:
        return z if self.basis is None else self.basis @ z
