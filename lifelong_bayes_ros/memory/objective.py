"""One objective for lifelong learning, a sum of terms in nats.

Each method of the literature is a choice of terms. With w the weights, w* those after the old
data, M a memory of m of N old examples, and soft labels the predictions at w*:

- likelihood: `Loss(new)`; experience replay: + `Loss(M.stand_for(N))`.
- EWC (Kirkpatrick et al. 2017): Loss(new) + `Quadratic.of(posterior)`, one for each old task. The
  posterior is what the BLR optimizer holds, `optimizer.posterior()`, or what `dnn2gp.laplace`
  finds. Online EWC (Schwarz et al. 2018): a single one, the last posterior being the prior.
- K-prior (Khan & Swaroop 2021): K = `Loss(M.softened(network).stand_for(N))` +
  `Quadratic.isotropic(δ, w*)`. Add data: K + Loss(new). Remove data that M holds: K −
  Loss(removed). Change the regulariser: K + Quadratic.isotropic(δ′ − δ, 0). Change the model
  class: the first term of K for the new network, and a Quadratic over the parameters that both
  have, by name.
- FROMP (Pan et al. 2020): Loss(new) · 1/τ + `FunctionPrior.of(...)` for each old task.
- Error correction (Daxberger et al. 2023): K + `Correction.of(network, examples)`, the difference
  that true labels make; with the whole past in memory it is exact. For M of N old examples with
  their labels: K + `Correction.of(network, M.stand_for(N))`. At w*, K − `Correction.of(network,
  removed)` has the right gradient though M holds none of the removed; but a line has no bottom, so
  to minimise it K must hold the network there, by soft labels of the removed for their neighbours.

Terms add, subtract and scale. An objective is called with a network, or with an optimizer's twin
of it that holds a draw of the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..blr import DiagonalGaussian, Gaussian, LowRankGaussian
from .dnn2gp import Weights, jacobian, outer
from .examples import Examples, Network, Read, call
from .flat import flat


class Term(ABC):
    """A part of an objective."""

    @abstractmethod
    def __call__(self, network: Network) -> Tensor:
        """Value [], nats, differentiable in the parameters of the network."""

    def batch(self, size: int, generator: torch.Generator | None = None) -> Term:
        """A random estimate of the term from at most `size` examples, right on average.

        Raises:
            ValueError: there are examples and none are wanted.
        """
        return self

    def __add__(self, other: Term) -> Objective:
        return Objective((*_parts(self), *_parts(other)))

    def __radd__(self, other: int) -> Objective:
        """So that `sum`, which begins at 0, takes terms."""
        return Objective(_parts(self)) if other == 0 else NotImplemented

    def __mul__(self, factor: float) -> Objective:
        return Objective(tuple((factor * f, term) for f, term in _parts(self)))

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Term) -> Objective:
        return self + -other

    __rmul__ = __mul__


@dataclass(frozen=True)
class Objective(Term):
    """Σ factor · term."""

    parts: tuple[tuple[float, Term], ...]

    def __call__(self, network: Network) -> Tensor:
        """The sum [], nats."""
        return sum(factor * term(network) for factor, term in self.parts)

    def batch(self, size: int, generator: torch.Generator | None = None) -> Objective:
        """Every term from at most `size` of its examples."""
        return Objective(tuple((f, term.batch(size, generator)) for f, term in self.parts))


def _parts(term: Term) -> tuple[tuple[float, Term], ...]:
    return term.parts if isinstance(term, Objective) else ((1.0, term),)


@dataclass(frozen=True)
class Loss(Term):
    """Σ_i weight_i · −log p(y_i | f(x_i)): hard labels or soft ones."""

    examples: Examples

    def __call__(self, network: Network) -> Tensor:
        """The sum [], nats."""
        f = self.examples.latent(network)
        return self.examples.weights.to(f) @ self.examples.loss(f)

    def batch(self, size: int, generator: torch.Generator | None = None) -> Loss:
        """Over `size` examples, drawn without replacement."""
        picked = _batch(self.examples, size, generator)
        return self if picked is self.examples else Loss(picked)


@dataclass(frozen=True)
class Correction(Term):
    """Σ_i weight_i · r_iᵀ f(x_i), r_i the residuals [n, k] of the labels at the old weights.

    What a soft label leaves out of the gradient of the past (Daxberger et al. 2023): while the
    network's Jacobian is that of the old weights it is constant, and the old prior's gradient
    cancels it; a network's Jacobian moves. It is Loss(examples) − Loss(softened) up to a constant
    for a canonical link, and its tangent at the old weights for the heteroscedastic likelihood,
    where that difference is unbounded when it is subtracted.
    """

    examples: Examples
    residuals: Tensor  # [n, k]

    @classmethod
    def of(cls, network: Network, examples: Examples) -> Correction:
        """For examples with their true labels, at the old weights."""
        with torch.no_grad():
            return cls(examples, examples.residual(examples.latent(network)))

    def __call__(self, network: Network) -> Tensor:
        """The sum [], nats."""
        f = self.examples.latent(network)
        return self.examples.weights.to(f) @ (self.residuals * f).sum(dim=1)


def _batch(examples: Examples, size: int, generator: torch.Generator | None) -> Examples:
    n = len(examples)
    if n <= size:
        return examples
    if size < 1:
        raise ValueError(f'a batch of {size}: give at least 1 example')
    picked = examples.pick(torch.randperm(n, generator=generator)[:size])
    return replace(picked, weights=picked.weights * (n / size))


@dataclass(frozen=True)
class Quadratic(Term):
    """½ (w − m)ᵀ S (w − m): the prior N(m, S⁻¹) up to a constant; S may take away, too.

    S = diag(`diagonal`) + `factor` diag(`weight`) `factor`ᵀ, or is `full`.
    """

    mean: Tensor  # m [p]
    diagonal: Tensor | None = None  # [p] or []
    factor: Tensor | None = None  # [p, r]
    weight: Tensor | None = None  # [r]
    full: Tensor | None = None  # [p, p]
    names: tuple[str, ...] | None = None  # of the parameters it is about; None: all, in order

    @classmethod
    def of(cls, posterior: Weights, names: Sequence[str] | None = None) -> Quadratic:
        """From a posterior over all parameters in order, or over those that are named."""
        names = None if names is None else tuple(names)
        if isinstance(posterior, DiagonalGaussian):
            return cls(posterior.mean, diagonal=posterior.precision, names=names)
        if isinstance(posterior, LowRankGaussian):
            _, diagonal, factor, weight = posterior.natural()
            return cls(posterior.mean, diagonal, factor, weight, names=names)
        if isinstance(posterior, Gaussian):
            return cls(posterior.mean, full=posterior.natural()[1], names=names)
        raise TypeError(
            f'a {type(posterior).__name__} has no quadratic: give a Gaussian posterior'
        )

    @classmethod
    def isotropic(
        cls, precision: float, about: Tensor, names: Sequence[str] | None = None
    ) -> Quadratic:
        """½ precision |w − about|²; a negative one takes a regulariser away."""
        names = None if names is None else tuple(names)
        about = about.detach().double()
        return cls(about, diagonal=about.new_tensor(precision), names=names)

    def __call__(self, network: Network) -> Tensor:
        """The value [], nats."""
        offset = flat(network, self.names).to(self.mean) - self.mean
        value = offset.new_zeros(())
        if self.full is not None:
            value = value + offset @ self.full @ offset
        if self.diagonal is not None:
            value = value + (self.diagonal * offset.square()).sum()
        if self.factor is not None:
            value = value + (offset @ self.factor).square() @ self.weight
        return 0.5 * value


@dataclass(frozen=True)
class FunctionPrior(Term):
    """½ Σ_c (f_c − m_c)ᵀ K_c⁻¹ (f_c − m_c) over memorable points, one Gaussian per output c.

    K_c = J_c Σ J_cᵀ is the posterior of the network as a Gaussian process (DNN2GP, Khan et al.
    2019), so that points that belong together hold each other (Pan et al. 2020). The outputs are
    what `read` reads: probabilities as in the paper, or the latent f.
    """

    inputs: Tensor  # [n, ...]
    mean: Tensor  # [n, k]
    factors: Tensor  # Cholesky factors of K_c [k, n, n]
    read: Read

    @classmethod
    def of(
        cls,
        network: Network,
        posterior: Weights,
        inputs: Tensor,
        read: Read = call,
        jitter: float = 1e-6,
    ) -> FunctionPrior:
        """At the weights of the network, with the posterior over them.

        Args:
            network: has learned the old data.
            posterior: over its parameters in order.
            inputs: memorable points [n, ...].
            read: outputs to hold; its Jacobian makes the kernel.
            jitter: added to the diagonal, as a share of the largest variance.

        Raises:
            ValueError: more points than the kernel can tell apart; raise the jitter.
        """
        j, mean = jacobian(network, inputs, read)
        kernel = outer(posterior, j.transpose(0, 1))
        diagonal = torch.diagonal(kernel, dim1=1, dim2=2)
        diagonal += jitter * diagonal.amax(dim=1, keepdim=True)
        factors, failed = torch.linalg.cholesky_ex(kernel)
        if bool(failed.any()):
            raise ValueError(
                f'the kernel of {len(inputs)} points is singular with jitter={jitter}: raise it'
            )
        return cls(inputs, mean, factors, read)

    def __call__(self, network: Network) -> Tensor:
        """The sum [], nats."""
        offset = (self.read(network, self.inputs).to(self.mean) - self.mean).T[..., None]
        return (
            0.5 * torch.linalg.solve_triangular(self.factors, offset, upper=False).square().sum()
        )
