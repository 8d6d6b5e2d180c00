"""The policy posterior learns in a thread of its own; whoever owns it never waits, but for replay.

Choices are learned in the order in which they come, a fixed number of steps for each. In
simulation and replays (`wait`), where time is free, a choice is learned before the next one. On a
running robot choices queue up; when too many wait, new ones are left out and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from ..control.policy_posterior import Choice, PolicyPosterior
from .policy_learner import PolicyLearner

Result = TypeVar('Result')
EVERY = 25  # control steps between posteriors handed out
QUEUE = 50  # choices that may wait


class PolicyThread:
    """Owns a policy learner, which nobody else touches."""

    def __init__(self, learner: PolicyLearner, period_ns: int, wait: bool = True) -> None:
        self.period_ns = period_ns
        self.wait = wait
        self.left_out = 0
        self._learner = learner
        self._running: deque[Future[PolicyPosterior | None]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def offer(self, choice: Choice, learn: bool = True) -> PolicyPosterior | None:
        """Let it learn from a choice; the newest posterior that is due and there, if any."""
        if len(self._running) >= QUEUE:
            self.left_out += 1
        else:
            self._running.append(self._submit(self._learn, choice, learn))
        return self.take()

    def take(self) -> PolicyPosterior | None:
        """The newest posterior that is due and has not been taken, if any."""
        newest = None
        while self._running and (self.wait or self._running[0].done()):
            learned = self._running.popleft().result()
            newest = newest if learned is None else learned
        return newest

    def ask(self, what: Callable[[PolicyLearner], Result]) -> Result:
        """Let its thread do something with the learner, after all that waits, and wait for it."""
        return self._submit(what, self._learner).result()

    def later(self, what: Callable[[PolicyLearner], None]) -> None:
        """As `ask`, but without waiting; `what` deals with its own errors."""
        self._submit(what, self._learner)

    def close(self) -> None:
        """Learn what waits, and end the thread; another is begun when there is more to do."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _submit(self, what: Callable[..., Result], *arguments: Any) -> Future[Result]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                1, 'policy learner', initializer=torch.set_num_threads, initargs=(1,)
            )
        return self._thread.submit(what, *arguments)

    def _learn(self, choice: Choice, learn: bool) -> PolicyPosterior | None:
        self._learner.observe(choice, learn)
        return self._learner.posterior() if due(choice.stamp_ns, self.period_ns) else None


def due(stamp_ns: int, period_ns: int) -> bool:
    """Whether a posterior is handed out after the choice of that time: both sides know."""
    return round(stamp_ns / period_ns) % EVERY == 0
