"""Normal-inverse-gamma regression head: weights and noise variance of y = φᵀw + e, exactly.

q(w, σ²) = N(w | m, σ² Λ⁻¹) IG(σ² | a, b) is conjugate, so that each observation only adds

    Λ ← Λ + φφᵀ,   Λm ← Λm + φ y,   a ← a + ½,   b + ½ mᵀΛm ← b + ½ mᵀΛm + ½ y²

(Murphy 2012, section 7.6.3); the predictive is a Student-t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .posterior import ExponentialFamily, cholesky, proper, standard_normal


class NormalInverseGamma(ExponentialFamily):
    """q(w, σ²); θ is w followed by σ². With p = 1/σ²,

    λ = (Λm, Λ, a + 1 + k/2, b + mᵀΛm/2), T = (p w, −p wwᵀ/2, −log σ², −p) for k weights.
    """

    def __init__(self, mean: Tensor, precision: Tensor, a: Tensor, b: Tensor) -> None:
        """From m [k], Λ [k, k] and the shape a [] and scale b [] of the noise variance.

        Raises:
            ValueError: the shapes do not fit.
            ImproperPosteriorError: Λ, a or b is not positive.
        """
        k = mean.shape[0]
        if precision.shape != (k, k) or a.shape != () or b.shape != ():
            raise ValueError(
                f'mean {tuple(mean.shape)}, precision {tuple(precision.shape)}, a '
                f'{tuple(a.shape)} and b {tuple(b.shape)} do not fit: give [k], [k, k], [] and []'
            )
        proper(a, 'a')
        proper(b, 'b')
        self.mean = mean
        self.precision = precision
        self.a = a
        self.b = b
        self._chol = cholesky(precision)

    @property
    def size(self) -> int:
        """Number of weights and one more, for the variance."""
        return self.mean.shape[0] + 1

    def condition(self, design: Tensor, y: Tensor) -> NormalInverseGamma:
        """Posterior after observations y [r] at features [r, k]: BLR with ρ = 1."""
        eta, precision, shape, scale = self.natural()
        return self.from_natural(
            eta + design.T @ y,
            precision + design.T @ design,
            shape + 0.5 * len(y),
            scale + 0.5 * y.square().sum(),
        )

    def predict(self, design: Tensor) -> torch.distributions.StudentT:
        """Predictive of y at features [r, k], each on its own."""
        white = torch.linalg.solve_triangular(self._chol, design.T, upper=False)
        spread = (self.b / self.a * (1 + white.square().sum(dim=0))).sqrt()
        return torch.distributions.StudentT(2 * self.a, design @ self.mean, spread)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, k + 1]."""
        variance = self._variances(count, generator)
        noise = standard_normal(self.mean, count, generator)
        return torch.cat([self.mean + self._spread(noise, variance), variance], dim=1)

    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, k + 1]: weights mirrored about m, each pair with one variance."""
        draws = self.sample(pairs, generator)
        weights, variance = draws[:, :-1], draws[:, -1:]
        return torch.cat([draws, torch.cat([2 * self.mean - weights, variance], dim=1)])

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., k + 1]."""
        weights, variance = theta[..., :-1], theta[..., -1]
        white = (weights - self.mean) @ self._chol
        k = self.size - 1
        return (
            self._log_det() / 2
            - 0.5 * k * (math.log(2 * math.pi) + variance.log())
            - 0.5 * white.square().sum(dim=-1) / variance
            + self.a * self.b.log()
            - torch.lgamma(self.a)
            - (self.a + 1) * variance.log()
            - self.b / variance
        )

    def entropy(self) -> Tensor:
        """Entropy, nats."""
        digamma, k = torch.digamma(self.a), self.size - 1
        log_variance = self.b.log() - digamma
        noise = self.a + self.b.log() + torch.lgamma(self.a) - (1 + self.a) * digamma
        weights = k * (1 + math.log(2 * math.pi)) - self._log_det() + k * log_variance
        return noise + 0.5 * weights

    def kl(self, other: NormalInverseGamma) -> Tensor:
        """KL(self ‖ other)."""
        a, b, a2, b2 = self.a, self.b, self._same(other).a, other.b
        noise = (
            (a - a2) * torch.digamma(a)
            - torch.lgamma(a)
            + torch.lgamma(a2)
            + a2 * (b.log() - b2.log())
            + a * (b2 - b) / b
        )
        trace = (other.precision * torch.cholesky_inverse(self._chol)).sum()
        shift = a / b * ((self.mean - other.mean) @ other._chol).square().sum()
        weights = trace - (self.size - 1) + self._log_det() - other._log_det() + shift
        return noise + 0.5 * weights

    def natural(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(Λm [k], Λ [k, k], a + 1 + k/2 [], b + mᵀΛm/2 [])."""
        eta = self.precision @ self.mean
        return (
            eta,
            self.precision,
            self.a + 1 + 0.5 * (self.size - 1),
            self.b + 0.5 * (eta @ self.mean),
        )

    @classmethod
    def from_natural(
        cls, eta: Tensor, precision: Tensor, shape: Tensor, scale: Tensor
    ) -> NormalInverseGamma:
        """From natural parameters."""
        mean = torch.cholesky_solve(eta[:, None], cholesky(precision))[:, 0]
        k = eta.shape[0]
        return cls(mean, precision, shape - 1 - 0.5 * k, scale - 0.5 * (eta @ mean))

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(E[p w], −E[p wwᵀ]/2, −E[log σ²], −E[p])."""
        p = self.a / self.b
        second = torch.cholesky_inverse(self._chol) + p * torch.outer(self.mean, self.mean)
        return p * self.mean, -0.5 * second, torch.digamma(self.a) - self.b.log(), -p

    def log_partition(self) -> Tensor:
        """A(λ)."""
        weights = (self.size - 1) * math.log(2 * math.pi) - self._log_det()
        return 0.5 * weights + torch.lgamma(self.a) - self.a * self.b.log()

    def state(self) -> dict[str, Tensor]:
        """Mean, precision, a and b."""
        return {'mean': self.mean, 'precision': self.precision, 'a': self.a, 'b': self.b}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> NormalInverseGamma:
        """From mean, precision, a and b."""
        return cls(state['mean'], state['precision'], state['a'], state['b'])

    def _variances(self, count: int, generator: torch.Generator | None) -> Tensor:
        gamma = torch._standard_gamma(self.a.expand(count, 1), generator=generator)
        return self.b / gamma

    def _spread(self, noise: Tensor, variance: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self._chol.T, noise.T, upper=True).T
        return white * variance.sqrt()

    def _log_det(self) -> Tensor:
        """Log determinant of Λ."""
        return 2 * torch.diagonal(self._chol).log().sum()
