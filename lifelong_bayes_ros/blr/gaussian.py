"""Full-covariance Gaussian posterior: the exact conjugate case of the Bayesian learning rule.

For a likelihood y = H θ + e, e ~ N(0, R), one step of the rule with ρ = 1 adds the natural
parameters of the data to those of the prior (Khan & Rue 2023, section 3.1):

    Λ ← Λ + Hᵀ R⁻¹ H,   η ← η + Hᵀ R⁻¹ y,   Λ = Σ⁻¹, η = Λ m.

`condition` does the same in moment form (Kalman), which costs O(n²) for a few outputs.
Instances are immutable: every operation returns a new one, so keeping an old posterior is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class ImproperPosteriorError(ValueError):
    """The result of a division or merge has a precision that is not positive definite."""


@dataclass(frozen=True)
class Innovation:
    """Predictive of an observation under a Gaussian: what is needed to score and to condition."""

    mean: Tensor  # H m [k]
    gain: Tensor  # Σ Hᵀ [n, k]
    epistemic: Tensor  # H Σ Hᵀ [k, k]
    chol: Tensor  # Cholesky factor of H Σ Hᵀ + R [k, k]


class Gaussian:
    """q(θ) = N(mean, covariance) over n parameters, float64."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        """Take mean [n] and covariance [n, n] without copying; callers must not write to them."""
        n = mean.shape[0]
        if mean.shape != (n,) or covariance.shape != (n, n):
            raise ValueError(
                f'mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)} do not fit: '
                'give [n] and [n, n]'
            )
        self.mean = mean
        self.covariance = covariance

    @property
    def size(self) -> int:
        """Number of parameters n."""
        return self.mean.shape[0]

    @classmethod
    def from_natural(cls, eta: Tensor, precision: Tensor) -> Gaussian:
        """From η = Λ m [n] and Λ [n, n].

        Raises:
            ImproperPosteriorError: Λ is not positive definite.
        """
        chol, info = torch.linalg.cholesky_ex((precision + precision.T) / 2)
        if info.item() != 0 or not bool(torch.isfinite(chol).all()):
            raise ImproperPosteriorError(
                'the precision is not positive definite: more was taken out than was put in'
            )
        covariance = torch.cholesky_inverse(chol)
        return cls(covariance @ eta, covariance)

    def natural(self) -> tuple[Tensor, Tensor]:
        """Natural parameters (η [n], Λ [n, n])."""
        precision = torch.cholesky_inverse(torch.linalg.cholesky(self.covariance))
        return precision @ self.mean, precision

    def multiply(self, other: Gaussian, divide: Gaussian | None = None) -> Gaussian:
        """Product with `other`, divided by `divide` (their common prior), in natural parameters.

        Raises:
            ImproperPosteriorError: the result is not a density.
        """
        eta, precision = self.natural()
        for factor, sign in ((other, 1.0), (divide, -1.0)):
            if factor is not None:
                more_eta, more = factor.natural()
                eta, precision = eta + sign * more_eta, precision + sign * more
        return Gaussian.from_natural(eta, precision)

    def predict(self, design: Tensor, noise: Tensor) -> Innovation:
        """Predictive of y = H θ + e for a design H [k, n] and noise variances R [k]."""
        gain = self.covariance @ design.T
        epistemic = design @ gain
        chol = torch.linalg.cholesky(epistemic + torch.diag(noise))
        return Innovation(design @ self.mean, gain, epistemic, chol)

    def condition(self, innovation: Innovation, residual: Tensor) -> Gaussian:
        """Posterior after observing y, `residual` = y − H m [k]: BLR with ρ = 1."""
        half = torch.linalg.solve_triangular(innovation.chol, innovation.gain.T, upper=False)
        white = torch.linalg.solve_triangular(innovation.chol, residual[:, None], upper=False)
        mean = self.mean + (half.T @ white)[:, 0]
        return Gaussian(mean, torch.addmm(self.covariance, half.T, half, alpha=-1.0))

    def widen(self, towards: Tensor, share: float) -> Gaussian:
        """Covariance moved towards another one: (1 − share) Σ + share · towards."""
        return Gaussian(self.mean, torch.lerp(self.covariance, towards, share))

    def factor(self) -> Tensor:
        """Lower Cholesky factor [n, n] of the covariance."""
        return torch.linalg.cholesky(self.covariance)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density at θ [n]."""
        chol = self.factor()
        white = torch.linalg.solve_triangular(chol, (theta - self.mean)[:, None], upper=False)
        log_det = 2 * torch.log(torch.diagonal(chol)).sum()
        return -0.5 * (white.square().sum() + log_det + self.size * math.log(2 * math.pi))
