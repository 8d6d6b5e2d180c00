"""Carrying heads over to another trunk: the same functions on other features.

A new trunk is whitened so that its features are as near to the old ones as they can be with the
same second moment (orthogonal Procrustes, Schönemann 1966). Then a head w on the old features φ
becomes B w on the new ones φ′, with B the least-squares map φ ≈ φ′ B: a linear map of soft labels,
so that one B serves every head, its covariance, and that of the task family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Dynamics, Hypotheses, Prior
from ..dynamics.trunk import Trunk
from .refine import Steps, features

RIDGE = 1e-6  # of second moments that are inverted, relative to their mean
NEAR = 1e-4  # and of the map between features, towards the identity
OWN = 10.0  # weight of a regime's own memory where its head is carried over


def rewhiten(old: Trunk, new: Trunk, inputs: np.ndarray) -> Trunk:
    """`new` with features near those of `old` on normalised inputs [n, di]."""
    before, raw = features(old, inputs) @ old.whiten, features(new, inputs)
    moment, other = _root(before), _root(raw)
    inverse = np.linalg.inv(other)
    cross = inverse @ (raw.T @ before / len(raw)) @ np.linalg.inv(moment)
    left, _, right = np.linalg.svd(cross)
    return replace(new, whiten=np.ascontiguousarray(inverse @ left @ right @ moment))


@dataclass(frozen=True)
class Transport:
    """From heads on old features to heads on new ones."""

    matrix: np.ndarray  # B [nf, nf]

    @classmethod
    def between(cls, old: Trunk, new: Trunk, inputs: np.ndarray, weights: np.ndarray) -> Transport:
        """Fitted on normalised inputs [n, di] with weights [n]."""
        before = features(old, inputs) @ old.whiten
        after = features(new, inputs) @ new.whiten
        weighted = after * (weights / weights.sum())[:, None]
        gram, cross = weighted.T @ after, weighted.T @ before
        ridge = NEAR * np.trace(gram) / len(gram) * np.eye(len(gram))
        return cls(np.linalg.solve(gram + ridge, cross + ridge))

    def weights(self, head: np.ndarray) -> np.ndarray:
        """A head [..., nf]."""
        return head @ self.matrix.T

    def theta(self, theta: np.ndarray, outputs: int) -> np.ndarray:
        """Parameters θ [n]; what is not a weight of a feature stays."""
        size = outputs * len(self.matrix)
        head = self.weights(theta[:size].reshape(outputs, -1))
        return np.concatenate([head.ravel(), theta[size:]])

    def covariance(self, covariance: np.ndarray, outputs: int) -> np.ndarray:
        """Covariance of θ [n, n]."""
        half = np.stack([self.theta(row, outputs) for row in covariance])
        return np.stack([self.theta(row, outputs) for row in half.T])

    def hypotheses(self, hypotheses: Hypotheses, outputs: int) -> Hypotheses:
        """The heads of hypotheses."""
        basis, size = hypotheses.basis.copy(), outputs * len(self.matrix)
        count, _, rank = basis.shape
        heads = basis[:, :size].reshape(count, outputs, -1, rank)
        basis[:, :size] = (self.matrix @ heads).reshape(count, size, rank)
        return replace(hypotheses, basis=basis)

    def head(self, head: Head, outputs: int, family: Gaussian, share: float) -> Head:
        """A head, widened by a share of the family's covariance for what a new trunk may miss."""
        posterior = head.posterior
        mean = self.theta(posterior.mean.numpy(), outputs)
        covariance = self.covariance(posterior.covariance.numpy(), outputs)
        moved = Gaussian(torch.tensor(mean), torch.tensor((covariance + covariance.T) / 2))
        return Head(moved.widen(family.covariance, share), head.noise)


def carry_prior(
    prior: Prior, trunk: Trunk, precision: dict[str, np.ndarray], by: Transport
) -> Prior:
    """The prior on a new trunk: same nominal plant, family, hypotheses and noise."""
    dynamics = prior.dynamics
    outputs = len(dynamics.scale)
    family = by.covariance(prior.covariance - np.diag(prior.floor), outputs)
    covariance = (family + family.T) / 2 + np.diag(prior.floor)
    nominal = np.ascontiguousarray(by.weights(dynamics.nominal))
    return Prior(
        Dynamics(dynamics.spec, trunk, nominal, dynamics.scale),
        covariance,
        prior.floor,
        prior.noise,
        precision,
        prior.hypotheses and by.hypotheses(prior.hypotheses, outputs),
    )


def fit(
    dynamics: Dynamics, rows: Steps, mean: np.ndarray, covariance: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of θ under N(mean, covariance) after rows: BLR with ρ = 1.

    Args:
        dynamics: the model.
        rows: transitions.
        mean: [n].
        covariance: [n, n].
        noise: variance per output [ds].
    """
    phi, columns = rows.columns(dynamics)
    ds, nf = dynamics.nominal.shape
    at = ds * nf
    precision = np.linalg.inv(covariance)
    residual = rows.target(dynamics) - _predict(phi, columns, mean, ds)
    gradient = np.zeros_like(mean)
    gram = phi.T @ phi
    for j in range(ds):
        block, tangent = slice(j * nf, (j + 1) * nf), columns[:, j]
        cross = phi.T @ tangent / noise[j]
        precision[block, block] += gram / noise[j]
        precision[block, at:] += cross
        precision[at:, block] += cross.T
        precision[at:, at:] += tangent.T @ tangent / noise[j]
        gradient[block] += phi.T @ residual[:, j] / noise[j]
        gradient[at:] += tangent.T @ residual[:, j] / noise[j]
    after = np.linalg.inv((precision + precision.T) / 2)
    return mean + after @ gradient, (after + after.T) / 2


def residuals(dynamics: Dynamics, rows: Steps, theta: np.ndarray) -> np.ndarray:
    """Outputs less their prediction by θ [n, ds]."""
    phi, columns = rows.columns(dynamics)
    return rows.target(dynamics) - _predict(phi, columns, theta, len(dynamics.scale))


def error(dynamics: Dynamics, rows: Steps, theta: np.ndarray, noise: np.ndarray) -> float:
    """Root mean squared residual in noise standard deviations, as consolidation judges by."""
    return float(np.sqrt(np.mean(np.square(residuals(dynamics, rows, theta)) / noise)))


def _predict(phi: np.ndarray, columns: np.ndarray, theta: np.ndarray, ds: int) -> np.ndarray:
    at = ds * phi.shape[1]
    return phi @ theta[:at].reshape(ds, -1).T + columns @ theta[at:]


def _root(rows: np.ndarray) -> np.ndarray:
    """Symmetric square root of the second moment of rows [n, nf], with a ridge."""
    moment = rows.T @ rows / len(rows)
    moment = moment + RIDGE * np.trace(moment) / len(moment) * np.eye(len(moment))
    values, vectors = np.linalg.eigh(moment)
    return (vectors * np.sqrt(values)) @ vectors.T
