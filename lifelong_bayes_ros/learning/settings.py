"""Settings of the learner."""

from __future__ import annotations

import math
from dataclasses import dataclass

COUNTS = {  # and the least that each must be
    'watch': 1,
    'purge': 0,
    'store_age': 1,
    'capacity': 1,
    'reservoir': 1,
    'dense_window': 1,
    'journal': 0,
    'guard_window': 1,
    'trunk_every': 2,
    'trunk_steps': 1,
    'trunk_window': 1,
}
SHARES = ('confidence_home', 'random_walk', 'recall_widen', 'guard_weight')  # from 0 to 1


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the learner; the defaults serve every shipped robot.

    Raises:
        ValueError: one is out of range; says which, and what it may be.
    """

    confidence_home: float = 0.01  # share of the family covariance that life starts with
    random_walk: float = 1e-4  # covariance moved towards the prior per transition
    recall_widen: float = 0.02  # and at a recall
    recall_nats: float = 2.0  # evidence over the live head that a recall needs, at an alarm
    recall_nats_after: float = 3.0  # in the steps after an event
    recall_nats_calm: float = 9.0  # at any other time, over 8 steps
    recall_later: float = 2.0  # what a beginning after the change point costs, nats
    recall_nis: float = 2.5  # worst mean NIS of a regime worth recalling
    watch: int = 60  # steps after an event during which memory is consulted at every step
    soft_ratio: float = 2.2  # growth of the noise that shows a weak shift
    purge: int = 6  # steps before an alarm that are taken back out of a committed head, at least
    store_age: int = 40  # steps that a head must have lived, calmly, to be stored
    store_nats: float = 0.35  # nats per step over the best stored regime that make it new
    capacity: int = 12  # regimes kept, the nominal one included
    reservoir: int = 64  # transitions kept per regime
    dense_window: int = 40  # steps over which hypotheses and live head are compared
    dense_nats: float = 0.3  # nats per step that the head must be ahead of the hypotheses
    dense_start: float = 5.0  # and nats more, before it is acted on
    memory_bytes: int | None = None  # of regimes and outcomes at most; None: no limit
    journal: int = 4000  # steps of a head kept to take episodes back, the last half to all of them
    guard_window: int = 10  # steps over which the learned and the nominal model are compared
    # Of the learned model, below which the guard goes on, see `Race`; 0: there is no guard.
    guard_weight: float = 0.6
    background: bool = True  # the trunk keeps learning
    trunk_every: int = 500  # transitions between two jobs
    trunk_steps: int = 2  # steps of the Bayesian learning rule per transition
    trunk_window: int = 2000  # recent transitions that a job learns from

    def __post_init__(self) -> None:
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name} {value!r}: give a whole number from {least} on')
        for name in SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f'{name} {value!r}: give a share from 0 to 1')
        for name, value in vars(self).items():
            if isinstance(value, float) and math.isnan(value):  # infinite: what never is
                raise ValueError(f'{name} {value!r}: give a number')
