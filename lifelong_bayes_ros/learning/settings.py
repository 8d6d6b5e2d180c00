"""Settings of the learner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the learner; the defaults serve every shipped robot."""

    confidence_home: float = 0.01  # share of the family covariance that life starts with
    random_walk: float = 3e-4  # covariance moved towards the prior per transition
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
    memory_bytes: int | None = None  # most that all regimes take; None: what `capacity` needs
    journal: int = 4000  # steps of a head kept to take episodes back, the last half to all of them
    guard_window: int = 15
    guard_margin: float = 1.15  # the guard goes on above this ratio to the nominal error
    background: bool = True  # the trunk keeps learning
    trunk_every: int = 500  # transitions between two jobs
    trunk_steps: int = 2  # steps of the Bayesian learning rule per transition
    trunk_window: int = 2000  # recent transitions that a job learns from
