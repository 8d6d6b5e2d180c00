"""What the Gaussian likelihoods share: parsing of real observations, and their predictives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...errors import UserError
from .base import Predictive
from .quadrature import grid

LOG_2PI = math.log(2 * math.pi)


def real_label(y: Any, size: int) -> np.ndarray:
    """An observation of `size` finite numbers, as an array.

    Raises:
        UserError: it is none.
    """
    try:
        label = np.array(y, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        label = np.empty(0)
    if label.shape != (size,) or not np.isfinite(label).all():
        raise UserError(f'label {y!r} is not {size} finite number{"s" * (size > 1)}')
    return label


@dataclass(frozen=True)
class Normal(Predictive):
    """Gaussian, or Student-t with `dof` degrees of freedom, over k outputs."""

    mean: np.ndarray  # [..., k]
    scale: np.ndarray  # [..., k, k]; the covariance of a Gaussian
    aleatoric: np.ndarray  # [...]
    dof: float = math.inf

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of y [..., k, k]; infinite up to two degrees of freedom."""
        if math.isinf(self.dof):
            return self.scale
        return self.scale * (self.dof / (self.dof - 2) if self.dof > 2 else math.inf)

    @cached_property
    def entropy(self) -> np.ndarray:
        """Differential entropy of y, nats [...]."""
        k, half = self.mean.shape[-1], 0.5 * np.linalg.slogdet(self.scale)[1]
        if math.isinf(self.dof):
            return half + 0.5 * k * (1 + LOG_2PI)
        spread = 0.5 * (self.dof + k) * (digamma((self.dof + k) / 2) - digamma(self.dof / 2))
        return half - self._log_height() + spread

    def log_prob(self, label: np.ndarray) -> np.ndarray:
        """Log density [...] of a label [k]."""
        k, half = self.mean.shape[-1], 0.5 * np.linalg.slogdet(self.scale)[1]
        left = (label - self.mean)[..., None]
        square = np.sum(left * np.linalg.solve(self.scale, left), axis=(-2, -1))
        if math.isinf(self.dof):
            return -half - 0.5 * (square + k * LOG_2PI)
        return self._log_height() - half - 0.5 * (self.dof + k) * np.log1p(square / self.dof)

    def _log_height(self) -> float:
        """Log density of a standard Student-t at its mode."""
        k, dof = self.mean.shape[-1], self.dof
        height = math.lgamma((dof + k) / 2) - math.lgamma(dof / 2)
        return height - 0.5 * k * math.log(dof * math.pi)


@dataclass(frozen=True)
class ScaleMixture(Predictive):
    """y of a Gaussian whose log variance is uncertain: Σ_j w_j N(mean_j, variance_j)."""

    weights: np.ndarray  # [j]
    means: np.ndarray  # [..., j]
    variances: np.ndarray  # [..., j]
    aleatoric: np.ndarray  # [...]
    noise: np.ndarray  # expected variance of y given the parameters [...]

    @property
    def mean(self) -> np.ndarray:
        """Mean of y [...]."""
        return self.means @ self.weights

    @property
    def variance(self) -> np.ndarray:
        """Variance of y [...]."""
        spread = np.square(self.means - self.mean[..., None])
        return (self.variances + spread) @ self.weights

    @cached_property
    def entropy(self) -> np.ndarray:
        """Differential entropy of y, nats [...], by quadrature within every component."""
        nodes, weights = grid()
        y = self.means[..., None] + np.sqrt(self.variances)[..., None] * nodes[:, 0]
        return -(self._log_density(y) @ weights) @ self.weights

    def log_prob(self, label: np.ndarray) -> np.ndarray:
        """Log density [...] of y = label[0]."""
        y = np.broadcast_to(label[0], self.means.shape[:-1])
        return self._log_density(y[..., None, None])[..., 0, 0]

    def _log_density(self, y: np.ndarray) -> np.ndarray:
        """Log density [..., a, b] at y [..., a, b]."""
        shape = (*self.means.shape[:-1], 1, 1, -1)
        mean, variance = self.means.reshape(shape), self.variances.reshape(shape)
        square = np.square(y[..., None] - mean) / variance
        heights = -0.5 * (square + np.log(variance) + LOG_2PI)
        return np.logaddexp.reduce(heights + np.log(self.weights), axis=-1)


def digamma(x: float) -> float:
    """ψ(x)."""
    return float(torch.digamma(torch.tensor(x, dtype=torch.float64)))
