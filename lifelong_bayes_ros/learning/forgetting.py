"""Taking an episode out of what was learned, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..blr import ImproperPosteriorError
from ..dynamics.head import Head
from ..errors import UserError
from ..memory.regimes import NEW, Library, Regime
from ..memory.tape import Tape

if TYPE_CHECKING:
    from .learner import Learner


RECENT = 256  # steps that tell what has changed on the plant


@dataclass(frozen=True)
class Forgotten:
    """What forgetting an episode did."""

    episode: int
    regimes: list[str]  # whose heads changed, `live` for the one that was live
    dropped: list[str]  # regimes of which nothing was left
    transitions: int  # taken out of heads
    remembered: int  # taken out of reservoirs


def forget(
    learner: Learner, episode: int, progress: Callable[[float], None] = lambda share: None
) -> Forgotten:
    """Take an episode out of every head, noise estimate and reservoir of a learner.

    Exact means: every head equals, to 1e-9 relative, a refit of it without the episode, that is
    the head that its tape of operations (`memory.tape`) makes when the transitions of the episode
    are left out: conditioning on every other transition in its order, the random walk, recalls,
    merges, and the noise learned from what is left; heads of outcomes alike, from their labels.
    What remains of the episode are decisions: at which steps a shift was seen or a regime
    recalled, and the noise variance that a head was born with. Hypotheses are learned again from
    what the live head still holds, and the background begins anew. A regime that knew nothing
    else is dropped. Either all of this is done or none of it.

    Args:
        learner: changed only at the end, when all has succeeded.
        episode: its number, as memory maps and `Sample.episode` tell it.
        progress: called with the share done; may raise to give up.

    Raises:
        UserError: no such episode, its transitions were folded into a head for good, or without
            it a posterior would be improper.
    """
    _check(learner, episode)
    holders = {r.name: (r.head, r.tape) for r in learner.library.regimes}
    holders['live'] = learner.live, learner.tape
    changed = {n: (h, t) for n, (h, t) in holders.items() if episode in t.episodes}
    total = max(sum(t.length for _, t in changed.values()), 1)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done % 64 == 0:
            progress(min(done / total, 1.0))

    heads: dict[str, tuple[Head, Tape]] = {}
    transitions: set[int] = set()
    for name, (old, tape) in changed.items():
        transitions |= {s.stamp_ns for s in tape.samples() if s.episode == episode}
        left = tape.without(episode)
        twin = next((n for n in heads if changed[n][0] is old), None)
        if twin is not None:  # the live head was committed just now
            heads[name] = heads[twin]
            continue
        try:
            head = left.run(learner.dynamics, learner.family, step)
        except (ImproperPosteriorError, torch.linalg.LinAlgError, np.linalg.LinAlgError):
            raise UserError(
                f'--episode {episode}: without it the posterior of regime {name!r} would be '
                'improper, so nothing was taken out; take the whole regime out by a smaller '
                'memory budget, or keep the episode'
            ) from None
        heads[name] = head, left
    learner.outcomes = learner.outcomes.without(episode)
    return _apply(learner, episode, heads, len(transitions))


def known_episodes(learner: Learner) -> set[int]:
    """Numbers of all episodes that heads or reservoirs hold anything of."""
    found = set(learner.tape.episodes | learner.tape.everything_folded() | learner.taught)
    found |= {s.episode for s in learner.waiting.samples}
    found |= learner.outcomes.episodes | learner.outcomes.folded
    for regime in learner.library.regimes:
        found |= regime.tape.episodes | regime.tape.everything_folded()
        found |= {s.episode for s in regime.reservoir.samples}
    return found


def next_episode(learner: Learner) -> int:
    """The first number that no episode ever had: not one that was forgotten, either."""
    return max(learner.first_episode, max(known_episodes(learner), default=-1) + 1)


def _check(learner: Learner, episode: int) -> None:
    known = known_episodes(learner)
    if episode not in known:
        there = ', '.join(map(str, sorted(known))) or 'none'
        raise UserError(f'--episode {episode}: memory holds nothing of it; it holds {there}')
    if episode in learner.taught:
        raise UserError(
            f'--episode {episode}: the trunk has learned from it, so that it cannot be taken out '
            'exactly; forget it in a copy of the state from before'
        )
    tapes = {'live': learner.tape} | {r.name: r.tape for r in learner.library.regimes}
    folded = [name for name, tape in tapes.items() if episode in tape.everything_folded()]
    if folded:
        raise UserError(
            f'--episode {episode}: regime {", ".join(folded)} no longer keeps its transitions one '
            'by one, so that it cannot be taken out exactly; a greater `journal` or '
            '`memory_bytes` of the learner would have kept them'
        )
    if episode in learner.outcomes.folded:
        raise UserError(
            f'--episode {episode}: the heads of outcomes {", ".join(learner.outcomes.kinds)} no '
            'longer keep its labels one by one, so that it cannot be taken out exactly; a greater '
            '`journal` of the learner would have kept them'
        )


def _apply(
    learner: Learner, episode: int, heads: dict[str, tuple[Head, Tape]], transitions: int
) -> Forgotten:
    """Put new heads in place; nothing fails from here on."""
    library, current = learner.library, learner.regime
    regimes: list[Regime] = []
    dropped, remembered = [], 0
    for index, regime in enumerate(library.regimes):
        head, tape = heads.get(regime.name, (regime.head, regime.tape))
        reservoir = regime.reservoir.without(episode)
        remembered += len(regime.reservoir.samples) - len(reservoir.samples)
        empty = not tape.samples() and not tape.everything_folded()
        if index > 0 and regime.name in heads and empty:
            dropped.append(regime.name)
            continue
        regimes.append(replace(regime, head=head, tape=tape, reservoir=reservoir))
    names = [r.name for r in regimes]
    notes = {n: text for n, text in library.notes.items() if n in names}
    waiting = learner.waiting.without(episode)
    remembered += len(learner.waiting.samples) - len(waiting.samples)
    learner.library = Library(regimes, library.named, notes)
    learner.waiting = waiting
    for name in dropped:
        learner.filter.rename(name, NEW)
    learner.identity = names.index(current) if current in names else None
    if 'live' in heads:
        learner.live, learner.tape = heads['live']
        learner.redraw()
    learner.relearn(learner.tape.samples()[-RECENT:])
    changed = [n for n in heads if n not in dropped]
    return Forgotten(episode, changed, dropped, transitions, remembered)
