"""Whether what a head has learned since may take the place of the regime that is stored.

A shift that goes unnoticed for a while, or a recall of the wrong regime, teaches the live head
another plant. What was known of the regime when it was entered tells: a head that explains those
transitions worse than the stored one is no better version of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..dynamics.head import Head
from ..dynamics.model import Dynamics
from .reservoir import Sample
from .rows import Rows
from .tape import Tape

TOLERANCE = 1.2  # growth of the error on what was known; sensor noise and few samples make some
ENOUGH = 16  # transitions to judge by


def newest_fitting(
    dynamics: Dynamics,
    noise: np.ndarray,
    known: Sequence[Sample],
    stored: Head,
    versions: Iterable[tuple[Head, Tape]],
) -> tuple[Head, Tape] | None:
    """The first of some versions of a head that explains `known` as `stored` does, if any.

    Args:
        dynamics: the model that all heads belong to.
        noise: variance of the sensors per output [ds], the unit of errors.
        known: transitions of the regime.
        stored: its head.
        versions: what may take its place, newest first.
    """
    if len(known) < ENOUGH:
        return next(iter(versions), None)
    rows = Rows.of(dynamics, known)

    def error(head: Head) -> float:
        return float(np.sqrt(np.mean(rows.residual(head.posterior) ** 2 / noise)))

    # Less than the noise of the sensors is chance: the stored head may have seen little else.
    limit = TOLERANCE * max(error(stored), 1.0)
    return next((v for v in versions if error(v[0]) <= limit), None)
