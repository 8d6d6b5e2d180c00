"""What the policy posterior is worth: rows of `bench policy`.

Each robot lives its own life, during which a policy posterior learns from the planner's choices,
without a part in them. Then the robot works at home again, as built, four times from the same
start: with all candidates; with a quarter; with a quarter and the posterior's proposals; and with
the posterior alone, which takes over after a while, as it does on a robot whose plans are late.
Home comes early in a life and then again; its last phases are elsewhere. A second posterior, which
learns from the same choices without memory, shows what the K-prior keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..control.controller import Controller
from ..control.planner import Plan
from ..control.policy_posterior import Choice, PolicyPosterior
from ..dynamics.belief import Belief
from ..dynamics.model import Prior
from ..learning.policy_learner import PolicyConfig, PolicyLearner
from ..learning.settings import LearnerConfig
from ..robot.policy import PolicySettings
from ..robot.spec import RobotSpec, load_robot
from ..robot.transitions import State
from .agents import LearningAgent
from .baselines.frozen import Frozen
from .kept import Status, run_kept
from .life import Moment, run_life
from .priors import prior_for
from .published import report_object, row
from .schedule import Life, load_life
from .units import Training

ROBOTS = ('quad', 'arm', 'diffdrive', 'cartpole')
KEPT = Path('out/bench/policy')
SETTLED = 100  # steps at home before anything is measured, or the posterior takes over
MEASURED = 300
SURE = 1e3  # half ranges of spread: acts however unsure it is


class Absent(Controller):
    """A controller whose plans are late for good after a while."""

    steps = 0

    def think(self, state: State, belief: Belief, past: np.ndarray) -> Plan | None:
        """Plan at first; then not in time."""
        self.steps += 1
        return super().think(state, belief, past) if self.steps <= SETTLED else None


@dataclass(frozen=True)
class PolicyUnit:
    """A robot's life with a seed, and its posterior at home."""

    robot: str
    seed: int

    def __str__(self) -> str:
        return f'{self.robot}, seed {self.seed}'

    @property
    def name(self) -> str:
        """Of the file that its result is kept in."""
        return f'{self.robot}-{self.seed}'

    def facts(self) -> list[Any]:
        """What decides the result beside the code."""
        return [s.model_dump(mode='json') for s in (load_robot(self.robot), load_life(self.robot))]

    def run(self, progress: Callable[[float], None]) -> dict[str, float]:
        """See `measure`."""
        return measure(self.robot, self.seed, lambda what, share: progress(share))


def policy_report(
    status: Status, seeds: Sequence[int], out: Path | None = None, jobs: int = 2
) -> dict[str, Any]:
    """Run what `out` does not hold yet, and return the report object.

    Raises:
        UserError: a life failed.
    """
    for robot in ROBOTS:
        Training(robot).prior(lambda share, what, r=robot: status(f'{r}: {what}', share))
    units = [PolicyUnit(r, s) for s in seeds for r in ROBOTS]
    scores = run_kept(units, out or KEPT, jobs, status)
    found: dict[str, list[dict[str, float]]] = {}
    for unit, score in scores.items():
        found.setdefault(unit.robot, []).append(score)
    return report_object('bench policy', list(seeds), policy_rows(found))


