"""Disturbances that nobody simulated, as part of the task family.

What a robot meets beyond the shifts of its simulator mostly acts where its actuators do: a spring,
a weight or drag on a joint, friction in a wheel. Adaptive control calls it matched uncertainty
(Ioannou & Sun 1996). As a change of command that depends on the state it is

    y = W₀ φ(x, u) + J_u (B ψ + C ψ|ψ|),

with ψ the normalised inputs of the state and J_u = ∂f₀/∂u (see `dynamics.model`). Heads on φ that
come near to that, for random B and C, widen the family in these directions: a few numbers, which
some steps in one place tell, say how the robot will behave in another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dynamics.model import DELAYS, Dynamics

if TYPE_CHECKING:
    from .pretrain import Data

RIDGE = 1.0
BENT = 0.5  # standard deviation of C over that of B


def matched(dynamics: Dynamics, nominal: Data, sd: float) -> np.ndarray:
    """Covariance [ds·nf, ds·nf] of the heads of such disturbances.

    Args:
        dynamics: the model, with its nominal head.
        nominal: transitions of the nominal plant, wherever the robot may be.
        sd: standard deviation of B: what a state one standard deviation off does, in half ranges
            of the command.
    """
    x, u, trunk = nominal.x, nominal.u, dynamics.trunk
    da = u.shape[1]
    phi, columns = dynamics.columns(x, u, np.repeat(u[:, None], DELAYS, axis=1))
    psi = ((trunk.encoder(x, u) - trunk.mean) / trunk.scale)[:, :-da]
    values = psi[:, : len(trunk.encoder.values)]  # the others are cosines and sines
    shapes = np.hstack([psi, BENT * values * np.abs(values)])
    onto = np.linalg.solve(phi.T @ phi + RIDGE * np.eye(phi.shape[1]), phi.T)
    biases = columns[:, :, da : 2 * da]  # J_u, in half ranges
    heads = np.array(
        [
            (onto @ (biases[:, :, j] * shape[:, None])).T.ravel()
            for j in range(da)
            for shape in shapes.T
        ]
    )
    return sd**2 * heads.T @ heads
