"""Limits of the robot's state: which commands keep it where it can still brake."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..robot.limits import CREDIBLE, rate_of
from ..robot.spec import RobotSpec

PASSES = 10
ROUNDING = 1e-9
NOTHING = 1e-12  # a gain below this moves nothing


@dataclass(frozen=True)
class Rates:
    """Time derivative of the state at the end of the step, for channels without one of their own.

    `mean` [ds], `gain` [ds, da] its derivative by the command, `sd` [ds] what is not known of it.
    """

    mean: np.ndarray
    gain: np.ndarray
    sd: np.ndarray


@dataclass(frozen=True)
class Outlook:
    """What the Belief expects of a command, in units of the state.

    `mean` [ds] is the state after the control step, `gain` [ds, da] its derivative by the command,
    `sd` [ds] the standard deviation of the prediction, ignorance and noise together. `ood` is the
    out-of-distribution score, `age` that of the belief in seconds, `trust` the share of the
    authority that the Belief deserves. `rates` is needed where `Fence.needs_rates`.
    """

    command: np.ndarray
    mean: np.ndarray
    gain: np.ndarray
    sd: np.ndarray
    ood: float = 1.0
    age: float = 0.0
    trust: float = 1.0
    rates: Rates | None = None

    @property
    def sane(self) -> bool:
        """Whether all numbers may be those of a robot, and spreads are not negative."""
        parts = [self.command, self.mean, self.gain, self.sd, self.ood, self.age, self.trust]
        spreads = [self.sd]
        if self.rates is not None:
            parts += [self.rates.mean, self.rates.gain, self.rates.sd]
            spreads += [self.rates.sd]
        credible = all((np.abs(p) <= CREDIBLE).all() for p in parts)  # false if not a number
        return credible and all((sd >= 0).all() for sd in spreads) and self.ood >= 0


@dataclass(frozen=True)
class Edge:
    """One limit of one channel; `sign` is −1 for a lower one. `rate` is its derivative's index."""

    channel: int
    rate: int | None
    sign: float
    limit: float
    deceleration: float
    opposite: bool  # the one before is the other limit of the same channel


