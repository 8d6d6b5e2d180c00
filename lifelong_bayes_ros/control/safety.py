"""The last stage before a command leaves: separate from all learning, always applied."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..robot.spec import RobotSpec

HISTORY = 4  # commands remembered


class Safety:
    """Finite check, range clamp and slew limit; a safe action for a few ticks, then silence.

    What it had to change is counted in `interventions` by reason.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.interventions: Counter[str] = Counter()
        self._low = spec.action_low.astype(np.float32)
        self._high = spec.action_high.astype(np.float32)
        slew = [np.inf if a.slew is None else a.slew for a in spec.action]
        self._reach = (np.array(slew) * spec.period).astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the last command, e.g. at activation."""
        self.sent = np.tile(self.spec.neutral, (HISTORY, 1))
        self._unsafe_ticks = 0

    @property
    def last(self) -> np.ndarray:
        """The last command sent [da]; `sent` [HISTORY, da] holds those before, newest first."""
        return self.sent[0].astype(np.float32)

    def check(self, wanted: np.ndarray) -> np.ndarray | None:
        """A command [da] that may be sent, float32; the safe action if `wanted` is not finite."""
        wanted = np.asarray(wanted, np.float32)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            self.interventions['not finite'] += 1
            return self.safe_action()
        self._unsafe_ticks = 0
        return self._limit(wanted)

    def safe_action(self) -> np.ndarray | None:
        """The robot file's safe action, or None once its ticks are used up: then stay silent."""
        self._unsafe_ticks += 1
        if self._unsafe_ticks > self.spec.safe_action.ticks:
            return None
        mode = self.spec.safe_action.mode
        target = {
            'neutral': self.spec.neutral.astype(np.float32),
            'zero': np.zeros_like(self.last),
            'hold': self.last,
        }[mode]
        return self._limit(target)

    def _limit(self, wanted: np.ndarray) -> np.ndarray:
        slewed = np.clip(wanted, self.last - self._reach, self.last + self._reach)
        command = np.clip(slewed, self._low, self._high)
        if not np.array_equal(slewed, wanted):
            self.interventions['slew limit'] += 1
        if not np.array_equal(command, slewed):
            self.interventions['range'] += 1
        self.sent = np.vstack([command, self.sent[:-1]])
        return command
