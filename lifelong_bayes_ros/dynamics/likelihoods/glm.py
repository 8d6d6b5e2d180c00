"""A head for any likelihood: a Bayesian generalised linear model, learned one label at a time.

Every label i leaves a site, natural parameters (η_i, Λ_i) of f = H_i θ that the posterior adds to
its own as the Bayesian learning rule does with ρ = 1 (Khan & Rue 2023, section 3.1):

    Σ⁻¹ = Σ₀⁻¹ + Σ_i H_iᵀ Λ_i H_i,   Σ⁻¹ m = Σ₀⁻¹ m₀ + Σ_i H_iᵀ η_i.

A site is such that mean and covariance of f are those that the label really gives it (expectation
propagation, Minka 2001). What can be added can be taken out: the sites of the last labels are
fitted again, in turn, with what was learned since. One pass alone leaves the posterior of a few
dozen labels wrong by a third of its variance, whichever way the sites are fitted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...blr import Gaussian
from ...errors import UserError
from .base import Likelihood, Predictive

WINDOW = 64  # labels whose sites may change
REFITS = 2  # sites fitted again at every label once the window is full
EARLY = 8  # at most so many before: the fewer labels there are, the more each changes the others
TINY = float(np.finfo(float).tiny) ** 0.5
IMPROPER = 1e-3  # a site is taken out where more than this share of the precision of f remains


@dataclass(frozen=True)
class Site:
    """A label, where it was observed, and what the posterior holds of it."""

    design: np.ndarray  # H [k, n]
    label: np.ndarray  # [t]
    eta: np.ndarray  # [k]
    precision: np.ndarray  # [k, k]


@dataclass(frozen=True)
class Glm:
    """Posterior over θ and the likelihood of what H θ predicts. Immutable."""

    posterior: Gaussian
    likelihood: Likelihood
    sites: tuple[Site, ...] = ()  # of the last labels, the oldest first
    cursor: int = 0  # the site to fit again next

    def latent(self, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [..., k] and covariance [..., k, k] of f at a design [..., k, n]."""
        mean, covariance = (
            self.posterior.mean.cpu().numpy(),
            self.posterior.covariance.cpu().numpy(),
        )
        return design @ mean, design @ covariance @ np.swapaxes(design, -1, -2)

    def predict(self, design: np.ndarray) -> Predictive:
        """Predictive of y at a design [..., k, n]."""
        return self.likelihood.predict(*self.latent(design))

    def update(self, design: np.ndarray, y: Any) -> Glm:
        """The head after observing y at a design [k, n].

        Raises:
            UserError: y is no observation of this likelihood, or the design is not finite.
        """
        return self.absorb(design, self.likelihood.label(y))

    def absorb(self, design: np.ndarray, label: np.ndarray) -> Glm:
        """The head after a label [t], hard or soft, at a design [k, n].

        Raises:
            UserError: the design is not finite.
        """
        if not np.isfinite(design).all():
            raise UserError('the features are not finite: leave this sample out')
        k = self.likelihood.outputs
        work = _Moments.of(self.posterior)
        site = work.fit(
            self.likelihood, Site(np.array(design), label, np.zeros(k), np.zeros((k, k)))
        )
        if not self.likelihood.revisable:
            learned = Glm(work.posterior(self.posterior), self.likelihood)
            likelihood = self.likelihood.learn(label, *learned.latent(design))
            return replace(learned, likelihood=likelihood)
        sites, cursor = [*self.sites, site], self.cursor
        for _ in range(min(EARLY, REFITS * WINDOW // len(sites), len(sites) - 1)):
            cursor %= len(sites) - 1
            sites[cursor] = work.fit(self.likelihood, sites[cursor])
            cursor += 1
        surplus = max(len(sites) - WINDOW, 0)
        posterior = work.posterior(self.posterior)
        return Glm(posterior, self.likelihood, tuple(sites[surplus:]), max(cursor - surplus, 0))

    def settle(self, sweeps: int = 3) -> Glm:
        """The head after fitting all sites of the window again: for when there is time."""
        work, sites = _Moments.of(self.posterior), list(self.sites)
        for _ in range(sweeps):
            sites = [work.fit(self.likelihood, site) for site in sites]
        return replace(self, posterior=work.posterior(self.posterior), sites=tuple(sites))

    def widen(self, towards: torch.Tensor, share: float) -> Glm:
        """Covariance moved towards another one [n, n]: forgetting, as of a random walk.

        No site can be fitted again after that: what is half forgotten cannot be taken out whole.
        """
        return Glm(self.posterior.widen(towards, share), self.likelihood)

    def nbytes(self, full: bool = False) -> int:
        """Memory that it takes; `full`: with as many sites as it will ever have."""
        n, k = self.posterior.size, self.likelihood.outputs
        t = len(self.likelihood.soft_label(np.zeros(k)))
        most = WINDOW if self.likelihood.revisable else 0
        return 8 * (n + n * n + (most if full else len(self.sites)) * (k * n + t + k + k * k))

    @property
    def full(self) -> bool:
        """Whether the next label will make an old site final."""
        return len(self.sites) == WINDOW


@dataclass
class _Moments:
    """Mean and covariance of θ while sites are fitted."""

    mean: np.ndarray  # [n]
    covariance: np.ndarray  # [n, n]

    @classmethod
    def of(cls, posterior: Gaussian) -> _Moments:
        return cls(posterior.mean.cpu().numpy(), posterior.covariance.cpu().numpy())

    def posterior(self, like: Gaussian) -> Gaussian:
        """As a posterior on the device of another."""
        covariance = 0.5 * (self.covariance + self.covariance.T)
        device = like.mean.device
        return Gaussian(
            torch.tensor(self.mean, device=device), torch.tensor(covariance, device=device)
        )

    def fit(self, likelihood: Likelihood, site: Site) -> Site:
        """Fit a site, again or, where it holds zeros, for the first time."""
        h = site.design
        gain = self.covariance @ h.T
        mean, covariance = h @ self.mean, h @ gain
        # f of no feature, or of the same features twice, has no density.
        floor = 1e-12 * np.trace(covariance) + TINY
        covariance = 0.5 * (covariance + covariance.T) + floor * np.eye(len(mean))
        precision = _inverse(covariance)
        without = precision - site.precision
        if not _positive(without - IMPROPER * precision):
            return site  # forgotten in the meantime: no longer there to be taken out
        cavity, eta = _inverse(without), precision @ mean - site.eta
        moved, after = likelihood.match(site.label, cavity @ eta, cavity)
        inverse = _inverse(after)
        fitted = replace(site, precision=inverse - without, eta=inverse @ moved - eta)
        # θ given f stays as it was: project the moments of f onto θ.
        self.mean = self.mean + gain @ (precision @ (moved - mean))
        change = precision @ (after - covariance) @ precision
        self.covariance = self.covariance + gain @ change @ gain.T
        return fitted


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return 1 / matrix if len(matrix) == 1 else np.linalg.inv(matrix)


def _positive(matrix: np.ndarray) -> bool:
    least = matrix[0, 0] if len(matrix) == 1 else np.linalg.eigvalsh(matrix)[0]
    return bool(least > 0)
