"""Which examples to keep: by score, at random within strata, or spread over the kernel.

The scores of the literature (FROMP: tr Λ; memory maps: leverage) find decision boundaries. Of a
Gaussian likelihood Λ is constant and leverage finds the edges only: there keep a random sample,
stratified, or spread it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .examples import Examples, Network


def curvature_score(network: Network, examples: Examples) -> Tensor:
    """tr Λ [n] of every example: how undecided its class is (Pan et al. 2020, section 3.2)."""
    with torch.no_grad():
        curvature = examples.curvature(examples.latent(network))
    return torch.diagonal(curvature, dim1=1, dim2=2).sum(dim=1)


def top(scores: Tensor, count: int, groups: Tensor | None = None) -> Tensor:
    """Indices of at most `count` of the highest scores [n], equally many of every group [n]."""
    return _balanced(scores, count, groups)


def stratified(groups: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices of a random sample, equally many of every group [n]."""
    return _balanced(torch.rand(len(groups), generator=generator), count, groups)


def spread(features: Tensor, count: int) -> Tensor:
    """Indices of points [n, p] each of which is least certain given those before.

    Greedy D-optimal design: pivoted Cholesky of the kernel F Fᵀ. For the posterior's kernel give
    J Σ^½.
    """
    left = features.square().sum(dim=1)
    basis = features.new_zeros((0, features.shape[1]))
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        pick = int(left.argmax())
        chosen.append(pick)
        row = features[pick] - (basis @ features[pick]) @ basis
        row = row / row.norm().clamp_min(1e-150)
        basis = torch.cat([basis, row[None]])
        left = left - (features @ row).square()
        left[pick] = -torch.inf
    return torch.tensor(chosen)


def recombined(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points [count, d] imagined from remembered ones [n, d], where labels are not needed.

    Each coordinate is that of another remembered point, blurred by the kernel of Silverman (1986,
    eq. 3.31): draws from a density whose coordinates are independent. Thirty points in six
    dimensions leave most of the space between them open; a network that is to stay as it is (the
    K-prior) can be asked there, too.
    """
    n, d = points.shape
    picked = np.take_along_axis(points, rng.integers(n, size=(count, d)), axis=0)
    low, high = np.quantile(points, [0.25, 0.75], axis=0)
    spread = np.minimum(points.std(axis=0), (high - low) / 1.34)
    return picked + 0.9 * n**-0.2 * spread * rng.standard_normal((count, d))


def _balanced(scores: Tensor, count: int, groups: Tensor | None) -> Tensor:
    if groups is None:
        return scores.argsort(descending=True)[:count]
    members = [torch.nonzero(groups == g)[:, 0] for g in groups.unique()]
    # Small groups first, so that what they cannot fill goes to the others.
    members.sort(key=len)
    chosen = []
    for number, member in enumerate(members):
        share = (count - sum(map(len, chosen))) // (len(members) - number)
        chosen.append(member[scores[member].argsort(descending=True)[:share]])
    return torch.cat(chosen)
