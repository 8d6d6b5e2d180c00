"""The most probable f given a label: damped Gauss–Newton steps in k dimensions."""

from __future__ import annotations

import numpy as np

from .base import Likelihood

ITERATIONS = 30
HALVINGS = 40
TOLERANCE = 0.5  # prior standard deviations: quadrature does the rest


def newton(
    likelihood: Likelihood, label: np.ndarray, mean: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """The residual a [k] at the mode m − V a of N(f | m, V) exp(−loss(f)).

    Each step is one of the Bayesian learning rule with ρ = 1 and the delta method (Khan & Rue
    2023, section 1.3.1), a ← a + (I + Λ V)⁻¹ (r − a), halved until it lowers ½ aᵀ V a + loss.
    """
    a = np.zeros_like(mean)
    f = mean
    height = float(likelihood.loss(f, label))
    for _ in range(ITERATIONS):
        inner = likelihood.curvature(f) @ prior + np.eye(len(a))
        left = likelihood.residual(f, label) - a
        step = left / inner[0] if len(a) == 1 else np.linalg.solve(inner, left)
        for _ in range(HALVINGS):
            moved = prior @ (a + step)
            f = mean - moved
            ahead = float(0.5 * (a + step) @ moved + likelihood.loss(f, label))
            if ahead <= height:
                break
            step = 0.5 * step
        else:
            break
        a, height = a + step, ahead
        if step @ prior @ step < TOLERANCE**2:
            break
    return a
