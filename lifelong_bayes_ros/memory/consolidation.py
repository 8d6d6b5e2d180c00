"""Consolidation between episodes, a transaction on the regime library.

Heads that describe the same regime are merged in natural parameters (sum minus the common prior),
the library is pruned to its budget by evidence, and the result is accepted only if the error of
every regime on its own memory is at most `TOLERANCE` times what it was; otherwise nothing changes.

It is done in slices of bounded work that change nothing, so that a learner can go on between them
and whoever ends it early has lost nothing; all changes come with `Consolidation.adopt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..blr import Gaussian, ImproperPosteriorError
from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from ..errors import UserError
from .regimes import GIVEN, Library, Regime
from .reservoir import Sample
from .rows import Rows, log_density
from .tape import Join, merge

TOLERANCE = 1.1  # allowed growth of a regime's error on its memory
SAME = 1.0  # nats per sample that a merged head may lose on either memory
ENOUGH = 16  # samples below which a memory cannot judge a merge


@dataclass(frozen=True)
class Budget:
    """What memory may take."""

    regimes: int  # most regimes, the nominal one included
    nbytes: int | None = None  # most bytes of all regimes; None: as many as they need
    last: str = ''  # regime that is pruned last: the robot is in it


@dataclass
class Consolidation:
    """Outcome: the library to use from now on and why."""

    accepted: bool
    library: Library
    merged: list[tuple[str, str]] = field(default_factory=list)  # (kept, absorbed)
    pruned: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)  # whose tape was given up for its bytes
    error_ratio: float = 1.0  # worst error after / before over all memories
    reason: str = ''  # of a roll-back
    why: list[str] = field(default_factory=list)  # of each merge and removal
    slices: int = 0  # heads scored on a memory
    before: list[Regime] = field(default_factory=list)  # what it was decided about

    def adopt(self, now: Library, rng: np.random.Generator) -> Consolidation:
        """Apply what was decided about `library` to what it has become since.

        Args:
            now: the same library after some more transitions; it is not changed.
            rng: for the reservoirs of merged regimes.

        Returns:
            The outcome with the library to use, or not accepted if a regime that it is about has
            learned meanwhile.
        """
        if not self.accepted:
            return self
        concerned = {n for pair in self.merged for n in pair} | {*self.pruned, *self.folded}
        decided = {r.name: r for r in self.before}
        present = {r.name: r for r in now.regimes}
        if any(n not in present or present[n].head is not decided[n].head for n in concerned):
            return Consolidation(
                False, now, reason='a regime learned meanwhile; left for the next time'
            )
        for kept, absorbed in self.merged:
            reservoir = present[kept].reservoir.merged(present.pop(absorbed).reservoir, rng)
            present[kept] = replace(present[kept], reservoir=reservoir)
        merged = {kept for kept, _ in self.merged}
        for regime in self.library.regimes:
            if regime.name in merged or regime.name in self.folded:
                reservoir = present[regime.name].reservoir
                present[regime.name] = replace(regime, reservoir=reservoir)
        regimes = [r for n, r in present.items() if n not in self.pruned]
        notes = _notes(now.notes, self.merged, [r.name for r in regimes])
        return replace(self, library=Library(regimes, now.named, notes))


@dataclass(frozen=True)
class Score:
    """How a head does on remembered samples."""

    evidence: float  # mean log evidence, nats per sample
    error: float  # root mean squared residual in noise standard deviations


def score(dynamics: Dynamics, head: Head, samples: Sequence[Sample], noise: np.ndarray) -> Score:
    """Score a head on samples, with residuals in units of the noise variance [ds]."""
    return _score(head, Rows.of(dynamics, samples), noise)


def _score(head: Head, rows: Rows, noise: np.ndarray) -> Score:
    if not len(rows):
        return Score(0.0, 0.0)
    square = np.square(rows.residual(head.posterior)) / noise
    return Score(float(np.mean(rows.evidence(head))), float(np.sqrt(np.mean(square))))


def _score_left_out(head: Head, rows: Rows, noise: np.ndarray) -> Score:
    residual, covariance, _ = rows.left_out(head)
    evidence = float(np.mean(log_density(residual, covariance)))
    return Score(evidence, float(np.sqrt(np.mean(np.square(residual) / noise))))


def consolidate(
    dynamics: Dynamics,
    library: Library,
    prior: Gaussian,
    noise: np.ndarray,
    budget: Budget,
    rng: np.random.Generator,
) -> Consolidation:
    """Merge, prune and accept or roll back at once; `library` itself is not changed.

    Args:
        dynamics: the model that the heads belong to.
        library: regimes with their reservoirs.
        prior: of the task family, that heads are born with and widened towards.
        noise: variance per output [ds] that errors are measured in.
        budget: what memory may take.
        rng: for the reservoirs of merged regimes.

    Raises:
        UserError: the budget is too small for the nominal regime and one more.
    """
    slices = consolidation(dynamics, library, prior, noise, budget)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value.adopt(library, rng)


def consolidation(
    dynamics: Dynamics, library: Library, prior: Gaussian, noise: np.ndarray, budget: Budget
) -> Iterator[None]:
    """Decide in slices what `consolidate` does; returns a `Consolidation` yet to be adopted.

    A slice scores one head on one memory. `library` may change between slices: what is decided is
    about what it was at the first.
    """
    regimes = list(library.regimes)
    work = _Work(dynamics, noise, {r.name: list(r.reservoir.samples) for r in regimes})
    yield
    memories = dict(work.rows)
    before = {}
    for regime in regimes:
        if len(memories[regime.name]):
            before[regime.name] = yield from work.score(regime.head, regime.name)
    result = Consolidation(False, library, before=list(regimes))
    heir = {name: name for name in before}
    i = 1
    while i < len(regimes):
        j = i + 1
        while j < len(regimes):
            kept, absorbed = _named_first(regimes[i], regimes[j])
            merged, why = yield from _same(work, kept, absorbed, prior)
            if merged is None:
                j += 1
                continue
            regimes.pop(j)
            regimes[i] = merged
            work.join(kept.name, absorbed.name)
            result.merged.append((kept.name, absorbed.name))
            result.why.append(why)
            heir = {m: kept.name if h == absorbed.name else h for m, h in heir.items()}
        i += 1
    budget = replace(budget, last=heir.get(budget.last, budget.last))
    yield from _shrink(work, regimes, budget, result)
    heads = {r.name: r.head for r in regimes}
    for name, old in before.items():
        if heir[name] in heads and heir[name] in {n for pair in result.merged for n in pair}:
            after = _score(heads[heir[name]], memories[name], noise)
            ratio = after.error / max(old.error, 1e-12)
            result.error_ratio = max(result.error_ratio, ratio)
            yield
    result.slices = work.slices
    if result.error_ratio > TOLERANCE:
        result.reason = (
            f'the error of a regime on its memory grew {result.error_ratio:.2f} times '
            f'(allowed {TOLERANCE})'
        )
        result.merged, result.pruned, result.folded, result.why = [], [], [], []
        return result
    result.accepted = True
    result.library = Library(regimes, library.named, library.notes)
    return result


class _Work:
    """Memories as rows, and what was scored so far."""

    def __init__(
        self, dynamics: Dynamics, noise: np.ndarray, memories: dict[str, list[Sample]]
    ) -> None:
        self.noise = noise
        self.rows = {name: Rows.of(dynamics, samples) for name, samples in memories.items()}
        self.slices = 0
        self._known: dict[tuple[int, str, bool], tuple[Head, Score]] = {}

    def score(self, head: Head, memory: str, left_out: bool = False) -> Iterator[None]:
        """Score a head on a memory: one slice, unless it is known.

        With `left_out`, on each transition as if it had not learned from that one.
        """
        key = id(head), memory, left_out
        if key not in self._known:
            self.slices += 1
            rows = self.rows[memory]
            found = (_score_left_out if left_out else _score)(head, rows, self.noise)
            self._known[key] = head, found
            yield
        return self._known[key][1]

    def join(self, kept: str, absorbed: str) -> None:
        """One memory of two."""
        self.rows[kept] = self.rows[kept].joined(self.rows[absorbed])
        self._known = {k: v for k, v in self._known.items() if k[1] not in (kept, absorbed)}


def _same(work: _Work, first: Regime, second: Regime, prior: Gaussian) -> Iterator[None]:
    """The merged regime and why, if both memories say that the two are one.

    Of two that share experience, which would count twice, the one that has seen more is kept.
    """
    pair = (first, second)
    if min(len(work.rows[r.name]) for r in pair) < ENOUGH:
        return None, ''
    worst = 0.0
    # Each head must already explain the other's memory, which it has not seen, as well as the
    # other would, had it not seen it either: cheap, and what a merge claims.
    for r, other in ((first, second), (second, first)):
        mine = yield from work.score(other.head, other.name, left_out=True)
        swapped = yield from work.score(r.head, other.name)
        worst = max(worst, mine.evidence - swapped.evidence)
        if worst > SAME or swapped.error > TOLERANCE * mine.error:
            return None, ''
    if first.tape.shares(second.tape):
        fuller = max(pair, key=lambda r: r.reservoir.seen)
        merged = replace(first, head=fuller.head, tape=fuller.tape)
    else:
        try:
            head = merge(first.head, second.head, second.tape.prior(prior))
        except ImproperPosteriorError:
            return None, ''
        merged = replace(first, head=head, tape=first.tape.add(Join(second.tape)))
    for r in pair:
        mine = yield from work.score(r.head, r.name)
        after = yield from work.score(merged.head, r.name)
        if mine.evidence - after.evidence > SAME or after.error > TOLERANCE * mine.error:
            return None, ''
    return merged, (
        f'{first.name} and {second.name} explain the memory of each other to {worst:.2f} nats a '
        f'transition (allowed {SAME})'
    )


def _named_first(first: Regime, second: Regime) -> tuple[Regime, Regime]:
    """The two, the one with a name that an operator gave before the other."""
    given = [GIVEN.fullmatch(r.name) is not None for r in (first, second)]
    return (second, first) if given == [True, False] else (first, second)


def _shrink(
    work: _Work, regimes: list[Regime], budget: Budget, result: Consolidation
) -> Iterator[None]:
    """Keep to the budget: give up the longest tapes first, then what others explain best.

    A regime is worth the nats that its transitions would lose under the best of the others. That
    which the robot is in has been seen least so far, so it would always be the one to go.
    """
    limit = budget.nbytes

    def over() -> bool:
        return limit is not None and Library(regimes).nbytes() > limit

    def spare(regime: Regime) -> int:
        return regime.nbytes() - replace(regime, tape=None).nbytes()

    while over() and spare(longest := max(regimes, key=spare)):
        at = regimes.index(longest)
        regimes[at] = replace(longest, tape=longest.tape.cut(longest.head))
        result.folded.append(longest.name)
        result.why.append(f'{longest.name}: no room to keep every transition for taking it back')
    while len(regimes) > max(budget.regimes, 1) or over():
        if len(regimes) == 1:
            raise too_small(limit, regimes[0].nbytes())
        worth = {}
        others = [r for r in regimes[1:] if r.name != budget.last]
        for regime in others or regimes[1:]:
            scores = []
            for other in regimes:
                scores.append((yield from work.score(other.head, regime.name)).evidence)
            own = scores.pop(regimes.index(regime))
            seen = regime.reservoir.seen
            worth[regime.name] = seen * max(own - max(scores), 0.0), seen
        least = min(worth, key=worth.__getitem__)
        regimes[:] = [r for r in regimes if r.name != least]
        result.pruned.append(least)
        result.why.append(f'{least}: costs least to lose, {worth[least][0]:.0f} nats in all')
    result.folded = [n for n in result.folded if n not in result.pruned]


def too_small(limit: int | None, least: int, outcomes: bool = False) -> UserError:
    """The error of a byte budget that one regime, and the heads of outcomes, do not fit in."""
    takes = 'with its outcomes takes' if outcomes else 'takes'
    return UserError(
        f'memory_bytes {limit}: one regime of this robot {takes} {least}; give at least that, or '
        'no limit'
    )


def _notes(
    notes: dict[str, str], merged: Sequence[tuple[str, str]], names: Sequence[str]
) -> dict[str, str]:
    """Notes after merges: what was said of either is kept."""
    notes = dict(notes)
    for kept, absorbed in merged:
        said = [notes.pop(n) for n in (kept, absorbed) if n in notes]
        if not GIVEN.fullmatch(absorbed):  # two names that an operator gave
            said.append(f'also {absorbed}')
        if said:
            notes[kept] = '; '.join(said)
    return {n: text for n, text in notes.items() if n in names}
