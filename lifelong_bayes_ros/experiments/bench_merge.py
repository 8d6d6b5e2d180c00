"""Two robots, each of which lived in half of the regimes, merged: against one that lived in all.

Each robot lives its own life in the simulator with the planner, its state is saved, the two state
directories are merged as `lifelong-bayes merge` does, and what comes of it is given a life with
all regimes to go on with. So is the state of one robot that lived through them all, and, to show
what there is to gain, that of the first robot alone and a robot just made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dynamics.model import Prior
from ..learning.codec import fingerprint
from ..learning.learner import Learner
from ..learning.merging import merge_states
from ..learning.settings import LearnerConfig
from ..learning.store import load_state, save_new, save_state
from ..robot.spec import RobotSpec, load_robot
from .agents import LearningAgent
from .life import run_life
from .priors import prior_for
from .published import report_object, row
from .schedule import Life, load_life
from .streams import transitions

Status = Callable[[str, float], None]
Phases = list[tuple[str, int]]
SEEDS = (0, 1)
EPISODE = 240  # steps between consolidations
HOME, VISIT = 100, 200  # steps at home first, and in a regime that is new
RETURN = 120  # and in one that somebody knows
OTHER = 1000  # added to the seed of the second robot
DRAG = 'quad_drag'  # the case whose trunk learns
LONG = 1500  # transitions until a trunk is adopted


@dataclass(frozen=True)
class Case:
    """Regimes of a robot: a home, and what the first and the second robot see of the rest."""

    robot: str
    regimes: dict[str, list[dict[str, Any]]]
    home: str
    first: str
    second: str

    def phases(self, *others: str) -> Phases:
        """A life of one of the robots."""
        return [(self.home, HOME), *((other, VISIT) for other in others)]

    def everything(self) -> Phases:
        """The life with all regimes in which states are compared."""
        order = (self.home, self.first, self.second, self.first, self.second, self.home)
        return [(name, RETURN) for name in order]

    def life(self, phases: Phases) -> Life:
        """A life of these phases."""
        return Life(robot=self.robot, regimes=self.regimes, phases=phases, episode=EPISODE)


def case_of(robot: str) -> Case:
    """The first three regimes of a robot's own life."""
    regimes = load_life(robot).regimes
    home, first, second = list(regimes)[:3]
    return Case(robot, regimes, home, first, second)


def drag_case() -> Case:
    """The quadrotor in air whose drag pre-training has never seen, where trunks are adopted."""
    regimes = load_life('outside/quad_drag').regimes | {'C': load_life('quad').regimes['C']}
    return Case('quad', regimes, 'A', 'X', 'C')


# ---------------------------------------------------------------------- living
def agent_of(learner: Learner, seed: int) -> LearningAgent:
    """Somebody who drives with this learner."""
    agent = LearningAgent(learner.prior, seed)
    agent.learner = learner
    return agent


def score(spec: RobotSpec, life: Life, learner: Learner, seed: int) -> float:
    """Mean score of a life that a learner goes on with."""
    agent = agent_of(learner, seed)
    trace = run_life(spec, life, agent, seed)
    if learner.background is not None:
        learner.background.close()
    return float(np.mean(trace.score))


def lived(spec: RobotSpec, prior: Prior, life: Life, seed: int, folder: Path) -> Path:
    """The state directory of a robot that was made and lived."""
    learner = Learner(prior, LearnerConfig(background=False), seed)
    run_life(spec, life, agent_of(learner, seed), seed)
    save_state(learner, folder)
    return folder


def streamed(spec: RobotSpec, prior: Prior, life: Life, seed: int, folder: Path) -> Path:
    """The same under random commands, with a trunk that keeps learning."""
    learner = Learner(prior, LearnerConfig(), seed)
    for number, transition in enumerate(transitions(spec, life, seed)):
        if number >= life.steps:
            break
        learner.observe(transition)
    save_state(learner, folder)
    return folder


def merged(first: Path, second: Path, out: Path, origin: Prior | None = None) -> dict[str, Any]:
    """Merge two state directories into one, as the command does; what became of the regimes."""
    found = merge_states(load_state(first), load_state(second), origin)
    save_new(found.learner, out)
    return {'regimes': len(found.learner.library.regimes), 'merged': found.outcome.merged}


# ---------------------------------------------------------------------- rows
def merge_report(
    status: Status, robots: Sequence[str] = ('quad', 'arm', DRAG), seeds: Sequence[int] = SEEDS
) -> dict[str, Any]:
    """The report object of `bench merge`."""
    torch.set_num_threads(1)
    rows = []
    for number, name in enumerate(robots):

        def progress(share: float, what: str, name: str = name, number: int = number) -> None:
            status(f'{name}: {what}', (number + share) / len(robots))

        part = _drag_rows if name == DRAG else _rows
        rows += part(name, seeds, progress)
    return report_object('bench merge', list(seeds), rows)


