"""Lives with tight limits: how often a planner that knows what it does not know breaks them.

The robots' own lives, under robot files whose `cost.chance` holds the limits of
`config/robots/tight`, which bind: the way that the robot is to go touches them. Both planners act
on the same learner's Belief, search alike and pay the same for a limit; one holds the mean
prediction to it, the other leaves room for ignorance and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ..errors import UserError
from ..paths import share_dir
from ..robot.section import Finite, Section
from ..robot.spec import RobotSpec, load_robot, parse_yaml
from .agents import LearningAgent
from .kept import Status, run_kept
from .life import Moment, run_life
from .priors import prior_for
from .published import report_object, row
from .schedule import load_life
from .units import Training

ROBOTS = ('quad', 'arm', 'diffdrive', 'cartpole')
MEAN, RISK = 'mean', 'risk-aware'
KEPT = Path('out/bench/risk')
PROBABILITY = {MEAN: 0.5, RISK: 0.95}  # that a limit is kept; 0.5: the mean prediction keeps it
WEIGHT = 30.0  # of a broken limit: hard ones, for both
FINEST = 0.1  # near candidates find the room that limits leave, for both
PLANNERS = (MEAN, RISK)


class Limit(Section):
    """Where a channel shall stay."""

    low: Finite
    high: Finite


class Tight(Section):
    """A file of `config/robots/tight`."""

    limits: dict[str, Limit] = Field(min_length=1)


def tight_limits(robot: str) -> dict[str, Limit]:
    """The tight limits of a shipped robot by channel."""
    path = share_dir() / 'config' / 'robots' / 'tight' / f'{robot}.yaml'
    if not path.is_file():
        raise UserError(f'there are no tight limits for robot {robot!r}; write {path}')
    return parse_yaml(Tight, path.read_text(), str(path)).limits


def tight_robot(robot: str, planner: str) -> RobotSpec:
    """A shipped robot whose planner knows the tight limits."""
    data = load_robot(robot).model_dump()
    data['cost']['chance'] = {
        name: {
            'low': limit.low,
            'high': limit.high,
            'probability': PROBABILITY[planner],
            'weight': WEIGHT,
        }
        for name, limit in tight_limits(robot).items()
    }
    data['planner']['finest'] = FINEST
    return RobotSpec.model_validate(data)


@dataclass(frozen=True)
class RiskUnit:
    """A planner through a robot's own life with a seed."""

    robot: str
    planner: str
    seed: int

    def __str__(self) -> str:
        return f'{self.robot}, {self.planner} planner, seed {self.seed}'

    def run(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Live it: mean score, steps with a true state beyond a limit, in all and by channel."""
        shipped, life = load_robot(self.robot), load_life(self.robot)
        prior = prior_for(shipped)
        spec = tight_robot(self.robot, self.planner)
        agent = LearningAgent(
            replace(prior, dynamics=replace(prior.dynamics, spec=spec)), self.seed
        )
        limits = tight_limits(self.robot)
        channels = spec.index(list(limits))
        low = np.array([limit.low for limit in limits.values()])
        high = np.array([limit.high for limit in limits.values()])
        beyond = []

        def watch(moment: Moment) -> None:
            state = moment.env.true_state[channels]
            beyond.append((state < low) | (state > high) | moment.crashed)

        # The plant and its score are those of the shipped robot.
        trace = run_life(
            shipped, life, agent, self.seed, lambda step: progress(step / life.steps), watch
        )
        steps = np.array(beyond)
        return {
            'score': float(np.mean(trace.score)),
            'beyond': int(steps.any(axis=1).sum()),
            'channels': dict(zip(limits, steps.sum(axis=0).tolist(), strict=True)),
            'crashes': int(np.sum(trace.crashed)),
            'steps': life.steps,
            'plan ms': 1e3 * float(np.median(trace.plan_seconds)),
        }

    @property
    def name(self) -> str:
        """Of the file that its result is kept in."""
        return f'{self.robot}-{self.planner}-{self.seed}'

    def facts(self) -> list[Any]:
        """What decides the result beside the code."""
        specs = (load_robot(self.robot), tight_robot(self.robot, self.planner))
        return [s.model_dump(mode='json') for s in (*specs, load_life(self.robot))]


def risk_report(
    status: Status, seeds: Sequence[int], out: Path | None = None, jobs: int = 2
) -> dict[str, Any]:
    """Run what `out` does not hold yet, and return the report object.

    Raises:
        UserError: a life failed.
    """
    for robot in ROBOTS:
        Training(robot).prior(lambda share, what, r=robot: status(f'{r}: {what}', share))
    units = [RiskUnit(r, p, s) for s in seeds for r in ROBOTS for p in PLANNERS]
    found = run_kept(units, out or KEPT, jobs, status)
    return report_object('bench risk', list(seeds), risk_rows(found))


def risk_rows(found: dict[RiskUnit, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the lives found."""
    rows, totals, ratios = [], {MEAN: 0, RISK: 0}, []
    lives = len(found) // len(PLANNERS)
    for robot in dict.fromkeys(unit.robot for unit in found):
        count, score, steps = {}, {}, 0
        for planner in PLANNERS:
            results = [r for u, r in found.items() if (u.robot, u.planner) == (robot, planner)]
            count[planner] = sum(r['beyond'] for r in results)
            score[planner] = float(np.mean([r['score'] for r in results]))
            steps = sum(r['steps'] for r in results)
            totals[planner] += count[planner]
            rows += [
                row(
                    f'{robot}, {planner} planner: steps beyond a limit, of {steps}',
                    count[planner],
                    'steps',
                    'lower',
                    None,
                ),
                row(f'{robot}, {planner} planner: score', score[planner], '', 'higher', None),
            ]
        ratios.append(score[RISK] / score[MEAN])
    what = f'{RISK} / {MEAN} planner, {lives} lives with tight limits'
    beyond = totals[RISK] / totals[MEAN] if totals[MEAN] else float('nan')
    return [
        row(f'steps beyond a limit, {what}', beyond, '', 'lower', 0.2, 0.05),
        row(f'score, {what}', float(np.mean(ratios)), '', 'higher', 0.95),
        *rows,
    ]
