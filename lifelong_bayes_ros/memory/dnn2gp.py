"""A network as a Gaussian process (DNN2GP, Khan et al. 2019).

At weights w*, with J_i = ∂f(x_i)/∂w, residuals r_i and Gauss–Newton curvatures Λ_i of the losses,
the Laplace approximation

    Σ⁻¹ = S₀ + Σ_i J_iᵀ Λ_i J_i

is the posterior of the linear model ỹ_i = J_i w + e_i, e_i ~ N(0, Λ_i⁻¹), with pseudo-outputs
ỹ_i = J_i w* − Λ_i⁻¹ r_i: a Gaussian process with the kernel J(x) Σ J(x′)ᵀ. It gives predictions,
a marginal likelihood to choose settings by, and what leaving an example out would change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..blr import DiagonalGaussian, Gaussian, LowRankGaussian, Posterior
from ..dynamics.likelihoods import Likelihood, Predictive
from .examples import Examples, Network, Read
from .flat import at, flat

Weights = Gaussian | DiagonalGaussian | LowRankGaussian
CHUNK = 64  # inputs whose Jacobians are held at once


def jacobian(network: Network, inputs: Tensor, read: Read) -> tuple[Tensor, Tensor]:
    """Jacobians [n, k, p] and outputs [n, k] of a network, float64."""

    def single(weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        f = read(at(network, weights), x[None])[0]
        return f, f

    weights = flat(network).detach()
    found = torch.func.vmap(torch.func.jacrev(single, has_aux=True), in_dims=(None, 0))
    j, f = found(weights, inputs)
    return j.detach().double(), f.detach().double()


def apply(posterior: Weights, vectors: Tensor) -> Tensor:
    """Σ v [..., p] for vectors [..., p]."""
    if isinstance(posterior, Gaussian):
        return vectors @ posterior.covariance
    if isinstance(posterior, DiagonalGaussian):
        return vectors / posterior.precision
    root = posterior.diagonal.sqrt()
    white = vectors / root
    shrink = posterior.excess / (1 + posterior.excess)
    return (white - (white @ posterior.basis * shrink) @ posterior.basis.T) / root


def outer(posterior: Weights, vectors: Tensor) -> Tensor:
    """V Σ Vᵀ [..., n, n] for V [..., n, p]."""
    return apply(posterior, vectors) @ vectors.transpose(-1, -2)


@dataclass(frozen=True)
class Sensitivity:
    """What leaving each of n examples out would change there (memory-perturbation equation)."""

    leverage: Tensor  # tr(Λ V) [n]: how much the posterior leans on it
    residual: Tensor  # r [n, k]
    deviation: Tensor  # change of f [n, k]
    loss: Tensor  # of the example under the posterior without it [n], nats


@dataclass(frozen=True)
class NetworkProcess:
    """The Gaussian process that a network with a posterior over its weights is."""

    network: Network
    read: Read
    likelihood: Likelihood
    weights: Tensor  # w* [p], float64, where the network is linearised
    posterior: Weights  # its mean is w*, unless it was refined
    evidence: float  # log marginal likelihood of the examples, nats

    def jacobian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Jacobians [n, k, p] and outputs [n, k] at w*."""
        return jacobian(at(self.network, self.weights), inputs, self.read)

    def kernel(self, inputs: Tensor, others: Tensor | None = None) -> Tensor:
        """Posterior covariance [n, k, m, k] of f at inputs [n, ...] and others [m, ...]."""
        first = self.jacobian(inputs)[0]
        second = first if others is None else self.jacobian(others)[0]
        return torch.einsum('nip,mjp->nimj', apply(self.posterior, first), second)

    def latent(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [n, k] and covariance [n, k, k] of f."""
        parts = [self._latent(x)[1:] for x in inputs.split(CHUNK)]
        means, covariances = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(covariances)

    def predict(self, inputs: Tensor) -> Predictive:
        """Predictive of y."""
        mean, covariance = self.latent(inputs)
        return self.likelihood.predict(mean.cpu().numpy(), covariance.cpu().numpy())

    def leverage(self, examples: Examples) -> Tensor:
        """tr(Λ_i J_i Σ J_iᵀ) [n]."""
        return self.sensitivity(examples).leverage

    def sensitivity(self, examples: Examples) -> Sensitivity:
        """Of each example that was learned from, left out alone (Nickl et al. 2023).

        f^(−i) − f = (I − a V Λ)⁻¹ a V r, V = J Σ Jᵀ and a its weight: exact for a linear network
        with a Gaussian likelihood.
        """
        parts = [
            self._sensitivity(examples.pick(slice(start, start + CHUNK)))
            for start in range(0, max(len(examples), 1), CHUNK)  # also of none
        ]
        joined = (torch.cat(field) for field in zip(*parts, strict=True))
        return Sensitivity(*joined)

    def without(self, examples: Examples) -> NetworkProcess:
        """The process after examples were taken out again: natural parameters are subtracted.

        Raises:
            ImproperPosteriorError: they were not learned from.
        """
        removed = replace(examples, weights=-examples.weights)
        network = at(self.network, self.weights)
        posterior, change = _condition(self.posterior, network, self.weights, removed, refine=True)
        return replace(self, posterior=posterior, evidence=self.evidence + change)

    def _latent(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        j, f = self.jacobian(inputs)
        mean = f + j @ (self.posterior.mean - self.weights)
        return j, mean, outer(self.posterior, j)

    def _sensitivity(self, examples: Examples) -> tuple[Tensor, ...]:
        _, f, variance = self._latent(examples.inputs)
        weight = examples.weights.to(f)[:, None, None]
        residual, curvature = examples.residual(f), examples.curvature(f)
        pulled = weight * curvature @ variance
        identity = torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
        left = torch.linalg.solve(identity - pulled, weight * residual[..., None])
        deviation = (variance @ left)[..., 0]
        leverage = torch.diagonal(pulled, dim1=1, dim2=2).sum(dim=1)
        return leverage, residual, deviation, examples.loss(f + deviation)


def laplace(
    network: Network,
    examples: Examples,
    prior: Weights | float,
    refine: bool = False,
) -> NetworkProcess:
    """The process of a network that has learned examples, at its present weights.

    Args:
        network: is copied by value: what it learns later does not matter.
        examples: with true or soft labels; their weights count.
        prior: over its parameters in order, as N(m₀, S₀⁻¹), or the precision δ of N(0, I/δ) with
            the full covariance of the posterior. The posterior has the class of the prior.
        refine: take one step of the Bayesian learning rule with ρ = 1, to the mean of the linear
            model's posterior. Without it the mean stays where the network is, as if it had
            converged.

    Raises:
        ImproperPosteriorError: the weights of examples were negative beyond the prior.
    """
    weights = flat(network).detach().double()
    if not isinstance(prior, Posterior):
        covariance = torch.eye(len(weights), dtype=weights.dtype, device=weights.device) / prior
        prior = Gaussian(torch.zeros_like(weights), covariance)
    posterior, evidence = _condition(prior, network, weights, examples, refine)
    return NetworkProcess(
        network, examples.read, examples.likelihood, weights, posterior, evidence
    )


def _condition(
    prior: Weights, network: Network, weights: Tensor, examples: Examples, refine: bool
) -> tuple[Weights, float]:
    """Posterior after examples, linearised at w*, and what they add to the evidence.

    log p(y) = −Σ loss − ½ |w* − m₀|²_S₀ + ½ log |S₀ Σ| + ½ gᵀ Σ g with g the gradient at w*.
    """
    offset = weights - prior.mean
    gradient = _times(prior, offset)
    evidence = -0.5 * offset @ gradient
    added = _Curvature(prior)
    for start in range(0, len(examples), CHUNK):
        part = examples.pick(slice(start, start + CHUNK))
        j, f = jacobian(network, part.inputs, part.read)
        weight = part.weights.to(f)
        evidence = evidence - weight @ part.loss(f)
        gradient = gradient + torch.einsum('n,nkp,nk->p', weight, j, part.residual(f))
        added.add(j, weight[:, None, None] * part.curvature(f))
    posterior = added.posterior()
    moved = apply(posterior, gradient) if refine else torch.zeros_like(gradient)
    evidence = evidence + posterior.entropy() - prior.entropy() + 0.5 * gradient @ moved
    state = {**posterior.state(), 'mean': weights - moved}
    return type(posterior).from_state(state), float(evidence)


class _Curvature:
    """S₀ + Σ_i J_iᵀ Λ_i J_i, gathered in the form that the prior's precision has."""

    def __init__(self, prior: Weights) -> None:
        self._prior = prior
        self._natural = prior.natural()

    def add(self, j: Tensor, curvature: Tensor) -> None:
        """Take in Jacobians [n, k, p] and curvatures Λ [n, k, k]."""
        n, k, p = j.shape
        eta, precision, *directions = self._natural
        if isinstance(self._prior, LowRankGaussian):
            values, vectors = torch.linalg.eigh(curvature)
            rows = (vectors.transpose(1, 2) @ j).reshape(n * k, p)
            factor, weight = directions
            factor = torch.cat([factor, rows.T], dim=1)
            self._natural = eta, precision, factor, torch.cat([weight, values.reshape(-1)])
            return
        pulled = curvature @ j
        if isinstance(self._prior, DiagonalGaussian):
            self._natural = eta, precision + (j * pulled).sum(dim=(0, 1))
        else:
            rows = j.reshape(n * k, p)
            self._natural = eta, precision + rows.T @ pulled.reshape(n * k, p)

    def posterior(self) -> Weights:
        """With a mean that means nothing."""
        return type(self._prior).from_natural(*self._natural)


def _times(prior: Weights, vector: Tensor) -> Tensor:
    """S₀ v [p]."""
    if isinstance(prior, Gaussian):
        return torch.cholesky_solve(vector[:, None], prior.factor())[:, 0]
    if isinstance(prior, DiagonalGaussian):
        return prior.precision * vector
    _, diagonal, factor, weight = prior.natural()
    return diagonal * vector + factor @ (weight * (factor.T @ vector))
