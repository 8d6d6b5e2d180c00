"""What the baselines share: the planner, the history of commands, and noise learned online."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...control.controller import Controller
from ...dynamics.belief import Belief
from ...dynamics.model import Dynamics, Prior
from ...dynamics.noise import Noise
from ...learning.report import Event
from ...robot.transitions import Transition


class Baseline:
    """A model that drives through the same planner as the learner.

    A method says how it learns from a step (`learn`) and what it believes (`theta`, `factor`); one
    that changes its trunk hands a new Dynamics to `controller.adopt`. Its intervals come from the
    same inverse-gamma noise as the learner's, so that coverage compares the models and not the
    effort spent on their noise.
    """

    name: ClassVar[str] = ''

    def __init__(self, prior: Prior, seed: int) -> None:
        """Start at the nominal plant; `seed` of the planner and of the method's own draws."""
        self.prior = prior
        self.rng = np.random.default_rng(seed)
        self.controller = Controller(prior.dynamics, seed)
        self.noise = Noise.start(prior.noise, prior.noise)
        self.past = prior.dynamics.history()
        self.learned = 0
        self.stamp_ns = 0
        self._events: list[Event] = []

    @property
    def dynamics(self) -> Dynamics:
        """The model in use."""
        return self.controller.dynamics

    def belief(self, step: int) -> Belief:
        """What to act on now."""
        return Belief(
            stamp_ns=self.stamp_ns,
            version=self.learned,
            theta=self.theta().astype(np.float32),
            factor=self.factor().astype(np.float32),
            offset=np.zeros(len(self.dynamics.scale), np.float32),
            noise=self.noise.variance.astype(np.float32),
            noise_dof=float(self.noise.dof),
            regimes={self.name: 1.0},
            regime=self.name,
            mode='learned',
        )

    def observe(self, transition: Transition) -> None:
        """Learn from a usable transition; anything else only breaks the history of commands."""
        self.stamp_ns = transition.stamp_ns
        x, u, x_next = (
            a.astype(float) for a in (transition.state, transition.action, transition.next_state)
        )
        if not transition.usable or not all(np.isfinite(a).all() for a in (x, u, x_next)):
            self.past = self.dynamics.history()
            return
        past, self.past = self.past, np.vstack([u, self.past[:-1]])
        self.learned += 1
        self.learn(x, u, past, x_next)

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------ what a method decides
    def learn(self, x: np.ndarray, u: np.ndarray, past: np.ndarray, x_next: np.ndarray) -> None:
        """Take one step from x [ds] by u [da] after past commands [DELAYS, da] to x_next [ds]."""

    def theta(self) -> np.ndarray:
        """Parameters θ [n] of `dynamics`."""
        return self.dynamics.nominal_theta

    def factor(self) -> np.ndarray:
        """Deviations of posterior draws [n, E] over √E, as a Belief holds them."""
        return np.zeros((self.dynamics.size, 1))
