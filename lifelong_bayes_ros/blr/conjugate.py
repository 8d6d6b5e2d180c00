"""Compiled `Gaussian.predict` and `Gaussian.condition`: for few observations of a thousand
parameters torch takes longer to begin than to finish.

`conjugate.c` is built on first use (see `kernel`); where there is no C compiler, off the CPU, or
where a gradient is wanted, torch serves.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .buffers import SHARED
from .kernel import PRECISE, library_of

SOURCE = Path(__file__).with_name('conjugate.c')


@cache
def load() -> ctypes.CDLL | None:
    """The compiled functions, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'conditioning')
    if library is not None:
        size, at = ctypes.c_int64, ctypes.c_void_p
        library.conjugate_mirror.argtypes = [size, at]
        library.conjugate_mirror.restype = None
        library.conjugate_widen.argtypes = [size, ctypes.c_double, at, at, at]
        library.conjugate_widen.restype = None
        library.conjugate_predict.argtypes = [size, size, *[at] * 8]
        library.conjugate_predict.restype = ctypes.c_int32
        library.conjugate_condition.argtypes = [size, size, *[at] * 8]
        library.conjugate_condition.restype = None
    return library


def serves(*tensors: Tensor) -> bool:
    """Whether all of these can be handed to the functions here."""
    plain = all(
        t.dtype == torch.float64 and t.device.type == 'cpu' and not t.requires_grad
        for t in tensors
    )
    return plain and load() is not None


def mirror(covariance: Tensor) -> None:
    """Make a contiguous matrix [n, n] symmetric that has its upper triangle only."""
    load().conjugate_mirror(len(covariance), covariance.data_ptr())


def predict(
    mean: Tensor, covariance: Tensor, design: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Σ Hᵀ [n, k], H m [k], H Σ Hᵀ [k, k] and L⁻¹ [k, k], H Σ Hᵀ + R = L Lᵀ.

    Of the covariance only the upper triangle is read. None if L is none.
    """
    k, n = design.shape
    given = tuple(t.contiguous() for t in (mean, covariance, design, noise))
    found = [mean.new_empty(size) for size in ((k, n), (k,), (k, k), (k, k))]
    if load().conjugate_predict(n, k, *(t.data_ptr() for t in (*given, *found))):
        return None
    return found[0].T, found[1], found[2], found[3]


def widen(covariance: Tensor, towards: Tensor, share: float, in_place: bool) -> Tensor:
    """Upper triangle of (1 − share) · covariance + share · towards, both [n, n]."""
    covariance, towards = covariance.contiguous(), towards.contiguous()
    out = covariance if in_place else SHARED.square(len(covariance))
    given = (covariance, towards, out)
    load().conjugate_widen(len(out), share, *(t.data_ptr() for t in given))
    return out


def condition(
    mean: Tensor,
    covariance: Tensor,
    gain: Tensor,
    inverse: Tensor,
    residual: Tensor,
    in_place: bool,
) -> tuple[Tensor, Tensor]:
    """Mean and upper triangle of the covariance after a residual [k]; see `Gaussian.condition`."""
    n, k = gain.shape
    mean, rows, inverse, residual = (t.contiguous() for t in (mean, gain.T, inverse, residual))
    in_place = in_place and covariance.is_contiguous()
    covariance = covariance.contiguous()
    out = covariance if in_place else SHARED.square(n)
    half, moved = torch.empty_like(rows), torch.empty_like(mean)
    given = (mean, covariance, rows, inverse, residual, half, moved, out)
    load().conjugate_condition(n, k, *(t.data_ptr() for t in given))
    return moved, out
