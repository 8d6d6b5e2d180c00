"""Scores one transition under every head that might explain it, in a few matrix products.

The design of the model has one block of features per output, H = [I ⊗ φᵀ | T] (dynamics.model), so
that the predictive covariance of outputs i and j is

    S_ij = φᵀ P_ij φ + φᵀ C_i T_jᵀ + φᵀ C_j T_iᵀ + T_i D T_jᵀ,

with P_ij, C_i and D the blocks of a head's covariance. Only the blocks with i ≤ j are kept, in
float32: reading them is all the cost.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..blr import Gaussian
from ..dynamics.head import EVIDENCE_DOF, EVIDENCE_TEMPER, student_t


@dataclass(frozen=True)
class Scores:
    """How well each head explains a transition."""

    evidence: np.ndarray  # tempered Student-t log density [heads], nats
    nis: np.ndarray  # normalised innovation squared per output [heads]
    residual: np.ndarray  # y − H m [heads, ds]


class Bank:
    """Copies of the posteriors of several heads in the layout that scoring needs."""

    def __init__(self, outputs: int, features: int) -> None:
        self._shape = outputs, features
        self._heads: list[Gaussian] = []
        self._rows = np.arange(outputs)
        self._upper = np.triu_indices(outputs)
        self._blocks = np.empty((0, len(self._upper[0]), features, features), np.float32)

    def sync(self, heads: Sequence[Gaussian]) -> None:
        """Hold these posteriors, copying those that are not held yet."""
        if len(heads) == len(self._heads) and all(map(operator.is_, heads, self._heads)):
            return
        ds, nf = self._shape
        k = heads[0].size - ds * nf
        if len(heads) != len(self._heads):
            held = self._blocks
            self._blocks = np.empty((len(heads), *held.shape[1:]), np.float32)
            self._blocks[: len(held)] = held[: len(heads)]
            self._heads = self._heads[: len(heads)]
        for i, head in enumerate(heads):
            if i < len(self._heads) and head is self._heads[i]:
                continue
            covariance = head.covariance.cpu().numpy()
            blocks = covariance[: ds * nf, : ds * nf].reshape(ds, nf, ds, nf)
            self._blocks[i] = blocks[self._upper[0], :, self._upper[1]]
        covariances = [h.covariance.cpu().numpy() for h in heads]
        means = np.stack([h.mean.cpu().numpy() for h in heads])
        self._cross = np.stack([c[ds * nf :, : ds * nf].T for c in covariances])
        self._cross = np.ascontiguousarray(
            self._cross.reshape(-1, ds, nf, k).transpose(0, 1, 3, 2), np.float32
        )
        self._tail = np.stack([c[ds * nf :, ds * nf :] for c in covariances])
        self._weights = means[:, : ds * nf].reshape(-1, ds, nf)
        self._structured = means[:, ds * nf :]
        self._heads = list(heads)

    def score(self, design: np.ndarray, target: np.ndarray, noise: np.ndarray) -> Scores:
        """Score an observation under the predictive of every head.

        Args:
            design: H [ds, n].
            target: y [ds].
            noise: variance of e under each head [heads, ds].
        """
        ds, nf = self._shape
        count = len(self._heads)
        phi, tangent = design[0, :nf], design[:, ds * nf :]
        small = phi.astype(np.float32)
        quadratic = (self._blocks.reshape(-1, nf) @ small).reshape(count, -1, nf) @ small
        cross = (self._cross.reshape(-1, nf) @ small).reshape(count, ds, -1) @ tangent.T
        s = tangent @ self._tail @ tangent.T + cross + cross.transpose(0, 2, 1)
        s[:, self._upper[0], self._upper[1]] += quadratic
        s[:, self._upper[1], self._upper[0]] = s[:, self._upper[0], self._upper[1]]
        s[:, self._rows, self._rows] += noise
        residual = target - self._weights @ phi - self._structured @ tangent.T
        lower = np.linalg.cholesky(s)
        white = np.linalg.solve(lower, residual[..., None])[..., 0]
        square = np.square(white).sum(axis=1)
        log_det = 2 * np.log(lower[:, self._rows, self._rows]).sum(axis=1)
        evidence = EVIDENCE_TEMPER * student_t(square, log_det, ds, EVIDENCE_DOF)
        return Scores(evidence, square / ds, residual)
