"""One step of the Bayesian learning rule on full Gaussians and on mixtures of them.

For a loss ℓ(θ), the negative log of likelihood times prior, and b = ℓ + log q, component c moves
by the natural gradient of its own expectations (Lin et al. 2019, 2020):

    Λ_c ← Λ_c + ρ G + ρ²/2 G Λ_c⁻¹ G,    G = E_c[∇²b]
    m_c ← m_c − ρ Λ_c⁻¹ E_c[∇b]
    log(w_c / w_C) ← log(w_c / w_C) − ρ (E_c[b] − E_C[b])

The responsibilities of the components enter through log q and its derivatives. With one component
G = E[∇²ℓ] − Λ and E[∇b] = E[∇ℓ]: for a quadratic loss, ρ = 1 without the ρ² term is the exact
posterior in one step. The ρ² term keeps Λ positive definite whatever G.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .gaussian import Gaussian
from .mixture import Mixture
from .posterior import Posterior, cholesky


def natural_step(
    q: Gaussian | Mixture,
    loss: Callable[[Tensor], Tensor],
    rho: float,
    *,
    pairs: int = 32,
    positive: bool = True,
    generator: torch.Generator | None = None,
) -> Gaussian | Mixture:
    """The posterior after one step.

    Args:
        q: a full Gaussian, or a mixture of full Gaussians.
        loss: θ [n] to ℓ [], twice differentiable by `torch.func`.
        rho: step size in (0, 1].
        pairs: antithetic pairs that each expectation is taken over.
        positive: add the ρ² term.
        generator: of the draws.

    Raises:
        ValueError: rho is out of range.
        ImproperPosteriorError: a precision is not positive definite (without `positive`).
    """
    if not 0 < rho <= 1:
        raise ValueError(f'rho={rho} must be in (0, 1]')
    mixture = q if isinstance(q, Mixture) else Mixture(q.mean.new_ones(1), [q])
    density = _log_density(mixture)

    def b(theta: Tensor) -> Tensor:
        return loss(theta) + density(theta)

    components, heights = [], []
    for c in mixture.components:
        draws = c.antithetic(pairs, generator)
        gradient = torch.func.vmap(torch.func.grad(b))(draws).mean(dim=0)
        hessian = torch.func.vmap(torch.func.hessian(b))(draws).mean(dim=0)
        heights.append(torch.func.vmap(b)(draws).mean())
        components.append(_moved(c, gradient, hessian, rho, positive))
    if not isinstance(q, Mixture):
        return components[0]
    log_weights = mixture.weights.log() - rho * torch.stack(heights)
    return Mixture(torch.softmax(log_weights, dim=0), components)


def elbo(
    q: Posterior,
    loss: Callable[[Tensor], Tensor],
    draws: int = 4096,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Evidence lower bound −E_q[ℓ + log q], nats, by antithetic draws."""
    theta = q.antithetic(draws // 2, generator)
    return -(torch.func.vmap(loss)(theta) + q.log_prob(theta)).mean()


def _moved(c: Gaussian, gradient: Tensor, g: Tensor, rho: float, positive: bool) -> Gaussian:
    _, precision = c.natural()
    moved = precision + rho * g
    if positive:
        moved = moved + 0.5 * rho**2 * g @ c.covariance @ g
    covariance = torch.cholesky_inverse(cholesky(moved))
    return Gaussian(c.mean - rho * covariance @ gradient, covariance)


def _log_density(mixture: Mixture) -> Callable[[Tensor], Tensor]:
    """log q in operations that `torch.func` differentiates, the factors taken once."""
    means = torch.stack([c.mean for c in mixture.components])
    precisions = torch.stack([c.natural()[1] for c in mixture.components])
    zero = torch.zeros_like(means[0])
    heights = torch.stack([w.log() + c.log_prob(c.mean + zero) for w, c in mixture._parts()])

    def density(theta: Tensor) -> Tensor:
        d = theta - means
        return torch.logsumexp(heights - 0.5 * torch.einsum('ci,cij,cj->c', d, precisions, d), 0)

    return density
