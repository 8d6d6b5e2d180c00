"""A head: the exact Gaussian posterior over θ of one regime, with its learned noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from ..blr import Gaussian, Innovation
from .noise import Noise

EVIDENCE_DOF = 6.0  # heavy tails: one outlier must not decide between regimes
EVIDENCE_TEMPER = 0.5  # neighbouring residuals share sensor noise, so they count half


@dataclass(frozen=True)
class Prediction:
    """One-step predictive of a head and what was observed."""

    innovation: Innovation
    residual: np.ndarray  # y − H m [ds]
    white: np.ndarray  # L⁻¹ (y − H m) [ds], H Σ Hᵀ + R = L Lᵀ
    nis: float  # normalised innovation squared per output; 1 on average when all is well
    evidence: float  # tempered Student-t log density, nats

    @property
    def epistemic(self) -> np.ndarray:
        """Variance of H θ per output [ds]."""
        return self.innovation.epistemic.diagonal().numpy()


@dataclass(frozen=True)
class Head:
    """Posterior over θ and noise of one regime. Immutable, unless it is updated in place."""

    posterior: Gaussian
    noise: Noise

    def predict(self, design: torch.Tensor, target: np.ndarray) -> Prediction:
        """Score an observation `target` [ds] under the predictive at `design` [ds, n]."""
        noise = torch.from_numpy(self.noise.variance)
        innovation = self.posterior.predict(design, noise)
        residual = target - innovation.mean.numpy()
        inverse = innovation.inverse.numpy()
        white = inverse @ residual
        square, log_det = float(white @ white), -2 * float(np.log(inverse.diagonal()).sum())
        ds = len(target)
        return Prediction(
            innovation,
            residual,
            white,
            square / ds,
            float(EVIDENCE_TEMPER * student_t(square, log_det, ds, EVIDENCE_DOF)),
        )

    def update(self, prediction: Prediction, in_place: bool = False) -> Head:
        """Posterior after the observation that `prediction` scored; see `Gaussian.condition`."""
        innovation = prediction.innovation
        residual = torch.from_numpy(prediction.residual)
        inverse = innovation.inverse.numpy()
        posterior = self.posterior.condition(innovation, residual, in_place)
        # y − H m⁺ = R S⁻¹ e and H Σ⁺ Hᵀ = R − R S⁻¹ R: no need to touch the large covariance.
        r = self.noise.variance
        left = r * (inverse.T @ prediction.white)
        variance = np.maximum(r - r * r * np.square(inverse).sum(axis=0), 0.0)
        return Head(posterior, self.noise.update(left**2 + variance))

    def replace(self, **changes: Gaussian | Noise) -> Head:
        """A head with some parts replaced."""
        return replace(self, **changes)


Scalar = TypeVar('Scalar', float, np.ndarray)


def student_t(square: Scalar, log_det: Scalar, size: int, dof: float) -> Scalar:
    """Log density of a multivariate Student-t.

    Args:
        square: squared Mahalanobis distance under the covariance-like scale matrix.
        log_det: log determinant of the scale matrix.
        size: dimension.
        dof: degrees of freedom.
    """
    return (
        math.lgamma((dof + size) / 2)
        - math.lgamma(dof / 2)
        - 0.5 * (size * math.log(dof * math.pi) + log_det)
        - 0.5 * (dof + size) * np.log1p(square / dof)
    )
