"""Noise in time that plans are perturbed with: standard normal at every step, correlated along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import NUMPY, Arrays


class Noise:
    """Draws noise [n, h, da] that a linear filter makes of independent normal numbers."""

    def __init__(
        self,
        taken: np.ndarray,
        da: int,
        normal: Callable[[tuple[int, int]], Any],
        arrays: Arrays = NUMPY,
    ) -> None:
        """Draw by a filter.

        Args:
            taken: what each step takes of the numbers [h, k]; rows of length one.
            da: commands of a step.
            normal: source of standard normal numbers of a given shape, as arrays.
            arrays: of what.
        """
        self._taken, self._da, self._normal = arrays.array(taken), da, normal
        self._ahead: Any = None
        self._wanted = 0  # plans of the first call since the last moment of rest

    def prepare(self) -> None:
        """Draw in an idle moment what the next call will most likely want."""
        if self._ahead is None and self._wanted:
            self._ahead, self._wanted = self._draw(self._wanted), 0

    def __call__(self, count: int) -> Any:
        """Noise of so many plans."""
        self._wanted = self._wanted or count
        noise, self._ahead = self._ahead, None
        return noise if noise is not None and len(noise) == count else self._draw(count)

    def _draw(self, count: int) -> Any:
        steps, numbers = self._taken.shape
        noise = self._taken @ self._normal((numbers, count * self._da))
        noise = noise.reshape(steps, count, self._da).swapaxes(0, 1)
        return np.ascontiguousarray(noise) if isinstance(noise, np.ndarray) else noise


def autoregressive(steps: int, keep: float) -> np.ndarray:
    """The filter [h, h] of noise of which each step keeps a share of the one before."""
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    taken = np.where(lag >= 0, keep ** np.abs(lag), 0.0)
    taken[:, 1:] *= np.sqrt(1 - keep**2)
    return taken


def coloured(steps: int, exponent: float) -> np.ndarray:
    """The filter [h, h] of noise whose power falls as frequency^−exponent.

    White at 0, pink at 1, red at 2 (Timmer & König 1995: normal Fourier coefficients, scaled; as
    in iCEM, Pinneri et al. 2020). The lowest frequencies are those of one period in h steps.
    """
    lowest = 1 / steps
    rows = np.fft.rfft(np.eye(steps), axis=0)  # of frequencies [h // 2 + 1, h]
    scale = np.maximum(np.fft.rfftfreq(steps), lowest) ** (-exponent / 2)
    waves = np.concatenate([rows.real, rows.imag]) * np.tile(scale, 2)[:, None]
    # A frequency and its mirror image count twice, but for those that are their own.
    alone = [0, len(scale) - 1] if steps % 2 == 0 else [0]
    twice = np.full(len(scale), np.sqrt(2.0))
    twice[alone] = 1.0
    waves *= np.tile(twice, 2)[:, None]
    taken = waves.T[:, np.square(waves).sum(axis=1) > 1e-20]  # sines that are zero are no numbers
    return taken / np.sqrt(np.square(taken).sum(axis=1, keepdims=True))
