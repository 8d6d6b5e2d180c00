"""Full-covariance Gaussian posterior: the exact conjugate case of the Bayesian learning rule.

For a likelihood y = H θ + e, e ~ N(0, R), one step of the rule with ρ = 1 adds the natural
parameters of the data to those of the prior (Khan & Rue 2023, section 3.1):

    Λ ← Λ + Hᵀ R⁻¹ H,   η ← η + Hᵀ R⁻¹ y,   Λ = Σ⁻¹, η = Λ m.

`condition` does the same in moment form (Kalman), which costs O(n²) for a few outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import conjugate
from .posterior import ExponentialFamily, cholesky, mirrored, standard_normal


@dataclass(frozen=True)
class Innovation:
    """Predictive of an observation under a Gaussian: what is needed to score and to condition."""

    mean: Tensor  # H m [k]
    gain: Tensor  # Σ Hᵀ [n, k]
    epistemic: Tensor  # H Σ Hᵀ [k, k]
    inverse: Tensor  # L⁻¹ [k, k], H Σ Hᵀ + R = L Lᵀ


class Gaussian(ExponentialFamily):
    """q(θ) = N(mean, covariance). λ = (Λ m, Λ), T(θ) = (θ, −θθᵀ/2)."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        """Take mean [n] and covariance [n, n] without copying; callers must not write to them."""
        n = mean.shape[0]
        if mean.shape != (n,) or covariance.shape != (n, n):
            raise ValueError(
                f'mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)} do not fit: '
                'give [n] and [n, n]'
            )
        self.mean = mean
        self._stored = covariance
        self._upper_only = False  # what lies below the diagonal of `_stored` is not valid

    @property
    def covariance(self) -> Tensor:
        """Σ [n, n]."""
        if self._upper_only:
            conjugate.mirror(self._stored)
            self._upper_only = False
        return self._stored

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
        chol = cholesky(precision)
        covariance = torch.cholesky_inverse(chol)
        return cls(covariance @ eta, covariance)

    def natural(self) -> tuple[Tensor, Tensor]:
        """Natural parameters (η [n], Λ [n, n])."""
        precision = torch.cholesky_inverse(torch.linalg.cholesky(self.covariance))
        return precision @ self.mean, precision

    def moments(self) -> tuple[Tensor, Tensor]:
        """(E[θ] [n], −E[θθᵀ]/2 [n, n])."""
        return self.mean, -0.5 * (torch.outer(self.mean, self.mean) + self.covariance)

    def log_partition(self) -> Tensor:
        """A(λ)."""
        white = self._whiten(self.mean)
        return 0.5 * (white.square().sum() + self._log_det())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, n]."""
        return self.mean + standard_normal(self.mean, count, generator) @ self.factor().T

    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, n]; the second half mirrors the first."""
        return mirrored(self.sample(pairs, generator), self.mean)

    def entropy(self) -> Tensor:
        """Entropy, nats."""
        return 0.5 * (self.size + self._log_det())

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self ‖ other)."""
        shift = self._same(other)._whiten(self.mean - other.mean).square().sum()
        trace = other._whiten(self.factor().T).square().sum()
        return 0.5 * (trace - self.size + shift + other._log_det() - self._log_det())

    def state(self) -> dict[str, Tensor]:
        """Mean and covariance."""
        return {'mean': self.mean, 'covariance': self.covariance}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Gaussian:
        """From mean and covariance."""
        return cls(state['mean'], state['covariance'])

    def predict(self, design: Tensor, noise: Tensor) -> Innovation:
        """Predictive of y = H θ + e for a design H [k, n] and noise variances R [k]."""
        if conjugate.serves(self.mean, self._stored, design, noise):
            found = conjugate.predict(self.mean, self._stored, design, noise)
            if found is not None:  # else torch says what is wrong
                gain, mean, epistemic, inverse = found
                return Innovation(mean, gain, epistemic, inverse)
        gain = self.covariance @ design.T
        epistemic = design @ gain
        chol = torch.linalg.cholesky(epistemic + torch.diag(noise))
        unit = torch.eye(len(noise), dtype=chol.dtype, device=chol.device)
        inverse = torch.linalg.solve_triangular(chol, unit, upper=False)
        return Innovation(design @ self.mean, gain, epistemic, inverse)

    def condition(
        self, innovation: Innovation, residual: Tensor, in_place: bool = False
    ) -> Gaussian:
        """Posterior after observing y, `residual` = y − H m [k]: BLR with ρ = 1.

        With `in_place` it is written over the covariance of this one, which is used up.
        """
        gain, inverse = innovation.gain, innovation.inverse
        if conjugate.serves(self.mean, self._stored, gain, inverse, residual):
            given = (self.mean, self._stored, gain, inverse, residual)
            learned = Gaussian(*conjugate.condition(*given, in_place))
            learned._upper_only = True
            return learned
        half = inverse @ gain.T
        mean = self.mean + half.T @ (inverse @ residual)
        out = self.covariance if in_place else None
        return Gaussian(mean, torch.addmm(self.covariance, half.T, half, alpha=-1.0, out=out))

    def widen(self, towards: Tensor, share: float, in_place: bool = False) -> Gaussian:
        """Covariance moved towards another one: (1 − share) Σ + share · towards."""
        if conjugate.serves(self._stored, towards):
            wider = Gaussian(self.mean, conjugate.widen(self._stored, towards, share, in_place))
            wider._upper_only = True
            return wider
        out = self.covariance if in_place else None
        return Gaussian(self.mean, torch.lerp(self.covariance, towards, share, out=out))

    def factor(self) -> Tensor:
        """Lower Cholesky factor [n, n] of the covariance."""
        return torch.linalg.cholesky(self.covariance)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., n]."""
        square = self._whiten(theta - self.mean).square().sum(dim=-1)
        return -0.5 * (square + self._log_det())

    def _whiten(self, vectors: Tensor) -> Tensor:
        """L⁻¹ v for vectors [..., n], Σ = L Lᵀ."""
        flat = vectors.reshape(-1, self.size)
        white = torch.linalg.solve_triangular(self.factor(), flat.T, upper=False)
        return white.T.reshape(vectors.shape)

    def _log_det(self) -> Tensor:
        """Log determinant of 2π Σ."""
        diagonal = torch.diagonal(self.factor())
        return 2 * diagonal.log().sum() + self.size * math.log(2 * math.pi)
