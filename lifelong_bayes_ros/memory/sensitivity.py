"""Sensitivity of the posterior to what it remembers: leverage and residual of every transition.

Leaving transition i out moves the prediction there by −v_i e_i / (σ² − v_i), with v_i = H Σ Hᵀ its
leverage and e_i = y − H m its residual, from the posterior alone (memory-perturbation equation,
Nickl et al. 2023; for several outputs −V (R − V)⁻¹ e). For a Gaussian head this is exact
for any transition that its posterior holds. It makes the memory map of regular, uncertain (high
leverage) and unpredictable (high residual) transitions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from .regimes import Library, Regime
from .reservoir import Sample
from .rows import Rows

REGULAR, UNCERTAIN, UNPREDICTABLE = KINDS = ('regular', 'uncertain', 'unpredictable')
# A transition is not regular that has this many times the leverage of the median one of its
# regime, or is, left out, predicted this many times as wrong as the median one or the noise.
UNCERTAIN_RATIO = 3.0
UNPREDICTABLE_RATIO = 2.0


@dataclass(frozen=True)
class Sensitivity:
    """Of m transitions under one head."""

    leverage: np.ndarray  # v per output [m, ds], in noise variances
    residual: np.ndarray  # e [m, ds], in noise standard deviations
    deviation: np.ndarray  # H (m₋ᵢ − m) [m, ds]: what leaving it out does there, likewise
    left_out: np.ndarray  # y − H m₋ᵢ [m, ds]: leave-one-out residual, likewise
    exact: np.ndarray  # [m] bool: the posterior may hold it; else `deviation` is of first order

    @property
    def size(self) -> np.ndarray:
        """Root mean squared deviation over the outputs [m]: how memorable each one is."""
        return np.sqrt(np.mean(np.square(self.deviation), axis=1))

    @property
    def surprise(self) -> np.ndarray:
        """Root mean squared leave-one-out residual over the outputs [m]."""
        return np.sqrt(np.mean(np.square(self.left_out), axis=1))

    @property
    def kinds(self) -> list[str]:
        """Regular, uncertain or unpredictable, of each [m]."""
        uncertainty = self.leverage.mean(axis=1)
        if not len(uncertainty):
            return []
        ratios = uncertainty / (UNCERTAIN_RATIO * max(float(np.median(uncertainty)), 1e-300))
        surprise = self.surprise
        sizes = surprise / (UNPREDICTABLE_RATIO * max(float(np.median(surprise)), 1.0))
        return [
            REGULAR if max(r, s) < 1 else UNPREDICTABLE if s >= r else UNCERTAIN
            for r, s in zip(ratios, sizes, strict=True)
        ]


def sensitivity(head: Head, rows: Rows) -> Sensitivity:
    """Leave-one-out deviations of rows from a head's posterior alone.

    A transition whose leverage is not below the noise cannot be within the posterior (the frozen
    nominal head holds none at all, and widening wears old ones away): there is nothing to take
    out, and the deviation is that of one natural-gradient step, −V R⁻¹ e.
    """
    v, e = rows.leverage(head.posterior), rows.residual(head.posterior)
    noise = head.noise.variance
    left, _, held = rows.left_out(head)
    left[~held] += (v[~held] @ (e[~held] / noise)[..., None])[..., 0]
    diagonal = np.diagonal(v, axis1=1, axis2=2) / noise
    sd = np.sqrt(noise)
    return Sensitivity(diagonal, e / sd, (e - left) / sd, left / sd, held)


@dataclass(frozen=True)
class Memorable:
    """One remembered transition and what it means to its regime."""

    regime: str
    sample: Sample
    kind: str
    leverage: float  # mean over the outputs, in noise variances
    surprise: float  # leave-one-out residual, rms over the outputs, noise standard deviations
    deviation: float  # what leaving it out does to the prediction there, likewise
    exact: bool


def memorable(dynamics: Dynamics, library: Library) -> list[Memorable]:
    """Every remembered transition, the most memorable first.

    The nominal head is frozen: no transition has moved it, so that none is memorable to it.
    """
    found: list[Memorable] = []
    for index, regime in enumerate(library.regimes):
        samples = regime.reservoir.samples
        seen = sensitivity(regime.head, Rows.of(dynamics, samples))
        if index == 0:
            still = np.zeros_like(seen.deviation)
            seen = replace(seen, deviation=still, left_out=seen.residual)
        leverage = seen.leverage.mean(axis=1)
        columns = (samples, seen.kinds, leverage, seen.surprise, seen.size, seen.exact)
        for sample, kind, v, surprise, size, exact in zip(*columns, strict=True):
            figures = float(v), float(surprise), float(size), bool(exact)
            found.append(Memorable(regime.name, sample, kind, *figures))
    return sorted(found, key=lambda m: -m.deviation)


def trajectory(regime: Regime, sample: Sample, steps: int) -> list[Sample]:
    """Transitions around one of a regime, within so many steps and without a gap, by time.

    From the regime's tape; where that is gone, from what else its reservoir happens to hold.
    """
    pool = {s.stamp_ns: s for s in (*regime.reservoir.samples, *regime.tape.samples())}
    known = sorted(
        (s for s in pool.values() if s.episode == sample.episode), key=lambda s: s.stamp_ns
    )
    at = next(i for i, s in enumerate(known) if s.stamp_ns == sample.stamp_ns)
    first = last = at
    while first > 0 and at - first < steps and _follows(known[first - 1], known[first]):
        first -= 1
    while last + 1 < len(known) and last - at < steps and _follows(known[last], known[last + 1]):
        last += 1
    return known[first : last + 1]


def _follows(one: Sample, other: Sample) -> bool:
    """Whether a transition begins in the very state that another ended in."""
    return np.array_equal(one.x_next, other.x)


def memory_map(dynamics: Dynamics, library: Library, noise: np.ndarray) -> np.ndarray:
    """Leverage, residual and regime of every remembered sample.

    Args:
        dynamics: the model that the heads belong to.
        library: regimes with their reservoirs.
        noise: variance per output [ds] that both are measured in.

    Returns:
        [n, 3], float32: leverage H Σ Hᵀ under the head of its regime, mean over the outputs in
        noise variances; root mean squared residual in noise standard deviations; index of the
        regime.
    """
    parts = [np.empty((0, 3))]
    for index, regime in enumerate(library.regimes):
        rows = Rows.of(dynamics, regime.reservoir.samples)
        leverage = rows.leverage(regime.head.posterior)
        leverage = np.mean(np.diagonal(leverage, axis1=1, axis2=2) / noise, axis=1)
        residual = np.square(rows.residual(regime.head.posterior)) / noise
        residual = np.sqrt(np.mean(residual, axis=1))
        parts.append(np.column_stack([leverage, residual, np.full(len(rows), index)]))
    return np.concatenate(parts).astype(np.float32)
