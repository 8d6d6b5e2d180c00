"""A job of the background on what a state holds, for a trunk that learns between two lives.

The last transitions are held out, as many as pass between the start of a job on board and its end,
with the evidence that the live head of the time gave for each before it learned from it. A new
trunk must beat that, and the trunk of now with a head that is fitted anew on the same transitions:
what such a head gains by itself is no reason for another trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..dynamics.head import Head
from ..errors import UserError
from ..memory.regimes import Regime
from ..memory.reservoir import Sample
from ..memory.tape import Join, Operation
from .background import LEAST, Background, Running
from .candidate import Job

if TYPE_CHECKING:
    from .learner import Learner


def job_of_now(learner: Learner, steps: int | None, progress: Callable[[float], None]) -> Running:
    """A job, ready to be done by `Background.at_once`.

    Nothing in it has learned from the transitions that are held out: its head begins at the prior,
    memories are without them, and stored heads as they were before the first of them.

    Args:
        learner: not changed.
        steps: of the Bayesian learning rule; None: as many as on board.
        progress: called with the share of steps done.

    Raises:
        UserError: the trunk does not learn, or there is too little to learn from or to judge by.
    """
    background, config = learner.background, learner.config
    if background is None:
        raise UserError(
            'the trunk of this state does not learn, as `background: false` of its settings says; '
            'consolidate it without the trunk'
        )
    held = background.due
    _check(background, held)
    window = list(background.window)
    recent, held_out = window[:-held], window[-held:]
    unseen, regimes = {s.key for s in held_out}, learner.library.regimes
    started = learner.learned - held
    job = Job(
        prior=learner.prior,
        recent=tuple(recent),
        memory={
            r.name: tuple(s for s in r.reservoir.samples if s.key not in unseen) for r in regimes
        },
        heads={r.name: _head_before(learner, r, unseen) for r in regimes},
        regime=learner.regime,
        theta=learner.dynamics.nominal_theta,
        noise=learner.prior.noise,
        steps=config.trunk_steps * config.trunk_every if steps is None else steps,
        seed=learner.seed + started,
    )
    evidence = list(background.evidence)[-held:]
    return Running(job, started, evidence, held_out, progress, fair=True)


def _check(background: Background, held: int) -> None:
    window, told, needed = background.window, len(background.evidence), held + LEAST
    if len(window) < needed:
        short = f'let the robot go on for {needed - len(window)} more'
        if window.maxlen < needed:
            short = f'its setting `trunk_window` keeps at most {window.maxlen}'
        raise UserError(
            f'{len(window)} transitions are kept, too few for a trunk to learn from: the last '
            f'{held} are held out to judge it by, and it needs {LEAST} others; {short}'
        )
    if told < held:
        raise UserError(
            f'the trunk of now has predicted {told} transitions since it was adopted, or since '
            'the state was of a version that did not keep this; another one is judged by '
            f'{held}: let the robot go on for {held - told} more'
        )


def _head_before(learner: Learner, regime: Regime, unseen: set[tuple[int, int, bytes]]) -> Head:
    """A stored head before the first of these transitions that it has learned from."""
    for index, operation in enumerate(regime.tape):
        if not unseen.isdisjoint(s.key for s in _samples(operation)):
            return replace(regime.tape, length=index).run(learner.dynamics, learner.family)
    return regime.head


def _samples(operation: Operation) -> list[Sample]:
    if isinstance(operation, Join):
        return operation.other.samples()
    return [operation] if isinstance(operation, Sample) else []
