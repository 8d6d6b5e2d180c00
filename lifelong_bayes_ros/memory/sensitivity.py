"""Sensitivity of a head to what it remembers: what each transition, left out, would change.

Of a posterior that holds transition i with its noise R as it is now, leaving it out would move the
prediction there by −V (R − V)⁻¹ e, with V = H Σ Hᵀ its leverage and e = y − H m its residual
(memory-perturbation equation, Nickl et al. 2023). The head of a life does not: it was widened
since, and its noise learned, which wears away what a transition taught. So each one is taken out
where it came in, and the difference is carried along the tape from there: the operations that
follow change the covariance without it, Σ + U P⁻¹ Uᵀ, at U and P alone, so that this is exact at
the cost of a run of the tape. It makes the memory map of regular, uncertain (high leverage) and
unpredictable (high residual) transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from .regimes import Library, Regime
from .reservoir import Sample
from .rows import Rows
from .tape import Join, Tape, Widen

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
    exact: np.ndarray  # [m] bool: the tape tells it; else `deviation` is of first order

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


def sensitivity(dynamics: Dynamics, regime: Regime, family: Gaussian) -> Sensitivity:
    """What leaving out each transition that a regime remembers would do; see `taken_out`."""
    samples = regime.reservoir.samples
    rows, noise = Rows.of(dynamics, samples), regime.head.noise.variance
    v, e = rows.leverage(regime.head.posterior), rows.residual(regime.head.posterior)
    shift, exact = taken_out(dynamics, regime.tape, samples, family)
    design = [dynamics.design(*_inputs(s)) for s in samples]
    moved = np.array([h @ d for h, d in zip(design, shift, strict=True)]).reshape(e.shape)
    sd = np.sqrt(noise)
    diagonal = np.diagonal(v, axis1=1, axis2=2) / noise
    return Sensitivity(diagonal, e / sd, moved / sd, (e - moved) / sd, exact)


def taken_out(
    dynamics: Dynamics, tape: Tape, samples: Sequence[Sample], family: Gaussian
) -> tuple[np.ndarray, np.ndarray]:
    """How each of m transitions, left out, would move the mean of the head that a tape makes.

    Exactly, as a refit without it would with the noise of every step as it was. One that is not
    on the tape, though its episode was learned from, came before the tape begins: it is taken out
    there by a step of conditioning, V (V + R)⁻¹ e, which cannot exceed its residual, and so is of
    first order.

    Args:
        dynamics: the model that the tape belongs to.
        tape: operations on a head.
        samples: the transitions, m of them.
        family: the prior of the task family, which heads are widened towards.

    Returns:
        Changes of the mean [m, n], and which are exact [m].
    """
    found = _follow(dynamics, tape, samples, family)
    return found.shift.numpy(), found.exact.numpy()


@dataclass
class _Without:
    """What leaving out each of m transitions does to a head N(mean, Σ) as it goes along a tape."""

    shift: torch.Tensor  # of the mean [m, n]
    u: torch.Tensor  # [m, n, k], and
    p: torch.Tensor  # [m, k, k]: the covariance becomes Σ + U P⁻¹ Uᵀ
    exact: torch.Tensor  # [m]
    known: torch.Tensor  # [m]: the head has learned from it

    def begin(self, i: int, met: _Met, exact: bool) -> None:
        """Take out the transition that comes now, or, not exactly, one that came long before."""
        self.shift[i] = -met.half.T @ met.white
        self.u[i], self.p[i] = met.half.T * exact, torch.eye(len(met.white), dtype=self.p.dtype)
        self.exact[i], self.known[i] = exact, True

    def condition(self, met: _Met) -> None:
        """The head learns from a transition: so does the one without."""
        a = met.design @ self.u
        off = self.shift @ met.design.T
        self.u -= met.half.T @ a
        self.p += a.mT @ a
        b = torch.linalg.solve(self.p, a.mT @ (met.white - off)[..., None])
        self.shift += (self.u @ b)[..., 0] - off @ met.half

    def merge(self, own: Gaussian, other: Gaussian, theirs: _Without, merged: Gaussian) -> None:
        """The head becomes the product of two, less a prior: natural parameters are added."""
        for part, without in ((own, self), (other, theirs)):
            i = without.known.nonzero()[:, 0]
            precision = part.natural()[1]
            shift, u = without.shift[i], without.u[i]
            a = precision @ u
            m = without.p[i] + u.mT @ a
            left = torch.linalg.solve(m, a.mT @ (part.mean + shift)[..., None])
            eta = shift @ precision - (a @ left)[..., 0]
            self.u[i] = merged.covariance @ a
            self.p[i] = m - a.mT @ self.u[i]
            known = a.mT @ merged.mean[:, None] + self.u[i].mT @ eta[..., None]
            back = self.u[i] @ torch.linalg.solve(self.p[i], known)
            self.shift[i] = eta @ merged.covariance + back[..., 0]
            self.exact[i] = without.exact[i]
        self.known |= theirs.known


@dataclass(frozen=True)
class _Met:
    """A transition as a head N(m, Σ) meets it, white: H Σ Hᵀ + R = L Lᵀ."""

    design: torch.Tensor  # L⁻¹ H [k, n]
    half: torch.Tensor  # L⁻¹ H Σ [k, n]
    white: torch.Tensor  # L⁻¹ (y − H m) [k]

    @classmethod
    def of(cls, dynamics: Dynamics, head: Head, sample: Sample) -> _Met:
        h = torch.from_numpy(dynamics.design(*_inputs(sample)))
        target = dynamics.target(sample.x.astype(float), sample.x_next.astype(float))
        met = head.predict(h, target)
        inverse = met.innovation.inverse
        return cls(inverse @ h, inverse @ met.innovation.gain.T, torch.from_numpy(met.white))


def _follow(
    dynamics: Dynamics, tape: Tape, samples: Sequence[Sample], family: Gaussian
) -> _Without:
    head, m = tape.start, len(samples)
    n, k = dynamics.size, len(dynamics.spec.state)
    without = _Without(
        torch.zeros(m, n, dtype=torch.float64),
        torch.zeros(m, n, k, dtype=torch.float64),
        torch.eye(k, dtype=torch.float64).repeat(m, 1, 1),
        torch.ones(m, dtype=torch.bool),
        torch.zeros(m, dtype=torch.bool),
    )
    place = {s.key: i for i, s in enumerate(samples)}
    on_tape = {s.key for s in tape.samples()}
    for i, sample in enumerate(samples):
        before = sample.episode in tape.folded or not tape.length
        if before and sample.key not in on_tape:
            without.begin(i, _Met.of(dynamics, head, sample), exact=False)
    for operation in tape:
        one = replace(tape, start=head, operations=[operation], length=1)
        after = one.run(dynamics, family)
        if isinstance(operation, Sample):
            met = _Met.of(dynamics, head, operation)
            without.condition(met)
            if (i := place.get(operation.key)) is not None:
                without.begin(i, met, exact=True)
        elif isinstance(operation, Widen):
            without.p /= 1 - operation.share
        elif isinstance(operation, Join):
            theirs = _follow(dynamics, operation.other, samples, family)
            other = operation.other.run(dynamics, family).posterior
            without.merge(head.posterior, other, theirs, after.posterior)
        head = after
    return without


def _inputs(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sample.x.astype(float), sample.u.astype(float), sample.past.astype(float)


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


def memorable(dynamics: Dynamics, library: Library, family: Gaussian) -> list[Memorable]:
    """Every remembered transition, the most memorable first.

    The nominal head is frozen: no transition has moved it, so that none is memorable to it.
    """
    found: list[Memorable] = []
    for index, regime in enumerate(library.regimes):
        samples = regime.reservoir.samples
        seen = sensitivity(dynamics, regime, family)
        if index == 0:
            still = np.zeros_like(seen.deviation)
            sure = np.ones_like(seen.exact)
            seen = replace(seen, deviation=still, left_out=seen.residual, exact=sure)
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
    held = (*regime.reservoir.samples, *regime.tape.samples(), sample)
    # Times of other episodes may be the same: clocks begin anew, and other robots have their own.
    pool = {s.stamp_ns: s for s in held if s.episode == sample.episode}
    known = sorted(pool.values(), key=lambda s: s.stamp_ns)
    at = [s.stamp_ns for s in known].index(sample.stamp_ns)
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
