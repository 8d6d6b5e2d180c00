"""Many states rolled out at once through a Belief. Plain numpy, float32, one thread."""

from __future__ import annotations

import numpy as np

from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics

Weights = tuple[np.ndarray, ...]  # of `Rollout.weights`, or of several draws with a leading axis


class Rollout:
    """The dynamics of a Belief, folded into few matrix products per step."""

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.trunk = dynamics.trunk.astype(np.float32)
        whiten = dynamics.trunk.whiten
        self.nominal = (dynamics.scale * (dynamics.nominal @ whiten.T).T).astype(np.float32)
        self._whiten = whiten.astype(np.float32)
        self._scale = dynamics.scale.astype(np.float32)
        self._half = dynamics.spec.action_half_range.astype(np.float32)

    def weights(self, theta: np.ndarray) -> Weights:
        """θ [..., n] as (raw features to change of state [..., nf, ds], g, b, c)."""
        w, g, b, c = self.dynamics.split(theta)
        head = (w * self._scale[:, None]) @ self._whiten.T
        return head.swapaxes(-1, -2), g, b * self._half, c

    def run(
        self,
        weights: Weights,
        x: np.ndarray,
        actions: np.ndarray,
        past: np.ndarray,
    ) -> np.ndarray:
        """States [n, h, ds] after each of h steps.

        Args:
            weights: of `weights`; each array may have a leading axis n, one draw per row.
            x: start state [ds].
            actions: commands [n, h, da].
            past: past commands [DELAYS, da], newest first.
        """
        w, g, b, c = weights
        n, horizon, _ = actions.shape
        per_row = w.ndim == 3
        state = np.tile(x.astype(np.float32), (n, 1))
        states = np.empty((n, horizon, len(x)), np.float32)
        delayed = [np.broadcast_to(p.astype(np.float32), (n, len(p))) for p in past]
        for h in range(horizon):
            u = actions[:, h]
            direction = u * g + b
            for k, earlier in enumerate(delayed):
                direction = direction + c[..., k : k + 1] * (earlier - u)
            raw, tangent = self.trunk.raw_and_tangent(state, u, direction)
            change = np.matmul(raw[:, None], w)[:, 0] if per_row else raw @ w
            state = state + change + tangent @ self.nominal
            states[:, h] = state
            delayed = [u, *delayed[:-1]]
        return states

    def mean(self, belief: Belief) -> Weights:
        """Weights of the posterior mean."""
        return self._offset(self.weights(belief.theta), belief)

    def draws(self, belief: Belief, count: int) -> Weights:
        """Weights of up to `count` posterior draws, stacked along a leading axis."""
        return self._offset(self.weights(belief.draws(count)), belief)

    def _offset(self, weights: Weights, belief: Belief) -> Weights:
        weights[0][..., -1, :] += self._scale * belief.offset  # the last raw feature is 1
        return weights

    def run_shared(
        self, draws: Weights, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        """States [n, h, ds] of plans that take the draws in turn, one each."""
        taken = np.arange(len(actions)) % len(draws[0])
        return self.run(tuple(w[taken] for w in draws), x, actions, past)

    def run_all(
        self, draws: Weights, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        """States [E, n, h, ds] of every plan [n, h, da] under every draw."""
        parts = (tuple(w[e] for w in draws) for e in range(len(draws[0])))
        return np.stack([self.run(weights, x, actions, past) for weights in parts])

    def fan(
        self, belief: Belief, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        """States [E, h, ds] along one plan [h, da], one row for each posterior draw."""
        weights = self.draws(belief, belief.factor.shape[1])
        return self.run(weights, x, np.tile(actions, (len(weights[0]), 1, 1)), past)
