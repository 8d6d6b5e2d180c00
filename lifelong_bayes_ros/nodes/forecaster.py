"""What a plan is expected to lead to, computed where no command waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from ..control.forecast import Forecast, forecast
from ..control.rollout import Rollout
from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics


class Forecaster:
    """Forecasts plans one at a time in a thread of low priority.

    A forecast takes about as long as a plan: on the thread that answers states it would make the
    next answer late, and on the planner's the next plan.
    """

    def __init__(self, tell: Callable[[Forecast], None], wait: bool) -> None:
        """`tell` takes each forecast, in that thread; `wait` for it, as in lockstep."""
        self._tell = tell
        self._wait = wait
        self._thread = ThreadPoolExecutor(1, 'forecast', initializer=_step_back)
        self._running: Future[None] | None = None
        self._rollout: Rollout | None = None

    def offer(
        self,
        dynamics: Dynamics,
        belief: Belief,
        x: np.ndarray,
        actions: np.ndarray,
        past: np.ndarray,
    ) -> bool:
        """Forecast a plan as `forecast` does, unless one is on its way; whether it will be."""
        if self._running is not None:
            if not self._running.done():
                return False
            self.settle()
        self._running = self._thread.submit(self._work, dynamics, belief, x, actions, past)
        if self._wait:
            self.settle()
        return True

    def settle(self) -> None:
        """Wait until none is on its way; what went wrong in it is raised here."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self._thread.shutdown()

    def _work(self, dynamics: Dynamics, *rest: np.ndarray) -> None:
        if self._rollout is None or self._rollout.dynamics is not dynamics:
            self._rollout = Rollout(dynamics)  # the planner's is busy
        belief, x, actions, past = rest
        self._tell(forecast(dynamics, self._rollout, belief, x, actions, past))


def _step_back() -> None:
    with suppress(OSError, AttributeError):  # not on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
