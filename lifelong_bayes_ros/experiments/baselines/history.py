"""A history-conditioned network: it reads the plant off the last transitions, and never learns.

The first layer sees state, command and the last `LENGTH` transitions. During one plan the history
does not change, so all that it does is to shift the first layer's bias: the planner gets an
ordinary trunk.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...dynamics.model import Dynamics, Prior
from .base import Baseline
from .network import Network

LENGTH = 5  # past transitions that it sees


class History(Baseline):
    """The plant is what explains the last `LENGTH` transitions."""

    name: ClassVar[str] = 'history'

    def __init__(self, network: Prior, seed: int) -> None:
        """`network`: of `history_network`, whose `w1` goes on with the history's rows."""
        self._whole = network.dynamics.trunk
        self._di = len(self._whole.mean)
        trunk = replace(self._whole, w1=self._whole.w1[: self._di])
        super().__init__(replace(network, dynamics=replace(network.dynamics, trunk=trunk)), seed)
        nothing = np.zeros(self._di + len(network.noise))
        self._seen: deque[np.ndarray] = deque([nothing] * LENGTH, maxlen=LENGTH)

    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        self._seen.appendleft(seen(self.prior.dynamics, x[None], u[None], x_next[None])[0])
        shift = np.concatenate(self._seen) @ self._whole.w1[self._di :]
        trunk = replace(self.prior.dynamics.trunk, b1=self._whole.b1 + shift)
        self.controller.adopt(replace(self.prior.dynamics, trunk=trunk))


def seen(dynamics: Dynamics, x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> np.ndarray:
    """What the history keeps of transitions [n, ...]: inputs and change, both normalised."""
    trunk = dynamics.trunk
    inputs = (trunk.encoder(x, u) - trunk.mean) / trunk.scale
    return np.concatenate([inputs, dynamics.target(x, x_next)], axis=1)


class HistoryNetwork(Network):
    """A Network whose first layer also sees the history [n, rows], newest first.

    It starts as the given Dynamics, blind to the history.
    """

    def __init__(self, dynamics: Dynamics, rows: int) -> None:
        super().__init__(dynamics)
        self.past = torch.nn.Parameter(torch.zeros(rows, dynamics.trunk.w1.shape[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        di = len(self.w1)
        shift = inputs[:, di:] @ self.past
        return self.decide(inputs[:, :di], self.b1 + shift)

    def dynamics(self) -> Dynamics:
        """The model, its `w1` followed by the rows of the history."""
        model = super().dynamics()
        rows = np.concatenate([model.trunk.w1, self.past.detach().numpy().astype(float)])
        return replace(model, trunk=replace(model.trunk, w1=rows))
