"""Full retraining: forget the weights, keep all data, train again from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...dynamics.model import Prior
from ...dynamics.noise import Noise
from ...learning.pretrain import PretrainConfig, specialist
from .base import Baseline

EVERY = 250  # transitions between trainings
CONFIG = PretrainConfig(steps=1000)


class Recorded:
    """A Plant that can only repeat the transitions it has seen, for pre-training's own code."""

    def __init__(self, steps: Sequence[tuple[np.ndarray, ...]], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(steps))
        self.x, self.u, self.x_next = (
            np.array([steps[i][column] for i in order]) for column in range(3)
        )
        self.sensor_noise = np.zeros(self.x.shape[1])  # the readings have theirs

    def set_shifts(self, shifts: Sequence[Any]) -> None:
        """Nothing can be changed any more."""

    def family(self, rng: np.random.Generator) -> list[Any]:
        """There is none."""
        return []

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """The recorded states [n, ds]."""
        return self.x

    def sample_actions(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """The recorded commands [n, da]."""
        return self.u

    def one_step(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """The recorded next states [n, ds]."""
        return self.x_next


class Retrain(Baseline):
    """Every `EVERY` transitions a fresh network is trained, as an oracle is, on all so far.

    Until the first training it drives with the nominal network.
    """

    name: ClassVar[str] = 'retrain'

    def __init__(self, prior: Prior, seed: int) -> None:
        super().__init__(prior, seed)
        self.seed = seed
        self._steps: list[tuple[np.ndarray, ...]] = []

    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        self._steps.append((x, u, x_next))
        if self.learned % EVERY:
            return
        recorded = Recorded(self._steps, self.seed)
        trained = specialist(recorded, self.dynamics.spec, CONFIG, self.seed)
        self.noise = Noise.start(trained.noise, trained.noise)
        self.controller.adopt(trained.dynamics)
