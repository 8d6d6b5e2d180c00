"""Gaussian posterior with independent parameters: what the optimizer learns."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .posterior import ExponentialFamily, mirrored, proper, standard_normal


class DiagonalGaussian(ExponentialFamily):
    """q(θ) = N(mean, diag(1 / precision)). λ = (Λ m, Λ), T(θ) = (θ, −θ²/2)."""

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        """Take mean [n] and precision [n] without copying.

        Raises:
            ValueError: the shapes differ.
            ImproperPosteriorError: a precision is not positive.
        """
        if mean.ndim != 1 or mean.shape != precision.shape:
            raise ValueError(
                f'mean {tuple(mean.shape)} and precision {tuple(precision.shape)} do not fit: '
                'give [n] and [n]'
            )
        proper(precision, 'the precision')
        self.mean = mean
        self.precision = precision

    @property
    def size(self) -> int:
        """Number of parameters n."""
        return self.mean.shape[0]

    @property
    def variance(self) -> Tensor:
        """Variances [n]."""
        return 1 / self.precision

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, n]."""
        noise = standard_normal(self.mean, count, generator)
        return self.mean + noise / self.precision.sqrt()

    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, n]; the second half mirrors the first."""
        return mirrored(self.sample(pairs, generator), self.mean)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., n]."""
        square = (self.precision * (theta - self.mean).square()).sum(dim=-1)
        return -0.5 * (square + self._log_det())

    def entropy(self) -> Tensor:
        """Entropy, nats."""
        return 0.5 * (self.size + self._log_det())

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """KL(self ‖ other)."""
        ratio = self._same(other).precision / self.precision
        shift = other.precision * (self.mean - other.mean).square()
        return 0.5 * (ratio - 1 - ratio.log() + shift).sum()

    def natural(self) -> tuple[Tensor, Tensor]:
        """(Λ m [n], Λ [n])."""
        return self.precision * self.mean, self.precision

    @classmethod
    def from_natural(cls, eta: Tensor, precision: Tensor) -> DiagonalGaussian:
        """From Λ m [n] and Λ [n]."""
        proper(precision, 'the precision')
        return cls(eta / precision, precision)

    def moments(self) -> tuple[Tensor, Tensor]:
        """(E[θ] [n], −E[θ²]/2 [n])."""
        return self.mean, -0.5 * (self.mean.square() + self.variance)

    def log_partition(self) -> Tensor:
        """A(λ)."""
        return 0.5 * ((self.precision * self.mean.square()).sum() + self._log_det())

    def state(self) -> dict[str, Tensor]:
        """Mean and precision."""
        return {'mean': self.mean, 'precision': self.precision}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DiagonalGaussian:
        """From mean and precision."""
        return cls(state['mean'], state['precision'])

    def _log_det(self) -> Tensor:
        """Log determinant of 2π Σ."""
        return self.size * math.log(2 * math.pi) - self.precision.log().sum()
