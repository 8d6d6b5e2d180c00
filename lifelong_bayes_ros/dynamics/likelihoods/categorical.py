"""Categorical likelihood with a softmax link: one of several classes, as a kind of terrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from .discrete import DiscreteLikelihood
from .quadrature import draws


@dataclass(frozen=True)
class Categorical(DiscreteLikelihood):
    """p(y = c | f) = softmax(f)_c, k = number of classes. A label is one-hot [k].

    Expectations over f are sampled with fixed quasi-random draws, which stay consistent with each
    other (probabilities sum to one, mutual information is never negative), where a probit scaling
    of the logits (Gibbs 1997; Lu et al. 2020) or a Dirichlet match (MacKay 1998) keeps neither
    correlations nor the expected entropy.
    """

    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UserError(f'classes {list(self.classes)}: give two or more different names')

    @property
    def outputs(self) -> int:
        """One log odds for each class."""
        return len(self.classes)

    @property
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Quasi-random draws of the log odds."""
        return draws(self.outputs)

    def label(self, y: Any) -> np.ndarray:
        """From the name of a class.

        Raises:
            UserError: no such class.
        """
        if not isinstance(y, str) or y not in self.classes:
            raise UserError(
                f'label {y!r} is not one of the classes {list(self.classes)}; give None if unknown'
            )
        return np.eye(self.outputs)[self.classes.index(y)]

    def loss(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Cross-entropy [...] with the label."""
        return np.logaddexp.reduce(f, axis=-1) - np.sum(f * label, axis=-1)

    def residual(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """softmax(f) − label [..., k]."""
        return self.soft_label(f) - label

    def curvature(self, f: np.ndarray) -> np.ndarray:
        """diag(p) − p pᵀ [..., k, k], p = softmax(f)."""
        p = self.soft_label(f)
        return p[..., None] * (np.eye(self.outputs) - p[..., None, :])

    def soft_label(self, f: np.ndarray) -> np.ndarray:
        """softmax(f) [..., k]."""
        p = np.exp(f - f.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True)

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        """softmax(f) [..., k]."""
        return self.soft_label(f)
