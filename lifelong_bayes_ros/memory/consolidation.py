"""Consolidation between episodes, a transaction on the regime library.

Heads that describe the same regime are merged in natural parameters (sum minus the common prior),
the library is pruned to its budget, and the result is accepted only if the error of every regime
on its own memory is at most `TOLERANCE` times what it was; otherwise nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..blr import Gaussian, ImproperPosteriorError
from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from .regimes import Library, Regime
from .reservoir import Sample

TOLERANCE = 1.1  # allowed growth of a regime's error on its memory
SAME = 1.0  # nats per sample that a merged head may lose on either memory
ENOUGH = 16  # samples below which a memory cannot judge a merge


@dataclass
class Consolidation:
    """Outcome: the library to use from now on and why."""

    accepted: bool
    library: Library
    merged: list[tuple[str, str]] = field(default_factory=list)  # (kept, absorbed)
    pruned: list[str] = field(default_factory=list)
    error_ratio: float = 1.0  # worst error after / before over all memories
    reason: str = ''


@dataclass(frozen=True)
class Score:
    """How a head does on remembered samples."""

    evidence: float  # mean log evidence, nats per sample
    error: float  # root mean squared residual in noise standard deviations


def score(dynamics: Dynamics, head: Head, samples: Sequence[Sample], noise: np.ndarray) -> Score:
    """Score a head on samples, with residuals in units of the noise variance [ds]."""
    evidence, square = 0.0, 0.0
    device = head.posterior.mean.device
    for s in samples:
        x, u = s.x.astype(float), s.u.astype(float)
        design = torch.as_tensor(dynamics.design(x, u, s.past.astype(float)), device=device)
        prediction = head.predict(design, dynamics.target(x, s.x_next.astype(float)))
        evidence += prediction.evidence
        square += float(np.mean(prediction.residual**2 / noise))
    count = max(len(samples), 1)
    return Score(evidence / count, float(np.sqrt(square / count)))


def merge(first: Head, second: Head, prior: Gaussian) -> Head:
    """Head that has seen what both saw since their common prior.

    Raises:
        ImproperPosteriorError: the two do not share that prior.
    """
    noise = first.noise if first.noise.dof >= second.noise.dof else second.noise
    return Head(first.posterior.multiply(second.posterior, divide=prior), noise)


def consolidate(
    dynamics: Dynamics,
    library: Library,
    prior: Gaussian,
    noise: np.ndarray,
    capacity: int,
    rng: np.random.Generator,
) -> Consolidation:
    """Merge, prune and accept or roll back; `library` itself is not changed.

    Args:
        dynamics: the model that the heads belong to.
        library: regimes with their reservoirs.
        prior: common prior of all heads.
        noise: variance per output [ds] that errors are measured in.
        capacity: most regimes to keep, the nominal one included.
        rng: for the reservoirs of merged regimes.
    """
    regimes = list(library.regimes)
    memories = {r.name: list(r.reservoir.samples) for r in regimes if r.reservoir.samples}
    before = {
        r.name: score(dynamics, r.head, memories[r.name], noise)
        for r in regimes
        if r.name in memories
    }
    heir = {name: name for name in memories}
    result = Consolidation(False, library)
    i = 1
    while i < len(regimes):
        j = i + 1
        while j < len(regimes):
            candidate = _same(dynamics, regimes[i], regimes[j], prior, noise)
            if candidate is None:
                j += 1
                continue
            kept, absorbed = regimes[i], regimes.pop(j)
            reservoir = kept.reservoir.merged(absorbed.reservoir, rng)
            regimes[i] = Regime(kept.name, candidate, reservoir)
            result.merged.append((kept.name, absorbed.name))
            heir = {m: kept.name if h == absorbed.name else h for m, h in heir.items()}
        i += 1
    while len(regimes) > capacity:
        least = min(range(1, len(regimes)), key=lambda k: regimes[k].reservoir.seen)
        result.pruned.append(regimes.pop(least).name)
    kept_names = {r.name: r for r in regimes}
    for name, samples in memories.items():
        if heir[name] in kept_names:
            after = score(dynamics, kept_names[heir[name]].head, samples, noise)
            ratio = after.error / max(before[name].error, 1e-12)
            result.error_ratio = max(result.error_ratio, ratio)
    if result.error_ratio > TOLERANCE:
        result.reason = (
            f'the error of a regime on its memory grew {result.error_ratio:.2f} times '
            f'(allowed {TOLERANCE})'
        )
        result.merged, result.pruned = [], []
        return result
    result.accepted = True
    result.library = Library(regimes, library.named)
    return result


def _same(
    dynamics: Dynamics, first: Regime, second: Regime, prior: Gaussian, noise: np.ndarray
) -> Head | None:
    """The merged head if both memories say that the two regimes are one."""
    pair = (first, second)
    if min(len(r.reservoir.samples) for r in pair) < ENOUGH:
        return None
    # Each head must already explain the other's memory: cheap, and what a merge claims.
    own = [score(dynamics, r.head, r.reservoir.samples, noise) for r in pair]
    for r, other, mine in ((first, second, own[1]), (second, first, own[0])):
        swapped = score(dynamics, r.head, other.reservoir.samples, noise)
        if mine.evidence - swapped.evidence > SAME or swapped.error > TOLERANCE * mine.error:
            return None
    try:
        merged = merge(first.head, second.head, prior)
    except ImproperPosteriorError:
        return None
    for r, mine in zip(pair, own, strict=True):
        after = score(dynamics, merged, r.reservoir.samples, noise)
        if mine.evidence - after.evidence > SAME or after.error > TOLERANCE * mine.error:
            return None
    return merged
