"""One draw of the weights from the optimizer's posterior."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any

import torch
from torch import Tensor

from .twin import twin


class Draw(Mapping[Tensor, Tensor]):
    """Parameter → sampled tensor, a leaf that gradients go to."""

    def __init__(self, samples: dict[Tensor, Tensor]) -> None:
        self._samples = samples
        self.curvature: dict[Tensor, Tensor] = {}

    def __getitem__(self, parameter: Tensor) -> Tensor:
        return self._samples[parameter]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def values(self) -> ValuesView[Tensor]:
        """The sampled tensors, in the optimizer's order."""
        return self._samples.values()

    def items(self) -> ItemsView[Tensor, Tensor]:
        """Parameters and sampled tensors, in the optimizer's order."""
        return self._samples.items()

    def call(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """`module(*args, **kwargs)` with the sampled weights in place of its parameters."""
        return twin(module, self._samples)(*args, **kwargs)

    def weights(self) -> tuple[Tensor, ...]:
        """The sampled tensors, detached, in the optimizer's order."""
        return tuple(s.detach() for s in self._samples.values())

    def at(self, weights: Iterable[Tensor]) -> Draw:
        """A draw with other values, in the optimizer's order."""
        return Draw(dict(zip(self._samples, weights, strict=True)))

    def add(self, parameter: Tensor, gradient: Tensor, curvature: Tensor) -> None:
        """Add a mean gradient and an observed curvature."""
        sample = self[parameter]
        sample.grad = gradient if sample.grad is None else sample.grad + gradient
        seen = self.curvature.get(parameter)
        self.curvature[parameter] = curvature if seen is None else seen + curvature
