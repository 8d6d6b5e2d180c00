"""The regime library and the Bayesian filter over it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from ..dynamics.head import Head
from ..errors import UserError
from .reservoir import Reservoir
from .tape import Tape, posterior_bytes

NOMINAL = 'nominal'
NEW = 'new'
NAME = re.compile(r'[A-Za-z][\w-]{0,39}', re.ASCII)
GIVEN = re.compile(r'r\d+')  # names that the learner gives
RESERVED = (NOMINAL, NEW, 'live', 'waiting')


@dataclass(frozen=True)
class Regime:
    """A remembered condition of the robot: its head and a sample of its transitions."""

    name: str
    head: Head
    reservoir: Reservoir
    tape: Tape = None  # how the head came about; None: nothing is known, it is where all starts

    def __post_init__(self) -> None:
        if self.tape is None:
            object.__setattr__(self, 'tape', Tape(self.head))

    def nbytes(self) -> int:
        """Memory that it takes."""
        return Library([self]).nbytes()


@dataclass
class Library:
    """Regimes by index. Entry 0 is the frozen nominal plant and is never overwritten."""

    regimes: list[Regime]
    named: int = 0  # names given so far; names are never used twice
    notes: dict[str, str] = field(default_factory=dict)  # an operator's, by name

    @property
    def names(self) -> list[str]:
        """Names of the regimes, in order."""
        return [r.name for r in self.regimes]

    def store(self, head: Head, reservoir: Reservoir, tape: Tape | None = None) -> int:
        """Add a regime; returns its index."""
        self.named += 1
        self.regimes.append(Regime(f'r{self.named}', head, reservoir, tape))
        return len(self.regimes) - 1

    def commit(self, index: int, head: Head, tape: Tape | None = None) -> None:
        """Replace the head of a stored regime by what has been learned since."""
        if index > 0:
            self.regimes[index] = replace(self.regimes[index], head=head, tape=tape)

    def rename(self, old: str, new: str) -> None:
        """Give a stored regime a name that an operator understands.

        Raises:
            UserError: no such regime, or the new name is taken, kept for another use, or no name.
        """
        index = self._find(old)
        if index == 0:
            raise UserError(f'regime {old!r} is the nominal plant and keeps its name')
        if new == old:
            return
        if not NAME.fullmatch(new) or new in RESERVED or GIVEN.fullmatch(new):
            raise UserError(
                f'regime {old!r} cannot be called {new!r}: give a letter and up to 39 letters, '
                f'digits, _ or -, but not r and a number nor {", ".join(RESERVED)}'
            )
        if new in self.names:
            raise UserError(f'regime {old!r} cannot be called {new!r}: another one is')
        self.regimes[index] = replace(self.regimes[index], name=new)
        if old in self.notes:
            self.notes[new] = self.notes.pop(old)

    def note(self, name: str, text: str) -> None:
        """Keep an operator's note on a regime; an empty one takes it away.

        Raises:
            UserError: no such regime.
        """
        self._find(name)
        self.notes.pop(name, None)
        if text:
            self.notes[name] = text

    def _find(self, name: str) -> int:
        if name not in self.names:
            raise UserError(f'there is no regime {name!r}; there are {", ".join(self.names)}')
        return self.names.index(name)

    def nbytes(self) -> int:
        """Memory that all regimes take; a posterior that several hold counts once."""
        held = (p for r in self.regimes for p in (r.head.posterior, *r.tape.posteriors()))
        samples = (s for r in self.regimes for s in r.reservoir.samples)
        tapes = sum(r.tape.nbytes() for r in self.regimes)
        return posterior_bytes(held) + sum(s.nbytes() for s in samples) + tapes


@dataclass
class RegimeFilter:
    """Forward filter p(regime | history) with a hazard rate, over the library and `new`.

    A regime that explains a step worse than the best one by no more than `resolution` is not held
    to be worse: heads are wrong by as much, and where regimes look alike, as at rest, such
    differences would add up to a certainty that nothing supports.
    """

    hazard: float = 0.01
    resolution: float = 0.15  # nats per step
    probabilities: dict[str, float] = field(default_factory=lambda: {NOMINAL: 1.0, NEW: 0.0})

    def update(self, evidence: dict[str, float]) -> None:
        """One step with the log evidence of every hypothesis (nats)."""
        even = 1 / len(evidence)
        known = sum(self.probabilities.get(n, 0.0) for n in evidence)
        best = max(evidence.values())
        weights = {}
        for name, found in evidence.items():
            before = self.probabilities.get(name, 0.0) / known if known > 0 else even
            behind = max(best - found - self.resolution, 0.0)
            prior = (1 - self.hazard) * before + self.hazard * even
            weights[name] = prior * math.exp(-behind)
        total = sum(weights.values())
        self.probabilities = {name: weight / total for name, weight in weights.items()}

    def rename(self, old: str, new: str) -> None:
        """Hand the probability of one hypothesis to another, e.g. `new` to a stored regime."""
        moved = self.probabilities.pop(old, 0.0)
        self.probabilities[new] = self.probabilities.get(new, 0.0) + moved
        self.probabilities.setdefault(NEW, 0.0)
