"""The background in a state directory: a job on its way is kept as what it works on.

A job is a pure function of that, so that it is begun again on resuming and gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .candidate import Job
from .pieces import Arrays, head_arrays, head_from, sample_arrays, samples_from

if TYPE_CHECKING:
    from .learner import Learner


def background_state(learner: Learner) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and JSON metadata of a learner's background."""
    background = learner.background
    arrays = sample_arrays('window', list(background.window))
    meta: dict[str, Any] = {
        'next': background.next,
        'pause': background.pause,
        'abandoned': background.abandoned,
        'job': None,
    }
    running = background.running
    if running is None:
        return arrays, meta
    job = running.job
    arrays |= sample_arrays('recent', job.recent)
    arrays |= sample_arrays('held_out', running.held_out)
    arrays |= {'evidence': np.array(running.evidence), 'theta': job.theta, 'noise': job.noise}
    for name, samples in job.memory.items():
        arrays |= sample_arrays(f'memory.{name}', samples)
    # Most heads are still those of the library.
    stored = {r.name: r.head for r in learner.library.regimes}
    changed = {n: h for n, h in job.heads.items() if stored.get(n) is not h}
    for name, head in changed.items():
        arrays |= head_arrays(f'head.{name}', head)
    meta['job'] = {
        'started': running.started,
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
    """Let a learner's background go on from `background_state`."""
    background, prior = learner.background, learner.prior
    background.window.extend(samples_from(arrays, 'window'))
    background.next, background.pause = meta['next'], meta['pause']
    background.abandoned = meta['abandoned']
    saved = meta['job']
    if saved is None:
        return
    heads = {r.name: r.head for r in learner.library.regimes}
    for name, dof in saved['dof'].items():
        heads[name] = head_from(arrays, f'head.{name}', dof, prior, learner.device)
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
    background.resume(job, saved['started'], held_out, arrays['evidence'].tolist(), learner.device)
