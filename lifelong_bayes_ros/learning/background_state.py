"""The background in a state directory: a job on its way is kept as what it works on.

A job is a pure function of that, so that it is begun again on resuming and gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics.head import Head
from ..memory.reservoir import Sample
from .background import LONGEST
from .candidate import Job
from .pieces import Arrays, head_arrays, head_from, sample_arrays, samples_from

if TYPE_CHECKING:
    from .learner import Learner


@dataclass(frozen=True)
class BackgroundSnapshot:
    """A background at one transition: nothing in it changes."""

    window: list[Sample]
    known: list[float]  # evidence for the last of the window, by the trunk of now
    job: Job | None
    held_out: list[Sample]
    evidence: list[float]
    stored: dict[str, Head]  # of the library
    meta: dict[str, Any]

    @classmethod
    def of(cls, learner: Learner) -> BackgroundSnapshot:
        """Of a learner that has one."""
        background, running = learner.background, learner.background.running
        meta = {
            'next': background.next,
            'pause': background.pause,
            'abandoned': background.abandoned,
            'started': None if running is None else running.started,
        }
        return cls(
            list(background.window),
            list(background.evidence),
            None if running is None else running.job,
            [] if running is None else list(running.held_out),
            [] if running is None else list(running.evidence),
            {r.name: r.head for r in learner.library.regimes},
            meta,
        )

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays and JSON metadata."""
        arrays, job = sample_arrays('window', self.window), self.job
        arrays['window.evidence'] = np.array(self.known, float)
        meta = {n: self.meta[n] for n in ('next', 'pause', 'abandoned')} | {'job': None}
        if job is None:
            return arrays, meta
        arrays |= sample_arrays('recent', job.recent)
        arrays |= sample_arrays('held_out', self.held_out)
        arrays |= {'evidence': np.array(self.evidence), 'theta': job.theta, 'noise': job.noise}
        for name, samples in job.memory.items():
            arrays |= sample_arrays(f'memory.{name}', samples)
        # Most heads are still those of the library.
        changed = {n: h for n, h in job.heads.items() if self.stored.get(n) is not h}
        for name, head in changed.items():
            arrays |= head_arrays(f'head.{name}', head)
        meta['job'] = {
            'started': self.meta['started'],
            'steps': job.steps,
            'seed': job.seed,
            'regime': job.regime,
            'names': list(job.heads),
            'dof': {name: head.noise.dof for name, head in changed.items()},
        }
        return arrays, meta


def load_background(
    learner: Learner, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Let a learner's background go on from `BackgroundSnapshot.state`.

    Raises:
        ValueError: the timetable is none that a background can have.
    """
    background, prior = learner.background, learner.prior
    furthest = learner.learned + LONGEST * background.every
    for name, low, high in (
        ('next', 1, furthest),
        ('pause', 1, LONGEST),
        ('abandoned', 0, learner.learned),
    ):
        _check_count(name, meta[name], low, high)
    background.window.extend(samples_from(arrays, 'window'))
    # Older states do not tell.
    background.evidence.extend(arrays.get('window.evidence', np.empty(0)).tolist())
    if len(background.evidence) > len(background.window):
        raise ValueError(f'background.window.evidence: of more than {len(background.window)}')
    background.next, background.pause = meta['next'], meta['pause']
    background.abandoned = meta['abandoned']
    saved = meta['job']
    if saved is None:
        return
    heads = {r.name: r.head for r in learner.library.regimes}
    for name, dof in saved['dof'].items():
        heads[name] = head_from(arrays, f'head.{name}', dof, prior)
    job = Job(
        prior=prior,
        recent=tuple(samples_from(arrays, 'recent')),
        memory={n: tuple(samples_from(arrays, f'memory.{n}')) for n in saved['names']},
        heads={n: heads[n] for n in saved['names']},
        regime=saved['regime'],
        theta=arrays['theta'],
        noise=arrays['noise'],
        steps=saved['steps'],
        seed=saved['seed'],
    )
    held_out = samples_from(arrays, 'held_out')
    started = learner.learned - len(held_out)
    _check_count('started', saved['started'], started, started)
    background.resume(job, saved['started'], held_out, arrays['evidence'].tolist())


def _check_count(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f'background.{name} {value!r}: not a whole number from {low} to {high}')
