"""The regime library and the Bayesian filter over it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..dynamics.head import Head
from .reservoir import Reservoir

NOMINAL = 'nominal'
NEW = 'new'


@dataclass(frozen=True)
class Regime:
    """A remembered condition of the robot: its head and a sample of its transitions."""

    name: str
    head: Head
    reservoir: Reservoir

    def nbytes(self) -> int:
        """Memory that it takes."""
        posterior = self.head.posterior
        floats = posterior.mean.numel() + posterior.covariance.numel()
        samples = sum(
            s.x.nbytes + s.u.nbytes + s.past.nbytes + s.x_next.nbytes
            for s in self.reservoir.samples
        )
        return 8 * floats + samples


@dataclass
class Library:
    """Regimes by index. Entry 0 is the frozen nominal plant and is never overwritten."""

    regimes: list[Regime]
    named: int = 0  # names given so far; names are never used twice

    @property
    def names(self) -> list[str]:
        """Names of the regimes, in order."""
        return [r.name for r in self.regimes]

    def store(self, head: Head, reservoir: Reservoir) -> int:
        """Add a regime; returns its index."""
        self.named += 1
        self.regimes.append(Regime(f'r{self.named}', head, reservoir))
        return len(self.regimes) - 1

    def commit(self, index: int, head: Head) -> None:
        """Replace the head of a stored regime by what has been learned since."""
        if index > 0:
            old = self.regimes[index]
            self.regimes[index] = Regime(old.name, head, old.reservoir)

    def nbytes(self) -> int:
        """Memory that all regimes take."""
        return sum(r.nbytes() for r in self.regimes)


@dataclass
class RegimeFilter:
    """Forward filter p(regime | history) with a hazard rate, over the library and `new`."""

    hazard: float = 0.01
    probabilities: dict[str, float] = field(default_factory=lambda: {NOMINAL: 1.0, NEW: 0.0})

    def update(self, evidence: dict[str, float]) -> None:
        """One step with the log evidence of every hypothesis (nats)."""
        names = list(evidence)
        prior = np.array([self.probabilities.get(n, 0.0) for n in names])
        prior = prior / prior.sum() if prior.sum() > 0 else np.full(len(names), 1 / len(names))
        prior = (1 - self.hazard) * prior + self.hazard / len(names)
        log = np.log(prior) + np.array([evidence[n] for n in names])
        weight = np.exp(log - log.max())
        self.probabilities = dict(zip(names, (weight / weight.sum()).tolist(), strict=True))

    def rename(self, old: str, new: str) -> None:
        """Hand the probability of one hypothesis to another, e.g. `new` to a stored regime."""
        moved = self.probabilities.pop(old, 0.0)
        self.probabilities[new] = self.probabilities.get(new, 0.0) + moved
        self.probabilities.setdefault(NEW, 0.0)
