"""Does the exact head stay exact? `python -m lifelong_bayes_ros.experiments.bench_stability`.

Conditions a Gaussian in place, as the learner does, by default 10⁷ times, and prints rows that
compare it at the end with a reference in extended precision (64 bits of mantissa on x86):

* conditioning alone: the reference is recomputed from the sufficient statistics of all data,
* with the learner's random walk: the reference composes all updates by repeated squaring.

The designs are those of a network: correlated and badly scaled features, a head for each output.
"""

from __future__ import annotations

from .. import threads  # noqa: F401  (before numpy)

# isort: split
import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..learning.background import WALK_EVERY
from ..learning.settings import LearnerConfig
from .published import report_object, row

UPDATES = 10**7
OUTPUTS, FEATURES = 3, 12
POOL = 997  # different observations, seen again and again
SCALES = (1e-2, 1e2)  # of features
Wide = np.longdouble


@dataclass(frozen=True)
class Data:
    """Observations that come in turn: y [p, k] at designs H [p, k, n], noise variances r [k]."""

    design: np.ndarray
    target: np.ndarray
    noise: np.ndarray

    @classmethod
    def drawn(cls, seed: int, outputs: int = OUTPUTS, features: int = FEATURES) -> Data:
        """Random ones."""
        rng = np.random.default_rng(seed)
        mix = rng.standard_normal((features, features)) / np.sqrt(features)
        scale = np.geomspace(*SCALES, features)
        phi = np.tanh(rng.standard_normal((POOL, features)) @ mix) * scale
        design = np.zeros((POOL, outputs, outputs, features))
        design[:, np.arange(outputs), np.arange(outputs)] = phi[:, None]
        design = design.reshape(POOL, outputs, outputs * features)
        noise = np.geomspace(1e-4, 1.0, outputs)
        truth = rng.standard_normal(outputs * features) / np.tile(scale, outputs)
        target = design @ truth + np.sqrt(noise) * rng.standard_normal((POOL, outputs))
        return cls(design, target, noise)

    @property
    def size(self) -> int:
        """Number of parameters n."""
        return self.design.shape[2]


def run(data: Data, updates: int, share: float = 0.0) -> Gaussian:
    """The posterior after so many updates from N(0, I), by the code that the learner runs.

    `share`: of the prior's covariance that comes back every `WALK_EVERY` updates.
    """
    eye = torch.eye(data.size, dtype=torch.float64)
    posterior = Gaussian(torch.zeros(data.size, dtype=torch.float64), eye.clone())
    rows = [torch.tensor(h) for h in data.design]
    targets, noise = [torch.tensor(y) for y in data.target], torch.tensor(data.noise)
    for number in range(updates):
        if share and (number + 1) % WALK_EVERY == 0:
            posterior = posterior.widen(eye, share, in_place=True)
        at = number % len(rows)
        innovation = posterior.predict(rows[at], noise)
        posterior = posterior.condition(innovation, targets[at] - innovation.mean, in_place=True)
    return posterior


