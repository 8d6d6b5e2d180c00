"""Cost of predicted states and commands, as the robot file weighs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..robot.spec import RobotSpec
from .arrays import NUMPY, Arrays
from .goals import FileGoal, Goal


class Cost:
    """Quadratic tracking, rate, state, command and soft-limit costs, in arrays of some kind."""

    def __init__(self, spec: RobotSpec, arrays: Arrays = NUMPY) -> None:
        self.spec, self.arrays = spec, arrays
        names = spec.state_names
        ds = len(names)
        self._weights: dict[int, dict[str, Any]] = {}  # by the steps of plans
        self.goal: Goal = FileGoal(spec)
        self.aim(self.goal)
        self._damping = np.zeros(ds)
        for name, weight in spec.cost.state.items():
            self._damping[names.index(name)] = weight
        bounded = [c.low is not None or c.high is not None for c in spec.state]
        self._bounded = np.flatnonzero(bounded).tolist()
        limits = [spec.state[i] for i in self._bounded]
        low = [-np.inf if c.low is None else c.low for c in limits]
        high = [np.inf if c.high is None else c.high for c in limits]
        self._low, self._high = arrays.array(low), arrays.array(high)
        self._angles = np.flatnonzero(spec.angles).tolist()
        self._half = arrays.array(spec.action_half_range)
        self._neutral = arrays.array(spec.neutral)
        # Where they are used: taken from a list, places would go to the device every time.
        self._at_angles, self._at_bounded = (
            arrays.index(places) for places in (self._angles, self._bounded)
        )

    def aim(self, goal: Goal) -> None:
        """Follow another goal from now on; one of equal weights is weighed in the same memory."""
        if not np.array_equal(goal.weights, self.goal.weights):
            self._weights.clear()
        self.goal = goal

    def target(self, stamp_ns: int, steps: int) -> np.ndarray:
        """Target states [steps, ds]; channels without a reference weigh nothing."""
        return self.goal.target(stamp_ns, steps).astype(np.float32)

    def __call__(self, states: Any, actions: Any, previous: Any, target: Any) -> Any:
        """Cost [..., n] of states [..., n, h, ds] reached by actions [n, h, da].

        Args:
            states: predicted states, e.g. with a leading axis of posterior draws.
            actions: commands.
            previous: last command sent [da].
            target: target states [h, ds].
        """
        lib, weights = self.arrays.lib, self.weights(states.shape[-2])
        error = states - target
        if self._angles:
            wrapped = error[..., self._at_angles]
            error[..., self._at_angles] = wrapped - 2 * np.pi * lib.round(wrapped / (2 * np.pi))
        total = self._squares(error, weights['track'])
        if self.spec.cost.state:
            total += self._squares(states, weights['damping'])
        if self.spec.cost.limit and self._bounded:
            at = states[..., self._at_bounded]
            beyond = at - lib.clip(at, self._low, self._high)
            total += self._squares(beyond, weights['limit'])
        u = (actions - self._neutral) / self._half
        before = lib.broadcast_to((previous - self._neutral) / self._half, u[:, :1].shape)
        change = u - lib.concatenate([before, u[:, :-1]], axis=1)
        total += self._squares(u, weights['action'])
        total += self._squares(change, weights['change'])
        return total

    def weights(self, steps: int) -> dict[str, Any]:
        """Of the squares of plans of so many steps, flat over steps and channels."""
        if steps not in self._weights:
            cost, array = self.spec.cost, self.arrays.array
            to_end, equal = self.to_end(steps), np.full((steps, 1), 1 / steps, np.float32)
            limited, commands = np.ones(len(self._bounded)), np.ones(len(self.spec.action))
            self._weights[steps] = {
                name: array((along * of.astype(np.float32)).ravel())
                for name, along, of in (
                    ('track', to_end, self.goal.weights),
                    ('damping', to_end, self._damping),
                    ('limit', to_end, cost.limit * limited),
                    ('action', equal, cost.action * commands),
                    ('change', equal, cost.action_rate * commands),
                )
            }
        return self._weights[steps]

    def to_end(self, steps: int) -> np.ndarray:
        """Weights [h, 1] of the steps of a plan, the last of which stands for what follows."""
        weights = np.full((steps, 1), 1 / steps, np.float32)
        weights[-1] *= self.spec.cost.terminal
        return weights

    def _squares(self, values: Any, weights: Any) -> Any:
        """Σ weight · value² over the steps and channels of values [..., h, k], as one product."""
        return self.arrays.lib.square(values).reshape(*values.shape[:-2], -1) @ weights
