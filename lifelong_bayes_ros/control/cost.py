"""Cost of predicted states and commands, as the robot file weighs them."""

from __future__ import annotations

import numpy as np

from ..robot.spec import RobotSpec
from .goals import FileGoal, Goal


class Cost:
    """Quadratic tracking, rate, state, command and soft-limit costs."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        names = spec.state_names
        ds = len(names)
        self.aim(FileGoal(spec))
        self._damping = np.zeros(ds, np.float32)
        for name, weight in spec.cost.state.items():
            self._damping[names.index(name)] = weight
        infinity = np.float32(np.inf)
        self._low = np.array([-infinity if c.low is None else c.low for c in spec.state])
        self._high = np.array([infinity if c.high is None else c.high for c in spec.state])
        self._half = spec.action_half_range.astype(np.float32)
        self._neutral = spec.neutral.astype(np.float32)

    def aim(self, goal: Goal) -> None:
        """Follow another goal from now on."""
        self.goal = goal
        self._weights = goal.weights.astype(np.float32)

    def target(self, stamp_ns: int, steps: int) -> np.ndarray:
        """Target states [steps, ds]; channels without a reference weigh nothing."""
        return self.goal.target(stamp_ns, steps).astype(np.float32)

    def __call__(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray, target: np.ndarray
    ) -> np.ndarray:
        """Cost [n] of states [n, h, ds] reached by actions [n, h, da].

        Args:
            states: predicted states.
            actions: commands.
            previous: last command sent [da].
            target: target states [h, ds].
        """
        spec = self.spec
        error = states - target
        angles = np.flatnonzero(spec.angles)
        if len(angles):
            wrapped = error[..., angles]
            error[..., angles] = wrapped - 2 * np.pi * np.round(wrapped / (2 * np.pi))
        square = error * error
        step = square @ self._weights
        step += (states * states) @ self._damping
        if spec.cost.limit:
            beyond = np.maximum(states - self._high, 0) + np.maximum(self._low - states, 0)
            step += spec.cost.limit * np.square(beyond).sum(axis=-1)
        step[:, -1] *= spec.cost.terminal
        u = (actions - self._neutral) / self._half
        before = np.broadcast_to((previous - self._neutral) / self._half, u[:, :1].shape)
        change = np.diff(np.concatenate([before, u], axis=1), axis=1)
        step += spec.cost.action * np.square(u).sum(axis=-1)
        step += spec.cost.action_rate * np.square(change).sum(axis=-1)
        return step.mean(axis=1)