def policy_rows(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Rows for each robot, from the scores of its seeds, and for the worst."""
    rows = []
    for what, part, whole, bar, aim in (
        ('seeding a quarter of the candidates / all', 'seeded', 'planner', 0.98, 1.0),
        ('alone at home after one life / planner', 'alone', 'planner', 0.85, 0.95),
        ('a quarter of the candidates / all, not seeded', 'quarter', 'planner', None, None),
        ('alone at home without K-prior / planner', 'forgetful', 'planner', None, None),
        ('alone at home, with the K-prior / without', 'alone', 'forgetful', 1.0, None),
    ):
        ratios = {
            robot: float(np.mean([s[part] for s in seeds]) / np.mean([s[whole] for s in seeds]))
            for robot, seeds in found.items()
        }
        for robot, ratio in ratios.items():
            rows.append(row(f'{robot}: {what}', ratio, '', 'higher', bar, aim))
        rows.append(row(f'worst robot: {what}', min(ratios.values()), '', 'higher', bar, aim))
    for robot, seeds in found.items():
        on, off = (float(np.mean([s[k] for s in seeds])) for k in ('spread', 'spread off'))
        rows.append(row(f'{robot}: spread off the data / on it', off / on, '', 'higher', 1.0))
        rows.append(row(f'{robot}: spread on the data', on, 'half ranges', 'lower', None))
    inference = float(np.median([s['inference ms'] for v in found.values() for s in v]))
    learning = float(np.median([s['learning ms'] for v in found.values() for s in v]))
    rows.append(row('mean, draws and spread, CPU, median', inference, 'ms', 'lower', 0.3))
    rows.append(row('learning from a choice, CPU, median', learning, 'ms', 'lower', None))
    return rows


def measure(robot: str, seed: int, status: Status) -> dict[str, float]:
    """Scores of one robot and seed, by what acted."""
    spec, life = load_robot(robot), load_life(robot)
    prior = prior_for(spec)
    choices, posterior = learned_in_life(prior, life, seed, lambda s: status(f'{robot} lives', s))
    status(f'{robot} forgets', 0.6)
    learner = PolicyLearner(
        Controller(_with(prior, learn=True).dynamics).adviser.senses,
        PolicyConfig(memory=False),
        seed,
    )
    for choice in choices:
        learner.observe(choice)
    status(f'{robot} at home', 0.75)
    quarter = max(spec.planner.candidates // 4, 2)
    alone = _with(prior, alone=True, spread=SURE)
    scores = {
        'planner': at_home(prior, life, seed),
        'quarter': at_home(_with(prior, quarter), life, seed),
        'seeded': at_home(_with(prior, quarter, seed=True), life, seed, posterior),
        'alone': at_home(alone, life, seed, posterior, Absent),
        'forgetful': at_home(alone, life, seed, learner.posterior(), Absent),
    }
    return scores | spreads(choices, posterior, len(spec.action)) | costs(choices, posterior, spec)


def learned_in_life(
    prior: Prior, life: Life, seed: int, progress: Callable[[float], None]
) -> tuple[list[Choice], PolicyPosterior]:
    """The planner's choices during a life, and the posterior that learned from them."""
    agent = LearningAgent(_with(prior, learn=True), seed, config=LearnerConfig(background=False))
    choices: list[Choice] = []

    def observe(moment: Moment) -> None:
        if moment.act.choice is not None:
            choices.append(moment.act.choice)

    spec = agent.controller.dynamics.spec
    run_life(spec, life, agent, seed, lambda step: progress(0.6 * step / life.steps), observe)
    posterior = agent.policy.ask(lambda learner: learner.posterior())
    agent.policy.close()
    return choices, posterior


def at_home(
    prior: Prior,
    life: Life,
    seed: int,
    posterior: PolicyPosterior | None = None,
    kind: type[Controller] = Controller,
) -> float:
    """Mean score at home once settled, acting on the nominal model."""
    home = life.regime_at(0)
    phases = [(home, SETTLED + MEASURED)]
    life = life.model_copy(update={'phases': phases, 'regimes': {home: life.regimes[home]}})
    agent = Frozen(prior, seed)
    agent.controller = kind(prior.dynamics, seed)
    if posterior is not None:
        agent.controller.adviser.take(posterior)
    trace = run_life(prior.dynamics.spec, life, agent, seed + 1000)
    return float(np.mean(trace.score[SETTLED:]))


def spreads(
    choices: Sequence[Choice], posterior: PolicyPosterior, actions: int
) -> dict[str, float]:
    """Epistemic spread on inputs of the life, and on inputs three times as far from their mean."""
    inputs = np.array([c.inputs for c in choices])
    far = inputs.mean(axis=0) + 3 * (inputs - inputs.mean(axis=0))
    kinds = {'spread': inputs, 'spread off': far.astype(np.float32)}
    return {
        name: float(np.median([posterior(i, actions).spread.mean() for i in rows[::10]]))
        for name, rows in kinds.items()
    }


def costs(
    choices: Sequence[Choice], posterior: PolicyPosterior, spec: RobotSpec
) -> dict[str, float]:
    """CPU time of an inference, and of learning from a choice, milliseconds."""

    def timed(call: Callable[[Choice], Any], rows: Sequence[Choice]) -> float:
        seconds = []
        for choice in rows:
            started = time.thread_time()
            call(choice)
            seconds.append(time.thread_time() - started)
        return 1e3 * float(np.median(seconds))

    actions = len(spec.action)
    dynamics = _with(prior_for(spec), learn=True).dynamics
    learner = PolicyLearner(Controller(dynamics).adviser.senses)
    for choice in choices[: learner.config.least]:
        learner.observe(choice)
    learning = timed(learner.observe, choices[learner.config.least :][:100])
    return {
        'inference ms': timed(lambda c: posterior(c.inputs, actions).spread, choices[:200]),
        'learning ms': learning,
    }


def _with(prior: Prior, candidates: int | None = None, **policy: Any) -> Prior:
    """The prior with other settings of the policy posterior, and of the planner."""
    spec = prior.dynamics.spec
    change: dict[str, Any] = {'policy': PolicySettings(**policy)}
    if candidates is not None:
        change['planner'] = spec.planner.model_copy(update={'candidates': candidates})
    return replace(prior, dynamics=replace(prior.dynamics, spec=spec.model_copy(update=change)))
