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

from .kernel import PRECISE, library_of

SOURCE = Path(__file__).with_name('conjugate.c')


@cache
def load() -> ctypes.CDLL | None:
    """The compiled functions, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'conditioning')
    if library is not None:
        sizes = [ctypes.c_int64] * 2
        library.conjugate_predict.argtypes = [*sizes, *[ctypes.c_void_p] * 7]
        library.conjugate_predict.restype = ctypes.c_int32
        library.conjugate_condition.argtypes = [*sizes, *[ctypes.c_void_p] * 8]
        library.conjugate_condition.restype = None
    return library


def serves(*tensors: Tensor) -> bool:
    """Whether all of these can be handed to `predict` or `condition`."""
    plain = all(
        t.dtype == torch.float64 and t.device.type == 'cpu' and not t.requires_grad
        for t in tensors
    )
    return plain and load() is not None


def predict(
    mean: Tensor, design: Tensor, gain: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """H m [k], H Σ Hᵀ [k, k] and L⁻¹ [k, k], H Σ Hᵀ + R = L Lᵀ; `gain` is Σ Hᵀ [n, k].

    None if H Σ Hᵀ + R is not positive definite.
    """
    k, n = design.shape
    mean, design, rows, noise = (t.contiguous() for t in (mean, design, gain.T, noise))
    found = mean.new_empty(k), mean.new_empty(k, k), mean.new_empty(k, k)
    given = (mean, design, rows, noise, *found)
    if load().conjugate_predict(n, k, *(t.data_ptr() for t in given)):
        return None
    return found


def condition(
    mean: Tensor,
    covariance: Tensor,
    gain: Tensor,
    inverse: Tensor,
    residual: Tensor,
    in_place: bool,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance after a residual [k]; see `Gaussian.condition`."""
    n, k = gain.shape
    mean, rows, inverse, residual = (t.contiguous() for t in (mean, gain.T, inverse, residual))
    in_place = in_place and covariance.is_contiguous()
    covariance = covariance.contiguous()
    out = covariance if in_place else torch.empty_like(covariance)
    half, moved = torch.empty_like(rows), torch.empty_like(mean)
    given = (mean, covariance, rows, inverse, residual, half, moved, out)
    load().conjugate_condition(n, k, *(t.data_ptr() for t in given))
    return moved, out
