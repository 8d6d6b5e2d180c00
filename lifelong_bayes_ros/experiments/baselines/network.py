"""The weights of a Dynamics as torch parameters, and a window of transitions to train them on."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...dynamics.model import Dynamics, Prior
from .base import Baseline

WINDOW = 200  # transitions kept
BATCH = 32  # of them in every step


class Network(torch.nn.Module):
    """Both hidden layers and the head of a Dynamics, float32: y [n, ds] of inputs [n, di]."""

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self._like = dynamics
        trunk = dynamics.trunk
        self._unwhiten = np.linalg.inv(trunk.whiten)
        for name in ('w1', 'b1', 'w2', 'b2'):
            self.register_parameter(name, _parameter(getattr(trunk, name)))
        # The head on the features before whitening, as an ordinary network has it.
        self.head = _parameter(trunk.whiten @ dynamics.nominal.T)

    def inputs(self, x: np.ndarray, u: np.ndarray) -> Tensor:
        """Normalised inputs [n, di] of states [n, ds] and commands [n, da]."""
        trunk = self._like.trunk
        return torch.tensor((trunk.encoder(x, u) - trunk.mean) / trunk.scale).float()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.decide(inputs, self.b1)

    def decide(self, inputs: Tensor, bias: Tensor) -> Tensor:
        """Outputs with another bias of the first layer, [h] or one for each row [n, h]."""
        hidden = torch.tanh(torch.relu(inputs @ self.w1 + bias) @ self.w2 + self.b2)
        return torch.cat([hidden, inputs, inputs.new_ones(len(inputs), 1)], dim=1) @ self.head

    def whitened(self, head: np.ndarray) -> np.ndarray:
        """Heads [..., nf, ds] on raw features as heads [..., ds, nf] on φ."""
        return np.swapaxes(self._unwhiten @ head, -1, -2)

    def dynamics(self) -> Dynamics:
        """The model with the weights as they are; copies, for some optimizers re-bind them."""
        names = ('w1', 'b1', 'w2', 'b2')
        weights = {n: getattr(self, n).detach().numpy().astype(float) for n in names}
        head = self.whitened(self.head.detach().numpy().astype(float))
        trunk = replace(self._like.trunk, **weights)
        return replace(self._like, trunk=trunk, nominal=np.ascontiguousarray(head))


class Windowed(Baseline):
    """All weights trained by gradients: after every transition one step on the last `WINDOW`."""

    name: ClassVar[str] = ''

    def __init__(self, prior: Prior, seed: int) -> None:
        super().__init__(prior, seed)
        self.network = Network(prior.dynamics)
        self.generator = torch.Generator().manual_seed(seed)
        di, ds = len(prior.dynamics.trunk.mean), len(prior.noise)
        self._inputs, self._targets = torch.zeros(WINDOW, di), torch.zeros(WINDOW, ds)

    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        inputs = self.network.inputs(x[None], u[None])
        target = self.prior.dynamics.target(x, x_next)
        with torch.no_grad():
            residual = target - self.network(inputs)[0].numpy()
        self.noise = self.noise.update(residual**2)
        row = (self.learned - 1) % WINDOW
        self._inputs[row] = inputs[0]
        self._targets[row] = torch.tensor(target)
        count = min(self.learned, WINDOW)
        pick = torch.randperm(count, generator=self.generator)[:BATCH]
        self.descend(self._inputs[pick], self._targets[pick])
        self.controller.adopt(self.network.dynamics())

    def descend(self, inputs: Tensor, targets: Tensor) -> None:
        """One step of the optimizer on inputs [b, di] and targets [b, ds]."""
        raise TypeError('Windowed learns only through one of its optimizers')


def _parameter(values: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float32))