class Fence:
    """Overrules a command where the state would come too close to a limit to brake in time.

    For a limit L of a channel p with rate v, braking at `deceleration` a and period T, the next
    state must satisfy v T + v²/(2a) ≤ L − p (a step of reaction, then the braking distance), with
    p and v taken `sigmas` standard deviations on the bad side. That bounds v, which the command
    moves by `gain`; the command becomes the nearest one, in units of its range, that keeps the
    bound, or the one that brakes hardest. Where not all limits can be kept, those named first in
    the robot file come first.
    """

    def __init__(self, spec: RobotSpec) -> None:
        names = spec.state_names
        self._period, self._sigmas = spec.period, spec.safety.sigmas
        self._metric = np.square(spec.action_half_range)
        self._edges = []
        self._braked: list[tuple[int, int | None]] = []  # channels and their rates
        for name, limit in spec.safety.limits.items():
            at, rate = names.index(name), rate_of(spec, name)
            index = None if rate is None else names.index(rate.name)
            if limit.deceleration is not None:
                self._braked.append((at, index))
            low, high, a = spec.state[at].low, spec.state[at].high, limit.deceleration or 0.0
            if high is not None:
                self._edges.append(Edge(at, index, 1.0, high, a, False))
            if low is not None:
                self._edges.append(Edge(at, index, -1.0, low, a, high is not None))

    def __bool__(self) -> bool:
        return bool(self._edges)

    @property
    def needs_rates(self) -> bool:
        """Whether a channel with a braking distance has no rate among the channels."""
        return any(rate is None for _, rate in self._braked)

    def keep(
        self, wanted: np.ndarray, low: np.ndarray, high: np.ndarray, outlook: Outlook
    ) -> np.ndarray:
        """The command [da] in the window nearest to `wanted` that keeps all limits."""
        bounds = self._bounds(outlook)
        command = wanted
        for _ in range(PASSES):  # of projection on each in turn
            broken = False
            for slope, bound in reversed(bounds):
                if slope @ command > bound + ROUNDING * (1 + abs(bound)):
                    command = self._nearest(command, low, high, slope, bound)
                    broken = True
            if not broken:
                break
        return command

    def brake(self, low: np.ndarray, high: np.ndarray, outlook: Outlook) -> np.ndarray:
        """The command [da] in the window after which the guarded channels' rates are least."""
        rates = [self._rate(at, rate, outlook) for at, rate in self._braked]
        gain = np.array([slope for slope, _, _ in rates])
        rest = np.array([now for _, now, _ in rates]) - gain @ outlook.command
        command = np.clip(outlook.command, low, high)
        square = np.square(gain).sum(axis=0)
        for _ in range(4 * PASSES):  # of coordinate descent on ‖rest + gain u‖²
            for j in np.flatnonzero(square > NOTHING):
                residual = rest + gain @ command
                best = command[j] - gain[:, j] @ residual / square[j]
                command[j] = min(max(best, low[j]), high[j])
        return command

    def _bounds(self, outlook: Outlook) -> list[tuple[np.ndarray, float]]:
        """Bounds of all edges; where ignorance leaves no room between two, the middle."""
        bounds: list[tuple[np.ndarray, float]] = []
        for edge in self._edges:
            slope, bound = self._bound(edge, outlook)
            if bounds and edge.opposite:
                upper = bounds[-1][1]
                if upper < -bound:
                    middle = (upper - bound) / 2
                    bounds[-1], bound = (-slope, middle), -middle
            bounds.append((slope, bound))
        return bounds

    def _bound(self, edge: Edge, outlook: Outlook) -> tuple[np.ndarray, float]:
        """Slope g [da] and bound b of g·u ≤ b, which keeps an edge."""
        margin = edge.sign * (edge.limit - outlook.mean[edge.channel])
        margin -= self._sigmas * outlook.sd[edge.channel]
        a, period = edge.deceleration, self._period
        if a == 0 or (edge.rate is None and outlook.rates is None):
            slope = edge.sign * outlook.gain[edge.channel]
            return slope, margin + slope @ outlook.command
        slope, now, sd = self._rate(edge.channel, edge.rate, outlook)
        slope, room = edge.sign * slope, max(margin, 0.0)
        fastest = a * (np.sqrt(period**2 + 2 * room / a) - period)
        bound = fastest - self._sigmas * sd - edge.sign * now + slope @ outlook.command
        return slope, bound

    def _rate(
        self, channel: int, rate: int | None, outlook: Outlook
    ) -> tuple[np.ndarray, float, float]:
        """A channel's rate: derivative by the command [da], value and standard deviation."""
        if rate is not None:
            return outlook.gain[rate], outlook.mean[rate], outlook.sd[rate]
        rates = outlook.rates
        if rates is None:
            return np.zeros(len(outlook.command)), 0.0, 0.0
        return rates.gain[channel], rates.mean[channel], rates.sd[channel]

    def _nearest(
        self,
        wanted: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        slope: np.ndarray,
        bound: float,
    ) -> np.ndarray:
        """Projection of a command in the window onto {g·u ≤ b}, exact.

        It is wanted − λ·g in the metric, clipped to the window; λ grows from one edge of the
        window to the next until the bound holds or no command can move.
        """
        direction = slope * self._metric
        free = np.abs(slope) > NOTHING
        ends = np.where(slope > 0, low, high)
        reach = np.full(len(slope), np.inf)
        reach[free] = (wanted[free] - ends[free]) / direction[free]
        multiplier, command = 0.0, wanted
        while True:
            free &= reach > multiplier
            excess = slope @ command - bound
            if excess <= 0 or not free.any():
                return command
            needed = multiplier + excess / (slope[free] @ direction[free])
            multiplier = min(needed, reach[free].min())
            moved = np.where(reach <= multiplier, ends, wanted - multiplier * direction)
            command = np.where(np.abs(slope) > NOTHING, moved, wanted)
            if multiplier == needed:
                return command
