"""The Cramér-Rao bound of a stream: how well the shift could be known from so many transitions.

It is that of an estimator that knows the plant and everything of its shift but how strong it is,
and takes one transition at a time: the change of state as the difference of two noisy readings,
from the state that was read. With J the sensitivity of the next state to the strength s, every
number of the shift being multiplied by it, and σ the sensors' noise,

    var ŝ ≥ 1 / I_n,   I_n = Σ_{i ≤ n} Σ_c J_c(xᵢ, uᵢ)² / 2 σ_c²

(Kay 1993, theorem 3.1), and the error of one step at x is J(x, u) times that of ŝ. A learner with
a prior may be below it while its data say less than the prior, and one that smooths the readings
over many steps later on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import lifelong_bayes_ros_sim as sim

from ..dynamics.model import DELAYS, Prior
from ..robot.spec import RobotSpec
from .schedule import Life
from .streams import HeldOut, transitions

STEP = 1e-3  # of the strength, in central differences


def error_bound(spec: RobotSpec, prior: Prior, life: Life, seed: int) -> np.ndarray:
    """Least root mean square error of one step after k transitions of the first phase [1 + steps].

    In units of y of the prior, on the held-out steps of `HeldOut`; infinite after none.
    """
    regime, steps = life.phases[0]
    shifts = life.regimes[regime]
    seen = []
    for transition in transitions(spec, life, seed):
        if len(seen) == steps:
            break
        if transition.usable:
            seen.append(transition)
    x, u = (np.array([getattr(t, k) for t in seen], dtype=float) for k in ('state', 'action'))
    # The command before plays no part unless the plant is late.
    past = np.repeat(u[:, None], DELAYS, axis=1)
    plant = sim.make(spec.name, spec=spec)
    plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
    noise = plant.noise_factor * plant.sensor_noise
    information = np.cumsum(_informed(sensitivity(spec, shifts, x, u, past), noise))
    test = HeldOut.of(spec, prior, shifts, seed, 0)
    asked = sensitivity(spec, shifts, test.x, test.u, test.past) / test.scale
    with np.errstate(divide='ignore'):
        return np.sqrt(np.mean(asked**2) / np.concatenate([[0.0], information]))


def sensitivity(
    spec: RobotSpec, shifts: list[dict[str, Any]], x: np.ndarray, u: np.ndarray, past: np.ndarray
) -> np.ndarray:
    """Change of the next state [n, ds] per change of the strength of shifts, at 1."""
    plant = sim.make(spec.name, spec=spec)

    def after(strength: float) -> np.ndarray:
        plant.set_shifts([sim.shift_from_dict(_scaled(s, strength)) for s in shifts])
        return plant.one_step(x, u, past)

    return spec.wrap(after(1 + STEP) - after(1 - STEP)) / (2 * STEP)


def _informed(j: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Fisher information about the strength in each transition [n]."""
    return np.square(j) @ (0.5 / np.square(noise))


def _scaled(value: Any, strength: float) -> Any:
    """A shift with all its numbers multiplied."""
    if isinstance(value, dict):
        return {k: _scaled(v, strength) for k, v in value.items()}
    if isinstance(value, list):
        return [_scaled(v, strength) for v in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value * strength if number else value
