"""Sensitivity of the posterior to what it remembers: leverage and residual of every sample.

Leaving sample i out would move the prediction there by about leverage × residual (memory-
perturbation equation, Nickl et al. 2023): the memory map of regular, uncertain (high leverage) and
unpredictable (high residual) transitions.
"""

from __future__ import annotations

import numpy as np
import torch

from ..dynamics.model import Dynamics
from .regimes import Library


def memory_map(dynamics: Dynamics, library: Library, noise: np.ndarray) -> np.ndarray:
    """Leverage, residual and regime of every remembered sample.

    Args:
        dynamics: the model that the heads belong to.
        library: regimes with their reservoirs.
        noise: variance per output [ds] that both are measured in.

    Returns:
        [n, 3], float32: leverage H Σ Hᵀ under the head of its regime, mean over the outputs in
        noise variances; root mean squared residual in noise standard deviations; index of the
        regime.
    """
    rows = []
    for index, regime in enumerate(library.regimes):
        device = regime.head.posterior.mean.device
        for s in regime.reservoir.samples:
            x, u = s.x.astype(float), s.u.astype(float)
            design = torch.as_tensor(dynamics.design(x, u, s.past.astype(float)), device=device)
            seen = regime.head.predict(design, dynamics.target(x, s.x_next.astype(float)))
            residual = np.sqrt(np.mean(seen.residual**2 / noise))
            rows.append((np.mean(seen.epistemic / noise), residual, index))
    return np.array(rows, np.float32).reshape(-1, 3)
