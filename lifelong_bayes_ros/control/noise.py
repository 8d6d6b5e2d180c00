"""Noise in time that plans are perturbed with: standard normal at every step, correlated along."""

from __future__ import annotations

import numpy as np


def autoregressive(
    rng: np.random.Generator, shape: tuple[int, int, int], keep: float
) -> np.ndarray:
    """Noise [n, h, da] of which each step keeps a share of the one before, float32."""
    n, steps, da = shape
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    taken = np.where(lag >= 0, keep ** np.abs(lag), 0.0)
    taken[:, 1:] *= np.sqrt(1 - keep**2)
    fresh = rng.standard_normal((steps, n * da), np.float32)
    noise = (taken.astype(np.float32) @ fresh).reshape(steps, n, da)
    return np.ascontiguousarray(noise.swapaxes(0, 1))


def coloured(rng: np.random.Generator, shape: tuple[int, int, int], exponent: float) -> np.ndarray:
    """Noise [n, h, da] whose power falls as frequency^−exponent, float32.

    White at 0, pink at 1, red at 2 (Timmer & König 1995: normal Fourier coefficients, scaled; as
    in iCEM, Pinneri et al. 2020). The lowest frequencies are those of one period in h steps.
    """
    n, steps, da = shape
    if steps == 1:
        return rng.standard_normal(shape, np.float32)
    frequency = np.maximum(np.fft.rfftfreq(steps), 1 / steps)
    scale = frequency ** (-exponent / 2)
    real, imaginary = rng.standard_normal((2, n, da, len(scale)), np.float32)
    count = np.full(len(scale), 2.0)  # a frequency and its mirror image,
    alone = [0] if steps % 2 else [0, -1]  # but for those that are their own
    count[alone] = 1.0
    real[..., alone] *= np.float32(np.sqrt(2))
    imaginary[..., alone] = 0
    series = np.fft.irfft((real + 1j * imaginary) * scale, steps, axis=-1)
    deviation = np.sqrt(2 * (count * np.square(scale)).sum()) / steps
    return np.ascontiguousarray(np.swapaxes(series / deviation, 1, 2), np.float32)
