"""The filters of all hypotheses in compiled C; numpy takes longer to begin than to finish.

`hypotheses.c` is built on first use (see `blr.kernel`); where there is no C compiler, numpy
serves.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from ..blr.kernel import PRECISE, library_of
from .curves import LEADS, Curves

SOURCE = Path(__file__).with_name('hypotheses.c')


class Family(ctypes.Structure):
    """Sizes, settings and addresses; see hypotheses.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ('count', 'outputs', 'rank', 'latents', 'leads', 'rounds')
        ),
        ('near', ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ('straight', 'bent', 'low', 'high')),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The compiled filters, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the filter of hypotheses')
    if library is not None:
        library.hypotheses_learn.argtypes = [ctypes.POINTER(Family), *[ctypes.c_void_p] * 13]
        library.hypotheses_learn.restype = None
        library.hypotheses_touch.argtypes = [ctypes.POINTER(Family), *[ctypes.c_void_p] * 3]
        library.hypotheses_touch.restype = None
    return library


class NativeFilter:
    """Steps of the filters of some hypotheses."""

    def __init__(self, curves: Curves, outputs: int, rounds: int, near: float) -> None:
        """For hypotheses with these curves; `rounds` and `near` as in `dynamics.hypotheses`."""
        kept = (curves.straight, curves.bent, curves.low, curves.high)
        self._kept = [np.ascontiguousarray(a, float) for a in kept]  # their addresses are used
        count, latents, rank = curves.straight.shape
        self._shape = count, outputs
        self._slopes = count, latents, rank
        addresses = (a.ctypes.data for a in self._kept)
        self._family = Family(count, outputs, rank, latents, LEADS, rounds, near, *addresses)

    def touch(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`Curves.touch`, to the last bit as `learn` does it."""
        z = np.ascontiguousarray(z, float)
        slopes = np.empty(self._slopes)
        c = np.empty((len(z), slopes.shape[2]))
        addresses = (a.ctypes.data for a in (z, c, slopes))
        load().hypotheses_touch(ctypes.byref(self._family), *addresses)
        return c, slopes

    def learn(
        self,
        basis: np.ndarray,
        whole: np.ndarray,
        noise: np.ndarray,
        state: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> tuple[np.ndarray, ...]:
        """Learn from a step.

        Args:
            basis: H B [s, ds, r].
            whole: y − H θ₀ [ds].
            noise: variance of e [ds].
            state: z, its covariance, coefficients and slopes there, C-contiguous float64; they
                are written over.

        Returns:
            Errors and variances of H θ before [s, ds], squared distances and log determinants
            [s], errors that are left and their variances [s, ds].
        """
        basis, whole, noise = (np.ascontiguousarray(a, float) for a in (basis, whole, noise))
        wide = [np.empty(self._shape) for _ in range(4)]
        error, epistemic, left, variance = wide
        square, log_det = np.empty(self._shape[0]), np.empty(self._shape[0])
        arrays = (
            *(basis, whole, noise, *state),
            *(error, epistemic, square, log_det, left, variance),
        )
        load().hypotheses_learn(ctypes.byref(self._family), *(a.ctypes.data for a in arrays))
        return error, epistemic, square, log_det, left, variance
