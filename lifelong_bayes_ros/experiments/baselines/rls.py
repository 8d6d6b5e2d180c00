"""Recursive least squares with a forgetting factor, on the features of the nominal network."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...dynamics.model import Prior
from .base import Baseline
from .kalman import DRAWS

FORGETTING = 0.99  # memory of about 100 transitions
START = 0.1  # P of a feature at the start; with FORGETTING best on the streams of seed 100


class RecursiveLeastSquares(Baseline):
    """One P [nf, nf] for all outputs; forgetting stops while P is wider than at the start.

    Where nothing is excited, P would grow for ever (wind-up); bounding its trace is the usual
    cure (Åström & Wittenmark 1995, section 11.5).
    """

    name: ClassVar[str] = 'rls'

    def __init__(self, prior: Prior, seed: int) -> None:
        super().__init__(prior, seed)
        nf = self.dynamics.trunk.size
        self.weights = self.dynamics.nominal.copy()  # [ds, nf]
        self.p = START * np.eye(nf)
        self._bound = float(np.trace(self.p))

    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        phi = self.dynamics.trunk.features(x[None], u[None])[0]
        if np.trace(self.p) < self._bound:
            self.p /= FORGETTING
        gain = self.p @ phi
        gain /= 1 + phi @ gain
        residual = self.dynamics.target(x, x_next) - self.weights @ phi
        self.weights += np.outer(residual, gain)
        self.p -= np.outer(gain, phi @ self.p)
        self.p = (self.p + self.p.T) / 2
        # What is left after the step, and what is still unknown of it.
        leverage = phi @ self.p @ phi
        left = np.square((1 - phi @ gain) * residual)
        self.noise = self.noise.update(left + leverage * self.noise.variance)

    def theta(self) -> np.ndarray:
        tail = self.dynamics.size - self.weights.size
        return np.concatenate([self.weights.ravel(), np.zeros(tail)])

    def factor(self) -> np.ndarray:
        ds, nf = self.weights.shape
        half = np.linalg.cholesky(self.p) @ self.rng.standard_normal((ds, nf, DRAWS))
        draws = np.sqrt(self.noise.variance)[:, None, None] * half
        tail = self.dynamics.size - self.weights.size
        return np.pad(draws.reshape(ds * nf, DRAWS), ((0, tail), (0, 0))) / np.sqrt(DRAWS)