def _rows(
    name: str, seeds: Sequence[int], progress: Callable[[float, str], None]
) -> list[dict[str, Any]]:
    case, spec = case_of(name), load_robot(name)
    prior = prior_for(spec)
    scores: dict[str, list[float]] = {n: [] for n in ('merged', 'all', 'half', 'none')}
    regimes, wrong = [], 0
    for number, seed in enumerate(seeds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            told = lambda share, what, n=number: progress((n + share) / len(seeds), what)  # noqa: E731
            told(0.0, 'two robots live')
            halves = [
                lived(spec, prior, case.life(case.phases(other)), seed + plus, folder / other)
                for other, plus in ((case.first, 0), (case.second, OTHER))
            ]
            told(0.3, 'one robot lives')
            both = case.life(case.phases(case.first, case.second))
            one = lived(spec, prior, both, seed, folder / 'one')
            found = merged(*halves, folder / 'merged')
            regimes.append(found['regimes'])
            wrong += _wrong(halves, found)
            folders = {'merged': folder / 'merged', 'all': one, 'half': halves[0]}
            _compare(case, spec, prior, folders, seed, scores, told)
    return [*_score_rows(name, scores), *_regime_rows(name, regimes, wrong)]


def _drag_rows(
    name: str, seeds: Sequence[int], progress: Callable[[float, str], None]
) -> list[dict[str, Any]]:
    """As `_rows`, of one seed, where the first robot has adopted another trunk."""
    case, spec, seed = drag_case(), load_robot('quad'), seeds[0]
    prior = prior_for(spec)
    scores: dict[str, list[float]] = {n: [] for n in ('merged', 'all', 'half', 'none')}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        progress(0.0, 'two robots live')
        first = case.life([(case.home, HOME), (case.first, LONG)])
        second = case.life([(case.home, HOME), (case.second, VISIT)])
        halves = [
            streamed(spec, prior, first, seed, folder / 'first'),
            streamed(spec, prior, second, seed + OTHER, folder / 'second'),
        ]
        progress(0.3, 'one robot lives')
        both = [(case.home, HOME), (case.first, LONG), (case.second, VISIT)]
        one = streamed(spec, prior, case.life(both), seed, folder / 'one')
        trunks = {fingerprint(load_state(half).prior) for half in halves}
        found = merged(*halves, folder / 'merged', prior)
        folders = {'merged': folder / 'merged', 'all': one, 'half': halves[0]}
        _compare(case, spec, prior, folders, seed, scores, progress)
    return [
        *_score_rows(name, scores),
        row(f'{name}: trunks merged', float(len(trunks)), '', 'higher', 2),
        *_regime_rows(name, [found['regimes']], 0),
    ]


def _compare(
    case: Case,
    spec: RobotSpec,
    prior: Prior,
    folders: dict[str, Path],
    seed: int,
    scores: dict[str, list[float]],
    progress: Callable[[float, str], None],
) -> None:
    """Let all go on with one life, which nobody has lived yet."""
    life = case.life(case.everything())
    for number, who in enumerate(scores):
        progress(0.5 + 0.5 * number / len(scores), f'{who} goes on')
        learner = load_state(folders[who]) if who in folders else Learner(prior, seed=seed)
        scores[who].append(score(spec, life, learner, seed + 2 * OTHER))


def _wrong(halves: Sequence[Path], found: dict[str, Any]) -> int:
    """Merges of two regimes of one robot, which are two: it told them apart."""
    names = [set(load_state(half).library.names) for half in halves]
    return sum({kept, absorbed} <= names[0] for kept, absorbed in found['merged'])


def _score_rows(name: str, scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    ratio = np.array(scores['merged']) / np.array(scores['all'])
    after = f'{name}: score of a life with all regimes'
    return [
        row(f'{after}, merged / saw all, mean', float(ratio.mean()), '', 'higher', 0.95, 1.0),
        row(f'{after}, merged / saw all, least', float(ratio.min()), '', 'higher', None),
        *(
            row(f'{after}, {what}', float(np.mean(scores[who])), '', 'higher', None)
            for who, what in (
                ('merged', 'two that saw half, merged'),
                ('all', 'one that saw all'),
                ('half', 'one that saw half'),
                ('none', 'one just made'),
            )
        ),
    ]


def _regime_rows(name: str, regimes: Sequence[int], wrong: int) -> list[dict[str, Any]]:
    return [
        row(f'{name}: regimes kept for 3, most', float(max(regimes)), '', 'lower', None),
        row(f'{name}: regimes wrongly merged', float(wrong), '', 'lower', 0),
    ]
