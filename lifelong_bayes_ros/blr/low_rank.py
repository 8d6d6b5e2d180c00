"""Gaussian posterior whose precision is a diagonal plus a few directions.

Λ = D^½ (I + Q diag(e) Qᵀ) D^½ with orthonormal Q [n, k] and e > −1. Whatever is added or taken
away, one QR and one k × k eigenproblem lead back to this form, in which being proper is e > −1,
directions that cancel have e = 0 and drop out, and every quantity costs O(n k). As in LO-FI
(Chang et al. 2023), `compress` keeps the strongest directions and moves the rest to the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .posterior import ExponentialFamily, mirrored, proper, standard_normal

CANCELLED = 1e-12  # a direction this weak beside the diagonal is rounding


class LowRankGaussian(ExponentialFamily):
    """q(θ) = N(mean, (diag(d) + V diag(w) Vᵀ)⁻¹).

    λ = (Λ m, d, V, w), where adding means d + d′, [V, V′] and [w, w′];
    T(θ) = (θ, −θ²/2, 0, −(Vᵀθ)²/2).
    """

    def __init__(self, mean: Tensor, diagonal: Tensor, factor: Tensor, weight: Tensor) -> None:
        """From mean [n], diagonal d [n], factor V [n, k] and weight w [k] of either sign.

        Raises:
            ValueError: the shapes do not fit.
            ImproperPosteriorError: the diagonal or the precision is not positive.
        """
        n, k = mean.shape[0], weight.shape[0]
        if diagonal.shape != (n,) or factor.shape != (n, k):
            raise ValueError(
                f'mean {tuple(mean.shape)}, diagonal {tuple(diagonal.shape)}, factor '
                f'{tuple(factor.shape)} and weight {tuple(weight.shape)} do not fit: give [n], '
                '[n], [n, k] and [k]'
            )
        proper(diagonal, 'the diagonal of the precision')
        self.mean = mean
        self.diagonal = diagonal
        self.basis, self.excess = _canonical(diagonal, factor, weight)
        proper(1 + self.excess, 'the precision in a direction')

    @property
    def size(self) -> int:
        """Number of parameters n."""
        return self.mean.shape[0]

    @property
    def rank(self) -> int:
        """Number of directions k beside the diagonal."""
        return self.excess.shape[0]

    def precision(self) -> Tensor:
        """Λ [n, n], dense."""
        _, diagonal, factor, weight = self.natural()
        return torch.diag(diagonal) + (factor * weight) @ factor.T

    def compress(self, rank: int) -> LowRankGaussian:
        """The `rank` strongest directions; of the others only the diagonal is kept."""
        order = self.excess.abs().argsort(descending=True)
        keep, drop = order[:rank], order[rank:]
        factor = self.diagonal.sqrt()[:, None] * self.basis
        lost = factor[:, drop].square() @ self.excess[drop]
        diagonal = self.diagonal + lost
        return LowRankGaussian(self.mean, diagonal, factor[:, keep], self.excess[keep])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, n]."""
        noise = standard_normal(self.mean, count, generator)
        shrink = (1 + self.excess).rsqrt() - 1
        noise = noise + (noise @ self.basis * shrink) @ self.basis.T
        return self.mean + noise / self.diagonal.sqrt()

    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, n]; the second half mirrors the first."""
        return mirrored(self.sample(pairs, generator), self.mean)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., n]."""
        return -0.5 * (self._square(theta - self.mean) + self._log_det())

    def entropy(self) -> Tensor:
        """Entropy, nats."""
        return 0.5 * (self.size + self._log_det())

    def kl(self, other: LowRankGaussian) -> Tensor:
        """KL(self ‖ other)."""
        # tr(Λ' Σ) term by term: each matrix is a diagonal plus directions.
        _, d, v, w = self._same(other).natural()
        c = 1 / (1 + self.excess) - 1
        u = self.basis / self.diagonal.sqrt()[:, None]
        trace = (
            (d / self.diagonal).sum()
            + (v.square() / self.diagonal[:, None]).sum(dim=0) @ w
            + (u.square() * d[:, None]).sum(dim=0) @ c
            + w @ (v.T @ u).square() @ c
        )
        shift = other._square(self.mean - other.mean)
        return 0.5 * (trace - self.size + shift + other._log_det() - self._log_det())

    def natural(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(Λ m [n], d [n], V [n, k], w [k])."""
        root = self.diagonal.sqrt()
        white = root * self.mean
        eta = root * (white + self.basis @ (self.excess * (self.basis.T @ white)))
        return eta, self.diagonal, root[:, None] * self.basis, self.excess

    @classmethod
    def from_natural(
        cls, eta: Tensor, diagonal: Tensor, factor: Tensor, weight: Tensor
    ) -> LowRankGaussian:
        """From (Λ m [n], d [n], V [n, k], w [k])."""
        shape = cls(torch.zeros_like(eta), diagonal, factor, weight)
        white = eta / diagonal.sqrt()
        shrink = shape.excess / (1 + shape.excess)
        white = white - shape.basis @ (shrink * (shape.basis.T @ white))
        shape.mean = white / diagonal.sqrt()
        return shape

    @staticmethod
    def _add(
        natural: tuple[Tensor, ...], more: tuple[Tensor, ...], sign: float
    ) -> tuple[Tensor, ...]:
        (eta, d, v, w), (eta2, d2, v2, w2) = natural, more
        factor, weight = torch.cat([v, v2], dim=1), torch.cat([w, sign * w2])
        return eta + sign * eta2, d + sign * d2, factor, weight

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(E[θ] [n], −E[θ²]/2 [n], 0 [n, k], −E[(Vᵀθ)²]/2 [k]); V is a frame, no statistic."""
        u = self.basis / self.diagonal.sqrt()[:, None]
        variance = 1 / self.diagonal - u.square() @ (self.excess / (1 + self.excess))
        factor = self.diagonal.sqrt()[:, None] * self.basis
        along = (factor.T @ self.mean).square() + 1 / (1 + self.excess)
        second = variance + self.mean.square()
        return self.mean, -0.5 * second, torch.zeros_like(factor), -0.5 * along

    def log_partition(self) -> Tensor:
        """A(λ)."""
        return 0.5 * (self._square(self.mean) + self._log_det())

    def state(self) -> dict[str, Tensor]:
        """Mean, diagonal, basis Q and excess e."""
        return {
            'mean': self.mean,
            'diagonal': self.diagonal,
            'basis': self.basis,
            'excess': self.excess,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> LowRankGaussian:
        """From mean, diagonal, basis and excess."""
        basis, excess = state['basis'], state['excess']
        made = cls(state['mean'], state['diagonal'], basis[:, :0], excess[:0])
        proper(1 + excess, 'the precision in a direction')
        made.basis, made.excess = basis, excess
        return made

    def _square(self, vectors: Tensor) -> Tensor:
        """vᵀ Λ v [...] for vectors [..., n]."""
        white = vectors * self.diagonal.sqrt()
        along = (white @ self.basis).square() @ self.excess
        return white.square().sum(dim=-1) + along

    def _log_det(self) -> Tensor:
        """Log determinant of 2π Σ."""
        log_det = self.diagonal.log().sum() + torch.log1p(self.excess).sum()
        return self.size * math.log(2 * math.pi) - log_det


def _canonical(diagonal: Tensor, factor: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal Q and e with V diag(w) Vᵀ = D^½ Q diag(e) Qᵀ D^½."""
    q, r = torch.linalg.qr(factor / diagonal.sqrt()[:, None])
    excess, vectors = torch.linalg.eigh((r * weight) @ r.T)
    scale = (r.square() * weight.abs()).sum() + 1
    keep = excess.abs() > CANCELLED * scale
    return q @ vectors[:, keep], excess[keep]
