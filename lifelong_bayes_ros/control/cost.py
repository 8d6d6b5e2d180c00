"""Cost of predicted states and commands, as the robot file weighs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..robot.spec import RobotSpec
from .goals import FileGoal, Goal


class Cost:
    """Quadratic tracking, rate, state, command and soft-limit costs.

    Made for numpy; with a `device`, for torch tensors there.
    """

    def __init__(self, spec: RobotSpec, device: str | None = None) -> None:
        self.spec = spec
        self.lib: Any = np
        self._device = device
        if device is not None:
            import torch

            self.lib = torch
        names = spec.state_names
        ds = len(names)
        self.aim(FileGoal(spec))
        damping = np.zeros(ds, np.float32)
        for name, weight in spec.cost.state.items():
            damping[names.index(name)] = weight
        self._damping = self.array(damping) if damping.any() else None
        infinity = np.float32(np.inf)
        bounded = [c.low is not None or c.high is not None for c in spec.state]
        self._bounded = np.flatnonzero(bounded).tolist()
        limits = [spec.state[i] for i in self._bounded]
        low = np.array([-infinity if c.low is None else c.low for c in limits])
        high = np.array([infinity if c.high is None else c.high for c in limits])
        self._low, self._high = self.array(low), self.array(high)
        self._angles = np.flatnonzero(spec.angles).tolist()
        self._half = self.array(spec.action_half_range.astype(np.float32))
        self._neutral = self.array(spec.neutral.astype(np.float32))

    def array(self, values: np.ndarray) -> Any:
        """As the arrays that this cost is made for."""
        if self._device is None:
            return values
        return self.lib.asarray(values.astype(np.float32), device=self._device)

    def aim(self, goal: Goal) -> None:
        """Follow another goal from now on."""
        self.goal = goal
        self._weights = self.array(goal.weights.astype(np.float32))

    def target(self, stamp_ns: int, steps: int) -> Any:
        """Target states [steps, ds]; channels without a reference weigh nothing."""
        return self.array(self.goal.target(stamp_ns, steps).astype(np.float32))

    def __call__(self, states: Any, actions: Any, previous: Any, target: Any) -> Any:
        """Cost [..., n] of states [..., n, h, ds] reached by actions [n, h, da].

        Args:
            states: predicted states, e.g. with a leading axis of posterior draws.
            actions: commands.
            previous: last command sent [da].
            target: target states [h, ds].
        """
        lib, spec = self.lib, self.spec
        steps = states.shape[-2]
        equal, to_end = np.full((steps, 1), 1 / steps, np.float32), self.to_end(steps)
        error = states - target
        if self._angles:
            wrapped = error[..., self._angles]
            error[..., self._angles] = wrapped - 2 * np.pi * lib.round(wrapped / (2 * np.pi))
        total = self._squares(error, self._weights, to_end)
        if self._damping is not None:
            total += self._squares(states, self._damping, to_end)
        if spec.cost.limit and self._bounded:
            at = states[..., self._bounded]
            beyond = at - lib.clip(at, self._low, self._high)
            total += self._squares(beyond, self._ones(beyond) * spec.cost.limit, to_end)
        u = (actions - self._neutral) / self._half
        before = lib.broadcast_to((previous - self._neutral) / self._half, u[:, :1].shape)
        change = u - lib.concatenate([before, u[:, :-1]], axis=1)
        total += self._squares(u, self._ones(u) * spec.cost.action, equal)
        total += self._squares(change, self._ones(u) * spec.cost.action_rate, equal)
        return total

    def to_end(self, steps: int) -> np.ndarray:
        """Weights [h, 1] of the steps of a plan, the last of which stands for what follows."""
        weights = np.full((steps, 1), 1 / steps, np.float32)
        weights[-1] *= self.spec.cost.terminal
        return weights

    def _squares(self, values: Any, weights: Any, along: np.ndarray) -> Any:
        """Σ weight · value² over the steps and channels of values [..., h, k], as one product.

        Args:
            values: what is squared.
            weights: of channels [k].
            along: of steps [h, 1].
        """
        return self.lib.square(values).reshape(*values.shape[:-2], -1) @ (
            self.array(along) * weights
        ).reshape(-1)

    def _ones(self, values: Any) -> Any:
        return self.array(np.ones(values.shape[-1], np.float32))
