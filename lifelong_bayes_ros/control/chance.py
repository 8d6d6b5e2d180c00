"""Chance constraints: channels that a plan keeps within limits with a probability.

A limit counts as kept at a step where the mean of the predicted state stays k standard deviations
away from it, with k the quantile of the probability under a normal distribution; the deviation is
that of the posterior draws along the plan and of the noise of one step together; of the ignorance
of one step, too, where a plan is rolled out through the mean. What a step's variance adds up to
along a plan does not count: the robot plans anew at every step, and margins that grow as if it did
not leave no plan at all.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

from ..robot.spec import RobotSpec
from .arrays import NUMPY, Arrays

SHARE = 0.01  # of the limited range: where the penalty turns from quadratic to linear


class Chance:
    """Penalties of the constraints of a robot file.

    Beyond a limit by v the penalty is weight·(√(1 + (v/s)²) − 1) (pseudo-Huber), with s a small
    share of the range between the limits: quadratic close to the limit, and linear far beyond it,
    so that a state that is beyond already does not drown all else.
    """

    def __init__(self, spec: RobotSpec, arrays: Arrays = NUMPY) -> None:
        names, limits = spec.state_names, spec.cost.chance
        infinity = float('inf')
        self.arrays = arrays
        self.channels = [names.index(n) for n in limits]
        low = [-infinity if c.low is None else c.low for c in limits.values()]
        high = [infinity if c.high is None else c.high for c in limits.values()]
        ranges = [b - a for a, b in zip(low, high, strict=True)]
        sizes = [
            r
            if r < infinity
            else max(abs(a) if a > -infinity else 0, abs(b) if b < infinity else 0)
            for r, a, b in zip(ranges, low, high, strict=True)
        ]  # of a single limit, its distance from zero
        quantiles = [NormalDist().inv_cdf(c.probability) for c in limits.values()]
        self._low, self._high, self._unit, self._quantile, self._weight = (
            arrays.array(values)
            for values in (
                low,
                high,
                [SHARE * (s or 1.0) for s in sizes],
                quantiles,
                [c.weight for c in limits.values()],
            )
        )
        self._at = arrays.index(self.channels)

    def __bool__(self) -> bool:
        return bool(self.channels)

    def __call__(self, states: Any, noise: Any, caution: Any) -> Any:
        """Penalty [n] of states [E, n, h, ds], averaged along the plans.

        Args:
            states: predicted states under each draw.
            noise: variance of a step that the states do not show [ds].
            caution: what the margins are multiplied by [].
        """
        lib = self.arrays.lib
        states, noise = states[..., self._at], noise[self._at]
        mean = states.mean(axis=0)
        margin = caution * self._quantile
        margin = margin * lib.sqrt(lib.square(states - mean).mean(axis=0) + noise)
        # The worse of both: where ignorance leaves no room between them, the middle is best.
        beyond = lib.maximum(mean + margin - self._high, self._low - mean + margin).clip(min=0)
        penalty = self._weight * (lib.sqrt(1 + lib.square(beyond / self._unit)) - 1)
        return penalty.sum(axis=-1).mean(axis=-1)
