"""Bernoulli likelihood with a logistic link: something happens or it does not, as a contact."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UserError
from .discrete import DiscreteLikelihood
from .quadrature import grid


class Bernoulli(DiscreteLikelihood):
    """p(y = 1 | f) = σ(f), k = 1. A label is y [1]; a soft one is a probability."""

    @property
    def outputs(self) -> int:
        """One: the log odds."""
        return 1

    @property
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """A grid over the log odds."""
        return grid()

    def label(self, y: Any) -> np.ndarray:
        """From True, False, 1 or 0.

        Raises:
            UserError: anything else.
        """
        if isinstance(y, (bool, np.bool_, int, float, np.number)) and y in (0, 1):
            return np.array([float(y)])
        raise UserError(f'label {y!r} is not one of True, False, 1 and 0; give None if unknown')

    def loss(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """log(1 + exp f) − y f [...]."""
        return (np.logaddexp(0.0, f) - label * f)[..., 0]

    def residual(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """σ(f) − y [..., 1]."""
        return self.soft_label(f) - label

    def curvature(self, f: np.ndarray) -> np.ndarray:
        """σ(f) (1 − σ(f)) [..., 1, 1]."""
        return (self.soft_label(f) * self.soft_label(-f))[..., None]

    def soft_label(self, f: np.ndarray) -> np.ndarray:
        """σ(f) [..., 1]."""
        return 0.5 * (1.0 + np.tanh(0.5 * f))

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        """(1 − σ(f), σ(f)) [..., 2]."""
        return np.concatenate([self.soft_label(-f), self.soft_label(f)], axis=-1)
