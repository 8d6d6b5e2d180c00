"""Gaussian likelihoods whose noise is the same everywhere: known, or learned on the way."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from ..noise import Noise
from .base import Likelihood
from .continuous import LOG_2PI, Normal, digamma, real_label


class Homoscedastic(Likelihood):
    """y = f + e, e ~ N(0, diag(variance)), k outputs. A label is y [k]; a soft one is its mean."""

    @property
    @abstractmethod
    def variance(self) -> np.ndarray:
        """Of the noise [k]."""

    @property
    def outputs(self) -> int:
        """As many as there are noise variances."""
        return len(self.variance)

    def label(self, y: Any) -> np.ndarray:
        """From k finite numbers.

        Raises:
            UserError: it is anything else.
        """
        return real_label(y, self.outputs)

    def loss(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """½ Σ (y − f)² / variance + constants [...]."""
        square = np.square(label - f) / self.variance
        return 0.5 * np.sum(square + np.log(self.variance) + LOG_2PI, axis=-1)

    def residual(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """(f − y) / variance [..., k]."""
        return (f - label) / self.variance

    def curvature(self, f: np.ndarray) -> np.ndarray:
        """diag(1 / variance) [..., k, k]."""
        return np.broadcast_to(np.diag(1 / self.variance), (*f.shape, self.outputs))

    def soft_label(self, f: np.ndarray) -> np.ndarray:
        """f itself [..., k]."""
        return f

    def match(
        self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact: Bayesian linear regression."""
        gain = np.linalg.solve(covariance + np.diag(self.variance), covariance).T
        after = gain * self.variance
        return mean + gain @ (label - mean), 0.5 * (after + after.T)


class KnownNoise(Homoscedastic):
    """Noise of a known variance [k]: the conjugate case, exact."""

    def __init__(self, variance: np.ndarray) -> None:
        """Take the noise variance [k].

        Raises:
            UserError: one is not positive and finite.
        """
        self._variance = np.array(variance, dtype=float).reshape(-1)
        if not (np.isfinite(self._variance) & (self._variance > 0)).all():
            raise UserError(f'noise variance {variance!r}: give positive, finite numbers')

    @property
    def variance(self) -> np.ndarray:
        """Of the noise [k]."""
        return self._variance

    def predict(self, mean: np.ndarray, covariance: np.ndarray) -> Normal:
        """Gaussian with the covariance of f plus that of the noise."""
        aleatoric = 0.5 * np.sum(1 + LOG_2PI + np.log(self.variance))
        scale = covariance + np.diag(self.variance)
        return Normal(mean, scale, np.full(mean.shape[:-1], aleatoric))


@dataclass(frozen=True)
class LearnedNoise(Homoscedastic):
    """Noise whose variance is learned with a short memory: q(variance) is inverse-gamma."""

    noise: Noise

    @property
    def variance(self) -> np.ndarray:
        """Present estimate [k]."""
        return self.noise.variance

    def predict(self, mean: np.ndarray, covariance: np.ndarray) -> Normal:
        """Student-t with the degrees of freedom of the noise.

        Approximate in that the uncertainty about f gets the heavy tails of the noise too.
        """
        dof = self.noise.dof
        log_variance = np.log(self.variance) + math.log(dof / 2) - digamma(dof / 2)
        aleatoric = 0.5 * np.sum(1 + LOG_2PI + log_variance)
        scale = covariance + np.diag(self.variance)
        return Normal(mean, scale, np.full(mean.shape[:-1], aleatoric), dof)

    def learn(self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> LearnedNoise:
        """From the expected squared residual under the updated posterior."""
        square = np.square(label - mean) + np.diagonal(covariance)
        return LearnedNoise(self.noise.update(square))
