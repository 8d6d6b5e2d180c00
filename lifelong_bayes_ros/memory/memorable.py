"""Which examples to keep: by score, at random, spread over the kernel, or distributed like all.

The scores of the literature (FROMP: tr Λ; memory maps: leverage) find decision boundaries. Of a
Gaussian likelihood Λ is constant and leverage finds the edges only: there keep a random sample,
stratified, or spread it; where inputs are recombined from it, one that represents all.
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


def representative(
    points: np.ndarray, count: int, rng: np.random.Generator, swaps: int = 4000
) -> np.ndarray:
    """Indices [count] of points [n, d] whose coordinates are distributed like those of all.

    Of a random sample one point after the other is swapped for another, where that brings the
    sorted values of the coordinates nearer to their quantiles.

    Raises:
        ValueError: fewer points than are asked for.
    """
    n, spread = len(points), np.maximum(points.std(axis=0), 1e-300)
    if n < count:
        raise ValueError(f'{count} of {n} points cannot be chosen')
    wanted = np.quantile(points, (np.arange(count) + 0.5) / count, axis=0)

    def miss(indices: np.ndarray) -> float:
        return float(np.mean(np.abs(np.sort(points[indices], axis=0) - wanted) / spread))

    chosen = rng.permutation(n)[:count]
    least = miss(chosen)
    for place, other in zip(rng.integers(count, size=swaps), rng.integers(n, size=swaps)):
        swapped = chosen.copy()
        swapped[place] = other
        if other not in chosen and (missed := miss(swapped)) < least:
            chosen, least = swapped, missed
    return chosen


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

    Each coordinate is drawn by itself, evenly between the midpoints of neighbouring remembered
    values, and half a gap beyond the outermost: their empirical distribution, without its steps.
    Thirty points in six dimensions leave most of the space between them open; a network that is to
    stay as it is (the K-prior) can be asked there, too. A blur by a kernel would go further beyond
    the points, where others may have been learned.

    Raises:
        ValueError: fewer than two points.
    """
    if len(points) < 2:
        raise ValueError(f'{len(points)} points cannot be recombined: two are needed')
    values = np.sort(points, axis=0)
    middles = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([2 * values[:1] - middles[:1], middles, 2 * values[-1:] - middles[-1:]])
    place = rng.uniform(0, len(points), size=(count, points.shape[1]))
    whole = place.astype(int)
    low, high = (np.take_along_axis(edges, whole + i, axis=0) for i in (0, 1))
    return low + (place - whole) * (high - low)


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