def from_statistics(data: Data, updates: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance after so many updates without a walk, from sums over all data."""
    times = np.full(len(data.design), updates // len(data.design), Wide)
    times[: updates % len(data.design)] += 1
    h, weight = data.design.astype(Wide), times[:, None] / data.noise.astype(Wide)
    flat, w = h.reshape(-1, data.size), weight.ravel()
    precision = np.eye(data.size, dtype=Wide) + flat.T @ (flat * w[:, None])
    covariance = symmetric(solve(precision, np.eye(data.size, dtype=Wide)))
    return covariance @ (flat.T @ (w * data.target.astype(Wide).ravel())), covariance


@dataclass(frozen=True)
class Span:
    """What some updates in a row make of any Gaussian before them, in extended precision.

    An element of the associative scan of Särkkä & García-Fernández 2021 (Temporal parallelization
    of Bayesian smoothers, IEEE Trans. Automatic Control 66(1), section III). The learner's walk
    widens the covariance and leaves the mean: what is theirs for the mean is divided by √`kept`.

    `gain` [n, n], `mean` [n] and `covariance` [n, n] are of p(after | before), `vector` [n] and
    `precision` [n, n] the information that the data give on what was before.
    """

    gain: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    vector: np.ndarray
    precision: np.ndarray
    kept: Any  # share of the covariance before that the walk has left

    @classmethod
    def of_update(cls, h: np.ndarray, y: np.ndarray, noise: np.ndarray, share: Any) -> Span:
        """A walk by a share, 0 for none, then observations y [k] at H [k, n], variances [k]."""
        n = h.shape[1]
        eye, walk = np.eye(n, dtype=Wide), share * np.eye(n, dtype=Wide)
        weights = h.T @ solve(h @ walk @ h.T + np.diag(noise), np.eye(len(y), dtype=Wide))
        gain, kept = walk @ weights, 1 - share
        left = eye - gain @ h
        return cls(left, gain @ y, left @ walk, kept * weights @ y, kept * weights @ h, kept)

    @classmethod
    def of_prior(cls, size: int) -> Span:
        """The prior N(0, I), which makes the same of all that was before."""
        nothing = np.zeros((size, size), Wide)
        zero = np.zeros(size, Wide)
        return cls(nothing, zero, np.eye(size, dtype=Wide), zero, nothing, Wide(0))

    def then(self, after: Span) -> Span:
        """This one and another after it."""
        n = len(self.mean)
        inner = np.eye(n, dtype=Wide) + self.covariance @ after.precision
        shrink = solve(inner, np.eye(n, dtype=Wide))
        forth, back = after.gain @ shrink, self.kept * (shrink @ self.gain).T
        return Span(
            forth @ self.gain,
            forth @ (self.mean + self.covariance @ after.vector) + after.mean,
            symmetric(after.kept * forth @ self.covariance @ after.gain.T + after.covariance),
            back @ (after.vector - after.precision @ self.mean) + self.vector,
            symmetric(back @ after.precision @ self.gain + self.precision),
            self.kept * after.kept,
        )


def by_doubling(data: Data, updates: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance after so many updates with a walk: all of them, in few steps.

    The same updates come again and again: what a round of them does is squared and squared again.
    """
    pool, share, noise = len(data.design), Wide(share), data.noise.astype(Wide)

    def update(number: int) -> Span:
        at, walks = number % pool, (number + 1) % WALK_EVERY == 0
        h, y = data.design[at].astype(Wide), data.target[at].astype(Wide)
        return Span.of_update(h, y, noise, share if walks else Wide(0))

    found = Span.of_prior(data.size)
    rounds, rest = divmod(updates, math.lcm(pool, WALK_EVERY))
    if rounds:
        power = reduce(Span.then, map(update, range(math.lcm(pool, WALK_EVERY))))
        while rounds:
            found = found.then(power) if rounds % 2 else found
            rounds //= 2
            power = power.then(power) if rounds else power
    found = reduce(Span.then, map(update, range(rest)), found)
    return found.mean, found.covariance


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """X [n, m] of A X = B by elimination with row exchanges, in the precision that these have."""
    n = len(matrix)
    both = np.hstack([matrix, right])
    for j in range(n):
        best = j + int(np.abs(both[j:, j]).argmax())
        both[[j, best]] = both[[best, j]]
        both[j] /= both[j, j]
        others = np.arange(n) != j
        both[others] -= np.outer(both[others, j], both[j])
    return both[:, n:]


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric part of a matrix."""
    return (matrix + matrix.T) / 2


@dataclass(frozen=True)
class Deviation:
    """How far a posterior is from its reference, as a Gaussian and as a matrix."""

    mean: float  # Mahalanobis distance of the means per √n: standard deviations
    covariance: float  # largest |eigenvalue − 1| of the covariance, whitened by the reference's
    asymmetry: float  # largest |Σ − Σᵀ| over the standard deviations of its row and column
    least: float  # least eigenvalue of the correlation matrix; positive definite if above 0


def deviation(posterior: Gaussian, reference: tuple[np.ndarray, np.ndarray]) -> Deviation:
    """Compare a posterior with mean [n] and covariance [n, n]."""
    mean, covariance = reference
    sd = np.sqrt(np.diag(covariance))
    scale = np.outer(sd, sd)
    mine = posterior.covariance.numpy().astype(Wide)
    correlation = ((mine + mine.T) / 2 / scale).astype(float)
    chol = np.linalg.cholesky((covariance / scale).astype(float))
    white = np.linalg.solve(chol, np.linalg.solve(chol, correlation).T)
    away = ((posterior.mean.numpy() - mean) / sd).astype(float)
    return Deviation(
        mean=float(np.linalg.norm(np.linalg.solve(chol, away)) / np.sqrt(len(away))),
        covariance=float(np.abs(np.linalg.eigvalsh(white) - 1).max()),
        asymmetry=float(np.max(np.abs(mine - mine.T) / scale)),
        least=float(np.linalg.eigvalsh(correlation).min()),
    )


def stability_report(updates: int, seed: int = 0) -> dict[str, Any]:
    """The object of `--json`, a block of rows for each case."""
    data = Data.drawn(seed)
    share = 1 - (1 - LearnerConfig().random_walk) ** WALK_EVERY
    cases: tuple[tuple[str, float, Callable[[], tuple[np.ndarray, np.ndarray]]], ...] = (
        ('conditioning alone', 0.0, lambda: from_statistics(data, updates)),
        ('with the random walk', share, lambda: by_doubling(data, updates, share)),
    )
    rows = []
    for name, walk, reference in cases:
        found = deviation(run(data, updates, walk), reference())
        what = f'exact head after {updates:.0e} updates, {name}'
        rows += [
            row(f'{what}: mean, off by', found.mean, 'sd', 'lower', 1e-3, 1e-6),
            row(
                f'{what}: covariance, largest relative error', found.covariance, '', 'lower', 1e-3
            ),
            row(f'{what}: asymmetry', found.asymmetry, '', 'lower', 1e-6),
            row(f'{what}: least eigenvalue of the correlations', found.least, '', 'higher', 1e-12),
        ]
    return report_object('bench stability', [seed], rows)


if __name__ == '__main__':
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--updates', type=int, default=UPDATES)
    print(json.dumps(stability_report(parser.parse_args().updates), indent=1))
