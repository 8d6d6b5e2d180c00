"""What a score does not show: is the model also right elsewhere, and further ahead?

A prior that is too wide predicts the next step well and ruins planning. Neither the one-step error
on the stream nor its coverage sees that; the errors here do.
"""

from __future__ import annotations

import gc
import types
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..control.rollout import Rollout
from ..dynamics.belief import predict
from ..dynamics.model import DELAYS, Prior
from ..robot.spec import RobotSpec
from .life import Moment
from .schedule import Life

SAMPLES = 300  # clean transitions per phase
HORIZONS = (5, 15)  # steps ahead
EVERY = 5  # steps between two open-loop predictions


@dataclass
class ModelErrors:
    """Errors per phase, in units of y of the prior, root mean square.

    `off_policy`: per output [ds], of one step from operating states and commands that nobody
    chose, without noise, by the model acted on at the end of the phase. The commands before are
    correlated as the planner's candidates are.

    `open_loop[h]`: over h steps along the commands really sent, from readings on the stream, by
    the model held at the start; `nominal[h]` is the nominal model from the same readings.
    """

    spec: RobotSpec
    life: Life
    prior: Prior
    seed: int
    off_policy: list[list[float]] = field(default_factory=list)
    open_loop: dict[int, list[float]] = field(default_factory=lambda: {h: [] for h in HORIZONS})
    nominal: dict[int, list[float]] = field(default_factory=lambda: {h: [] for h in HORIZONS})

    def __post_init__(self) -> None:
        self._scale = self.prior.dynamics.scale
        nominal = Rollout(self.prior.dynamics)
        theta = self.prior.dynamics.nominal_theta.astype(np.float32)
        self._nominal = (nominal, nominal.weights(theta))
        self._start_phase()

    def _start_phase(self) -> None:
        self._starts: deque[tuple[int, tuple, np.ndarray, np.ndarray]] = deque()
        self._commands: list[np.ndarray] = []
        self._states: list[np.ndarray] = []
        self._squares: dict[tuple[str, int], list[float]] = {
            (who, h): [] for who in ('own', 'nominal') for h in HORIZONS
        }

    def __call__(self, moment: Moment) -> None:
        """Take one step; an observer of `run_life`."""
        if len(self._states) % EVERY == 0:
            rollout = moment.agent.controller.planner.rollout
            model = (rollout, rollout.mean(moment.belief))
            self._starts.append((len(self._states), model, moment.state, moment.past))
        self._commands.append(moment.command)
        self._states.append(moment.next_state)
        if moment.crashed:
            self._starts.clear()
        elif self._starts and len(self._states) - self._starts[0][0] == max(HORIZONS):
            self._predict(*self._starts.popleft())
        if moment.step + 1 in self.life.boundaries:
            self.off_policy.append(self._off_policy(moment).tolist())
            for who, found in (('own', self.open_loop), ('nominal', self.nominal)):
                for h in HORIZONS:
                    found[h].append(_root_mean(self._squares[who, h]))
            self._start_phase()

    def _predict(self, first: int, own: tuple, state: np.ndarray, past: np.ndarray) -> None:
        actions = np.array(self._commands[first:], np.float32)[None]
        for who, (rollout, weights) in (('own', own), ('nominal', self._nominal)):
            with np.errstate(all='ignore'):  # a wrong model may run away
                states = rollout.run(weights, state, actions, past)[0].astype(float)
            for h in HORIZONS:
                error = self.spec.wrap(states[h - 1] - self._states[first + h - 1]) / self._scale
                self._squares[who, h].append(float(np.mean(np.square(error))))

    def _off_policy(self, moment: Moment) -> np.ndarray:
        # The same questions to every method: the stream depends on life, phase and seed only.
        rng = np.random.default_rng([self.seed, moment.step])
        env, keep = moment.env, self.spec.planner.correlation
        x, u = env.sample_states(rng, SAMPLES), env.sample_actions(rng, SAMPLES)
        past = [u]
        for _ in range(DELAYS):
            fresh = env.sample_actions(rng, SAMPLES) - self.spec.neutral
            earlier = keep * (past[-1] - self.spec.neutral) + (1 - keep**2) ** 0.5 * fresh
            low, high = self.spec.action_low, self.spec.action_high
            past.append(np.clip(self.spec.neutral + earlier, low, high))
        previous = np.stack(past[1:], axis=1)
        truth = env.one_step(x, u, previous)
        rows = zip(x, u, previous, strict=True)
        belief = moment.belief.anywhere()
        means = [predict(moment.dynamics, belief, *row).mean for row in rows]
        error = self.spec.wrap(np.array(means) - truth) / self._scale
        return np.sqrt(np.mean(np.square(error), axis=0))


def _root_mean(squares: list[float]) -> float:
    return float(np.sqrt(np.mean(squares))) if squares else float('nan')


def footprint(thing: Any, without: Any = ()) -> int:
    """Bytes of the arrays and tensors that `thing` holds and `without` does not.

    Counted by following references, so that every method is measured alike; each memory once,
    and what a view looks at in full.
    """
    seen: set[int] = set()
    _reach(list(without), seen)
    return _reach([thing], seen)


def _reach(todo: list[Any], seen: set[int]) -> int:
    skipped = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
    total = 0
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, skipped):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        elif isinstance(one, np.ndarray):
            if one.base is None:
                total += one.nbytes
            else:
                todo.append(one.base)
        todo += gc.get_referents(one)
    return total
