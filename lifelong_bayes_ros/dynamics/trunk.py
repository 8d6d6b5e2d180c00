"""The trunk: features φ(x, u) of state and command, shared by all regimes.

    φ = L⁻¹ [tanh(W₂ relu(W₁ i + b₁) + b₂); i; 1],   i = (enc(x, u) − mean) / scale

Plain numpy, any float type: float64 in the learner, float32 in the planner. Training lives in
`learning.pretrain`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ..robot.spec import RobotSpec


@dataclass(frozen=True)
class Encoder:
    """Turns (x, u) into network inputs: angles as cosine and sine, `none` channels left out."""

    values: np.ndarray  # indices of the channels taken as they are
    angles: np.ndarray  # indices of the angle channels

    @classmethod
    def of(cls, spec: RobotSpec) -> Encoder:
        """The encoder that a robot file describes."""
        kinds = [c.encode for c in spec.state]
        return cls(
            np.array([i for i, k in enumerate(kinds) if k == 'value'], dtype=int),
            np.array([i for i, k in enumerate(kinds) if k == 'angle'], dtype=int),
        )

    def __call__(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Inputs [n, di] of states [n, ds] and commands [n, da]."""
        angle = x[:, self.angles]
        return np.concatenate([x[:, self.values], np.cos(angle), np.sin(angle), u], axis=1)


@dataclass(frozen=True)
class Trunk:
    """Two hidden layers with a skip connection, whitened on nominal data."""

    encoder: Encoder
    mean: np.ndarray  # [di]
    scale: np.ndarray  # [di]
    w1: np.ndarray  # [di, h]
    b1: np.ndarray
    w2: np.ndarray  # [h, h]
    b2: np.ndarray
    whiten: np.ndarray  # L⁻¹ transposed [nf, nf], so that φ = raw @ whiten

    @property
    def size(self) -> int:
        """Number of features nf."""
        return self.whiten.shape[0]

    def raw(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Features before whitening [n, nf] of states [n, ds] and commands [n, da]."""
        return self._forward(x, u)[0]

    def features(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Features φ [n, nf]."""
        return self.raw(x, u) @ self.whiten

    def raw_and_tangent(
        self, x: np.ndarray, u: np.ndarray, direction: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw features [n, nf] and their derivative along a change of command [n, da].

        Of a single step there may be derivatives along several changes.
        """
        raw, slope1, tanh = self._forward(x, u)
        commands = slice(len(self.mean) - u.shape[1], None)
        inputs = direction / self.scale[commands]
        hidden = (inputs @ self.w1[commands]) * slope1
        hidden = (hidden @ self.w2) * (1 - tanh * tanh)
        tangent = np.zeros((len(hidden), raw.shape[1]), raw.dtype)
        width = hidden.shape[1]
        tangent[:, :width] = hidden
        tangent[:, width + len(self.mean) - u.shape[1] : -1] = inputs
        return raw, tangent

    def astype(self, dtype: type) -> Trunk:
        """The same trunk in another float type."""
        arrays = {
            f.name: getattr(self, f.name).astype(dtype)
            for f in fields(self)
            if f.name != 'encoder'
        }
        return replace(self, **arrays)

    def _forward(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inputs = (self.encoder(x, u) - self.mean) / self.scale
        before = inputs @ self.w1 + self.b1
        tanh = np.tanh(np.maximum(before, 0) @ self.w2 + self.b2)
        ones = np.ones((len(inputs), 1), inputs.dtype)
        return np.concatenate([tanh, inputs, ones], axis=1), before > 0, tanh
