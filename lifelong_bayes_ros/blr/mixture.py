"""Mixture of Gaussians: several explanations held at once.

A mixture is no exponential family, but its joint with the component's index is (Lin et al. 2019):
λ = (log odds of the weights, λ of every component). Products with mixtures and quotients by
single Gaussians are again mixtures, component by component, each weighted by its normaliser
∫ q_i r_j dθ = exp(A(λ_i + λ_j) − A(λ_i) − A(λ_j)). Entropy and KL have no closed form: they are
means over fixed draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .diagonal import DiagonalGaussian
from .gaussian import Gaussian
from .posterior import Posterior, proper

DRAWS = 8192  # of entropy and KL: a standard error near 0.01 nats

Component = DiagonalGaussian | Gaussian


class Mixture(Posterior):
    """q(θ) = Σ_c w_c q_c(θ) of Gaussians of one class."""

    def __init__(self, weights: Tensor, components: Sequence[Component]) -> None:
        """From weights [c], which are normalised, and as many components.

        Raises:
            ValueError: number, class or size of the components differ.
            ImproperPosteriorError: a weight is not positive.
        """
        kinds = {(type(c), c.size) for c in components}
        if len(kinds) != 1 or weights.shape != (len(components),):
            named = sorted(f'{kind.__name__} of {n}' for kind, n in kinds)
            raise ValueError(
                f'weights {tuple(weights.shape)} and {len(components)} components ({named}) do '
                'not fit: give as many weights as components of one class and size'
            )
        proper(weights, 'a weight')
        self.weights = weights / weights.sum()
        self.components = tuple(components)

    @property
    def size(self) -> int:
        """Number of parameters n."""
        return self.components[0].size

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws [count, n]."""
        return self._draw(count, generator)[0]

    def antithetic(self, pairs: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws [2 · pairs, n]; each mirrored about the mean of the component it came from."""
        draws, index = self._draw(pairs, generator)
        centres = torch.stack([c.mean for c in self.components])[index]
        return torch.cat([draws, 2 * centres - draws])

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density [...] at θ [..., n]."""
        return torch.logsumexp(self._joint(theta), dim=0)

    def responsibilities(self, theta: Tensor) -> Tensor:
        """Probability of every component [c, ...] given θ [..., n]."""
        return torch.softmax(self._joint(theta), dim=0)

    def entropy(self) -> Tensor:
        """Entropy, nats, by Monte Carlo."""
        return -self.log_prob(self._fixed_draws()).mean()

    def kl(self, other: Posterior) -> Tensor:
        """KL(self ‖ other) by Monte Carlo; `other` may be any posterior of the same size."""
        draws = self._fixed_draws()
        return (self.log_prob(draws) - other.log_prob(draws)).mean()

    def natural(self) -> tuple[Tensor, ...]:
        """(log(w_c / w_last) [c − 1], the components' natural parameters, stacked)."""
        log_weights = self.weights.log()
        stacks = zip(*(c.natural() for c in self.components), strict=True)
        return log_weights[:-1] - log_weights[-1], *(torch.stack(s) for s in stacks)

    @classmethod
    def from_natural(cls, log_odds: Tensor, eta: Tensor, precision: Tensor) -> Mixture:
        """From log odds [c − 1], Λm [c, n] and Λ [c, n] (diagonal) or [c, n, n] (full)."""
        kind = DiagonalGaussian if precision.ndim == 2 else Gaussian
        weights = torch.softmax(torch.cat([log_odds, log_odds.new_zeros(1)]), dim=0)
        parts = zip(eta, precision, strict=True)
        return cls(weights, [kind.from_natural(e, p) for e, p in parts])

    def moments(self) -> tuple[Tensor, ...]:
        """(w_c [c − 1], w_c times the components' mean parameters, stacked)."""
        stacks = zip(*(c.moments() for c in self.components), strict=True)
        joint = [
            torch.stack([w * m for w, m in zip(self.weights, s, strict=True)]) for s in stacks
        ]
        return self.weights[:-1], *joint

    def multiply(
        self, other: Mixture | Component, divide: Mixture | Component | None = None
    ) -> Mixture:
        """Product with a mixture or Gaussian, divided by a Gaussian."""
        parts = [(w * v, p, q) for w, p in self._parts() for v, q in _as_mixture(other)._parts()]
        products = [(w, p, q, p.multiply(q)) for w, p, q in parts]
        log_weights = torch.stack(
            [
                w.log() + r.log_partition() - p.log_partition() - q.log_partition()
                for w, p, q, r in products
            ]
        )
        product = _normalised(log_weights, [r for *_, r in products])
        return product if divide is None else product.divide(divide)

    def divide(self, other: Mixture | Component) -> Mixture:
        """Quotient by a Gaussian.

        Raises:
            ValueError: `other` has several components: the quotient is no mixture.
        """
        parts = list(_as_mixture(other)._parts())
        if len(parts) != 1:
            raise ValueError(
                f'a mixture of {len(parts)} components cannot be divided by: give one Gaussian'
            )
        q = parts[0][1]
        quotients = [(w, p, p.divide(q)) for w, p in self._parts()]
        log_weights = torch.stack(
            [w.log() + r.log_partition() - p.log_partition() for w, p, r in quotients]
        )
        return _normalised(log_weights, [r for *_, r in quotients])

    def state(self) -> dict[str, Tensor]:
        """Weights and the components' states, stacked."""
        states = [c.state() for c in self.components]
        stacked = {name: torch.stack([s[name] for s in states]) for name in states[0]}
        return {'weights': self.weights} | stacked

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Mixture:
        """From weights and stacked states."""
        kind = DiagonalGaussian if 'precision' in state else Gaussian
        names = [name for name in state if name != 'weights']
        count = len(state['weights'])
        parts = [kind.from_state({n: state[n][i] for n in names}) for i in range(count)]
        made = cls(state['weights'], parts)
        made.weights = state['weights']  # normalising again would round
        return made

    def _parts(self) -> zip:
        return zip(self.weights, self.components, strict=True)

    def _joint(self, theta: Tensor) -> Tensor:
        return torch.stack([w.log() + c.log_prob(theta) for w, c in self._parts()])

    def _draw(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        index = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        every = torch.stack([c.sample(count, generator) for c in self.components])
        return every[index, torch.arange(count, device=index.device)], index

    def _fixed_draws(self) -> Tensor:
        generator = torch.Generator(self.weights.device).manual_seed(0)
        return self.sample(DRAWS, generator)


def _as_mixture(posterior: Mixture | Component) -> Mixture:
    if isinstance(posterior, Mixture):
        return posterior
    return Mixture(posterior.mean.new_ones(1), [posterior])


def _normalised(log_weights: Tensor, components: list[Component]) -> Mixture:
    return Mixture(torch.softmax(log_weights, dim=0), components)
