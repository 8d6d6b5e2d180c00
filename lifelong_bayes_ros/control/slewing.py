"""Slew limits in plans: commands that the safety stage need not hold back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..robot.spec import RobotSpec
from .arrays import NUMPY, Arrays

ROUNDING = 1e-6  # of a range: a slew limit that is short of it by less does not bind


def most_per_step(spec: RobotSpec) -> np.ndarray:
    """Most that each command [da] may change in a step; infinite where no slew limit binds."""
    slew = [np.inf if a.slew is None else a.slew * spec.period for a in spec.action]
    binds = np.array(slew) < (1 - ROUNDING) * (spec.action_high - spec.action_low)
    return np.where(binds, slew, np.inf)


class Slewing:
    """Makes plans such that no command is farther from the one before than its slew limit allows.

    Every command is clamped in turn to what can be reached from the one before, the first one from
    the command sent last. Plans within the range stay there, and averages of such plans are such
    plans. False where no limit is below a command's whole range: then nothing needs to be done.
    Jerk limits are left to the safety stage.
    """

    def __init__(self, spec: RobotSpec, arrays: Arrays = NUMPY) -> None:
        self._lib = arrays.lib
        most = most_per_step(spec)
        self._binds = bool(np.isfinite(most).any())
        # A hair less, so that sums rounded to float32 are never beyond the limit.
        largest = np.maximum(np.abs(spec.action_low), np.abs(spec.action_high))
        hair = 2 * np.spacing(largest.astype(np.float32))
        self._most = arrays.array(np.maximum(most - hair, 0))

    def __bool__(self) -> bool:
        return self._binds

    def __call__(self, plans: Any, last: Any) -> Any:
        """Plans [..., h, da] after the last command [da], arrays both, as they can be followed."""
        steps = []
        for h in range(plans.shape[-2]):
            last = plans[..., h, :].clip(last - self._most, last + self._most)
            steps.append(last)
        return self._lib.stack(steps, -2)
