"""Learning from a recorded bag, without ROS: the same learner, the same transitions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..learning.learner import Learner, LearnerConfig
from ..learning.store import save_state
from ..robot import wire
from .bag import Bag, open_bag
from .lives import Status


def replay_bag(path: Path, out: Path | None, status: Status) -> dict[str, Any]:
    """Feed a bag's transitions to a learner that starts where the recorded one did.

    Args:
        path: bag folder.
        out: folder for the learned state, or None.
        status: progress.

    Returns:
        Number of transitions, seconds, speed against the recorded time, digest of the posterior,
        the digests that the live learner recorded when it saved, by transition, and whether the
        replay went through the same ones (None if there are none).

    Raises:
        UserError: no bag, or it holds no trunk or no transitions.
    """
    with open_bag(path) as bag:
        prior, meta = bag.prior()
        spec = prior.dynamics.spec
        total = next((n for name, n in bag.topics().items() if name.endswith('/transition')), 0)
        if total == 0:
            raise UserError(f'{path}: holds no transitions; record the topic `transition`')
        learner = Learner(prior, LearnerConfig(**meta['config']), meta['seed'])
        events = _recorded_events(bag)
        recorded = {e['step']: e['digest'] for e in events if e['event'] == 'saved'}
        if learner.background is not None:
            learner.background.late = {e['step'] for e in events if e.get('late')}
        equal: list[bool] = []
        first, lost, expected = None, 0, None
        started = time.perf_counter()
        for _, message in bag.messages('transition'):
            transition = wire.decode(spec, message)
            lost += 0 if expected is None else transition.sequence - expected
            expected = transition.sequence + 1
            first = first or transition.stamp_ns
            learner.observe(transition)
            if learner.step in recorded:
                equal.append(learner.digest() == recorded[learner.step])
            status('replaying', learner.step / total)
        seconds = time.perf_counter() - started
    if out is not None:
        save_state(learner, out)
    digest = learner.digest()
    return {
        'command': f'replay {path}',
        'robot': spec.name,
        'transitions': learner.step,
        'learned': learner.learned,
        'lost': lost,
        'seconds': seconds,
        'speed': (learner.stamp_ns - first) * 1e-9 / seconds,
        'digest': digest,
        'recorded': recorded,
        'equal': all(equal) if equal else None,
    }


def _recorded_events(bag: Bag) -> list[dict[str, Any]]:
    """What the live learner told of itself, as far as it was recorded."""
    if not bag.has('event'):
        return []
    return [json.loads(message.data) for _, message in bag.messages('event')]
