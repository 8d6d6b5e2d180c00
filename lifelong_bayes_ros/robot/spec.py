"""The robot file: names, limits, encoders, sources, command, goal and cost of one robot.

Nothing about a robot is written anywhere else. `load_robot('quad')` reads
`config/robots/quad.yaml`; a path reads that file. Unknown keys, wrong types and names that do not
fit together raise `UserError` naming the file, the key, the value and the mend.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from ..errors import UserError
from ..paths import share_dir
from .channels import DIFFERENCE, UNSTAMPED, Channel, Source, check_channels
from .command import Action, Command, check_command
from .goal import GoalInput, check_goal_input
from .limits import SafeAction, Safety, check_chances, check_limits
from .names import check_topics
from .outcomes import OutcomeSource, check_outcomes
from .policy import PolicySettings
from .probing import Probing
from .section import Finite, Frame, Name, NonNegative, Positive, Section, Share
from .yamltext import parse_yaml

Period = Annotated[float, Field(ge=1e-6, le=60)]  # s; between nanoseconds and what is control


class Wave(Section):
    """Reference of one channel: center + amplitude · sin(2π t / period + phase).

    With `along: [x, y]` it is instead the direction in which the references of two other channels
    move: the heading of a vehicle on its path. `weight` is what its error counts in the score.
    """

    center: Finite = 0.0
    amplitude: Finite = 0.0
    period: Annotated[float, Field(ge=1e-3, le=1e6)] = 1.0
    phase: Finite = 0.0
    along: tuple[str, str] | None = None
    weight: NonNegative = 1.0


class Goal(Section):
    """Channels to keep on a periodic reference; score = exp(−‖error‖ / scale) in [0, 1]."""

    track: dict[str, Wave]
    scale: Positive

    @model_validator(mode='after')
    def _has_paths(self) -> Goal:
        waves = {n for n, w in self.track.items() if w.along is None}
        for name, wave in self.track.items():
            unknown = sorted(set(wave.along or ()) - waves)
            if unknown:
                raise ValueError(
                    f'track.{name}.along: {unknown} is no tracked wave; use two of {sorted(waves)}'
                )
        return self


class Chance(Section):
    """Keeps a channel above `low` and below `high` with a probability, at each step of a plan.

    At 0.5 only the mean of the prediction must. `weight` is the cost of being beyond a limit by
    about a tenth of the range between them, all along a plan, in units of the difference between
    the costs of a typical and of the best candidate.
    """

    low: Finite | None = None
    high: Finite | None = None
    probability: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    weight: Positive = 3.0


class Cost(Section):
    """Weights of the running cost, per squared unit.

    `track` weighs the distance to the goal's reference, `rate` the distance of a `derivative_of`
    channel to the reference's derivative, `state` the distance of a channel to zero, `action` and
    `action_rate` the command (in units of its half range) and its change per step. `limit` weighs
    the distance beyond a channel's limits; `chance` names channels that are kept within limits in
    spite of ignorance and noise.
    """

    track: Annotated[dict[str, NonNegative], Field(min_length=1)]
    rate: dict[str, NonNegative] = {}
    state: dict[str, NonNegative] = {}
    action: NonNegative = 0.0
    action_rate: NonNegative = 0.0
    limit: NonNegative = 0.0
    chance: dict[str, Chance] = {}
    terminal: NonNegative = 1.0


class Planning(Section):
    """Settings of the sampling planner.

    Candidates are rolled out `through` the Belief's mean, one posterior draw each, or all of
    `draws` draws; through all, the cost is the mean over them plus `beta` standard deviations.
    Where the regime is new or the belief stale, that and the margins of `cost.chance` grow by the
    factor 1 + `careful`. The noise of candidates is autoregressive (`correlation`), or has a power
    that falls as frequency^−`colour`. `temperature` is MPPI's, and `finest`: its candidates' noise
    is from that share of `noise` up to all of it, evenly by its logarithm. `elites`, the share of
    them to `keep`, the factor by which each iteration's candidates `shrink`, and `momentum` are
    iCEM's.
    The `engine` rolls out in compiled C (`native`; without a C compiler in numpy), numpy or torch.
    """

    optimizer: Literal['mppi', 'icem'] = 'mppi'
    through: Literal['mean', 'draw', 'all'] = 'mean'
    draws: Annotated[int, Field(ge=1, le=1000)] = 8
    beta: NonNegative = 0.0
    careful: NonNegative = 1.0
    engine: Literal['native', 'numpy', 'torch'] = 'native'

    candidates: Annotated[int, Field(ge=2, le=100_000)] = 192
    horizon: Annotated[int, Field(ge=1, le=1000)] = 20
    iterations: Annotated[int, Field(ge=1, le=100)] = 1
    noise: Annotated[float, Field(gt=0, le=2)] = 0.3
    correlation: Annotated[float, Field(ge=0, lt=1)] = 0.7
    colour: NonNegative | None = None
    temperature: Positive = 0.1
    finest: Annotated[float, Field(gt=0, le=1)] = 0.3
    elites: Annotated[int, Field(ge=2)] = 10
    keep: Share = 0.3
    shrink: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode='after')
    def _consistent(self) -> Planning:
        if self.beta > 0 and (self.through != 'all' or self.draws < 2):
            raise ValueError(
                f'beta {self.beta:g} weighs the spread over posterior draws; give `through: all` '
                'and 2 or more draws'
            )
        if self.optimizer == 'icem' and self.elites > self.candidates:
            raise ValueError(
                f'elites {self.elites} are chosen among {self.candidates} candidates; give fewer '
                'elites or more candidates'
            )
        return self


class View(Section):
    """How a state is drawn.

    `body`: at (x, z) with a pitch. `vehicle`: from above, at (x, y) with a heading. `chain`:
    joints in the x-z plane from the origin, or from (x, 0); their angles are measured upwards from
    +x, or, if `upright`, from the vertical towards +x. `model` is the MJCF file that the robot's
    shapes come from; with `tip`, a site of it, plans are drawn where that site goes.
    """

    kind: Literal['body', 'vehicle', 'chain']
    x: str | None = None
    y: str | None = None
    z: str | None = None
    pitch: str | None = None
    heading: str | None = None
    size: Positive = 0.2
    joints: list[str] = []
    lengths: list[Positive] = []
    upright: bool = False
    model: str | None = None
    tip: str | None = None


class RobotSpec(Section):
    """A validated robot file. State and action vectors follow the order of the file."""

    name: Name
    description: str = ''
    period: Period
    frame: Frame = 'odom'
    slop: Annotated[float, Field(ge=0, le=3600)] = 0.005
    max_age: Annotated[float, Field(gt=0, le=3600)] = 0.2
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    state: Annotated[list[Channel], Field(min_length=1)]
    action: Annotated[list[Action], Field(min_length=1)]
    command: Command = Command()
    safe_action: SafeAction = SafeAction()
    safety: Safety = Safety()
    goal: Goal
    goal_input: GoalInput | None = None
    cost: Cost
    planner: Planning = Planning()
    outcomes: dict[Name, OutcomeSource] = {}
    policy: PolicySettings = PolicySettings()
    probing: Probing = Probing()
    view: View | None = None

    @model_validator(mode='after')
    def _consistent(self) -> RobotSpec:
        names = self.state_names
        for kind, values in (('state', names), ('action', self.action_names)):
            twice = {v for v in values if values.count(v) > 1}
            if twice:
                raise ValueError(f'{kind}: {sorted(twice)} appear twice; give each its own name')
        check_channels(self)
        check_command(self)
        derivatives = {c.derivative_of for c in self.state if c.derivative_of}
        for where, used, known in (
            ('goal.track', self.goal.track, set(names)),
            ('cost.track', self.cost.track, set(self.goal.track)),
            ('cost.rate', self.cost.rate, set(self.goal.track) & derivatives),
            ('cost.state', self.cost.state, set(names)),
            ('cost.chance', self.cost.chance, set(names)),
        ):
            unknown = sorted(set(used) - known)
            if unknown:
                raise ValueError(f'{where}: unknown channel {unknown}; use one of {sorted(known)}')
        check_limits(self)
        check_chances(self)
        check_goal_input(self)
        check_outcomes(self)
        check_topics(self)
        if self.view is not None:
            v = self.view
            shown = {v.x, v.y, v.z, v.pitch, v.heading, *v.joints} - {None}
            unknown = sorted(shown - set(names))
            if unknown:
                raise ValueError(f'view: unknown channel {unknown}; use one of {names}')
            if v.kind == 'chain' and len(v.joints) != len(v.lengths):
                raise ValueError('view: joints and lengths must be lists of the same length')
            if v.kind == 'body' and not (v.x and v.z):
                raise ValueError('view: kind body needs x and z')
            if v.kind == 'vehicle' and not (v.x and v.y and v.heading):
                raise ValueError('view: kind vehicle needs x, y and heading')
        return self

    @property
    def state_names(self) -> list[str]:
        """Names of the state channels, in order."""
        return [c.name for c in self.state]

    @property
    def action_names(self) -> list[str]:
        """Names of the actions, in order."""
        return [a.name for a in self.action]

    @cached_property
    def period_ns(self) -> int:
        """Control period in nanoseconds."""
        return round(self.period * 1e9)

    def index(self, names: Sequence[str]) -> list[int]:
        """Indices of the named state channels."""
        return [self.state_names.index(n) for n in names]

    @cached_property
    def angles(self) -> np.ndarray:
        """Mask [ds] of the channels that are angles."""
        return np.array([c.wraps for c in self.state])

    @cached_property
    def differences(self) -> list[tuple[int, int]]:
        """Indices of the channels that are reckoned by differencing, and of their positions."""
        pairs = enumerate(self.state)
        return [(i, *self.index([c.derivative_of])) for i, c in pairs if c.field == DIFFERENCE]

    @cached_property
    def stamped(self) -> list[str]:
        """Names of the sources whose messages tell when they were measured."""
        return [n for n, source in self.sources.items() if source.type not in UNSTAMPED]

    @cached_property
    def action_low(self) -> np.ndarray:
        """Lower command limits [da]."""
        return np.array([a.low for a in self.action])

    @cached_property
    def action_high(self) -> np.ndarray:
        """Upper command limits [da]."""
        return np.array([a.high for a in self.action])

    @cached_property
    def action_half_range(self) -> np.ndarray:
        """Half of the command range [da]."""
        return (self.action_high - self.action_low) / 2

    @cached_property
    def neutral(self) -> np.ndarray:
        """Neutral command [da]."""
        return np.array([a.neutral for a in self.action])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what a belief depends on: channels, encoders, actions and control period."""
        return hashlib.sha256(json.dumps(self._facts).encode()).hexdigest()[:16]

    def differs(self, other: RobotSpec) -> str:
        """In what a belief depends on another robot differs, in words; empty: in nothing."""
        for fact, mine in self._facts.items():
            if other._facts[fact] != mine:
                return f'{fact} is {other._facts[fact]}, here {mine}'
        return ''

    @property
    def _facts(self) -> dict[str, Any]:
        return {
            'name': self.name,
            'period_ns': self.period_ns,
            'state': [(c.name, c.encode) for c in self.state],
            'action': [(a.name, a.low, a.high, a.neutral) for a in self.action],
        }

    def wrap(self, difference: np.ndarray) -> np.ndarray:
        """Bring the angle channels of states or differences [..., ds] to (−π, π]."""
        wrapped = np.pi - np.mod(np.pi - difference, 2 * np.pi)
        return np.where(self.angles, wrapped, difference)

    def reference(self, stamp_ns: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Reference of the tracked channels and its time derivative.

        Args:
            stamp_ns: time of the first row, nanoseconds.
            steps: number of rows, one control period apart.

        Returns:
            Two arrays [steps, number of tracked channels], in the order of `goal.track`.
        """
        center, amplitude, omega, phase, periods_ns = self._waves
        # Whole periods are taken off in integers, so that wall-clock stamps lose no precision.
        start = (np.int64(stamp_ns) % periods_ns) * 1e-9
        t = start + _times(steps, self.period)
        angle = omega * t + phase
        value, rate = center + amplitude * np.sin(angle), amplitude * omega * np.cos(angle)
        for i, wave in enumerate(self.goal.track.values()):
            if wave.along:
                path = [list(self.goal.track).index(name) for name in wave.along]
                vx, vy = rate[:, path].T
                ax, ay = (-amplitude * omega**2 * np.sin(angle))[:, path].T
                value[:, i] = np.arctan2(vy, vx)
                rate[:, i] = (vx * ay - vy * ax) / np.maximum(vx**2 + vy**2, 1e-12)
        return value, rate

    @cached_property
    def _waves(self) -> tuple[np.ndarray, ...]:
        """Centre, amplitude, angular frequency, phase and period in ns of the references."""
        waves = list(self.goal.track.values())
        return (
            np.array([w.center for w in waves]),
            np.array([w.amplitude for w in waves]),
            2 * np.pi / np.array([w.period for w in waves]),
            np.array([w.phase for w in waves]),
            np.array([round(w.period * 1e9) for w in waves], dtype=np.int64),
        )

    def score(self, stamp_ns: int, state: np.ndarray) -> float:
        """Score in [0, 1] of a state [ds] at a time: exp(−‖weighted error‖ / scale)."""
        tracked = self.index(list(self.goal.track))
        weight = np.array([w.weight for w in self.goal.track.values()])
        target = np.zeros(len(self.state))
        target[tracked] = self.reference(stamp_ns)[0][0]
        error = self.wrap(np.asarray(state, dtype=float) - target)[tracked]
        return float(np.exp(-np.linalg.norm(weight * error) / self.goal.scale))

    def dump(self) -> str:
        """The specification as YAML text that `parse_robot` reads back."""
        return yaml.safe_dump(self.model_dump(mode='json'), sort_keys=False)


@cache
def _times(steps: int, period: float) -> np.ndarray:
    """Times of so many steps since the first one [steps, 1], s."""
    return np.arange(steps)[:, None] * period


def robot_names() -> list[str]:
    """Names of the shipped robots; the template is none."""
    files = (share_dir() / 'config' / 'robots').glob('*.yaml')
    return sorted(p.stem for p in files if p.stem != 'template')


def robot_file(robot: str | Path) -> Path:
    """The file of a shipped robot by name, or a path as it is.

    Raises:
        UserError: there is none.
    """
    text = str(robot)
    if text.endswith(('.yaml', '.yml')) or '/' in text:
        path = Path(text)
        if not path.is_file():
            raise UserError(f'robot file {path} does not exist; give a path to a YAML file')
    else:
        path = share_dir() / 'config' / 'robots' / f'{text}.yaml'
        if not path.is_file():
            raise UserError(
                f'unknown robot {text!r}; shipped robots are {", ".join(robot_names())}, '
                'or give the path of a robot file (.yaml)'
            )
    return path


def load_robot(robot: str | Path) -> RobotSpec:
    """Load a shipped robot by name, or a robot file by path.

    Raises:
        UserError: unknown robot, unreadable file, unknown key, wrong type or value; names file,
            line, key, value and mend.
    """
    path = robot_file(robot)
    try:
        text = path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read as text: {error}') from None
    return parse_robot(text, str(path))


def parse_robot(text: str, where: str = 'robot file') -> RobotSpec:
    """Validate the YAML text of a robot file; `where` names it in errors."""
    return parse_yaml(RobotSpec, text, where)
