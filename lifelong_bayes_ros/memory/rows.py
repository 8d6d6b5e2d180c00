"""Remembered transitions as rows of the model, scored under a head in a few matrix products.

The design of the model has one block of features per output, H = [I ⊗ φᵀ | T] (dynamics.model), so
that the covariance of outputs i and j of a row is

    V_ij = φᵀ P_ij φ + φᵀ C_i T_jᵀ + φᵀ C_j T_iᵀ + T_i D T_jᵀ

with P_ij, C_i and D the blocks of the covariance of θ: matrix products over all rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..blr import Gaussian
from ..dynamics.head import EVIDENCE_DOF, EVIDENCE_TEMPER, Head, student_t
from ..dynamics.model import DELAYS, Dynamics
from .reservoir import Sample

UNLIKE = 4.0  # times its variance: mean squared residual that a row within a posterior has not


@dataclass(frozen=True)
class Rows:
    """Rows y = H θ + e of m transitions."""

    phi: np.ndarray  # features [m, nf]
    tangent: np.ndarray  # structured columns T [m, ds, k]
    target: np.ndarray  # y [m, ds]

    @classmethod
    def of(cls, dynamics: Dynamics, samples: Sequence[Sample]) -> Rows:
        """Rows of samples; there may be none."""
        spec, m = dynamics.spec, len(samples)
        ds, da = len(spec.state), len(spec.action)

        def column(name: str, *shape: int) -> np.ndarray:
            return np.array([getattr(s, name) for s in samples], float).reshape(m, *shape)

        x, u, past = column('x', ds), column('u', da), column('past', DELAYS, da)
        return cls(*dynamics.columns(x, u, past), dynamics.target(x, column('x_next', ds)))

    def __len__(self) -> int:
        return len(self.target)

    def joined(self, other: Rows) -> Rows:
        """These rows and those of another."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Rows(*(np.concatenate(pair) for pair in pairs))

    def residual(self, posterior: Gaussian) -> np.ndarray:
        """y − H m [m, ds]."""
        theta = posterior.mean.numpy()
        ds, nf = self.target.shape[1], self.phi.shape[1]
        weights, structured = theta[: ds * nf].reshape(ds, nf), theta[ds * nf :]
        return self.target - self.phi @ weights.T - self.tangent @ structured

    def leverage(self, posterior: Gaussian) -> np.ndarray:
        """V = H Σ Hᵀ of every row [m, ds, ds]."""
        ds, nf = self.target.shape[1], self.phi.shape[1]
        covariance, at = posterior.covariance.numpy(), ds * nf
        blocks = covariance[:at, :at].reshape(ds, nf, ds, nf)
        cross = self.phi @ covariance[:at, at:].reshape(ds, nf, -1)  # [ds, m, k]
        mixed = np.einsum('imk,mjk->mij', cross, self.tangent)
        tail = self.tangent @ covariance[at:, at:] @ self.tangent.transpose(0, 2, 1)
        v = mixed + mixed.transpose(0, 2, 1) + tail
        for i in range(ds):
            for j in range(i, ds):
                quadratic = np.einsum('mf,mf->m', self.phi @ blocks[i, :, j], self.phi)
                v[:, i, j] += quadratic
                if i < j:
                    v[:, j, i] += quadratic
        return v

    def left_out(self, head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How a head would meet each row had it not learned from it, from its posterior alone.

        Taking row i out of N(m, Σ) that holds it with the noise R gives the residual R (R − V)⁻¹ e
        and the predictive covariance R (R − V)⁻¹ R. Of a row that is held, the residual e has the
        covariance R − V: one that is `UNLIKE` that, or whose leverage is not below the noise, was
        learned with another noise or has worn away; R (R − V)⁻¹ would make much of little there.

        Returns:
            Residuals [m, ds], predictive covariances [m, ds, ds], and which rows seem held [m]: of
            the others there is nothing to take out and they are met as they are.
        """
        v, e = self.leverage(head.posterior), self.residual(head.posterior)
        r = np.diag(head.noise.variance)
        values, vectors = np.linalg.eigh(r - v)
        held = values[:, 0] > 0
        within = (e[held, None] @ vectors[held])[:, 0]
        square = np.square(within) / values[held]
        held[held] = square.mean(axis=1) <= UNLIKE
        s = v + r
        s[held] = r @ np.linalg.solve(r - v[held], np.broadcast_to(r, v[held].shape))
        e[held] = (s[held] @ (e[held] / head.noise.variance)[..., None])[..., 0]
        return e, s, held

    def evidence(self, head: Head) -> np.ndarray:
        """Tempered Student-t log density of every row under the predictive of a head [m], nats."""
        s = self.leverage(head.posterior) + np.diag(head.noise.variance)
        return log_density(self.residual(head.posterior), s)


def log_density(residual: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Tempered Student-t log densities [m] of residuals [m, ds] and covariances [m, ds, ds]."""
    ds = residual.shape[1]
    lower = np.linalg.cholesky(covariance)
    white = np.linalg.solve(lower, residual[..., None])[..., 0]
    square = np.square(white).sum(axis=1)
    log_det = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    return EVIDENCE_TEMPER * student_t(square, log_det, ds, EVIDENCE_DOF)
