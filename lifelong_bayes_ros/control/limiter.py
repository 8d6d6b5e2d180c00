"""Which command may come next: range, slew and jerk limits of every action."""

from __future__ import annotations

import numpy as np

from ..robot.spec import RobotSpec


class Limiter:
    """The window that the next command must lie in, so that all limits hold from here on for ever.

    With a jerk limit J (change of the change per step) a command that moves by Δ needs
    Δ + (Δ−J) + (Δ−2J) + … until it stands; the window keeps this way within the range, so it is
    never empty. Limits hold per control step.
    """

    def __init__(self, spec: RobotSpec) -> None:
        # Rounded as commands are, so that a command at its limit stays as it is.
        self.low = spec.action_low.astype(np.float32).astype(float)
        self.high = spec.action_high.astype(np.float32).astype(float)
        infinity = np.inf
        self.slew = np.array([infinity if a.slew is None else a.slew for a in spec.action])
        self.slew = self.slew * spec.period
        self._jerk = np.array([infinity if a.jerk is None else a.jerk for a in spec.action])
        self._jerk = self._jerk * spec.period**2
        self.reset(spec.neutral)

    def reset(self, command: np.ndarray) -> None:
        """Take a command [da] for the last one, at rest."""
        self.last = np.clip(np.asarray(command, np.float32).astype(float), self.low, self.high)
        self.rest()

    def rest(self) -> None:
        """The command stands still, e.g. because none is sent."""
        self._change = np.zeros_like(self.low)

    def window(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest command [da] that may be sent next, float64."""
        up = self._most(self._change, self.high - self.last)
        down = self._most(-self._change, self.last - self.low)
        low, high = self.last - down, self.last + up
        high = np.maximum(np.minimum(high, self.high), self.low)
        return np.minimum(np.maximum(low, self.low), high), high

    def changed(self, wanted: np.ndarray) -> dict[str, bool]:
        """Which limits a wanted command [da] is beyond."""
        change = wanted - self.last
        return {
            'range': bool(((wanted < self.low) | (wanted > self.high)).any()),
            'slew limit': bool((np.abs(change) > self.slew).any()),
            'jerk limit': bool((np.abs(change - self._change) > self._jerk).any()),
        }

    def send(self, command: np.ndarray) -> np.ndarray:
        """The command [da] within the window, float32; from now on the last one."""
        low, high = self.window()
        command = np.where(np.isfinite(command), command, self.last)
        sent = np.clip(command, low, high).astype(np.float32)
        sent = np.where(sent > high, np.nextafter(sent, np.float32(-np.inf)), sent)
        sent = np.where(sent < low, np.nextafter(sent, np.float32(np.inf)), sent)
        self._change = sent.astype(float) - self.last
        self.last = sent.astype(float)
        return sent

    def _most(self, change: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Farthest step [da] in a direction in which the last step was `change`."""
        room = np.maximum(room, 0.0)
        most = np.minimum(np.minimum(self.slew, change + self._jerk), room)
        bound = np.isfinite(self._jerk)
        if bound.any():
            jerk, way = self._jerk[bound], room[bound]
            n = np.floor((np.sqrt(1 + 8 * way / jerk) - 1) / 2)
            stopping = (way + jerk * n * (n + 1) / 2) / (n + 1)
            # Rounding must not ask for a harder stop than the jerk limit allows.
            stopping = np.maximum(stopping, change[bound] - jerk)
            most[bound] = np.minimum(most[bound], stopping)
        return np.minimum(most, room)
