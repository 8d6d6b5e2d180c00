"""Does the exact head stay exact? `python -m lifelong_bayes_ros.experiments.bench_stability`.

Conditions a Gaussian in place, as the learner does, by default 10⁷ times, and prints rows that
compare it at the end with a reference in extended precision (64 bits of mantissa on x86):

* conditioning alone: the reference is recomputed from the sufficient statistics of all data,
* with the learner's random walk: the reference runs the last `TAIL` updates from the prior, which
  is long enough for everything before to be forgotten.

The designs are those of a network: correlated and badly scaled features, a head for each output.
"""

from __future__ import annotations

from .. import threads  # noqa: F401  (before numpy)

# isort: split
import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..learning.background import WALK_EVERY
from ..learning.settings import LearnerConfig
from .rows import report_object, row

UPDATES = 10**7
OUTPUTS, FEATURES = 3, 12
POOL = 997  # different observations, seen again and again
TAIL = 60_000
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
    covariance = inverse(precision)
    return covariance @ (flat.T @ (w * data.target.astype(Wide).ravel())), covariance


def by_recursion(data: Data, updates: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by the textbook's recursion over the last `TAIL` updates at most."""
    eye = np.eye(data.size, dtype=Wide)
    mean, covariance = np.zeros(data.size, Wide), eye.copy()
    noise = np.diag(data.noise.astype(Wide))
    for number in range(max(updates - TAIL, 0), updates):
        if (number + 1) % WALK_EVERY == 0:
            covariance = (1 - Wide(share)) * covariance + Wide(share) * eye
        at = number % len(data.design)
        h, y = data.design[at].astype(Wide), data.target[at].astype(Wide)
        cross = covariance @ h.T
        gain = cross @ inverse(h @ cross + noise)
        mean = mean + gain @ (y - h @ mean)
        # Joseph's form, which keeps symmetry and sign whatever the gain.
        rest = eye - gain @ h
        covariance = rest @ covariance @ rest.T + gain @ noise @ gain.T
    return mean, covariance


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a positive definite matrix [n, n] by Cholesky, in the precision it has."""
    n = len(matrix)
    lower = np.zeros_like(matrix)
    for j in range(n):
        lower[j, j] = np.sqrt(matrix[j, j] - lower[j, :j] @ lower[j, :j])
        lower[j + 1 :, j] = (matrix[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    white = np.zeros_like(matrix)
    for i in range(n):
        white[i] = (np.eye(n, dtype=matrix.dtype)[i] - lower[i, :i] @ white[:i]) / lower[i, i]
    return white.T @ white


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
        ('with the random walk', share, lambda: by_recursion(data, updates, share)),
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
