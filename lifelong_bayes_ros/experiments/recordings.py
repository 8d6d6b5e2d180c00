"""Transitions of MCAP bags, as stretches without a break, for pre-training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..learning.admission import BEYOND, OUT_OF_RANGE, unfit
from ..learning.pretrain import Data, Progress
from ..learning.recorded import segmented, without_wild
from ..robot import wire
from ..robot.spec import RobotSpec
from ..robot.transitions import Flag, Transition
from .bag import Bag, legible, open_bag

TOPIC = 'transition'


def recorded_spec(path: Path) -> RobotSpec:
    """The robot of which a bag of this package's recorder tells.

    Raises:
        UserError: no bag, or it does not tell.
    """
    with open_bag(path) as bag:
        if not bag.has('belief/trunk'):
            raise UserError(f'{path}: does not tell which robot it is of; give --robot FILE')
        return bag.prior()[0].dynamics.spec


def read_segments(
    paths: Sequence[Path],
    spec: RobotSpec,
    least: int,
    progress: Progress = lambda share, what: None,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Data]:
    """Segments of at least `least` usable transitions each; see `learning.recorded.segmented`.

    A stretch ends with its episode, where transitions were lost and where one is not usable. What
    an online learner would refuse is left out, as are readings far from all others of the bags.

    Args:
        paths: bag folders.
        spec: the robot.
        least: transitions per segment.
        progress: called with the share read.
        notify: told how many transitions are left out, and why.

    Raises:
        UserError: no bag, of another robot, without transitions or with too few usable ones.
    """
    recorded: list[list[Data]] = []
    left: Counter[str] = Counter()
    seen = 0
    for number, path in enumerate(paths):
        with open_bag(path) as bag:
            _check_robot(bag, spec)
            total = sum(n for name, n in bag.topics().items() if name.endswith(f'/{TOPIC}'))
            stretches: list[list[Transition]] = [[]]
            before: Transition | None = None
            gaps = 0
            for count, transition in enumerate(_transitions(bag, spec), start=1):
                lost = before is not None and (
                    transition.sequence != before.sequence + 1 or before.ends_episode
                )
                why = unfit(spec, transition, None if before is None else before.stamp_ns)
                if lost or why:
                    stretches.append([])
                if why:
                    left[why] += 1
                else:
                    stretches[-1].append(transition)
                seen += 1
                gaps += Flag.GAP in transition.flags
                before = transition
                if count % 500 == 0:
                    progress(
                        (number + count / max(total, count)) / len(paths), f'reading {path.name}'
                    )
        if total and gaps > total / 2:
            raise UserError(
                f'{path}: {gaps} of {total} transitions are not about one period of '
                f'{spec.period} s long; correct `period` in the robot file, or the rate of the '
                'sensors'
            )
        recorded.append([_data(s) for s in stretches if s])
    sane = iter(without_wild([s for stretches in recorded for s in stretches], spec))
    kept = [[next(sane) for _ in stretches] for stretches in recorded]
    usable = sum(len(s.x) for stretches in kept for s in stretches)
    wild = seen - left.total() - usable
    if wild:
        left[OUT_OF_RANGE] = wild
    if left:
        mend = '; correct the limits in the robot file if the robot did that'
        mend = mend if left.keys() & {BEYOND, OUT_OF_RANGE} else ''
        notify(f'{left.total()} of {seen} transitions are left out: {_told(left)}{mend}')
    segments = [s for stretches in kept for s in segmented(stretches, least)]
    if not segments:
        where = ', '.join(map(str, paths))
        others = f' (the others: {_told(left)})' if left else ''
        raise UserError(
            f'{where}: {usable} of {seen} transitions are usable{others}; pre-training needs at '
            f'least {least} in a bag, and some thousands, under all conditions that the robot '
            'will meet, to be of use'
        )
    return segments


def _told(left: Counter[str]) -> str:
    return ', '.join(f'{count} {why}' for why, count in left.items())


def _transitions(bag: Bag, spec: RobotSpec) -> Iterator[Transition]:
    if not bag.has(TOPIC):
        raise UserError(
            f'{bag.path}: {bag.lack(TOPIC)}; record what transition_streamer makes of the '
            'sensors, live or from a bag that is played to it'
        )
    for _, message in bag.messages(TOPIC):
        with legible(bag.path):
            try:
                found = wire.decode(spec, message)
            except UserError as error:
                raise UserError(
                    f'{bag.path}: not of the robot in the robot file: {error}'
                ) from None
        yield found


def _check_robot(bag: Bag, spec: RobotSpec) -> None:
    """Sizes alone do not tell two robots apart; a bag of this package's recorder does."""
    try:
        recorded = bag.prior()[0].dynamics.spec
    except UserError:
        return
    for what in ('state_names', 'action_names'):
        there, here = getattr(recorded, what), getattr(spec, what)
        if there != here:
            raise UserError(
                f'{bag.path}: recorded of robot {recorded.name} with {there}, the file of '
                f'{spec.name} has {here}; give the robot file that it was recorded with'
            )


def _data(stretch: Sequence[Transition]) -> Data:
    columns = zip(*((t.state, t.action, t.next_state) for t in stretch), strict=True)
    return Data(*(np.array(c, dtype=float) for c in columns))
