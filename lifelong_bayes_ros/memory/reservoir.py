"""A uniform random sample of the transitions of one regime, of fixed size.

A random reservoir keeps a regime better than its highest-leverage transitions do when the
likelihood is Gaussian: those sit at the edges and cover nothing in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One remembered step: x [ds], u [da], past commands [k, da], next state, when and where."""

    x: np.ndarray
    u: np.ndarray
    past: np.ndarray
    x_next: np.ndarray
    stamp_ns: int
    episode: int

    @property
    def key(self) -> tuple[int, int, bytes]:
        """Tells it from every other step, also once it was saved and loaded.

        Not the time alone: clocks begin anew, and other robots have their own.
        """
        return self.stamp_ns, self.episode, self.x.tobytes()

    def nbytes(self) -> int:
        """Memory that its arrays take."""
        return self.x.nbytes + self.u.nbytes + self.past.nbytes + self.x_next.nbytes

    def renumbered(self, offset: int) -> Sample:
        """The same step in an episode of a higher number."""
        return replace(self, episode=self.episode + offset)


@dataclass
class Reservoir:
    """At most `capacity` samples, each seen one kept with equal probability (Vitter 1985)."""

    capacity: int = 64
    seen: int = 0
    samples: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample, rng: np.random.Generator) -> None:
        """Offer one more sample."""
        self.seen += 1
        if len(self.samples) < self.capacity:
            self.samples.append(sample)
            return
        slot = int(rng.integers(self.seen))
        if slot < self.capacity:
            self.samples[slot] = sample

    def drop(self, samples: Sequence[Sample]) -> None:
        """Take out these very samples: they turned out to belong elsewhere.

        By identity, not by time: a clock may begin anew, as that of a simulator does, and another
        robot has its own.
        """
        gone = {id(s) for s in samples}
        self.samples = [s for s in self.samples if id(s) not in gone]

    def without(self, episode: int) -> Reservoir:
        """The reservoir without an episode: still a uniform sample, of what is left."""
        kept = [s for s in self.samples if s.episode != episode]
        share = len(kept) / max(len(self.samples), 1)
        return Reservoir(self.capacity, max(round(self.seen * share), len(kept)), kept)

    def renumbered(self, offset: int) -> Reservoir:
        """The same steps in episodes of higher numbers."""
        return Reservoir(self.capacity, self.seen, [s.renumbered(offset) for s in self.samples])

    def merged(self, other: Reservoir, rng: np.random.Generator) -> Reservoir:
        """A reservoir of both streams, as if it had seen one after the other."""
        pools = [list(self.samples), list(other.samples)]
        left = [self.seen, other.seen]
        kept: list[Sample] = []
        while len(kept) < self.capacity and any(pools):
            first = left[0] * bool(pools[0])
            second = left[1] * bool(pools[1])
            side = int(rng.random() * (first + second) >= first)
            kept.append(pools[side].pop(int(rng.integers(len(pools[side])))))
            left[side] -= 1
        return Reservoir(self.capacity, self.seen + other.seen, kept)
