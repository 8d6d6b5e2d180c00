"""The parameters of a network as one vector, in the order in which the optimizer has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..blr.twin import twin


def flat(network: torch.nn.Module, names: Sequence[str] | None = None) -> Tensor:
    """Parameters [p] in order, or those that are named.

    Raises:
        KeyError: the network has no parameter of that name.
    """
    if names is None:
        return torch.cat([p.reshape(-1) for p in network.parameters()])
    parameters = dict(network.named_parameters())
    return torch.cat([parameters[name].reshape(-1) for name in names])


def unflat(network: torch.nn.Module, weights: Tensor) -> dict[Tensor, Tensor]:
    """For every parameter its part of `weights` [p], in its own shape and type."""
    parameters = list(network.parameters())
    parts = weights.split([p.numel() for p in parameters])
    return {p: w.reshape(p.shape).to(p) for p, w in zip(parameters, parts, strict=True)}


def at(network: torch.nn.Module, weights: Tensor) -> torch.nn.Module:
    """The network with `weights` [p] in place of its own, which stay as they are."""
    return twin(network, unflat(network, weights))


def load(network: torch.nn.Module, weights: Tensor) -> None:
    """Give the network the weights [p]."""
    with torch.no_grad():
        for p, w in unflat(network, weights).items():
            p.copy_(w)
