"""The last stage before a command leaves: separate from all learning, always applied."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..robot.spec import RobotSpec
from .fence import Fence, Outlook
from .limiter import Limiter

HISTORY = 4  # commands remembered


class Safety:
    """Decides what is sent: a command within all limits, the safe action, or nothing.

    In this order: emergency stop, finite check, watchdog on the belief and on time, authority (out
    of distribution, or a Belief that deserves little trust), limits of the state with braking
    distance, and range, slew and jerk limits, which have the last word. Everything it had to
    change is counted in `interventions` by reason. The safe action is sent for a few ticks, then
    nothing, so that timeouts downstream fire. A stop holds until `enable`.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.interventions: Counter[str] = Counter()
        self.stopped = ''  # why, while an emergency stop holds
        self.fault = ''  # why the last command must not be acted on; empty: it may
        self.authority = 1.0  # share of the command's range granted at the last check
        self._limiter = Limiter(spec)
        self.narrow(spec.action_low, spec.action_high)
        self._fence = Fence(spec)
        self._neutral = spec.neutral.astype(np.float32).astype(float)
        self.reset()

    def reset(self) -> None:
        """Forget what was sent, at the start of a life: it was neutral. A stop holds on."""
        self._limiter.reset(self.spec.neutral)
        self.sent = np.tile(self.spec.neutral, (HISTORY, 1))
        self.resume()

    def resume(self) -> None:
        """Go on after a pause: the last command still stands. A stop holds on."""
        self._limiter.rest()
        self._begin()

    def _begin(self) -> None:
        self._unsafe_ticks = 0
        self._stamp_ns: int | None = None

    def stop(self, reason: str) -> None:
        """Latch the emergency stop: only the safe action, then nothing."""
        if not self.stopped:
            self._unsafe_ticks = 0
        self.stopped = reason

    def narrow(self, low: np.ndarray, high: np.ndarray) -> None:
        """Let an operator hold commands within low and high [da], inside the robot file's range.

        Where the last command is beyond, it comes back as fast as slew and jerk limits allow.
        Limits of the state outrank it, and so does the safe action.
        """
        # Rounded as commands are, so that a command at its limit stays as it is.
        low, high = (np.asarray(end, np.float32).astype(float) for end in (low, high))
        self.allowed = low, high

    def enable(self) -> None:
        """End a stop; what was sent last is where slew and jerk limits go on from."""
        if self.stopped:
            self.stopped = ''
            self._begin()

    @property
    def needs_outlook(self) -> bool:
        """Whether gains of the command are of use: limits of the state, or a brake."""
        return bool(self._fence)

    @property
    def needs_rates(self) -> bool:
        """Whether an outlook must tell the rates of channels that have none among the channels."""
        return self._fence.needs_rates

    @property
    def last(self) -> np.ndarray:
        """The last command sent [da]; `sent` [HISTORY, da] holds those before, newest first."""
        return self.sent[0].astype(np.float32)

    def check(
        self, wanted: np.ndarray, outlook: Outlook | None = None, stamp_ns: int | None = None
    ) -> np.ndarray | None:
        """A command that may be sent [da], float32; None: send nothing.

        Args:
            wanted: command [da]; anything else leads to the safe action.
            outlook: what the Belief expects of it; without, no limit of the state is kept.
            stamp_ns: time of the state that it answers.
        """
        with np.errstate(all='ignore'):  # numbers of any size may come
            return self._check(wanted, outlook, stamp_ns)

    def _check(
        self, wanted: np.ndarray, outlook: Outlook | None, stamp_ns: int | None
    ) -> np.ndarray | None:
        self.fault = fault = self._fault(wanted, outlook, stamp_ns)
        if self.stopped or fault:
            self.interventions['stopped' if self.stopped else fault] += 1
            return self.safe_action(outlook)
        self._unsafe_ticks = 0
        target = np.asarray(wanted, float)
        self.interventions.update(k for k, v in self._limiter.changed(target).items() if v)
        possible = np.clip(target, self._limiter.low, self._limiter.high)
        narrowed = np.clip(possible, *self.allowed)
        self._note('range of the operator', narrowed, possible)
        target = self._within_authority(narrowed)
        low, high = self._limiter.window()
        target = np.clip(target, low, high)
        if outlook is not None and self._fence:
            kept = self._fence.keep(target, low, high, outlook)
            self._note('state limit', kept, target)
            target = kept
        return self._send(target)

    def safe_action(
        self, outlook: Outlook | None = None, counted: bool = True
    ) -> np.ndarray | None:
        """The robot file's safe action, or None once its ticks are used up: then stay silent.

        Not `counted` where nothing is unsafe but that a plan is late: then it goes on.
        """
        self._unsafe_ticks += counted
        if self._unsafe_ticks > self.spec.safe_action.ticks:
            self._limiter.rest()
            return None
        mode = self.spec.safe_action.mode
        low, high = self._limiter.window()
        if mode == 'brake' and outlook is not None and self._usable(outlook):
            return self._send(self._fence.brake(low, high, outlook))
        target = {'zero': np.zeros_like(self._neutral), 'hold': self._limiter.last}
        return self._send(target.get(mode, self._neutral))

    # ------------------------------------------------------------------ reasons to intervene
    def _fault(self, wanted: object, outlook: Outlook | None, stamp_ns: int | None) -> str:
        """Why a command must not be acted on at all; empty: no reason."""
        backwards = None not in (stamp_ns, self._stamp_ns) and stamp_ns < self._stamp_ns
        self._stamp_ns = stamp_ns
        self.authority = 0.0
        if backwards:
            return 'time ran backwards'
        if not _finite(wanted, self._neutral.shape):
            return 'not finite'
        if outlook is None:
            self.authority = 1.0
            return ''
        if not self._usable(outlook):
            return 'belief not finite'
        timeout = self.spec.safety.belief_timeout
        if timeout is not None and outlook.age > timeout:
            return 'belief too old'
        self.authority = self._familiarity(outlook.ood) * min(max(outlook.trust, 0.0), 1.0)
        return '' if self.authority > 0 else 'out of distribution'

    def _usable(self, outlook: Outlook) -> bool:
        ds, da = len(self.spec.state), len(self.spec.action)
        rates = outlook.rates or outlook
        parts = (outlook.command, outlook.mean, outlook.gain, outlook.sd)
        parts += (rates.mean, rates.gain, rates.sd)
        wanted = ((da,), (ds,), (ds, da), (ds,), (ds,), (ds, da), (ds,))
        return tuple(part.shape for part in parts) == wanted and outlook.sane

    def _familiarity(self, ood: float) -> float:
        """Authority by the out-of-distribution score, smooth (cubic in its logarithm)."""
        limits = self.spec.safety.ood
        if ood <= limits.begin:
            return 1.0
        share = np.log(ood / limits.begin) / np.log(limits.stop / limits.begin)
        share = min(float(share), 1.0)
        return 1.0 - share * share * (3.0 - 2.0 * share)

    def _within_authority(self, target: np.ndarray) -> np.ndarray:
        """The command held near neutral, and its speed away from neutral held down."""
        if self.authority >= 1.0:
            return target
        limiter, neutral, share = self._limiter, self._neutral, self.authority
        low = neutral + share * (limiter.low - neutral)
        high = neutral + share * (limiter.high - neutral)
        held = np.clip(target, low, high)
        slowest, fastest = limiter.last - share * limiter.slew, limiter.last + share * limiter.slew
        # Towards neutral it may go as fast as ever.
        held = np.clip(held, np.minimum(slowest, neutral), np.maximum(fastest, neutral))
        self._note('authority', held, target)
        return held

    def _note(self, reason: str, after: np.ndarray, before: np.ndarray) -> None:
        if not np.array_equal(after, before):
            self.interventions[reason] += 1

    def _send(self, target: np.ndarray) -> np.ndarray:
        command = self._limiter.send(target)
        self.sent = np.vstack([command, self.sent[:-1]])
        return command


def _finite(values: object, shape: tuple[int, ...]) -> bool:
    try:
        if np.iscomplexobj(values):
            return False
        numbers = np.asarray(values, float)
    except (TypeError, ValueError, OverflowError):
        return False
    return numbers.shape == shape and bool(np.isfinite(numbers).all())
