"""Merging of posteriors in natural parameters: λ = λ₀ + Σ_t α_t (λ_t − λ₀).

- α = 1, λ₀ the common prior: what all of them learned, exactly in the conjugate case.
- Gaussian with any α: uncertainty-based gradient matching (Daheim et al. 2024, eq. 12), the mean
  w₀ + Σ_t α_t S⁻¹ S_t (w_t − w₀) that merges fine-tuned models with least mismatch.
- λ₀ the slow posterior and one λ_t with α in 0.1–0.3: the slow step of fast and slow variational
  continual learning (Paul et al. 2026), an average of posteriors weighted by precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..blr import ExponentialFamily

Family = TypeVar('Family', bound=ExponentialFamily)


def merge(
    base: Family, learned: Sequence[Family], weights: Sequence[float] | None = None
) -> Family:
    """Merge posteriors of one class.

    Args:
        base: λ₀, their common prior or the slow posterior.
        learned: λ_t.
        weights: α_t; None: 1 each.

    Raises:
        ValueError: another class or size, or not one weight for each.
        ImproperPosteriorError: the result is no density.
    """
    weights = [1.0] * len(learned) if weights is None else list(weights)
    if len(weights) != len(learned):
        raise ValueError(f'{len(weights)} weights for {len(learned)} posteriors: give one each')
    own = natural = base.natural()
    for posterior, share in zip(learned, weights, strict=True):
        natural = base._add(natural, base._same(posterior).natural(), share)
        natural = base._add(natural, own, -share)
    return base.from_natural(*natural)
