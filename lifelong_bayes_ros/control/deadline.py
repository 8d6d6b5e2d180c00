"""Planning against the clock: a plan that is late is not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as Late
from contextlib import suppress

import numpy as np

from ..dynamics.belief import Belief
from ..robot.transitions import State
from .controller import Act, Controller
from .planner import Plan


class Deadline:
    """Calls a controller so that an answer comes in time, whatever planning does.

    Planning runs in one thread of its own. Is it not done after `seconds`, the last plan, moved on
    in time, answers; the late one is taken up when it is there, and no other is begun before that.
    """

    def __init__(self, controller: Controller, seconds: float) -> None:
        self.controller = controller
        self.seconds = seconds
        self._thread = ThreadPoolExecutor(1, 'planner')
        self._running: Future[Plan] | None = None
        self._changes: list[Callable[[], None]] = []  # that wait for the end of the running plan

    def warm(self, belief: Belief) -> None:
        """Plan once for nothing, so that the first plan need not wait for what loads on use."""
        dynamics, device = self.controller.dynamics, self.controller.device
        nowhere = State(0, np.zeros(len(dynamics.spec.state), np.float32))
        self._thread.submit(Controller(dynamics, device=device).act, nowhere, belief).result()
        planner = self.controller.planner
        if planner.arrays.on_cuda:  # its own graphs, too
            past = dynamics.history()
            self._thread.submit(planner.plan, belief, 0, nowhere.x, past).result()
            planner.reset()

    def act(self, state: State, belief: Belief) -> Act:
        """Choose the command for a state, in time."""
        started = time.perf_counter()
        plan = None
        if self._running is not None and self._running.done():
            self.settle()
        if self._running is None:
            past = self.controller.past.copy()
            self._running = self._thread.submit(self.controller.think, state, belief, past)
            left = self.seconds - (time.perf_counter() - started)
            with suppress(Late):
                plan, self._running = self._running.result(max(left, 0.0)), None
        return self.controller.answer(state, belief, plan, started)

    def rest(self) -> None:
        """Do what the next plan need not wait for, once the answer is sent."""
        if self._running is None:
            self.controller.planner.rest()

    def later(self, change: Callable[[], None]) -> None:
        """Change the controller once nothing is being planned: at once, or before the next plan.

        Nobody waits for it: what a plan under way comes to is of before the change, and dropped.
        """
        self._changes.append(change)
        if self._running is None:
            self.settle()

    def settle(self) -> None:
        """Wait until nothing is being planned, so that the controller may be changed."""
        running, self._running = self._running, None
        changes, self._changes = self._changes, []
        if running is not None and changes:
            wait([running])
        elif running is not None:
            self.controller.take_up(running.result())
        for change in changes:
            change()
