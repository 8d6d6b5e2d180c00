"""Sensitivity of the heads of outcomes to the labels that they were learned from.

For any likelihood with residual r and Fisher information Λ at f = H m, and leverage V = H Σ Hᵀ,
leaving a label out moves f by V r to first order (memory-perturbation equation, Nickl et al.
2023). Heads have half forgotten old labels, so that higher orders would exaggerate; here it is
the opposite of what the label, met once more, would do: the same to first order, of a Gaussian
V (V + R)⁻¹ e, and never more than the label is off. Everything is told in units of what the
likelihood itself leaves open, Λ^-½, so that outcomes of all kinds compare: of a Gaussian these
are noise standard deviations. rᵀ Λ⁻¹ r is Rao's score statistic; its expectation is the rank of Λ.
Of a number only the mean is looked at, in the noise that the head expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.likelihoods import Glm
from .sensitivity import Sensitivity

TINY = 1e-12  # keeps a covariance positive definite
NOTHING = 1e-12  # eigenvalues of Λ below this share of the largest carry no information


@dataclass(frozen=True)
class MemorableLabel:
    """One label that can still be taken out, and what it means to the head of its outcome."""

    outcome: str
    step: int  # which of the kept steps
    value: bool | str | float
    kind: str
    leverage: float  # tr(Λ V) over the rank of Λ
    surprise: float  # root of Rao's score over its expectation, the label left out
    deviation: float  # what leaving it out does to the prediction there, likewise


def label_sensitivity(head: Glm, phi: np.ndarray, labels: np.ndarray) -> Sensitivity:
    """What leaving out each of m labels would do, to first order.

    Args:
        head: of the outcome.
        phi: features [m, nf] of the steps.
        labels: as the likelihood's `label` makes them [m, t].

    Returns:
        With one column each, the root of the mean over the directions that Λ tells apart.
    """
    likelihood = head.likelihood
    places = slice(likelihood.places)
    f, v = head.latent(likelihood.design(phi))
    at = f.copy()  # with the expected variance of the noise, not that of the mean logarithm
    at[:, likelihood.places :] += np.diagonal(v, axis1=1, axis2=2)[:, likelihood.places :] / 2
    root, inverse, rank = _roots(likelihood.curvature(at)[:, places, places])
    inner = np.swapaxes(root, -1, -2) @ v[:, places, places] @ root
    leverage = np.trace(inner, axis1=-2, axis2=-1) / rank
    floor = TINY * np.trace(v, axis1=-2, axis2=-1)[:, None, None] + TINY
    before = v + floor * np.eye(likelihood.outputs)
    again = [likelihood.match(*given)[0] for given in zip(labels, f, before, strict=True)]
    shift = (f - np.array(again))[:, places]
    out = at.copy()
    out[:, places] += shift
    _, inverse_out, rank_out = _roots(likelihood.curvature(out)[:, places, places])
    columns = (
        leverage,
        _size(inverse, likelihood.residual(at, labels)[:, places], rank),
        _size(root, shift, rank),
        _size(inverse_out, likelihood.residual(out, labels)[:, places], rank_out),
    )
    return Sensitivity(*(c[:, None] for c in columns), np.zeros(len(f), bool))


def memorable_labels(
    heads: Mapping[str, Glm], phi: np.ndarray, values: Sequence[Mapping[str, bool | str | float]]
) -> list[MemorableLabel]:
    """Every kept label, the most memorable first.

    Args:
        heads: by outcome.
        phi: features [m, nf] of the kept steps.
        values: of each step, what happened by outcome; None where that is not known.
    """
    found: list[MemorableLabel] = []
    for name, head in heads.items():
        known = [(i, step[name]) for i, step in enumerate(values) if step[name] is not None]
        if not known:
            continue
        labels = np.array([head.likelihood.label(value) for _, value in known])
        seen = label_sensitivity(head, phi[[i for i, _ in known]], labels)
        columns = (known, seen.kinds, seen.leverage[:, 0], seen.surprise, seen.size)
        for (step, value), kind, *figures in zip(*columns, strict=True):
            found.append(MemorableLabel(name, step, value, kind, *map(float, figures)))
    return sorted(found, key=lambda m: -m.deviation)


def _roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B and B⁺ᵀ [m, k, k] with B Bᵀ = Λ, and its rank [m]."""
    values, vectors = np.linalg.eigh(matrix)
    told = values > NOTHING * values[..., -1:]
    root = np.sqrt(np.where(told, values, 1.0))
    rank = np.maximum(told.sum(axis=-1), 1)
    directions = vectors * told[..., None, :]
    return directions * root[..., None, :], directions / root[..., None, :], rank


def _size(root: np.ndarray, vectors: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """|Bᵀ v| [m] over the root of the rank."""
    white = np.einsum('mji,mj->mi', root, vectors)
    return np.sqrt(np.sum(white**2, axis=1) / rank)
