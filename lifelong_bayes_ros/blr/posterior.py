"""What every posterior of the Bayesian learning rule can do.

In an exponential family q(θ) ∝ exp(⟨λ, T(θ)⟩) knowledge is a point λ (the natural parameters) and
experience is a direction: learning adds, forgetting subtracts, and two posteriors that started
from one prior merge as λ₁ + λ₂ − λ₀ (Khan & Rue 2023, section 2). Posteriors are immutable:
every operation returns a new one, so keeping an old posterior is free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class ImproperPosteriorError(ValueError):
    """The result of a division or merge is no density: more was taken out than was put in."""


class Posterior(ABC):
    """A distribution over `size` parameters θ, float64."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of parameters n."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, n]."""

    @abstractmethod
    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, n]; the second half mirrors the first about the mean."""

    @abstractmethod
    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., n], nats."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy, nats."""

    @abstractmethod
    def kl(self, other: Self) -> Tensor:
        """KL(self ‖ other), nats; `other` has the same class."""

    @abstractmethod
    def natural(self) -> tuple[Tensor, ...]:
        """Natural parameters λ."""

    @abstractmethod
    def moments(self) -> tuple[Tensor, ...]:
        """Mean parameters E[T(θ)], where λ and T(θ) pair up entry by entry."""

    @abstractmethod
    def multiply(self, other: Self, divide: Self | None = None) -> Self:
        """Product with `other`, divided by `divide` (their common prior), normalised.

        Raises:
            ImproperPosteriorError: the result is not a density.
        """

    @abstractmethod
    def divide(self, other: Self) -> Self:
        """Quotient: take the experience `other` out again.

        Raises:
            ImproperPosteriorError: the result is not a density.
        """

    def merge(self, *others: Self, prior: Self) -> Self:
        """Posterior of all experiences together, each learned from the same `prior`."""
        merged = self
        for other in others:
            merged = merged.multiply(other, divide=prior)
        return merged

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Named tensors that `from_state` makes an equal posterior of."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The posterior that `state` describes."""


class ExponentialFamily(Posterior):
    """Posteriors that stay in their class when natural parameters are added."""

    @classmethod
    @abstractmethod
    def from_natural(cls, *natural: Tensor) -> Self:
        """From natural parameters.

        Raises:
            ImproperPosteriorError: they belong to no density.
        """

    @abstractmethod
    def log_partition(self) -> Tensor:
        """A(λ) with log q(θ) = ⟨λ, T(θ)⟩ − A(λ)."""

    def multiply(self, other: Self, divide: Self | None = None) -> Self:
        """Product with `other`, divided by `divide`: λ + λ_other − λ_divide."""
        natural = self.natural()
        for factor, sign in ((other, 1.0), (divide, -1.0)):
            if factor is not None:
                natural = self._add(natural, self._same(factor).natural(), sign)
        return self.from_natural(*natural)

    def divide(self, other: Self) -> Self:
        """Quotient: λ − λ_other."""
        return self.from_natural(*self._add(self.natural(), self._same(other).natural(), -1.0))

    @staticmethod
    def _add(
        natural: tuple[Tensor, ...], more: tuple[Tensor, ...], sign: float
    ) -> tuple[Tensor, ...]:
        return tuple(a + sign * b for a, b in zip(natural, more, strict=True))

    def _same(self, other: Self) -> Self:
        if type(other) is not type(self) or other.size != self.size:
            raise ValueError(
                f'{type(other).__name__} of {getattr(other, "size", "?")} parameters does not '
                f'combine with {type(self).__name__} of {self.size}'
            )
        return other


def standard_normal(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Noise [count, n] of the dtype and device of `like` [n]."""
    shape = (count, like.shape[0])
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)


def mirrored(draws: Tensor, centre: Tensor) -> Tensor:
    """The draws [k, n], followed by their reflections about the centre [n]: [2k, n]."""
    return torch.cat([draws, 2 * centre - draws])


def proper(positive: Tensor, what: str) -> None:
    """Raise unless every entry is positive and finite."""
    if not bool(((positive > 0) & torch.isfinite(positive)).all()):
        raise ImproperPosteriorError(f'{what} is not positive: more was taken out than was put in')


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of a symmetric matrix.

    Raises:
        ImproperPosteriorError: it is not positive definite.
    """
    chol, info = torch.linalg.cholesky_ex((matrix + matrix.T) / 2)
    if info.item() != 0 or not bool(torch.isfinite(chol).all()):
        raise ImproperPosteriorError(
            'the precision is not positive definite: more was taken out than was put in'
        )
    return chol
