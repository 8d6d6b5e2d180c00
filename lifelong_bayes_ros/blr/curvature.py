"""Estimators of the data curvature that the rule learns a precision from, behind one interface.

Each leaves, for one draw θ of the weights, the mean gradient and what it needs for f:

- Reparameterised: f = N s (θ − m) g. Free, but its standard deviation is about √(N s) std(g).
- SquaredGradient: f = g² of the mini-batch. Free; shrinks as 1 / batch.
- PerExample: f = mean of gᵢ². Needs the gradient of every example.
- GaussNewton: f = mean of diag(Jᵢᵀ Hᵢ Jᵢ). Needs a Jacobian per example; no noise but the batch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import kernel

if TYPE_CHECKING:
    from .draw import Draw

Predict = Callable[['Draw', Tensor], Tensor]  # inputs [b, ...] to outputs [b, ...]
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs and targets to losses of examples [b]


class Curvature(ABC):
    """Estimator of the data curvature f per example."""

    mode: int  # of the kernel
    probe = 'gaussian'
    antithetic = False

    @abstractmethod
    def observe(
        self, draw: Draw, predict: Predict, loss: Loss, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Leave the gradient of the mean loss, and f if it is observed, in `draw`.

        Returns the mean loss [], detached.
        """

    def estimate(self, offset: Tensor, gradient: Tensor) -> Tensor:
        """f from N s (θ − m) and g, where it follows from these."""
        raise RuntimeError(
            f'{type(self).__name__} observes the curvature: call optimizer.evaluate(...), or '
            'give draw.curvature[parameter]'
        )


class _Backward(Curvature):
    """Estimators that need one backward pass and nothing else."""

    def observe(
        self, draw: Draw, predict: Predict, loss: Loss, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Backward pass of the mean loss."""
        mean = loss(predict(draw, inputs), targets).mean()
        mean.backward()
        return mean.detach()


@dataclass(frozen=True)
class Reparameterised(_Backward):
    """f = N s (θ − m) g, by the theorem of Price (Lin et al. 2020).

    With `probe='rademacher'`, θ = m ± 1/√(N s): on a quadratic with a diagonal Hessian f is exact
    (Hutchinson). With `antithetic`, every second draw of a step mirrors the one before.
    """

    probe: str = 'gaussian'
    antithetic: bool = False
    mode = kernel.PRICE

    def __post_init__(self) -> None:
        if self.probe not in ('gaussian', 'rademacher'):
            raise ValueError(f"probe={self.probe!r} must be 'gaussian' or 'rademacher'")

    def estimate(self, offset: Tensor, gradient: Tensor) -> Tensor:
        """N s (θ − m) g."""
        return offset * gradient


@dataclass(frozen=True)
class SquaredGradient(_Backward):
    """f = g², the curvature of Adam and Vadam (Khan et al. 2018)."""

    mode = kernel.SQUARED

    def estimate(self, offset: Tensor, gradient: Tensor) -> Tensor:
        """g²."""
        return gradient.square()


@dataclass(frozen=True)
class PerExample(Curvature):
    """f = mean of squared gradients of single examples (VOGN, Khan et al. 2018)."""

    mode = kernel.OBSERVED

    def observe(
        self, draw: Draw, predict: Predict, loss: Loss, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Gradients of all examples in one vectorised pass."""

        def single(weights: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
            return loss(predict(draw.at(weights), x[None]), y[None])[0]

        both = torch.func.vmap(torch.func.grad_and_value(single), in_dims=(None, 0, 0))
        gradients, losses = both(draw.weights(), inputs, targets)
        for p, g in zip(draw, gradients, strict=True):
            draw.add(p, g.mean(dim=0), g.square().mean(dim=0))
        return losses.mean()


@dataclass(frozen=True)
class GaussNewton(Curvature):
    """f = diagonal of the generalised Gauss–Newton matrix, mean over examples.

    Exact for a model that is linear in its weights; never negative for a convex loss.
    """

    mode = kernel.OBSERVED

    def observe(
        self, draw: Draw, predict: Predict, loss: Loss, inputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Gradient of the mean loss, and Jacobians of all examples in one vectorised pass."""

        def outputs(weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
            return predict(draw.at(weights), x[None])[0].reshape(-1)

        def single(out: Tensor, like: Tensor, y: Tensor) -> Tensor:
            return loss(out.reshape(like.shape)[None], y[None])[0]

        def diagonal(weights: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            like = predict(draw.at(weights), x[None])[0]
            hessian = torch.func.hessian(single)(like.reshape(-1), like, y)
            jacobians = torch.func.jacrev(outputs)(weights, x)
            return tuple(
                torch.einsum('k...,kl,l...->...', jacobian, hessian, jacobian)
                for jacobian in jacobians
            )

        def mean_loss(weights: tuple[Tensor, ...]) -> Tensor:
            return loss(predict(draw.at(weights), inputs), targets).mean()

        weights = draw.weights()
        gradients, value = torch.func.grad_and_value(mean_loss)(weights)
        every = torch.func.vmap(diagonal, in_dims=(None, 0, 0))(weights, inputs, targets)
        for p, g, f in zip(draw, gradients, every, strict=True):
            draw.add(p, g, f.mean(dim=0))
        return value
