"""Data of the task family for networks that one head must serve on all plants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...dynamics.model import DELAYS, Dynamics
from ...learning.pretrain import Plant
from .history import LENGTH, seen

PLANTS = 256  # members of the family in one data set
RUN = 12  # steps in a row for the history
HOLD = 0.7  # probability that a command is held for another step
OUTLIER = 20.0  # standard deviations of a step; a run that left the arena is no motion


class AnyOfTheFamily:
    """A Plant whose every batch of steps is spread over `PLANTS` members of the task family."""

    def __init__(self, plant: Plant, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._plant = plant
        self._members = [plant.family(rng) for _ in range(PLANTS)]
        self.sensor_noise = plant.sensor_noise
        self.family = plant.family
        self.sample_states, self.sample_actions = plant.sample_states, plant.sample_actions

    def set_shifts(self, shifts: Sequence[Any]) -> None:
        """The members are fixed."""

    def one_step(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """Next states [n, ds]; row i is a step of member i modulo `PLANTS`."""
        result = np.empty_like(states)
        for i, shifts in enumerate(self._members):
            self._plant.set_shifts(shifts)
            rows = slice(i, None, PLANTS)
            result[rows] = self._plant.one_step(states[rows], actions[rows], previous[rows])
        self._plant.set_shifts([])
        return result


def family_runs(
    plant: Plant, dynamics: Dynamics, runs: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy runs of `RUN` steps on `PLANTS` plants.

    Returns:
        Inputs followed by the history [n, di + LENGTH · width], zeros before a run, and targets
        [n, ds].
    """
    rng = np.random.default_rng(seed)
    di = len(dynamics.trunk.mean)
    rows: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for _ in range(PLANTS):
        plant.set_shifts(plant.family(rng))
        true, u = plant.sample_states(rng, runs), plant.sample_actions(rng, runs)
        x = true + plant.sensor_noise * rng.standard_normal(true.shape)
        history: list[np.ndarray] = []
        for _ in range(RUN):
            true = plant.one_step(true, u, np.repeat(u[:, None], DELAYS, axis=1))
            x_next = true + plant.sensor_noise * rng.standard_normal(true.shape)
            now = seen(dynamics, x, u, x_next)
            history += [] if history else [np.zeros_like(now)] * LENGTH
            # A planner asks far from where the history was made: half of the rows get that of
            # another run on the same plant.
            far = np.where(rng.random(runs) < 0.5, rng.permutation(runs), np.arange(runs))
            rows.append(np.concatenate([now[:, :di], *(h[far] for h in history[:LENGTH])], axis=1))
            targets.append(dynamics.target(x, x_next))
            history.insert(0, now)
            held = rng.random((runs, 1)) < HOLD
            x, u = x_next, np.where(held, u, plant.sample_actions(rng, runs))
    plant.set_shifts([])
    inputs, outputs = (torch.tensor(np.concatenate(a)).float() for a in (rows, targets))
    sane = torch.isfinite(inputs).all(dim=1) & (outputs.abs() < OUTLIER).all(dim=1)
    return inputs[sane], outputs[sane]
