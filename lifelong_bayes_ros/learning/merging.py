"""Merging what two robots of one kind learned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..dynamics.model import Prior
from ..errors import UserError
from ..memory.consolidation import Consolidation
from ..memory.regimes import NOMINAL, Library, Regime
from .codec import fingerprint
from .forgetting import next_episode
from .learner import Learner
from .trunks import merge_trunks, same_origin


@dataclass(frozen=True)
class Merged:
    """Two states as one, and what became of the second one's names."""

    learner: Learner
    outcome: Consolidation  # of both libraries: which regimes were one
    renamed: dict[str, str]  # regimes of the second robot: name there → name here
    offset: int  # added to the number of every episode of the second robot
    left_out: list[str]  # what one of the two had learned that the merged state does not know


def merge_states(first: Learner, second: Learner, origin: Prior | None = None) -> Merged:
    """One learner that knows what two robots of the same kind learned from the same prior.

    Regimes of both are put side by side and consolidated: those of which each explains what the
    other remembers are one, and their heads are merged exactly, in natural parameters, sum minus
    the common prior (minus its own, where the second was born with another). The rest are kept
    apart. The learner starts at the nominal plant and recalls from there. A live head that no
    regime keeps, being young or of the nominal plant, is left out, and told. `first` and `second`
    are used up. Where trunks have kept learning on board, they are merged first, see `trunks`;
    `origin`, the prior that both started from, makes that a merge of their posteriors.

    Raises:
        UserError: another robot, other outcomes, another prior, experience that both share, or
            trunks that have grown too far apart.
    """
    _check(first, second)
    outcomes = first.outcomes, second.outcomes
    offset, more = next_episode(first), next_episode(second)
    left_out = []
    for which, learner in (('first', first), ('second', second)):
        if not _store_live(learner) and learner.age:
            why = 'the nominal plant stays as it is' if learner.regime == NOMINAL else 'too few'
            left_out.append(
                f'what the live head of the {which} state learned from its last {learner.age} '
                f'transitions: {why}'
            )
    if fingerprint(first.prior) != fingerprint(second.prior):
        if origin is not None and not same_origin(first.prior, origin):
            raise UserError(
                f'--prior: the states did not start from prior {fingerprint(origin)}; give the '
                'one that they did, or leave it out'
            )
        first, second = merge_trunks(first, second, origin)
    library = Library(list(first.library.regimes), first.library.named, first.library.notes.copy())
    renamed: dict[str, str] = {}
    taken = {*first.library.names, *second.library.names}
    home, theirs = library.regimes[0], second.library.regimes[0]
    reservoir = home.reservoir.merged(theirs.reservoir.renumbered(offset), first.rng)
    library.regimes[0] = replace(home, reservoir=reservoir)
    for regime in second.library.regimes[1:]:
        name = regime.name
        if name in library.names:
            library.named += 1
            while f'r{library.named}' in taken:
                library.named += 1
            name = f'r{library.named}'
        renamed[regime.name] = name
        tape, held = regime.tape.renumbered(offset), regime.reservoir.renumbered(offset)
        library.regimes.append(Regime(name, regime.head, held, tape))
        if regime.name in second.library.notes:
            library.notes[name] = second.library.notes[regime.name]
    library.named = max(library.named, second.library.named)
    merged = Learner(first.prior, first.config, first.seed, str(first.device))
    merged.library = library
    merged.taught = first.taught | {episode + offset for episode in second.taught}
    merged.step, merged.learned = first.step + second.step, first.learned + second.learned
    merged.stamp_ns = max(first.stamp_ns, second.stamp_ns)
    held = [s for r in library.regimes for s in r.reservoir.samples]
    trunk = merged.dynamics.trunk
    merged.outcomes, whole = outcomes[0].merged(outcomes[1], trunk, held, offset)
    if not whole:
        left_out.append(
            'labels of outcomes that the second state no longer keeps one by one: on the merged '
            'trunk its heads do not add up with those of the first'
        )
    outcome = merged.consolidate()
    merged.first_episode = offset + more
    return Merged(merged, outcome, renamed, offset, left_out)


def _check(first: Learner, second: Learner) -> None:
    mine, other = first.prior, second.prior
    if mine.dynamics.spec.fingerprint != other.dynamics.spec.fingerprint:
        raise UserError(
            f'the states are of robots {mine.dynamics.spec.name!r} and '
            f'{other.dynamics.spec.name!r} with other channels, actions or period; only robots '
            'of one kind can share what they learned'
        )
    told = [list(x.outcomes.kinds.items()) for x in (first, second)]
    if told[0] != told[1]:  # labels are numbers of a place in these lists
        raise UserError(
            f'the states were learned with outcomes {_listed(first)} and {_listed(second)}; only '
            'what was learned with the same outcomes and classes, in the same order, can be merged'
        )
    same = fingerprint(mine) == fingerprint(other)
    same = same and np.array_equal(mine.covariance, other.covariance)
    same = same and np.array_equal(mine.noise, other.noise)
    kept_learning = fingerprint(mine) != fingerprint(other) and same_origin(mine, other)
    if not same and not kept_learning:
        raise UserError(
            f'the states have different priors ({fingerprint(mine)} and {fingerprint(other)}): '
            'what was learned from one does not add to what was learned from another; start both '
            'robots from the same prior'
        )
    shared = len(_lived(first) & _lived(second))
    if shared:
        raise UserError(
            f'{shared} transitions are in both states, which would count twice: merge states of '
            'two robots, not a state with a copy of itself or of what it came from'
        )


def _lived(learner: Learner) -> set[tuple[int, bytes]]:
    """Transitions that a learner holds: when and where."""
    tapes = [learner.tape, *(r.tape for r in learner.library.regimes)]
    held = [s for t in tapes for s in t.samples()]
    held += [s for r in learner.library.regimes for s in r.reservoir.samples]
    return {(s.stamp_ns, s.x.tobytes()) for s in held}


def _listed(learner: Learner) -> str:
    """Outcomes as an error names them."""
    outcomes = learner.outcomes.kinds.items()
    told = {n: list(kind) if isinstance(kind, tuple) else kind for n, kind in outcomes}
    return ', '.join(n + (f' {kind}' if kind else '') for n, kind in told.items()) or 'none'


def _store_live(learner: Learner) -> bool:
    """Commit what the live head learned, as a regime of its own if it has none yet.

    Returns:
        Whether it was old enough to be, and not of the nominal plant, which never changes.
    """
    if learner.age < learner.config.store_age or learner.regime == NOMINAL:
        return False
    if learner.identity is None:
        learner.identity = learner.library.store(learner.shared(), learner.waiting, learner.tape)
    else:  # as far as it still is that regime
        learner.commit(learner.shared(), learner.tape, stays=True)
    return True
