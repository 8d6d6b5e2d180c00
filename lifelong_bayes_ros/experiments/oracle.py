"""The oracle: specialists of every regime, switched at the exact moment; of a drift, along it.

A specialist is the network of the prior trained on one plant. It knows how late commands act too,
by the columns that the learner has for that: without them nobody without a memory can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

import lifelong_bayes_ros_sim as sim

from ..control.controller import Controller
from ..dynamics.belief import Belief
from ..dynamics.model import DELAYS, Prior
from ..learning.report import Event
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .baselines.base import Baseline
from .course import Course, Shifts
from .schedule import Life

SAMPLES = 500  # transitions that tell how late commands act
RIDGE = 1e-3


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
