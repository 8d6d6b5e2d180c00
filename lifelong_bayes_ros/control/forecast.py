"""What a plan is expected to lead to, and how sure that is at every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics
from .rollout import Rollout

NUDGE = 1e-2  # of the scale of a step, for derivatives


@dataclass(frozen=True)
class Forecast:
    """Along a plan: mean state [h, ds], and variances of ignorance and of noise [h, ds].

    `members` [E, h, ds] are the states under each posterior draw, whose spread is the epistemic.
    """

    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray
    members: np.ndarray


def forecast(
    dynamics: Dynamics,
    rollout: Rollout,
    belief: Belief,
    x: np.ndarray,
    actions: np.ndarray,
    past: np.ndarray,
) -> Forecast:
    """Forecast a plan [h, da] from x [ds] after past commands [DELAYS, da].

    Noise is carried along by the derivative of the mean dynamics: P ← A P Aᵀ + Q (the prediction
    of the extended Kalman filter; Särkkä 2013, section 5.2).
    """
    mean = rollout.run(rollout.mean(belief), x, actions[None], past)[0].astype(float)
    members = rollout.fan(belief, x, actions, past)
    aleatoric = noise_along(dynamics, belief, x, mean, actions)
    epistemic = np.square(members - mean).mean(axis=0)
    return Forecast(mean, epistemic, aleatoric, members)


def noise_along(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, mean: np.ndarray, actions: np.ndarray
) -> np.ndarray:
    """Variance of the noise gathered along a plan [h, ds], at mean states [h, ds] from x [ds]."""
    dof = belief.noise_dof
    noise = np.diag(dynamics.scale**2 * belief.noise * (dof / (dof - 2)))
    covariance, aleatoric = np.zeros_like(noise), []
    for derivative in _derivatives(dynamics, belief, np.vstack([x, mean[:-1]]), actions):
        covariance = derivative @ covariance @ derivative.T + noise
        aleatoric.append(np.diag(covariance))
    return np.array(aleatoric)


def _derivatives(
    dynamics: Dynamics, belief: Belief, states: np.ndarray, actions: np.ndarray
) -> np.ndarray:
    """Derivative of the next state by the state [h, ds, ds], at states [h, ds] and actions."""
    h, ds = states.shape
    w, g, b, _ = dynamics.split(belief.theta.astype(float))
    steps = NUDGE * dynamics.scale
    rows = states[:, None] + np.concatenate([np.diag(steps), np.diag(-steps)])
    rows, commands = rows.reshape(-1, ds), np.repeat(actions.astype(float), 2 * ds, axis=0)
    direction = commands * g + b * dynamics.spec.action_half_range
    raw, tangent = dynamics.trunk.raw_and_tangent(rows, commands, direction)
    y = (raw @ dynamics.trunk.whiten) @ w.T
    y += (tangent @ dynamics.trunk.whiten) @ dynamics.nominal.T
    up, down = np.moveaxis((y * dynamics.scale).reshape(h, 2, ds, ds), 1, 0)
    slope = (up - down) / (2 * steps[:, None])
    return np.eye(ds) + np.swapaxes(slope, 1, 2)
