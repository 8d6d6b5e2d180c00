"""What every likelihood p(y | f) of a linear head can do, f = H θ being its k latent outputs.

A label is what the loss needs of an observation. A soft label is the label that a head itself
would expect, so that `residual(f, soft_label(f_old))` is zero where f = f_old: the prediction
term of a K-prior (Khan & Swaroop 2021). Residuals and curvatures of remembered samples give their
leave-one-out influence (memory-perturbation equation, Nickl et al. 2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np


class Predictive(ABC):
    """Distribution of y once θ is integrated out. `...` are leading dimensions, often none."""

    entropy: np.ndarray  # of y, nats [...]
    aleatoric: np.ndarray  # expected entropy of y given the parameters, nats [...]

    @property
    def epistemic(self) -> np.ndarray:
        """Mutual information of y and the parameters, nats [...] (BALD, Houlsby et al. 2011)."""
        return np.maximum(self.entropy - self.aleatoric, 0.0)

    @abstractmethod
    def log_prob(self, label: np.ndarray) -> np.ndarray:
        """Log predictive density or probability [...] of a label: its evidence, nats."""


class Likelihood(ABC):
    """Likelihood of one observation y given f [k]. Immutable."""

    # Whether what was learned of a label may be fitted again later. Where the loss is quadratic
    # there is no need, and where it is not convex the sites need not converge.
    revisable: ClassVar[bool] = False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of latent outputs k."""

    @property
    def places(self) -> int:
        """Number of latent outputs, the first ones, that say where y is, not how it spreads."""
        return self.outputs

    @abstractmethod
    def label(self, y: Any) -> np.ndarray:
        """The label [t] of an observation.

        Raises:
            UserError: y is no observation of this kind.
        """

    @abstractmethod
    def loss(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """−log p(y | f) [...] for f [..., k]; a cross-entropy where the label is soft."""

    @abstractmethod
    def residual(self, f: np.ndarray, label: np.ndarray) -> np.ndarray:
        """∂ loss / ∂f [..., k]."""

    @abstractmethod
    def curvature(self, f: np.ndarray) -> np.ndarray:
        """Gauss–Newton matrix Λ [..., k, k]: the Fisher information of y about f.

        It is ∂² loss / ∂f² for a canonical link, and never indefinite.
        """

    @abstractmethod
    def soft_label(self, f: np.ndarray) -> np.ndarray:
        """Expected label [..., t] under f [..., k]."""

    @abstractmethod
    def match(
        self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean [k] and covariance [k, k] of f given a label, for f ~ N(mean, covariance) before.

        The covariance given must be positive definite; the one returned is.
        """

    @abstractmethod
    def predict(self, mean: np.ndarray, covariance: np.ndarray) -> Predictive:
        """Predictive of y under f ~ N(mean [..., k], covariance [..., k, k])."""

    def learn(self, label: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> Likelihood:
        """What the likelihood itself learns of a label, with f ~ N(mean, covariance) after it."""
        return self

    def design(self, phi: np.ndarray) -> np.ndarray:
        """Design [..., k, k · nf] of features [..., nf]: every output has its own weights."""
        k, nf = self.outputs, phi.shape[-1]
        design = np.zeros((*phi.shape[:-1], k, k, nf))
        diagonal = np.arange(k)
        design[..., diagonal, diagonal, :] = phi[..., None, :]
        return design.reshape(*phi.shape[:-1], k, k * nf)


def root(matrix: np.ndarray) -> np.ndarray:
    """B [..., k, k] with B Bᵀ = matrix, for a positive semidefinite one."""
    if matrix.shape[-1] == 1:
        return np.sqrt(np.maximum(matrix, 0.0))
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
