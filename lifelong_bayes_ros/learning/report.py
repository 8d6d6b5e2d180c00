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


def student_quantile(dof: float) -> float:
    """95 % quantile of Student's t by its Cornish–Fisher expansion (error < 1e-3 for dof ≥ 11)."""
    z = 1.6448536269514722
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
