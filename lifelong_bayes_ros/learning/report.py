"""What the learner tells of itself: events, and figures of the last transition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Event:
    """Something an operator wants to know: shift, recall, new_regime, consolidated, ..."""

    event: str
    stamp_ns: int
    step: int
    detail: dict[str, Any]


@dataclass
class Report:
    """Figures of the last transition, for `learner_state`."""

    nis: float = 1.0
    seconds: float = 0.0
    inside: float = 1.0  # share of outputs inside their 90 % interval
    epistemic: np.ndarray = field(default_factory=lambda: np.zeros(0))
