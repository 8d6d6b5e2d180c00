"""Learning from a recorded bag, without ROS: the same learner, the same transitions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.learner import Learner
from ..learning.settings import LearnerConfig
from ..learning.store import START, STATE_FOLDER, load_state, save_new
from ..robot import wire
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .bag import Bag, content, legible, open_bag
from .published import report_object, row

Status = Callable[[str, float], None]  # what is going on, share done

PARTS = {'saved': {'digest'}, 'learning': {'on'}}  # what an event must tell
OVERTAKING = 1_000_000_000  # ns by which messages of two topics may overtake each other in a bag
SPEED = 20.0  # times real time that a replay must reach


@dataclass
class Recording:
    """A bag as a learner sees it: where it starts, and what comes then.

    One that began with the learner is repeated bit for bit. One that began later starts from a
    state that was saved then, as a learner that resumes does.

    `digests` are those of the posterior that the live learner told when it saved, by step;
    `orders` what an operator told it (`learning` on or off, `reset`), by step.
    """

    path: Path
    bag: Bag
    prior: Prior
    config: LearnerConfig
    seed: int
    start: dict[str, Any] | None
    events: list[dict[str, Any]]
    total: int

    @property
    def spec(self) -> RobotSpec:
        """The robot that was recorded."""
        return self.prior.dynamics.spec

    @property
    def digests(self) -> dict[int, str]:
        """Digests of the live posterior, by step."""
        return {e['step']: e['digest'] for e in self.events if e['event'] == 'saved'}

    @property
    def orders(self) -> dict[int, list[dict[str, Any]]]:
        """What an operator told the live learner, by step."""
        told: dict[int, list[dict[str, Any]]] = {}
        for event in self.events:
            if event['event'] == 'learning':
                told.setdefault(event['step'], []).append(event)
        return told

    def learner(self) -> Learner:
        """A learner as the live one was when the recording began."""
        if self.start is None:
            learner = Learner(self.prior, self.config, self.seed)
        else:
            learner = load_state(self.path / STATE_FOLDER, 'cpu', True)
        if learner.background is not None:
            learner.background.late = {e['step'] for e in self.events if e.get('late')}
        return learner

    def transitions(self) -> Iterator[Transition]:
        """Every transition that the live learner saw after the start.

        Those up to the one that its state had seen last are left out. That one is looked for
        among those recorded before the learner told of its state, since a simulated robot's
        stamps come again.
        """
        known = None if self.start is None else self._number_of(self.start['stamp_ns'])
        for number, transition in enumerate(self._all()):
            if known is None or number > known:
                yield transition

    def _all(self) -> Iterator[Transition]:
        for _, message in self.bag.messages('transition'):
            yield self._decoded(message)

    def _decoded(self, message: Any) -> Transition:
        with legible(self.path):
            return wire.decode(self.spec, message)

    def _number_of(self, stamp_ns: int) -> int | None:
        told = None
        for _, message, received in self.bag.timed('event'):
            event = content(message)
            if event['event'] == 'saved' and event.get('stamp_ns') == stamp_ns:
                told = received
                break
        if told is None:
            return None
        found = None
        for number, (_, message, received) in enumerate(self.bag.timed('transition')):
            if received > told + OVERTAKING:
                break
            if self._decoded(message).stamp_ns == stamp_ns:
                found = number
        return found


def recording(bag: Bag, path: Path) -> Recording:
    """What a bag holds for a learner.

    Raises:
        UserError: no trunk, no transitions, or a damaged copy of a state.
    """
    prior, meta = bag.prior()
    total = next((n for name, n in bag.topics().items() if name.endswith('/transition')), 0)
    if total == 0:
        raise UserError(f'{path}: holds no transitions; record the topic `transition`')
    file = bag.path / STATE_FOLDER / START
    try:
        start = json.loads(file.read_text('utf-8')) if file.is_file() else None
    except ValueError as error:
        raise UserError(f'{file}: damaged ({error}); delete {file.parent}') from None
    return Recording(
        bag.path,
        bag,
        prior,
        LearnerConfig(**meta['config']),
        meta['seed'],
        start,
        _recorded_events(bag),
        total,
    )


def replay_bag(path: Path, out: Path | None, status: Status) -> dict[str, Any]:
    """Feed a bag's transitions to a learner that starts where the recorded one did.

    Args:
        path: bag folder.
        out: folder for the learned state, which must not exist yet, or None.
        status: progress.

    Returns:
        The report of a benchmark and, beside its rows: number of transitions, seconds on the wall
        and of the processor, both as multiples of real time, digest of the posterior, the digests
        that the live learner recorded when it saved, by transition, and whether the replay went
        through the same ones (None if there are none to compare with); `reason`: why it did not;
        `knew_more`: whether the live learner had learned before the recording, of which the bag
        has no copy.

    Raises:
        UserError: no bag, or it holds no trunk or no transitions, or `out` exists.
    """
    if out is not None and out.exists():
        raise UserError(f'--out {out}: is there already; give a folder that is not')
    with open_bag(path) as bag:
        recorded = recording(bag, path)
        learner, digests, orders = recorded.learner(), recorded.digests, recorded.orders
        begun = learner.step
        equal: list[bool] = []
        first, last, lost, expected, missed = None, None, 0, None, 0
        started, cpu = time.perf_counter(), time.process_time()
        for transition in recorded.transitions():
            if expected is None:
                missed = transition.sequence
            else:
                lost += transition.sequence - expected
            expected = transition.sequence + 1
            first, last = first or transition.stamp_ns, transition.stamp_ns
            learner.observe(transition)
            for order in orders.get(learner.step, ()):
                learner.learning = order['on']
            if learner.step in digests:
                equal.append(learner.digest() == digests[learner.step])
            status('replaying', min((learner.step - begun) / recorded.total, 1.0))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        spec, start, seed = recorded.spec, recorded.start, recorded.seed
    if out is not None:
        save_new(learner, out)
    digest = learner.digest()
    told = {step: live for step, live in digests.items() if step > begun}
    # From a state, steps are the live learner's: one that is not reached was not recorded.
    missing = [] if start is None else [step for step in told if step > learner.step]
    equal += [False] * len(missing)
    same = all(equal) if equal else None
    span = 0.0 if last is None else (last - (first or last)) * 1e-9
    return {
        **_report(path, seed, span / seconds, same),
        'robot': spec.name,
        'transitions': learner.step - begun,
        'learned': learner.learned,
        'lost': lost,
        'seconds': seconds,
        'speed': span / seconds,
        'cpu_seconds': cpu,
        'cpu_speed': span / cpu,
        'digest': digest,
        'recorded': told,
        'began_at': begun,
        'equal': same,
        'reason': _reason(bool(lost or missing), start is not None) if same is False else '',
        'knew_more': start is None and bool(missed or (digests and not equal)),
    }


def _report(path: Path, seed: int, speed: float, same: bool | None) -> dict[str, Any]:
    """As a benchmark's."""
    agrees, bar = (math.nan, None) if same is None else (float(same), 1.0)
    rows = [
        row('replay, times real time', speed, '', 'higher', SPEED),
        row('posterior equal to the live one', agrees, '', 'higher', bar),
    ]
    return report_object(f'replay {path}', [seed], rows)


def _reason(missing: bool, late: bool) -> str:
    """Why a replay went through other posteriors than the live learner, most likely."""
    if missing:
        return 'transitions are missing in the bag'
    if late:
        return (
            'the state at the start of the recording lacks the last steps before it, without '
            'which a change close to them is judged otherwise'
        )
    return 'learned by other code, or where linear algebra rounds otherwise'


def _recorded_events(bag: Bag) -> list[dict[str, Any]]:
    """What the live learner told of itself, as far as it was recorded."""
    if not bag.has('event'):
        return []
    found = []
    for _, message in bag.messages('event'):
        with legible(bag.path):
            event = content(message)
            event['step'] = int(event['step'])
            lacking = PARTS.get(event['event'], set()) - set(event)
        if lacking:
            raise UserError(f'{bag.path}: the event {event} has no {", ".join(sorted(lacking))}')
        found.append(event)
    return found
