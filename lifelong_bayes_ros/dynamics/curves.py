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
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

LEADS = 3  # latents that bend a family
PAIRS = np.array(list(combinations_with_replacement(range(LEADS), 2)))
TRIPLES = np.array(list(combinations_with_replacement(range(LEADS), 3)))
MONOMIALS = len(PAIRS) + len(TRIPLES)
_PAIR_OF = {tuple(p): i for i, p in enumerate(PAIRS.tolist())}
_FIRST_TWO = np.array([_PAIR_OF[tuple(t[:2])] for t in TRIPLES.tolist()])


@dataclass(frozen=True)
class Curves:
    """Families of S hypotheses, of k ≥ LEADS latents and r columns each."""

    straight: np.ndarray  # L [S, k, r]
    bent: np.ndarray  # C [S, MONOMIALS, r]
    low: np.ndarray  # [S, LEADS]
    high: np.ndarray  # [S, LEADS]

    @classmethod
    def flat(cls, count: int, rank: int) -> Curves:
        """Families that are no curves: every column has a latent of its own."""
        reach = np.full((count, LEADS), np.inf)
        straight = np.tile(np.eye(max(rank, LEADS), rank), (count, 1, 1))
        return cls(straight, np.zeros((count, MONOMIALS, rank)), -reach, reach)

    @property
    def latents(self) -> int:
        """Number of latents k."""
        return self.straight.shape[1]

    def pick(self, rows: np.ndarray) -> Curves:
        """Those of some hypotheses; one may come more than once."""
        return Curves(self.straight[rows], self.bent[rows], self.low[rows], self.high[rows])

    def coefficients(self, z: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """c(z) [m, r] at latents z [m, k] of the families `rows` [m], or of all in turn."""
        rows = np.arange(len(z)) if rows is None else rows
        held = np.minimum(np.maximum(z[:, :LEADS], self.low[rows]), self.high[rows])
        terms = np.concatenate([z, monomials(held)], axis=1)
        return (terms[:, None] @ self._weights[rows])[:, 0]

    def touch(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c(z) [S, r] and ∂c/∂z [S, k, r] at latents z [S, k]."""
        held = np.minimum(np.maximum(z[:, :LEADS], self.low), self.high)
        terms = np.concatenate([z, monomials(held)], axis=1)
        inner = np.concatenate([held, terms[:, self.latents :][:, : len(PAIRS)]], axis=1)
        turn = (inner[:, None] @ self._turns).reshape(len(z), LEADS, -1)
        turn[held != z[:, :LEADS]] = 0.0
        slope = self.straight.copy()
        slope[:, :LEADS] += turn
        return (terms[:, None] @ self._weights)[:, 0], slope

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.concatenate([self.straight, self.bent], axis=1)

    @cached_property
    def _turns(self) -> np.ndarray:
        """Derivatives of the bent part, linear in the first latents and their pairs."""
        turns = np.einsum('imv,smr->sivr', _DERIVATIVES, self.bent)
        return np.ascontiguousarray(turns).reshape(*turns.shape[:2], -1)


def monomials(lead: np.ndarray) -> np.ndarray:
    """Monomials of degree two and three [n, MONOMIALS] of latents [n, LEADS]."""
    pairs = lead[:, PAIRS[:, 0]] * lead[:, PAIRS[:, 1]]
    return np.concatenate([pairs, pairs[:, _FIRST_TWO] * lead[:, TRIPLES[:, 2]]], axis=1)


def _derivatives() -> np.ndarray:
    """∂monomials/∂lead = Σ_i (lead, pairs)_i · D_i, with D [LEADS + pairs, MONOMIALS, LEADS]."""
    found = np.zeros((LEADS + len(PAIRS), MONOMIALS, LEADS))
    for m, factors in enumerate([*PAIRS.tolist(), *TRIPLES.tolist()]):
        for at, by in enumerate(factors):
            others = factors[:at] + factors[at + 1 :]
            inner = others[0] if len(others) == 1 else LEADS + _PAIR_OF[tuple(others)]
            found[inner, m, by] += 1.0
    return found


_DERIVATIVES = _derivatives()
