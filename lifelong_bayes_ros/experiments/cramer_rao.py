"""The Cramér-Rao bound of a stream: how well the shift could be known from so many transitions.

It is that of an estimator that knows the plant and everything of its shift but how strong it is:
one number s by which every number of the shift is multiplied, and the state that each run began
in. Nothing disturbs the plant, its sensors are noisy, so all that can be known of s is in how the
readings of a run hang together. With F and J the slopes of a step by state and strength, about the
readings, the Kalman filter of (x, s) without process noise holds the bound on var ŝ (Kay 1993,
theorem 3.2; recursively as by Tichavský et al. 1998), and the error of one step at x is at least
J(x, u) times that of ŝ. A learner with a prior may be below it as long as its data say less than
the prior does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros_sim.base import MujocoRobot

from ..dynamics.model import DELAYS, Prior
from ..robot.spec import RobotSpec
from .schedule import Life
from .streams import HeldOut, transitions

STEP = 1e-3  # of the strength, in central differences
NUDGE = 0.01  # of a state, in standard deviations of its sensor's noise
UNKNOWN = 1e8  # variance of a strength of which nothing is known: it is 1


def error_bound(spec: RobotSpec, prior: Prior, life: Life, seed: int) -> np.ndarray:
    """Least root mean square error of one step after k transitions of the first phase [1 + steps].

    In units of y of the prior, on the held-out steps of `HeldOut`; infinite after none.
    """
    regime, steps = life.phases[0]
    shifts = life.regimes[regime]
    seen, begins, again = [], [], True
    for transition in transitions(spec, life, seed):
        if len(seen) == steps:
            break
        if transition.usable:
            seen.append(transition)
            begins.append(again)
        again = not transition.usable
    x, u = (np.array([getattr(t, k) for t in seen], dtype=float) for k in ('state', 'action'))
    # The command before plays no part unless the plant is late.
    past = np.repeat(u[:, None], DELAYS, axis=1)
    plant = _plant(spec, shifts, 1.0)
    noise = np.square(plant.noise_factor * plant.sensor_noise)
    f, j = slopes(plant, x, u, past), sensitivity(spec, shifts, x, u, past)
    variance = strength_variance(f, j, np.array(begins), noise)
    test = HeldOut.of(spec, prior, shifts, seed, 0)
    asked = sensitivity(spec, shifts, test.x, test.u, test.past) / test.scale
    return np.sqrt(np.mean(asked**2) * np.concatenate([[np.inf], variance]))


def strength_variance(
    f: np.ndarray, j: np.ndarray, begins: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Least variance of the strength after each of n transitions [n].

    Args:
        f: slopes of the next state by the state [n, ds, ds].
        j: slopes of the next state by the strength [n, ds].
        begins: whether a transition begins a run, from a state that is not the one before [n].
        noise: variances of a reading [ds].
    """
    ds = len(noise)
    covariance, found = np.diag([*noise, UNKNOWN]), []
    for slope, by_strength, anew in zip(f, j, begins, strict=True):
        if anew:
            covariance = np.diag([*noise, covariance[-1, -1]])
        step = np.eye(ds + 1)
        step[:ds, :ds], step[:ds, -1] = slope, by_strength
        covariance = step @ covariance @ step.T
        gain = np.linalg.solve(covariance[:ds, :ds] + np.diag(noise), covariance[:ds]).T
        kept = np.eye(ds + 1)
        kept[:, :ds] -= gain
        # Joseph's form: what is known well and what is not differ by many orders.
        covariance = kept @ covariance @ kept.T + (gain * noise) @ gain.T
        found.append(covariance[-1, -1])
    return np.array(found)


def slopes(plant: MujocoRobot, x: np.ndarray, u: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Slopes of the next state by each number of the state [n, ds, ds]."""
    spec, found = plant.robot_spec, []
    for channel, size in enumerate(NUDGE * plant.sensor_noise):
        nudge = np.zeros(x.shape[1])
        nudge[channel] = size
        up, down = (plant.one_step(x + d, u, past) for d in (nudge, -nudge))
        found.append(spec.wrap(up - down) / (2 * size))
    return np.stack(found, axis=-1)


def sensitivity(
    spec: RobotSpec, shifts: list[dict[str, Any]], x: np.ndarray, u: np.ndarray, past: np.ndarray
) -> np.ndarray:
    """Change of the next state [n, ds] per change of the strength of shifts, at 1."""
    up, down = (_plant(spec, shifts, 1 + d).one_step(x, u, past) for d in (STEP, -STEP))
    return spec.wrap(up - down) / (2 * STEP)


def _plant(spec: RobotSpec, shifts: list[dict[str, Any]], strength: float) -> MujocoRobot:
    plant = sim.make(spec.name, spec=spec)
    plant.set_shifts([sim.shift_from_dict(_scaled(s, strength)) for s in shifts])
    return plant


def _scaled(value: Any, strength: float) -> Any:
    """A shift with all its numbers multiplied."""
    if isinstance(value, dict):
        return {k: _scaled(v, strength) for k, v in value.items()}
    if isinstance(value, list):
        return [_scaled(v, strength) for v in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value * strength if number else value
