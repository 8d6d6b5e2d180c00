"""The tape of a head: every operation that made it what it is, so that any can be left out.

A head is conditioned on transitions, widened towards the task family (random walk, recall, weak
shift), and its noise is learned, held or set. The widening wears away what every earlier
transition taught, so that natural parameters of single episodes do not add up to those of the
head. What an episode taught is taken out by running the tape again without it: the result is the
head that the same operations would have made had the robot never seen the episode.

A tape is an append-only list that heads which share a past share. It keeps the last half to all
of its `limit`; what is older is folded into the head that it starts from, for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from ..dynamics.noise import Noise
from .reservoir import Sample


@dataclass(frozen=True)
class Widen:
    """Covariance moved towards that of the task family by a share."""

    share: float


@dataclass(frozen=True)
class Hold:
    """Noise held firmly: at its variance [ds] of then, or at one that was set."""

    variance: np.ndarray | None = None


@dataclass(frozen=True)
class Join:
    """Merged with the head of another tape: what that one learned beyond its prior is added."""

    other: Tape


Operation = Sample | Widen | Hold | Join  # a Sample: conditioned on it


@dataclass(frozen=True)
class Tape:
    """A head to start from and the operations since. Immutable; adding gives another one."""

    start: Head
    operations: list[Operation] = field(default_factory=list)  # shared: only `length` are its own
    length: int = 0
    middle: tuple[int, Head] | None = None  # where it is cut next, and the head there
    folded: frozenset[int] = frozenset()  # episodes that are (partly) within `start`
    root: Gaussian | None = None  # what the head was born with; None: the prior of the family
    worn: float = 1.0  # share of the root that widening has left

    def __iter__(self) -> Iterator[Operation]:
        for index in range(self.length):
            yield self.operations[index]

    def add(self, *more: Operation) -> Tape:
        """With operations at its end."""
        operations = self.operations
        if self.length != len(operations):  # another tape goes on from here in its own way
            operations = operations[: self.length]
        operations.extend(more)
        worn = self.worn * math.prod(1 - o.share for o in more if isinstance(o, Widen))
        return replace(self, operations=operations, length=len(operations), worn=worn)

    def bounded(self, head: Head, limit: int) -> Tape:
        """With the older half folded if there is more than `limit`; `head` is the one of now."""
        at, middle = self.middle or (0, self.start)
        if self.length - at < max(limit // 2, 1):
            return self
        if self.middle is None:
            return replace(self, middle=(self.length, head))
        older = replace(self, length=at)
        folded = older.everything_folded() | older.episodes
        rest = self.operations[at : self.length]
        now = len(rest)
        return replace(
            self, start=middle, operations=rest, length=now, middle=(now, head), folded=folded
        )

    def cut(self, head: Head) -> Tape:
        """All of it folded into `head`, the one that it makes."""
        folded = self.everything_folded() | self.episodes
        return replace(self, start=head, operations=[], length=0, middle=None, folded=folded)

    def prior(self, family: Gaussian) -> Gaussian:
        """What the head would be had it seen nothing: its root, widened as it was."""
        if self.root is None:
            return family
        return self.root.widen(family.covariance, 1 - self.worn)

    @property
    def episodes(self) -> frozenset[int]:
        """Episodes that can be taken out, unless they are folded too."""
        return episodes_of(self)

    def everything_folded(self) -> frozenset[int]:
        """Episodes within its start, or within that of a tape that was joined."""
        joined = (o.other.everything_folded() for o in self if isinstance(o, Join))
        return self.folded.union(*joined)

    def samples(self) -> list[Sample]:
        """All transitions on it, in order."""
        found: list[Sample] = []
        for operation in self:
            if isinstance(operation, Sample):
                found.append(operation)
            elif isinstance(operation, Join):
                found += operation.other.samples()
        return found

    def shares(self, other: Tape) -> bool:
        """Whether both hold some of the same experience, which must not count twice in a merge.

        Of what is folded only the episodes are known: sharing one of these counts.
        """
        if not self.everything_folded().isdisjoint(other.everything_folded()):
            return True
        keys = [{s.key for s in t.samples()} for t in (self, other)]
        return not keys[0].isdisjoint(keys[1])

    def without(self, episode: int) -> Tape:
        """The tape had the episode never been."""
        kept: list[Operation] = []
        for operation in self:
            if isinstance(operation, Join):
                operation = Join(operation.other.without(episode))
            if not (isinstance(operation, Sample) and operation.episode == episode):
                kept.append(operation)
        return replace(self, operations=kept, length=len(kept), middle=None)

    def renumbered(self, offset: int) -> Tape:
        """The tape with every episode's number raised: of another robot's life."""
        moved: list[Operation] = []
        for operation in self:
            if isinstance(operation, Join):
                operation = Join(operation.other.renumbered(offset))
            elif isinstance(operation, Sample):
                operation = operation.renumbered(offset)
            moved.append(operation)
        folded = frozenset(e + offset for e in self.folded)
        return replace(self, operations=moved, folded=folded)

    def run(
        self, dynamics: Dynamics, family: Gaussian, step: Callable[[], None] = lambda: None
    ) -> Head:
        """The head that the tape makes: a refit from its start, operation by operation.

        Args:
            dynamics: the model that the head belongs to.
            family: the prior of the task family, which heads are widened towards.
            step: called after every operation, e.g. for progress; may raise to end it.

        Raises:
            ImproperPosteriorError: a merge of what is left is no density.
        """
        head, owned = self.start, False
        for operation in self:
            if isinstance(operation, Sample):
                head, owned = condition(dynamics, head, operation, owned), True
            elif isinstance(operation, Widen):
                posterior = head.posterior.widen(family.covariance, operation.share, owned)
                head, owned = head.replace(posterior=posterior), True
            elif isinstance(operation, Hold):
                variance = operation.variance
                variance = head.noise.variance if variance is None else variance
                head = head.replace(noise=Noise.start(variance, head.noise.prior))
            else:
                other = operation.other
                learned = other.run(dynamics, family, step)
                head, owned = merge(head, learned, other.prior(family)), True
            step()
        return head

    def posteriors(self) -> Iterator[Gaussian]:
        """Those that it keeps: at its folds, and at those of tapes that were joined.

        A start that nothing was folded into is a prior's, which is there anyway.
        """
        if self.folded:
            yield self.start.posterior
        if self.middle is not None:
            yield self.middle[1].posterior
        for operation in self:
            if isinstance(operation, Join):
                yield from operation.other.posteriors()

    def nbytes(self) -> int:
        """Memory that its operations take, without `posteriors`."""
        return sum(operation_bytes(o) for o in self)


def condition(dynamics: Dynamics, head: Head, sample: Sample, in_place: bool = False) -> Head:
    """The head after one more sample, as the learner conditions it."""
    x, u, past = sample.x.astype(float), sample.u.astype(float), sample.past.astype(float)
    design = torch.tensor(dynamics.design(x, u, past), dtype=torch.float64)
    target = dynamics.target(x, sample.x_next.astype(float))
    return head.update(head.predict(design, target), in_place)


def merge(first: Head, second: Head, prior: Gaussian) -> Head:
    """Head that has seen what both saw: sum of natural parameters minus the prior of `second`.

    Raises:
        ImproperPosteriorError: `second` knows less than that prior, and `first` not enough.
    """
    noise = first.noise if first.noise.dof >= second.noise.dof else second.noise
    return Head(first.posterior.multiply(second.posterior, divide=prior), noise)


def episodes_of(operations: Sequence[Operation] | Tape) -> frozenset[int]:
    """Episodes of the transitions among operations."""
    found: set[int] = set()
    for operation in operations:
        if isinstance(operation, Sample):
            found.add(operation.episode)
        elif isinstance(operation, Join):
            found |= operation.other.episodes
    return frozenset(found)


def operation_bytes(operation: Operation) -> int:
    """Memory that an operation takes."""
    if isinstance(operation, Sample):
        return operation.nbytes()
    if isinstance(operation, Join):
        return operation.other.nbytes()
    return 8


def posterior_bytes(posteriors: Iterable[Gaussian]) -> int:
    """Memory that posteriors take; one that comes again counts once."""
    held = {id(p): p for p in posteriors}.values()
    return sum(8 * (p.mean.numel() + p.covariance.numel()) for p in held)
