"""Rows on what is left of regimes that contradict each other, in the real learner.

One robot lives through eight regimes that cannot be true at once, with few transitions kept of
each, while its trunk keeps learning in the background and memory is consolidated between episodes.
The error of every regime, on held-out states without noise, is taken when the robot leaves it and
again at the end, from what memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..dynamics.head import Head
from ..learning.learner import Learner
from ..learning.settings import LearnerConfig
from ..memory.regimes import NEW
from ..robot.spec import load_robot
from .priors import prior_for
from .published import row
from .schedule import Life
from .streams import HeldOut, transitions

Progress = Callable[[float], None]
ROBOT = 'diffdrive'
STEPS, STORED = 600, 25  # transitions of a regime, and at most kept of each
CAPACITY, LIVES = 16, 2
SHIFTS: dict[str, list[dict[str, Any]]] = {
    'worn left': [
        {'actuator_gain': {'actuator': 'left', 'factor': 0.5}},
        {'actuator_gain': {'actuator': 'right', 'factor': 1.0}},
    ],
    'worn right': [
        {'actuator_gain': {'actuator': 'left', 'factor': 1.0}},
        {'actuator_gain': {'actuator': 'right', 'factor': 0.5}},
    ],
    'worn both': [
        {'actuator_gain': {'actuator': 'left', 'factor': 0.5}},
        {'actuator_gain': {'actuator': 'right', 'factor': 0.5}},
    ],
    'strong': [
        {'actuator_gain': {'actuator': 'left', 'factor': 1.2}},
        {'actuator_gain': {'actuator': 'right', 'factor': 1.2}},
    ],
    'turns left': [
        {'actuator_bias': {'actuator': 'left', 'offset': -2.0}},
        {'actuator_bias': {'actuator': 'right', 'offset': 2.0}},
    ],
    'turns right': [
        {'actuator_bias': {'actuator': 'left', 'offset': 2.0}},
        {'actuator_bias': {'actuator': 'right', 'offset': -2.0}},
    ],
    'loaded': [
        {'actuator_gain': {'actuator': 'left', 'factor': 0.6}},
        {'actuator_gain': {'actuator': 'right', 'factor': 0.6}},
        {'payload': {'mass': 10.0}},
    ],
    'pulls ahead': [
        {'actuator_bias': {'actuator': 'left', 'offset': 2.0}},
        {'actuator_bias': {'actuator': 'right', 'offset': 2.0}},
    ],
}


@dataclass
class Kept:
    """What one life showed."""

    learned: dict[str, float] = field(default_factory=dict)  # error of a regime when it was left
    after: dict[str, float] = field(default_factory=dict)  # and at the end
    stored: int = 0  # most transitions of one regime
    regimes: int = 0
    trunks: int = 0  # adopted

    @property
    def ratios(self) -> dict[str, float]:
        """After / when learned, of every regime."""
        return {n: self.after[n] / e for n, e in self.learned.items()}


def life(seed: int) -> Life:
    """All regimes, in an order that the seed decides."""
    names = np.random.default_rng(seed).permutation(list(SHIFTS)).tolist()
    return Life(robot=ROBOT, regimes=SHIFTS, phases=[(n, STEPS) for n in names])


def contradict(seed: int, progress: Progress = lambda share: None) -> Kept:
    """Live one life."""
    spec, lived = load_robot(ROBOT), life(seed)
    # No journal: what is kept of a regime is its head and its reservoir.
    config = LearnerConfig(reservoir=STORED, journal=0, capacity=CAPACITY)
    learner, found = Learner(prior_for(spec), config, seed), Kept()
    owner: dict[str, str] = {}  # the learner's name of a regime
    stream = transitions(spec, lived, seed)

    def error(name: str, head: Head) -> float:
        phase = [n for n, _ in lived.phases].index(name)
        test = HeldOut.of(spec, learner.prior, SHIFTS[name], seed, phase)
        theta = head.posterior.mean.numpy()
        belief = replace(learner.belief(), theta=theta)
        return float(np.sqrt(np.mean(np.square(test.one_step(learner.dynamics, belief)))))

    for number, (name, steps) in enumerate(lived.phases):
        step = 0
        while step < steps:
            transition = next(stream)
            learner.observe(transition)
            step += transition.usable
        found.learned[name] = error(name, learner.live)
        for kept, absorbed in learner.consolidate().merged:
            owner = {n: kept if o == absorbed else o for n, o in owner.items()}
        owner[name] = learner.regime
        progress((number + 1) / len(lived.phases))
    heads = {r.name: r.head for r in learner.library.regimes}
    heads[NEW] = learner.live
    for name in SHIFTS:  # one whose head was pruned is forgotten: the nominal model is left
        found.after[name] = error(name, heads.get(owner[name], learner.nominal))
    found.stored = max(len(r.reservoir.samples) for r in learner.library.regimes)
    found.regimes = len(learner.library.regimes)
    found.trunks = sum(e.event == 'adopted' for e in learner.take_events())
    if learner.background is not None:
        learner.background.close()
    return found


def contradict_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Worst ratio of all regimes of all lives, and what it was measured on."""
    lives, seeds = [], seeds[:LIVES]
    for number, seed in enumerate(seeds):
        lives.append(contradict(seed, lambda s, n=number: progress((n + s) / len(seeds))))
    ratios = [r for found in lives for r in found.ratios.values()]
    count = len(SHIFTS)
    what = f'{count} contradicting regimes, {STORED} transitions kept of each'
    error = f'{what}: error at the end / when learned'
    rows = [
        row(f'{error}, worst of {len(ratios)}', max(ratios), '', 'lower', 1.15, 1.05),
        row(f'{error}, mean', float(np.mean(ratios)), '', 'lower', None),
    ]
    return [
        *rows,
        row(f'{what}: most kept', max(f.stored for f in lives), '', 'lower', STORED),
        row(f'{what}: regimes known, least', min(f.regimes for f in lives), '', 'higher', None),
        row(f'{what}: trunks adopted', sum(f.trunks for f in lives), '', 'higher', None),
    ]
