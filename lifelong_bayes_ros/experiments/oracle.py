"""The oracle: specialists of every regime, switched at the exact moment; of a drift, along it.

A specialist is the network of the prior trained on one plant. It knows how late commands act too,
by the columns that the learner has for that: without them nobody without a memory can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import lifelong_bayes_ros_sim as sim

from ..control.controller import Controller
from ..dynamics.belief import Belief
from ..dynamics.model import DELAYS, Prior
from ..learning.report import Event
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .baselines.base import Baseline
from .schedule import Life

POINTS = 5  # specialists along a drift
SAMPLES = 500  # transitions that tell how late commands act
RIDGE = 1e-3

Shifts = Sequence[dict[str, Any]]


class Specialist(Baseline):
    """A network of one plant, with the weights `late` [DELAYS] of the commands before."""

    name: ClassVar[str] = 'oracle'

    def __init__(self, prior: Prior, seed: int, late: np.ndarray) -> None:
        super().__init__(prior, seed)
        self._theta = prior.dynamics.nominal_theta.copy()
        self._theta[-DELAYS:] = late

    def theta(self) -> np.ndarray:
        return self._theta


def delays(spec: RobotSpec, prior: Prior, shifts: Shifts, seed: int = 0) -> np.ndarray:
    """Weights of past commands [DELAYS] under shifts, by least squares; 0 where none acts late."""
    plant = sim.make(spec.name, spec=spec, seed=seed)
    plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
    if plant.taps[0] == 1:
        return np.zeros(DELAYS)
    rng, model = np.random.default_rng(seed), prior.dynamics
    x = plant.sample_states(rng, SAMPLES)
    u, *before = (plant.sample_actions(rng, SAMPLES) for _ in range(1 + plant.history))
    past = np.stack(before, axis=1)
    phi, columns = model.columns(x, u, past[:, :DELAYS])
    left = (model.target(x, plant.one_step(x, u, past)) - phi @ model.nominal.T) / prior.noise**0.5
    rows = (columns[:, :, -DELAYS:] / prior.noise[:, None] ** 0.5).reshape(-1, DELAYS)
    gram = rows.T @ rows
    ridge = RIDGE * np.trace(gram) * np.eye(DELAYS)
    return np.linalg.solve(gram + ridge, rows.T @ left.ravel())


# ---------------------------------------------------------------------- along a drift
def points(regime: str, shifts: Shifts) -> dict[str, Shifts]:
    """Plants without drift to train specialists on: the regime's own, or `POINTS` on its way."""
    objects = [sim.shift_from_dict(s) for s in shifts]
    # A wave comes back the way it went.
    ends = [s.seconds / (2 if s.shape == 'wave' else 1) for s in objects if s.moves]
    if not ends:
        return {regime: shifts}
    times = np.linspace(0.0, max(ends), POINTS)
    return {f'{regime} at {t:.3g} s': [s.at(t).to_dict() for s in objects] for t in times}


class Course:
    """Which specialist is the right one at a step of a life."""

    def __init__(self, life: Life, period: float) -> None:
        self.life, self.period = life, period
        self.points = {name: points(name, shifts) for name, shifts in life.regimes.items()}
        self._drifts = {
            name: [sim.shift_from_dict(s) for s in life.regimes[name]]
            for name, found in self.points.items()
            if len(found) > 1
        }
        self._places = {
            name: np.array([_numbers(p) for p in self.points[name].values()])
            for name in self._drifts
        }

    def at(self, step: int) -> str:
        """Name of the point whose plant is nearest to the one at a step."""
        regime = self.life.regime_at(step)
        if regime not in self._drifts:
            return regime
        seconds = (step - self.life.began(step)) * self.period
        now = _numbers([s.at(seconds).to_dict() for s in self._drifts[regime]])
        places = self._places[regime]
        reach = np.maximum(np.ptp(places, axis=0), 1e-12)
        nearest = np.argmin(np.sum(np.square((places - now) / reach), axis=1))
        return list(self.points[regime])[int(nearest)]


def _numbers(value: Any) -> list[float]:
    """All numbers of shifts, in order."""
    if isinstance(value, Mapping):
        return [n for part in value.values() for n in _numbers(part)]
    if isinstance(value, list | tuple):
        return [n for part in value for n in _numbers(part)]
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return [float(value)] if known else []


class OracleAgent:
    """Specialists, switched at the exact boundary."""

    name = 'oracle'

    def __init__(
        self,
        specialists: Mapping[str, Prior],
        life: Life,
        seed: int,
        late: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """`specialists` by the points of the life's `Course`; `late`: their `delays`, if any."""
        late = late or {}
        self._agents = {
            name: Specialist(prior, seed, late.get(name, np.zeros(DELAYS)))
            for name, prior in specialists.items()
        }
        spec = next(iter(specialists.values())).dynamics.spec
        self._course = Course(life, spec.period)
        self._point = self._course.at(0)
        self.controller = Controller(specialists[self._point].dynamics, seed)

    def belief(self, step: int) -> Belief:
        point = self._course.at(step)
        if point != self._point:
            self._point = point
            self.controller.adopt(self._agents[point].dynamics)
        return self._agents[point].belief(step)

    def observe(self, transition: Transition) -> None:
        """The oracle knows already."""

    def take_events(self) -> list[Event]:
        return []
