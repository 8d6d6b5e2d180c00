"""IVON, by its authors' package `ivon-opt`, on the window and the network of `adam`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...dynamics.model import Prior
from ...errors import UserError
from .kalman import DRAWS
from .network import Windowed

# Best on the streams of seed 100 of lr 0.01, 0.03, 0.1, 0.3, ess 2e4, 2e5, 2e6 and initial
# curvature 0.01, 0.1, 1.
LR, ESS, CURVATURE, BETA2 = 0.1, 2e5, 1.0, 0.9999


class Ivon(Windowed):
    """All weights by IVON (Shen et al. 2024); its own posterior gives the head's spread."""

    name: ClassVar[str] = 'ivon'

    def __init__(self, prior: Prior, seed: int) -> None:
        """Start at the nominal network.

        Raises:
            UserError: ivon-opt is not installed.
        """
        super().__init__(prior, seed)
        try:
            from ivon import IVON
        except ImportError:
            raise UserError(
                "method ivon: ivon-opt is not installed: pip install 'lifelong_bayes_ros[test]'"
            ) from None
        self._optimizer = IVON(
            self.network.parameters(), LR, ESS, hess_init=CURVATURE, beta2=BETA2, weight_decay=0.0
        )

    def descend(self, inputs: Tensor, targets: Tensor) -> None:
        self._optimizer.zero_grad()
        # It draws from torch's global generator and knows no other.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.rng.integers(2**31)))
            with self._optimizer.sampled_params(train=True):
                (self.network(inputs) - targets).square().mean().backward()
        self._optimizer.step()

    def factor(self) -> np.ndarray:
        group = self._optimizer.param_groups[0]
        shape = self.network.head.shape  # last of the parameters
        curvature = group['hess'][-self.network.head.numel() :].reshape(shape).numpy()
        sd = 1 / np.sqrt(ESS * np.maximum(curvature, 1e-12))
        draws = self.network.whitened(sd * self.rng.standard_normal((DRAWS, *shape)))
        flat = draws.reshape(DRAWS, -1).T / np.sqrt(DRAWS)
        return np.pad(flat, ((0, self.dynamics.size - len(flat)), (0, 0)))
