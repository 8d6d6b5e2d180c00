"""The trunk keeps learning on board, in a thread of its own, on the learner's device.

A job starts at a fixed transition: a fixed number of steps of the Bayesian learning rule on the
transitions before it. The transitions after it are held out; some of them later, at a fixed one
again, the same thread fits every head on the new trunk and judges the whole. Some more later it is
due: adopted, all of it or nothing, if it predicts the held-out transitions decisively better than
the head that was live, and no regime worse on its memory. Everything is counted in transitions, so
a replay repeats it.

A job that is not done when it is due is waited for in simulation and replays (`wait`), where time
is free. On a running robot it is abandoned and counted instead: no transition ever waits, and a
replay of that life is told which were late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..memory.reservoir import Sample
from .candidate import Candidate, Job, absorb, prepare
from .refine import Refined

if TYPE_CHECKING:
    from .learner import Learner
    from .settings import LearnerConfig

LEAST = 500  # recent transitions that are worth a job
HELD_OUT = 0.8  # of the transitions between two jobs: the rest is for judging
LONGEST = 8  # after rollbacks, jobs come this many times more seldom at most
LATE = 'it was not done in time'
WALK_EVERY = 8  # transitions between steps of the random walk
ROUNDS = 20  # parts of the time between two jobs; one of them is for fitting and judging


@dataclass(frozen=True)
class Outcome:
    """What became of a job that was due."""

    job: Job
    candidate: Candidate | None  # to adopt
    live: Head | None  # its live head, after all transitions so far
    detail: dict[str, Any]  # of the event


@dataclass
class Running:
    """A job on its way."""

    job: Job
    started: int  # transitions learned from at its start
    evidence: list[float] = field(default_factory=list)  # of the live head, for those since then
    held_out: list[Sample] = field(default_factory=list)
    progress: Callable[[float], None] = lambda share: None  # is told the share of steps done
    fair: bool = False  # must also beat the trunk of now with a head that is fitted anew
    stop: Flag = field(default_factory=Flag)
    learned: Future | None = None
    candidate: Future | None = None


class Background:
    """Schedules the jobs of one learner. Its thread sees copies and immutable objects only."""

    def __init__(self, config: LearnerConfig, wait: bool = True) -> None:
        self.config = config
        self.wait = wait
        self.every = config.trunk_every
        self.window: deque[Sample] = deque(maxlen=config.trunk_window)
        # Of the live head for the last of them, before it learned from each: those that the trunk
        # of now has predicted.
        self.evidence: deque[float] = deque(maxlen=config.trunk_window)
        self.pause = 1  # jobs come every so many times `every`
        self.next = self.every  # transition that the next one starts at
        self.abandoned = 0
        self.late: set[int] = set()  # steps of a recorded life at which a job was late
        self.running: Running | None = None
        self._thread: ThreadPoolExecutor | None = None

    # ------------------------------------------------------------------ one transition
    def step(self, learner: Learner, sample: Sample, evidence: float) -> Outcome | None:
        """Take note of a transition that the learner has learned from, and keep the timetable.

        Args:
            learner: whose it is; it is not changed.
            sample: the transition.
            evidence: log evidence of the live head before it learned from it, nats.

        Returns:
            The outcome of a job, if one is due.
        """
        outcome, running = None, self.running
        if running is not None and running.learned is None:  # of a state that was loaded
            self._run(running, learner.device)
            if len(running.held_out) >= self.judged:
                self._judge(running)
        if running is not None:
            running.held_out.append(sample)
            running.evidence.append(evidence)
            age = learner.learned - running.started
            if running.job.heads.keys() != set(learner.library.names):
                self._drop()  # there is a regime that it knows nothing of, or one less
            elif age == self.judged:
                self._judge(running)
            elif age == self.due:
                outcome = self._finish(learner, running)
        self.window.append(sample)
        self.evidence.append(evidence)
        if self.running is None and outcome is None and learner.learned >= self.next:
            self._start(learner)
        return outcome

    @property
    def judged(self) -> int:
        """Age of a job, in transitions, at which it is judged."""
        return int(HELD_OUT * self.every)

    @property
    def due(self) -> int:
        """Age of a job, in transitions, at which it is adopted or not."""
        return self.judged + max(self.every // ROUNDS, 1)

    def _start(self, learner: Learner) -> None:
        self.next = learner.learned + self.pause * self.every
        if len(self.window) < min(LEAST, self.window.maxlen):
            return
        regimes = learner.library.regimes
        job = Job(
            prior=learner.prior,
            recent=tuple(self.window),
            memory={r.name: tuple(r.reservoir.samples) for r in regimes},
            heads={r.name: r.head for r in regimes},
            regime=learner.regime,
            theta=learner.live.posterior.mean.numpy().copy(),
            noise=learner.live.noise.variance,
            steps=learner.config.trunk_steps * self.every,
            seed=learner.seed + learner.learned,
        )
        self._run(Running(job, learner.learned), learner.device)

    def resume(
        self,
        job: Job,
        started: int,
        held_out: list[Sample],
        evidence: list[float],
    ) -> None:
        """Take up a job that was on its way when it was saved; it begins anew at the next step.

        Whoever only looks at a state does not pay for it.
        """
        self.running = Running(job, started, evidence, held_out)

    def rename(self, old: str, new: str) -> None:
        """Go on with a job on its way although a regime is called otherwise from now on."""
        if self.running is None:
            return
        job = self.running.job
        parts = {
            part: {new if n == old else n: v for n, v in getattr(job, part).items()}
            for part in ('memory', 'heads')
        }
        regime = new if job.regime == old else job.regime
        self.running.job = replace(job, regime=regime, **parts)

    def at_once(self, learner: Learner, running: Running) -> Outcome:
        """Do a job to its end, whose held-out transitions have all been, and judge it as ever.

        One that is on its way is given up. If this one is to be adopted, the next one begins a
        whole `every` from now; otherwise the timetable stays.
        """
        self.close()
        try:
            self._run(running, learner.device)
            self._judge(running)
            wait([running.candidate])
            outcome = self._conclude(learner, running)
        finally:
            self.close()  # also if it was interrupted
        if outcome.candidate is not None:
            self.pause, self.next = 1, learner.learned + self.every
        return outcome

    def close(self) -> None:
        """Give up a job that is on its way, e.g. at the end of life."""
        if self.running is not None:
            self._drop()

    def _run(self, running: Running, device: torch.device) -> None:
        self.running = running
        learn, stopped = running.job.learn, running.stop.is_set
        running.learned = self._submit(learn, device, stopped, running.progress)

    def _judge(self, running: Running) -> None:
        held_out = tuple(running.held_out[: self.judged])
        evidence = np.array(running.evidence[: self.judged])

        def judged(refined: Refined, beat: np.ndarray) -> Candidate | None:
            walk, stopped = self._walk(running), running.stop.is_set
            return prepare(running.job, refined, held_out, beat, walk, stopped)

        def judge() -> Candidate | None:
            refined, beat = running.learned.result(), evidence
            if refined is None:
                return None
            if running.fair and (still := judged(running.job.still(), evidence)):
                beat = max(evidence, still.evidence, key=np.sum)
            return judged(refined, beat)

        running.candidate = self._submit(judge)

    def _finish(self, learner: Learner, running: Running) -> Outcome:
        if learner.step in self.late or not (self.wait or running.candidate.done()):
            self.abandoned += 1
            self._drop()
            detail = _detail(running.job) | {'late': True, 'reason': LATE}
            return Outcome(running.job, None, None, detail)
        self.running = None
        outcome = self._conclude(learner, running)
        self.pause = 1 if outcome.candidate else min(2 * self.pause, LONGEST)
        self.next = running.started + self.pause * self.every
        return outcome

    def _conclude(self, learner: Learner, running: Running) -> Outcome:
        """Whether to adopt what was judged, with the head of now."""
        detail = _detail(running.job)
        try:
            candidate = running.candidate.result()
            reason = candidate.reason
            detail |= {
                'held_out': self.judged,
                'nats_per_step': round(candidate.gain, 3),
                'error_ratio': round(candidate.error, 4),
            }
        # Whatever fails beside the head must not end it: a device without memory, numbers.
        except (np.linalg.LinAlgError, ArithmeticError, RuntimeError, ValueError) as error:
            candidate, reason = None, f'it failed: {error}'
        live = None
        if not reason:
            live, lead = self._catch_up(running, candidate, learner.age)
            if lead < 0:
                reason = f'the robot has changed since: it is {-lead:.1f} nats behind from there'
        detail['reason'] = reason
        if reason:
            return Outcome(running.job, None, None, detail)
        return Outcome(running.job, candidate, live, detail)

    def _catch_up(self, running: Running, candidate: Candidate, age: int) -> tuple[Head, float]:
        """The candidate's live head after the transitions since it was judged.

        And how far it leads, in nats, on the learner's live head since that one was born, if that
        was while the job ran: after a shift or a recall, one of the job's start is a thing of the
        past.
        """
        live, walk, lead = candidate.live, self._walk(running), 0.0
        born = max(self.due - age, self.judged) if age < self.due else self.due
        for index in range(self.judged, self.due):
            live = walk(live, index, candidate.family)
            live, evidence = absorb(candidate.prior.dynamics, live, running.held_out[index])
            if index >= born:
                lead += evidence - running.evidence[index]
        return live, lead

    def _walk(self, running: Running) -> Callable[[Head, int, Gaussian], Head]:
        """The learner's random walk at the held-out transition of that number, from 0."""
        share = 1 - (1 - self.config.random_walk) ** WALK_EVERY

        def walk(head: Head, index: int, family: Gaussian) -> Head:
            if (running.started + 1 + index) % WALK_EVERY:
                return head
            return head.replace(posterior=head.posterior.widen(family.covariance, share))

        return walk

    def _drop(self) -> None:
        self.running.stop.set()
        self.running = None

    def _submit(self, what: Callable[..., Any], *arguments: Any) -> Future:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                1, 'background', initializer=torch.set_num_threads, initargs=(1,)
            )
        return self._thread.submit(what, *arguments)


def _detail(job: Job) -> dict[str, Any]:
    return {'what': 'trunk', 'transitions': len(job.recent)}
