"""Examples that a network learns or remembers, under any likelihood of `dynamics.likelihoods`.

The likelihoods are plain numpy. A loss of theirs is differentiable here because they give its
residual ∂ loss / ∂f: whatever likelihood there is, one formula serves heads and networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dynamics.likelihoods import Likelihood

Network = torch.nn.Module
Read = Callable[[Network, Tensor], Tensor]  # network and inputs [n, ...] to outputs [n, k]


def call(network: Network, inputs: Tensor) -> Tensor:
    """All outputs of a network: how it is read unless something else is said.

    A head of several is read by `lambda network, x: network.heads[2](network.trunk(x))`.
    """
    return network(inputs)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, labels: np.ndarray, likelihood: Likelihood) -> Tensor:
        values = _numpy(f)
        ctx.residual = f.new_tensor(likelihood.residual(values, labels))
        return f.new_tensor(likelihood.loss(values, labels))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][:, None] * ctx.residual, None, None


@dataclass(frozen=True)
class Examples:
    """n inputs with their labels, each standing for `weights` examples.

    Experience replay is a few of many examples with weights N/M; the memory of a K-prior has soft
    labels, which `softened` gives it.
    """

    inputs: Tensor  # [n, ...]
    labels: np.ndarray  # [n, t], as `likelihood` makes them
    likelihood: Likelihood
    weights: Tensor  # [n]
    read: Read = call

    @classmethod
    def of(
        cls, inputs: Tensor, labels: np.ndarray, likelihood: Likelihood, read: Read = call
    ) -> Examples:
        """Examples [n, ...] with labels [n, t], of weight 1.

        Raises:
            ValueError: there is not one label of this likelihood for each input.
        """
        labels = np.asarray(labels, dtype=float)
        width = len(likelihood.soft_label(np.zeros(likelihood.outputs)))
        if labels.shape != (len(inputs), width) or not np.isfinite(labels).all():
            raise ValueError(
                f'labels {labels.shape} do not fit {len(inputs)} inputs under '
                f'{type(likelihood).__name__}: give finite ones [{len(inputs)}, {width}], one '
                'likelihood.label(y) for each'
            )
        return cls(inputs, labels, likelihood, inputs.new_ones(len(inputs)), read)

    def __len__(self) -> int:
        return len(self.inputs)

    def pick(self, index: Tensor | Sequence[int] | slice) -> Examples:
        """Some of the examples, with the weights they have."""
        if not isinstance(index, slice):
            kind = None if len(index) else torch.long  # of none torch makes floats
            index = torch.as_tensor(index, dtype=kind, device=self.inputs.device)
        rows = index if isinstance(index, slice) else index.cpu().numpy()
        return replace(
            self,
            inputs=self.inputs[index],
            labels=self.labels[rows],
            weights=self.weights[index],
        )

    def stand_for(self, total: float) -> Examples:
        """The same examples with weights that sum to `total`: N/M each, if they were equal."""
        return replace(self, weights=self.weights * (total / self.weights.sum()))

    def softened(self, network: Network) -> Examples:
        """With the labels that the network expects: what a K-prior remembers."""
        with torch.no_grad():
            f = self.latent(network)
        return replace(self, labels=self.likelihood.soft_label(_numpy(f)))

    def latent(self, network: Network) -> Tensor:
        """Outputs f [n, k].

        Raises:
            ValueError: `read` gives something else.
        """
        f = self.read(network, self.inputs)
        expected = (len(self), self.likelihood.outputs)
        if f.shape != expected:
            raise ValueError(
                f'the network gives outputs {tuple(f.shape)} where '
                f'{type(self.likelihood).__name__} needs {expected}: give it as many, or a `read` '
                'that picks them'
            )
        return f

    def loss(self, f: Tensor) -> Tensor:
        """−log p(y | f) [n] at outputs f [n, k], without the weights; differentiable once."""
        return _Loss.apply(f, self.labels, self.likelihood)

    def residual(self, f: Tensor) -> Tensor:
        """∂ loss / ∂f [n, k]."""
        return f.new_tensor(self.likelihood.residual(_numpy(f), self.labels))

    def curvature(self, f: Tensor) -> Tensor:
        """Gauss–Newton matrices Λ [n, k, k]."""
        return f.new_tensor(np.array(self.likelihood.curvature(_numpy(f))))


def _numpy(f: Tensor) -> np.ndarray:
    return f.detach().cpu().double().numpy()
