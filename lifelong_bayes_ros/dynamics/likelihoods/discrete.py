"""What the likelihoods of classes share: their predictive, and quadrature over f."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from .base import Likelihood, Predictive, root
from .mode import newton


@dataclass(frozen=True)
class Discrete(Predictive):
    """Probabilities [..., c] of c classes."""

    probabilities: np.ndarray
    aleatoric: np.ndarray

    @cached_property
    def entropy(self) -> np.ndarray:
        """Of the class, nats [...]."""
        return entropy(self.probabilities)

    def log_prob(self, label: np.ndarray) -> np.ndarray:
        """Log probability [...] of the class whose one-hot label [c] or [1] this is."""
        if self.probabilities.shape[-1] != label.shape[-1]:
            label = np.concatenate([1 - label, label], axis=-1)
        tiny = np.finfo(float).tiny
        return np.sum(label * np.log(np.maximum(self.probabilities, tiny)), axis=-1)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy [...] of probabilities [..., c], nats."""
    tiny = np.finfo(float).tiny
    return -np.sum(probabilities * np.log(np.maximum(probabilities, tiny)), axis=-1)


class DiscreteLikelihood(Likelihood):
    """A likelihood of classes with a convex loss, integrated by quadrature over f."""

    revisable: ClassVar[bool] = True

    @property
    @abstractmethod
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes [j, k] and weights [j] for k standard normals."""

    @abstractmethod
    def probabilities(self, f: np.ndarray) -> np.ndarray:
        """Probabilities [..., c] of the classes given f [..., k]."""

    def match(
        self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By quadrature about the mode m − V a, with the prior's covariance V.

        The weights exp(aᵀ(f − mode) − loss) are exact for any a and, a being the residual at the
        mode of a convex loss, bounded: none of the nodes can take all of the weight.
        """
        nodes, weights = self.nodes
        a = newton(self, label, mean, covariance)
        offset = nodes @ root(covariance).T
        centre = mean - covariance @ a
        height = offset @ a - self.loss(centre + offset, label)
        weights = weights * np.exp(height - height.max())
        weights /= weights.sum()
        shift = weights @ offset
        offset = offset - shift
        return centre + shift, _at_most((weights * offset.T) @ offset, covariance)

    def predict(self, mean: np.ndarray, covariance: np.ndarray) -> Discrete:
        """By quadrature."""
        nodes, weights = self.nodes
        f = mean[..., None, :] + nodes @ np.swapaxes(root(covariance), -1, -2)
        p = self.probabilities(f)
        return Discrete(np.einsum('j,...jc->...c', weights, p), entropy(p) @ weights)


def _at_most(covariance: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """A covariance without what quadrature adds to the prior's: a convex loss only narrows."""
    if len(prior) == 1:
        return np.minimum(covariance, prior)
    white = np.linalg.cholesky(prior)
    inner = np.linalg.solve(white, np.linalg.solve(white, covariance).T)
    values, vectors = np.linalg.eigh(inner)
    half = white @ (vectors * np.sqrt(np.clip(values, 1e-12, 1.0)))
    return half @ half.T
