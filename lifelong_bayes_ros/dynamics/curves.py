"""Curved families of plants: from few latents to the coefficients of a basis.

A payload of m kilograms moves the head along a curve, not a line: of the columns that span it, the
later ones follow from the first. What is learned are the latents z, of which there are as many as
things can change, and perhaps some for what the curve leaves open:

    c(z) = z L + monomials(z) C,

with the monomials of degree two and three of the first latents, each held within `low` and `high`,
for beyond what was fitted a polynomial says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

LEADS = 3  # latents that bend a family
#: Factors of each monomial, by number of the latent; LEADS is the number one.
FACTORS = np.array(
    [
        factors + (LEADS,) * (3 - degree)
        for degree in (2, 3)
        for factors in combinations_with_replacement(range(LEADS), degree)
    ]
)
_UNIT = np.eye(LEADS + 1)[:, :LEADS]


@dataclass(frozen=True)
class Curves:
    """Families of S hypotheses, of k latents and r columns each."""

    straight: np.ndarray  # L [S, k, r]
    bent: np.ndarray  # C [S, monomials, r]
    low: np.ndarray  # [S, LEADS]
    high: np.ndarray  # [S, LEADS]

    @classmethod
    def flat(cls, count: int, rank: int) -> Curves:
        """Families that are no curves: every column has a latent of its own."""
        reach = np.full((count, LEADS), np.inf)
        straight = np.tile(np.eye(rank), (count, 1, 1))
        return cls(straight, np.zeros((count, len(FACTORS), rank)), -reach, reach)

    @property
    def latents(self) -> int:
        """Number of latents k."""
        return self.straight.shape[1]

    def pick(self, rows: np.ndarray) -> Curves:
        """Those of some hypotheses; one may come more than once."""
        return Curves(self.straight[rows], self.bent[rows], self.low[rows], self.high[rows])

    def coefficients(self, z: np.ndarray) -> np.ndarray:
        """c(z) [S, r] at latents z [S, k]."""
        return (z[:, None] @ self.straight + monomials(self._held(z))[:, None] @ self.bent)[:, 0]

    def slopes(self, z: np.ndarray) -> np.ndarray:
        """∂c/∂z [S, k, r] at latents z [S, k]."""
        held = self._held(z)
        turn = derivatives(held).transpose(0, 2, 1) @ self.bent
        lead = z[:, :LEADS]
        turn[:, : lead.shape[1]][lead != held[:, : lead.shape[1]]] = 0.0
        slope = self.straight.copy()
        slope[:, :LEADS] += turn[:, : lead.shape[1]]
        return slope

    def _held(self, z: np.ndarray) -> np.ndarray:
        lead = z[:, :LEADS]
        lead = np.pad(lead, ((0, 0), (0, LEADS - lead.shape[1])))
        return np.clip(lead, self.low, self.high)


def monomials(lead: np.ndarray) -> np.ndarray:
    """Monomials of degree two and three [n, monomials] of latents [n, LEADS]."""
    return np.prod(_factors(lead), axis=2)


def derivatives(lead: np.ndarray) -> np.ndarray:
    """Their derivatives [n, monomials, LEADS]."""
    a, b, c = np.moveaxis(_factors(lead), 2, 0)
    each = zip((b * c, a * c, a * b), FACTORS.T, strict=True)
    return sum(others[:, :, None] * _UNIT[factor] for others, factor in each)


def _factors(lead: np.ndarray) -> np.ndarray:
    one = np.ones((len(lead), 1))
    return np.concatenate([lead, one], axis=1)[:, FACTORS]
