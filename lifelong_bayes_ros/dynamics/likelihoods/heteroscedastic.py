"""Gaussian likelihood whose noise depends on the state: mean and log variance are both linear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from .base import Likelihood
from .continuous import LOG_2PI, ScaleMixture, real_label
from .quadrature import grid

ZOOMS = 5
NODES = 65
LIMIT = 60.0  # |log variance| is cut here in exponentials, so that none overflows


@dataclass(frozen=True)
class HeteroscedasticGaussian(Likelihood):
    """y / scale ~ N(μ, exp s) with f = (μ, s), k = 2.

    A label is (y, 0); a soft one is (scale · μ, scale² · exp s), the mean and the variance of y.
    The Fisher information diag(exp −s, ½) takes the Hessian's place, which is indefinite (Le et
    al. 2005).
    """

    scale: float = 1.0  # a typical size of y, in its unit

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f'scale {self.scale}: give a positive, finite number')

    @property
    def outputs(self) -> int:
        """Two: mean and log variance."""
        return 2

    @property
    def places(self) -> int:
        """One: the mean."""
        return 1

    def label(self, y: Any) -> np.ndarray:
        """From one finite number.

        Raises:
            UserError: it is anything else.
        """
        return np.array([real_label(y, 1)[0], 0.0])

    def loss(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """½ (s + ((y − μ)² + variance of y) exp(−s) + log 2π) + log scale [...], y in scales."""
        y, variance = self._scaled(label)
        square = np.square(y - f[..., 0]) + variance
        return 0.5 * (f[..., 1] + square * _exp(-f[..., 1]) + LOG_2PI) + math.log(self.scale)

    def residual(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """((μ − y) exp(−s), ½ − ½ ((y − μ)² + variance of y) exp(−s)) [..., 2]."""
        y, variance = self._scaled(label)
        left, precision = f[..., 0] - y, _exp(-f[..., 1])
        square = np.square(left) + variance
        return np.stack([left * precision, 0.5 - 0.5 * square * precision], axis=-1)

    def curvature(self, f: np.ndarray) -> np.ndarray:
        """diag(exp −s, ½) [..., 2, 2]."""
        precision = _exp(-f[..., 1])
        diagonal = np.stack([precision, np.full_like(precision, 0.5)], axis=-1)
        return diagonal[..., None] * np.eye(2)

    def soft_label(self, f: np.ndarray) -> np.ndarray:
        """(scale · μ, scale² · exp s) [..., 2]."""
        return np.stack([self.scale * f[..., 0], self.scale**2 * _exp(f[..., 1])], axis=-1)

    def match(
        self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By quadrature over s, zoomed in on where its posterior is; given s, μ is conjugate."""
        y, variance = self._scaled(label)
        deviation = math.sqrt(covariance[1, 1])
        slope = covariance[0, 1] / deviation
        prior = max(covariance[0, 0] - slope**2, 1e-12 * covariance[0, 0])
        distance = (y - mean[0]) ** 2 + variance + covariance[0, 0]
        low = mean[1] - 0.5 * covariance[1, 1] - 6 * deviation
        high = max(mean[1], math.log(distance)) + 6 * deviation
        for _ in range(ZOOMS):
            s = np.linspace(low, high, NODES)
            z = (s - mean[1]) / deviation
            left, total = y - mean[0] - slope * z, prior + variance + _exp(s)
            height = -0.5 * (z**2 + left**2 / total + np.log(total))
            weights = np.exp(height - height.max())
            weights /= weights.sum()
            centre, step = weights @ s, s[1] - s[0]
            reach = 6 * (step + math.sqrt(weights @ (s - centre) ** 2))
            low, high = centre - reach, centre + reach
        f = np.stack([mean[0] + slope * z + prior / total * left, s], axis=-1)
        moved = weights @ f
        spread = (weights * (f - moved).T) @ (f - moved)
        spread[0, 0] += weights @ (prior * (total - prior) / total)
        spread[1, 1] = max(spread[1, 1], step**2 / 12)  # no sharper than the grid
        return moved, spread

    def predict(self, mean: np.ndarray, covariance: np.ndarray) -> ScaleMixture:
        """By quadrature over s; given s, y is Gaussian."""
        nodes, weights = grid()
        spread = np.sqrt(covariance[..., 1, 1])[..., None]
        s = mean[..., 1, None] + spread * nodes[:, 0]
        # μ given s: regression of μ on the standard normal that s is made of.
        slope = covariance[..., 0, 1, None] / np.where(spread > 0, spread, 1.0)
        means = self.scale * (mean[..., 0, None] + slope * nodes[:, 0])
        known = np.maximum(covariance[..., 0, 0, None] - slope**2, 0.0)
        noise = self.scale**2 * _exp(s)
        aleatoric = 0.5 * (1 + LOG_2PI + mean[..., 1]) + math.log(self.scale)
        variances = self.scale**2 * known + noise
        return ScaleMixture(weights, means, variances, aleatoric, noise @ weights)

    def _scaled(self, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y and its variance in scales."""
        return label[..., 0] / self.scale, label[..., 1] / self.scale**2


def _exp(x: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(x, -LIMIT, LIMIT))
