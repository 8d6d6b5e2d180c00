"""One Bayesian head without memory: it doubts everything on surprise, and recalls nothing."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np
import torch

from ...blr import Gaussian
from ...dynamics.head import Head, Prediction
from ...dynamics.model import Prior
from ...learning.report import Event
from ...learning.settings import LearnerConfig
from ...learning.surprise import WINDOW, Surprise
from .kalman import Kalman

SHARE = LearnerConfig().random_walk


class SingleHead(Kalman):
    """The learner's head, prior and surprise, without its library, its filter and its guard."""

    name: ClassVar[str] = 'single'

    def __init__(self, prior: Prior, seed: int) -> None:
        super().__init__(prior, seed, prior.covariance, confidence=0.01)
        self.surprise = Surprise()
        # Head before each of the last steps, and what it then saw.
        self._recent: deque[tuple[Head, torch.Tensor, np.ndarray]] = deque(maxlen=WINDOW)

    def drift(self, posterior: Gaussian) -> Gaussian:
        return posterior.widen(self.start.covariance, SHARE)

    def condition(self, design: torch.Tensor, target: np.ndarray) -> Prediction:
        self._recent.append((self.head, design, target))
        prediction = super().condition(design, target)
        if self.surprise.update(prediction.nis):
            self._temper()
        return prediction

    def _temper(self) -> None:
        """Back to the family prior; the steps since the change point are learned again."""
        steps = min(self.surprise.since_change(), len(self._recent))
        since = list(self._recent)[-steps:]
        self.head = Head(self.start, since[0][0].noise.hold())
        for _, design, target in since:
            super().condition(design, target)
        self.head = self.head.replace(noise=self.head.noise.hold())
        self.noise = self.head.noise
        self._recent.clear()
        detail = {'nis': round(self.surprise.fast, 2), 'steps': steps}
        self._events.append(Event('shift', self.stamp_ns, self.learned, detail))
        self.surprise.reset()
