"""Scores one transition under every head that might explain it.

The design of the model has one block of features per output, H = [I ⊗ φᵀ | T] (dynamics.model), so
that the predictive covariance of outputs i and j is

    S_ij = φᵀ P_ij φ + φᵀ C_i T_jᵀ + φᵀ C_j T_iᵀ + T_i D T_jᵀ,

with P_ij, C_i and D the blocks of a head's covariance. Only the blocks with i ≤ j are kept, in
float32, and of these the upper triangle, onto which the lower one is folded: reading them is all
the cost. `bank.c` does it, built on first use (see `blr.kernel`); where there is no C compiler,
numpy serves.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..blr import Gaussian
from ..blr.kernel import PRECISE, addresses, library_of
from ..dynamics.head import EVIDENCE_DOF, EVIDENCE_TEMPER, student_t

SOURCE = Path(__file__).with_name('bank.c')
LANES = 8  # rows are filled up to a multiple of it


@cache
def load() -> ctypes.CDLL | None:
    """The compiled scores, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the bank of heads')
    if library is not None:
        library.bank_score.argtypes = [*[ctypes.c_int32] * 5, *[ctypes.c_void_p] * 13]
        library.bank_score.restype = ctypes.c_int32
    return library


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
        self._stride = -(-features // LANES) * LANES
        self._heads: list[Gaussian] = []
        self._rows = np.arange(outputs)
        self._upper = np.triu_indices(outputs)
        pairs = len(self._upper[0])
        self._blocks = np.empty((0, pairs, features, self._stride), np.float32)
        self._fold = np.triu(np.ones((features, features))) - 0.5 * np.eye(features)

    def sync(self, heads: Sequence[Gaussian]) -> None:
        """Hold these posteriors, copying those that are not held yet."""
        if len(heads) == len(self._heads) and all(map(operator.is_, heads, self._heads)):
            return
        ds, nf = self._shape
        k = heads[0].size - ds * nf
        if len(heads) != len(self._heads):
            held = self._blocks
            self._blocks = np.zeros((len(heads), *held.shape[1:]), np.float32)
            self._blocks[: len(held)] = held[: len(heads)]
            self._heads = self._heads[: len(heads)]
        for i, head in enumerate(heads):
            if i < len(self._heads) and head is self._heads[i]:
                continue
            covariance = head.covariance.numpy()
            blocks = covariance[: ds * nf, : ds * nf].reshape(ds, nf, ds, nf)
            pairs = blocks[self._upper[0], :, self._upper[1]]
            self._blocks[i, :, :, :nf] = (pairs + pairs.transpose(0, 2, 1)) * self._fold
        covariances = [h.covariance.numpy() for h in heads]
        means = np.stack([h.mean.numpy() for h in heads])
        cross = np.stack([c[ds * nf :, : ds * nf].T for c in covariances])
        self._cross = np.zeros((len(heads), ds, k, self._stride), np.float32)
        self._cross[..., :nf] = cross.reshape(-1, ds, nf, k).transpose(0, 1, 3, 2)
        self._tail = np.stack([c[ds * nf :, ds * nf :] for c in covariances])
        self._weights = np.ascontiguousarray(means[:, : ds * nf])
        self._structured = np.ascontiguousarray(means[:, ds * nf :])
        self._heads = list(heads)
        kept = (self._blocks, self._cross, self._tail, self._weights, self._structured)
        self._kept_at = [a.ctypes.data for a in kept]

    def score(self, design: np.ndarray, target: np.ndarray, noise: np.ndarray) -> Scores:
        """Score an observation under the predictive of every head.

        Args:
            design: H [ds, n].
            target: y [ds].
            noise: variance of e under each head [heads, ds].

        Raises:
            numpy.linalg.LinAlgError: a predictive is not positive definite.
        """
        ds, nf = self._shape
        phi, tangent = np.zeros(self._stride), design[:, ds * nf :]
        phi[:nf] = design[0, :nf]
        measure = self._measure if load() is None else self._measure_natively
        residual, square, log_det = measure(phi, tangent, target, noise)
        evidence = EVIDENCE_TEMPER * student_t(square, log_det, ds, EVIDENCE_DOF)
        return Scores(evidence, square / ds, residual)

    def _measure_natively(
        self, phi: np.ndarray, tangent: np.ndarray, target: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`_measure` in C."""
        (ds, nf), count = self._shape, len(self._heads)
        residual, square, log_det = np.empty((count, ds)), np.empty(count), np.empty(count)
        given = (
            *(phi.astype(np.float32), phi),
            *(np.array(a, float, order='C') for a in (tangent, target, noise)),
            *(residual, square, log_det),
        )
        sizes = (count, ds, nf, self._stride, tangent.shape[1])
        if load().bank_score(*sizes, *self._kept_at, *addresses(*given)):
            raise np.linalg.LinAlgError('a predictive is not positive definite')
        return residual, square, log_det

    def _measure(
        self, phi: np.ndarray, tangent: np.ndarray, target: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals [heads, ds], squared distances and log determinants [heads]."""
        (ds, nf), count, width = self._shape, len(self._heads), self._stride
        small = phi.astype(np.float32)
        rows = (self._blocks.reshape(-1, width) @ small).reshape(count, -1, nf)
        quadratic = rows @ small[:nf]
        cross = (self._cross.reshape(-1, width) @ small).reshape(count, ds, -1) @ tangent.T
        s = tangent @ self._tail @ tangent.T + cross + cross.transpose(0, 2, 1)
        s[:, self._upper[0], self._upper[1]] += quadratic
        s[:, self._upper[1], self._upper[0]] = s[:, self._upper[0], self._upper[1]]
        s[:, self._rows, self._rows] += noise
        residual = target - self._weights.reshape(count, ds, nf) @ phi[:nf]
        residual -= self._structured @ tangent.T
        lower = np.linalg.cholesky(s)
        white = np.linalg.solve(lower, residual[..., None])[..., 0]
        log_det = 2 * np.log(lower[:, self._rows, self._rows]).sum(axis=1)
        return residual, np.square(white).sum(axis=1), log_det
