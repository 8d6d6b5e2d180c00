"""Surprise: has the plant changed, and when?

Moving averages of the normalised innovation squared (NIS; 1 on average when the model is right)
raise the alarm; a CUSUM over the last steps places the change point (Page 1954).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

FAST_LIMIT = 4.0
SLOW_LIMIT = 2.5
WINDOW = 8
REACH = 16  # steps that a change may have gone unnoticed
DRIFT, DOUBT = 2.0, 1.3  # NIS above which a step speaks for a change: surely, and perhaps


@dataclass
class Surprise:
    """Fast and slow moving averages of the NIS and its recent values."""

    fast: float = 1.0
    slow: float = 1.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=REACH))

    def update(self, nis: float) -> bool:
        """Take one NIS; True if the model no longer explains the robot."""
        self.fast = 0.6 * self.fast + 0.4 * min(nis, 30.0)
        self.slow = 0.9 * self.slow + 0.1 * min(nis, 8.0)
        self.recent.append(nis)
        return self.fast > FAST_LIMIT or self.slow > SLOW_LIMIT

    @property
    def calm(self) -> bool:
        """Whether nothing is going on that should not be stored."""
        return self.fast < 1.6 and self.slow < 1.4

    def since_change(self) -> int:
        """Steps since the most likely change point, 1 to `WINDOW`."""
        return self._since(WINDOW, DRIFT)

    def since_doubt(self) -> int:
        """Steps since the change may have begun, 1 to `REACH`: what came after is not sure."""
        return self._since(REACH, DOUBT)

    def _since(self, reach: int, drift: float) -> int:
        best, total, steps = float('-inf'), 0.0, 1
        for age, nis in enumerate(islice(reversed(self.recent), reach), start=1):
            total += min(nis, 12.0) - drift
            if total > best:
                best, steps = total, age
        return steps

    def reset(self) -> None:
        """Start afresh after an event has been dealt with."""
        self.fast = self.slow = 1.0
        self.recent.clear()
