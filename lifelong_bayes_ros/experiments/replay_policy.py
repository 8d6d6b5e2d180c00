"""Learning a policy posterior from a recorded bag, without ROS: the same learner and choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..control import choice_wire
from ..control.policy_posterior import Senses
from ..errors import UserError
from ..learning.policy_learner import PolicyLearner
from ..learning.policy_state import POLICY, decode_policy, encode_policy, load_policy, save_policy
from ..robot.spec import load_robot
from .bag import legible, open_bag
from .lives import Status

MEND = 'record with `policy: {learn: true}` in the robot file'


def replay_policy(
    path: Path, state: Path, robot: str | None, seed: int | None, status: Status
) -> dict[str, Any]:
    """Learn from all choices in a bag, and keep what comes of it.

    Args:
        path: bag folder.
        state: state directory; a policy posterior that is there is gone on with.
        robot: robot name or file; None: as recorded.
        seed: of one that begins; None: as recorded.
        status: progress.

    Returns:
        Number of choices here and in all, their mean log likelihood before and after, the file,
        and whether the posteriors that the bag holds came out again, None if that was not asked:
        it holds none, or another beginning was recorded.

    Raises:
        UserError: no bag, it holds no choices, or they are of another robot.
    """
    with open_bag(path) as bag:
        prior, meta = bag.prior()
        dynamics, seed = prior.dynamics, meta['seed'] if seed is None else seed
        if robot is not None:
            dynamics = replace(dynamics, spec=load_robot(robot))
        senses = Senses(dynamics)
        if not bag.has('choice'):
            raise UserError(f'{path}: {bag.lack("choice")}; {MEND}')
        with legible(path):
            choices = [choice_wire.decode(senses, m) for _, m in bag.messages('choice')]
        recorded = {}
        if bag.has('belief/policy'):
            messages = [m for _, m in bag.messages('belief/policy')]
            found = [np.asarray(m.data, np.uint8).tobytes() for m in messages]
            where = f'{path}: belief/policy'
            known = [decode_policy(data, senses.fingerprint, where) for data in found]
            if known and known[0].version == 0:  # it began with this bag
                recorded = {p.stamp_ns: data for p, data in zip(known, found, strict=True)}
    if not choices:
        raise UserError(f'{path}: holds no choices of a planner; {MEND}')
    resumed = (state / POLICY).is_file()
    learner = load_policy(state, senses) if resumed else PolicyLearner(senses, seed=seed)
    before = learner.log_likelihood(choices)
    equal = []
    for number, choice in enumerate(choices):
        learner.observe(choice)
        if not resumed and choice.stamp_ns in recorded:
            data = encode_policy(learner.posterior(), senses.fingerprint)
            equal.append(data == recorded[choice.stamp_ns])
        status('learning', number / len(choices))
    save_policy(learner, state)
    return {
        'command': f'learn-policy {path}',
        'robot': dynamics.spec.name,
        'choices': len(choices),
        'known': learner.version,
        'before': before,
        'after': learner.log_likelihood(choices),
        'file': str(state / POLICY),
        'equal': all(equal) if equal else None,
    }
