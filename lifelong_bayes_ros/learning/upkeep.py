"""Upkeep of a learner's memory: consolidation, in slices between transitions.

It begins where an episode ends, or where memory has outgrown its bounds. What it decides on is
worked out beside the learner, a few slices per transition, and adopted at once; see
`memory.consolidation`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from ..blr import ImproperPosteriorError
from ..memory.consolidation import Budget, Consolidation, consolidation
from ..memory.regimes import NEW, Regime
from ..memory.tape import Join, merge

if TYPE_CHECKING:
    from .learner import Learner

CROWDED_EVERY = 50  # transitions between two looks at how much memory takes
SLICES = 8  # of a consolidation per transition: a fixed number, so that a replay repeats it


class Upkeep:
    """The consolidation that is under way, if there is one, and whether one is to begin."""

    def __init__(self) -> None:
        self._job: Iterator[None] | None = None
        self._due = False
        self._seconds = 0.0  # spent on the one under way
        self._given_up: list[str] = []  # what outcomes gave up for it

    def step(self, learner: Learner, ends_episode: bool) -> None:
        """What is to be done after a transition."""
        if learner.learning and (ends_episode or _is_crowded(learner)):
            self._due = True
        # One under way comes to its end, however short episodes are.
        if self._job is None and self._due and learner.learning:
            self._begin(learner)
        if self._job is not None:
            self._go_on(learner, SLICES)

    def at_once(self, learner: Learner) -> Consolidation:
        """A whole one; another that is under way is given up."""
        self._begin(learner)
        return self._go_on(learner, None)

    def give_up(self) -> None:
        """Forget the one under way: it is of heads on another trunk."""
        self._job = None

    def _begin(self, learner: Learner) -> None:
        self._due = False
        learner.commit(learner.shared(), learner.tape, stays=True)
        limit, self._given_up = learner.config.memory_bytes, []
        if limit is not None:
            if learner.outcomes.shrink(limit - learner.library.nbytes()):
                self._given_up.append('outcomes: no room to keep every label for taking it back')
            limit -= max(learner.outcomes.nbytes(), learner.outcomes.least_bytes())
        budget = Budget(learner.config.capacity, limit, learner.regime)
        noise = learner.prior.noise
        self._job = consolidation(learner.dynamics, learner.library, learner.family, noise, budget)
        self._seconds = 0.0

    def _go_on(self, learner: Learner, slices: int | None) -> Consolidation | None:
        """Do so many slices, None for all; the outcome, if that was the end of it."""
        started, job = time.perf_counter(), self._job
        try:
            for _ in count() if slices is None else range(slices):
                next(job)
        except StopIteration as end:
            self._job = None
            result = _adopt(learner, end.value)
        else:
            result = None
        self._seconds += time.perf_counter() - started
        if result is not None:
            learner.event(
                'consolidated' if result.accepted else 'rolled_back',
                regimes=learner.library.names,
                merged=[list(m) for m in result.merged],
                pruned=result.pruned,
                folded=result.folded,
                why=[*self._given_up, *result.why],
                error_ratio=round(result.error_ratio, 4),
                bytes=learner.nbytes(),
                reason=result.reason,
                slices=result.slices,
                seconds=round(self._seconds, 3),
            )
        return result


def _is_crowded(learner: Learner) -> bool:
    """Whether memory has outgrown its bounds, without an end of an episode in sight."""
    if learner.step % CROWDED_EVERY:
        return False
    limit = learner.config.memory_bytes
    if len(learner.library.regimes) > learner.config.capacity:
        return True
    return limit is not None and learner.nbytes() > limit


def _adopt(learner: Learner, decided: Consolidation) -> Consolidation:
    """Go over to the library that a consolidation decided on."""
    result = decided.adopt(learner.library, learner.rng)
    if not result.accepted:
        return result
    current, old = learner.regime, {r.name: r for r in learner.library.regimes}
    learner.library = result.library
    for kept, absorbed in result.merged:
        learner.filter.rename(absorbed, kept)
        if current in (kept, absorbed):
            _join(learner, old[absorbed if current == kept else kept])
            current = kept
    for name in result.pruned:
        learner.filter.rename(name, NEW)
    names = learner.library.names
    learner.identity = names.index(current) if current in names else None
    return result


def _join(learner: Learner, other: Regime) -> None:
    """Let the live head know what a regime knows that has turned out to be the same."""
    if learner.tape.shares(other.tape):
        return
    try:
        joined = merge(learner.shared(), other.head, other.tape.prior(learner.family))
    except ImproperPosteriorError:
        return
    learner.forget_snapshots()  # they would bring back what the regime was before
    learner.live = joined
    learner.tape = learner.tape.add(Join(other.tape))
    learner.redraw()
