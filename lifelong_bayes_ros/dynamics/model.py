"""The dynamics model, linear in its parameters θ, and the prior that pre-training gives it.

    y = W φ(x, u) + J_u (u∘g + b) + Σ_k c_k J_u (u_{t−k} − u_t) + e,   y = (x′ − x) / scale

θ = [vec W, g, b, c₁, c₂]. J_u = ∂f₀/∂u is the derivative of the *nominal* prediction f₀ = W₀ φ:
actuator scale g, bias b (in half ranges of the command) and delay c are tangents, so they add
nothing nonlinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..robot.spec import RobotSpec
from .curves import Curves
from .native_parts import NativeParts, load
from .trunk import Trunk

DELAYS = 2  # past commands that enter the model


@dataclass(frozen=True)
class Dynamics:
    """Trunk, nominal head and output scale of one robot."""

    spec: RobotSpec
    trunk: Trunk
    nominal: np.ndarray  # W₀ [ds, nf], float64
    scale: np.ndarray  # [ds], float64: one unit of output y in units of the state

    @property
    def size(self) -> int:
        """Number of parameters in θ."""
        da = len(self.spec.action)
        return self.nominal.size + 2 * da + DELAYS

    @cached_property
    def nominal_theta(self) -> np.ndarray:
        """θ of the nominal plant [n]: W₀ and no actuator error."""
        return np.concatenate([self.nominal.ravel(), np.zeros(self.size - self.nominal.size)])

    @cached_property
    def _from_slope(self) -> np.ndarray:
        """W₀ on derivatives of raw features [nf, ds]."""
        return self.trunk.whiten @ self.nominal.T

    def history(self) -> np.ndarray:
        """Past commands [DELAYS, da] before anything was commanded."""
        return np.tile(self.spec.neutral, (DELAYS, 1))

    def split(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """θ [..., n] as W [..., ds, nf], g [..., da], b [..., da], c [..., DELAYS]."""
        at, da = self.nominal.size, len(self.spec.action)
        w = theta[..., :at].reshape(*theta.shape[:-1], *self.nominal.shape)
        return w, theta[..., at : at + da], theta[..., at + da : -DELAYS], theta[..., -DELAYS:]

    def target(self, x: np.ndarray, x_next: np.ndarray) -> np.ndarray:
        """Output y [..., ds] of steps from x to x_next."""
        return self.spec.wrap(x_next - x) / self.scale

    def columns(
        self, x: np.ndarray, u: np.ndarray, past: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features φ [n, nf] and structured columns [n, ds, k] of many designs at once.

        Args:
            x: states [n, ds].
            u: commands [n, da].
            past: commands before [n, DELAYS, da].
        """
        n, da = u.shape
        rows = np.repeat(x, da, axis=0), np.repeat(u, da, axis=0)
        raw, slope = self.trunk.raw_and_tangent(*rows, np.tile(np.eye(da), (n, 1)))
        jacobian = (slope @ self.trunk.whiten @ self.nominal.T).reshape(n, da, len(self.nominal))
        jacobian = jacobian.transpose(0, 2, 1)
        tangent = [
            jacobian * u[:, None],
            jacobian * self.spec.action_half_range,
            jacobian @ (past - u[:, None]).transpose(0, 2, 1),
        ]
        return raw[::da] @ self.trunk.whiten, np.concatenate(tangent, axis=2)

    def design(self, x: np.ndarray, u: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Design H [ds, n] with y = H θ, for x [ds], u [da] and past commands [DELAYS, da]."""
        phi, tangent = self.parts(x, u, past)
        ds, nf = self.nominal.shape
        design = np.zeros((ds, self.size))
        for j in range(ds):
            design[j, j * nf : (j + 1) * nf] = phi
        design[:, ds * nf :] = tangent
        return design

    def parts(
        self, x: np.ndarray, u: np.ndarray, past: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `design` is made of: features φ [nf] and structured columns [ds, k]."""
        return self._parts(x, u, past) if self._native is None else self._native(x, u, past)

    @cached_property
    def _native(self) -> NativeParts | None:
        if load() is None:
            return None
        return NativeParts(self.trunk, self._from_slope, self.spec.action_half_range, DELAYS)

    def _parts(
        self, x: np.ndarray, u: np.ndarray, past: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`parts` in numpy."""
        da = len(u)
        raw, slope = self.trunk.raw_and_tangent(x[None], u[None], np.eye(da))
        jacobian = (slope @ self._from_slope).T
        tangent = np.empty((len(jacobian), 2 * da + DELAYS))
        tangent[:, :da] = jacobian * u
        tangent[:, da : 2 * da] = jacobian * self.spec.action_half_range
        tangent[:, 2 * da :] = jacobian @ (past - u).T
        return raw[0] @ self.trunk.whiten, tangent


@dataclass(frozen=True)
class Hypotheses:
    """Which things may have changed, and the heads that they lead to."""

    kinds: tuple[str, ...]  # K things that may change
    changed: np.ndarray  # what each hypothesis says has changed [S, K], bool; row 0: nothing
    basis: np.ndarray  # B [S, n, r], float32; zero columns where fewer are needed
    curves: Curves  # coefficients of the columns of each

    @cached_property
    def names(self) -> list[str]:
        """What each hypothesis says, for people."""
        rows = self.changed.tolist()
        told = [' + '.join(k for k, c in zip(self.kinds, row, strict=True) if c) for row in rows]
        return [name or 'nothing' for name in told]


@dataclass(frozen=True)
class Prior:
    """What pre-training knows: the model, the task-family covariance and the sensor noise."""

    dynamics: Dynamics
    covariance: np.ndarray  # P₀ [n, n]: family covariance and floor
    floor: np.ndarray  # diagonal of the floor [n], contained in `covariance`
    noise: np.ndarray  # variance of e per output [ds]
    trunk_precision: dict[str, np.ndarray]  # BLR posterior precision of w1, b1, w2, b2
    hypotheses: Hypotheses | None = None  # where a simulator told what may change
