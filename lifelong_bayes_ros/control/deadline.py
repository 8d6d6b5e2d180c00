"""Planning against the clock: ahead of the state where possible, and never waited for too long."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from ..dynamics.belief import Belief
from ..robot.transitions import State
from .controller import Act, Controller
from .planner import Plan


class Deadline:
    """Calls a controller so that an answer comes in time, whatever planning does.

    Planning runs in one thread of its own. Is it not done after `seconds`, the last plan, moved on
    in time, answers; the late one is taken up when it is there, and no other is begun before that.

    After `prepare` the plan for the state that should come next is under way before that state is
    there. A few candidates around it, weighed from the true state with the newest Belief, make the
    answer: preparation and feedback of the real-time iteration scheme (Diehl et al. 2005).
    """

    def __init__(self, controller: Controller, seconds: float, candidates: int = 0) -> None:
        """`candidates`: weighed once a state is there, where its plan was prepared."""
        self.controller = controller
        self.seconds = seconds
        self.candidates = candidates
        self._thread = ThreadPoolExecutor(1, 'planner')
        self._running: Future[Plan] | None = None
        self._prepared = False  # whether what is running was begun by `prepare`

    def warm(self, belief: Belief) -> None:
        """Plan once for nothing, so that the first plan need not wait for what loads on use."""
        dynamics = self.controller.dynamics
        nowhere = State(0, np.zeros(len(dynamics.spec.state), np.float32))
        self._thread.submit(Controller(dynamics).act, nowhere, belief).result()

    def act(self, state: State, belief: Belief) -> Act:
        """Choose the command for a state, in time."""
        started = time.perf_counter()
        until = started + self.seconds
        candidates = None
        if self._running is not None:
            if self._prepared and self._done(until):
                candidates = self.candidates
            if self._running.done():
                self._take_up()
        plan = None
        if self._running is None:
            self._begin(state, belief, candidates)
            if self._done(until):
                plan, self._running = self._running.result(), None
        return self.controller.answer(state, belief, plan, started)

    def prepare(self, act: Act, belief: Belief) -> None:
        """Begin the plan for the state expected after an act; nothing where one is running."""
        if self._running is not None or act.command is None or act.spread is None:
            return
        spec = self.controller.dynamics.spec
        expected = spec.wrap(act.spread.mean).astype(np.float32)
        if np.isfinite(expected).all():
            self._begin(State(act.stamp_ns + spec.period_ns, expected), belief)
            self._prepared = True

    def settle(self) -> None:
        """Wait until nothing is being planned, so that the controller may be changed."""
        if self._running is not None:
            self._take_up()

    def _begin(self, state: State, belief: Belief, candidates: int | None = None) -> None:
        past = self.controller.past.copy()
        think = self.controller.think
        self._running = self._thread.submit(think, state, belief, past, candidates)
        self._prepared = False

    def _done(self, until: float) -> bool:
        return bool(wait([self._running], max(until - time.perf_counter(), 0.0)).done)

    def _take_up(self) -> None:
        self.controller.take_up(self._running.result())
        self._running = None
