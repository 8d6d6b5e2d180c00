"""The filters of all hypotheses in compiled C; numpy takes longer to begin than to finish.

`hypotheses.c` is built on first use (see `blr.kernel`); where there is no C compiler, numpy
serves.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..blr.kernel import PRECISE, addresses, library_of
from .curves import LEADS, Curves
from .head import student_t

SOURCE = Path(__file__).with_name('hypotheses.c')


class Family(ctypes.Structure):
    """Sizes, settings and addresses; see hypotheses.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ('count', 'outputs', 'rank', 'latents', 'leads', 'rounds')
        ),
        *((name, ctypes.c_int32) for name in ('features', 'tails')),
        *((name, ctypes.c_double) for name in ('near', 'walk', 'dof', 'temper', 'constant')),
        *((name, ctypes.c_void_p) for name in ('straight', 'bent', 'low', 'high')),
        *((name, ctypes.c_void_p) for name in ('heads', 'ends', 'price')),
    ]


@dataclass(frozen=True)
class Rules:
    """Constants of the filter; see `dynamics.hypotheses`."""

    rounds: int
    near: float
    walk: float
    dof: float  # of the Student-t evidence
    temper: float


@cache
def load() -> ctypes.CDLL | None:
    """The compiled filters, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the filter of hypotheses')
    if library is not None:
        family = ctypes.POINTER(Family)
        library.hypotheses_learn.argtypes = [family, *[ctypes.c_void_p] * 12]
        library.hypotheses_learn.restype = ctypes.c_double
        library.hypotheses_touch.argtypes = [family, *[ctypes.c_void_p] * 3]
        library.hypotheses_touch.restype = None
        sizes = [*[ctypes.c_int32] * 2, ctypes.c_double]
        library.hypotheses_draw.argtypes = [family, *sizes, *[ctypes.c_void_p] * 9]
        library.hypotheses_draw.restype = None
    return library


class NativeFilter:
    """Steps of the filters of some hypotheses."""

    def __init__(
        self,
        curves: Curves,
        outputs: int,
        heads: np.ndarray,
        ends: np.ndarray,
        price: np.ndarray,
        rules: Rules,
    ) -> None:
        """For hypotheses with these curves and columns B.

        Args:
            curves: of s hypotheses.
            outputs: rows ds of a design.
            heads: columns of the features [nf, s · ds · r].
            ends: columns of the rest [s, k, r].
            price: most nats that each pays per step [s].
            rules: constants of the filter.
        """
        floats = (curves.straight, curves.bent, curves.low, curves.high)
        self._kept = [  # their addresses are used
            *(np.ascontiguousarray(a, float) for a in floats),
            np.ascontiguousarray(heads, np.float32),
            np.ascontiguousarray(ends, float),
            np.ascontiguousarray(price, float),
        ]
        count, latents, rank = curves.straight.shape
        self._slopes = count, latents, rank
        self._family = Family(
            *(count, outputs, rank, latents, LEADS, rules.rounds, len(heads), ends.shape[1]),
            *(rules.near, rules.walk, rules.dof, rules.temper),
            student_t(0.0, 0.0, outputs, rules.dof),
            *(a.ctypes.data for a in self._kept),
        )

    def touch(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`Curves.touch`, to the last bit as `learn` does it."""
        z = np.ascontiguousarray(z, float)
        slopes = np.empty(self._slopes)
        c = np.empty((len(z), slopes.shape[2]))
        load().hypotheses_touch(ctypes.byref(self._family), *addresses(z, c, slopes))
        return c, slopes

    def learn(
        self,
        phi: np.ndarray,
        tangent: np.ndarray,
        whole: np.ndarray,
        noise: np.ndarray,
        state: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Learn from a step.

        Args:
            phi: features of H [nf].
            tangent: structured columns of H [ds, k].
            whole: y − H θ₀ [ds].
            noise: variance of e [ds].
            state: z, its covariance, coefficients and slopes there and log weights, C-contiguous
                float64; they are written over.

        Returns:
            Of the mixture: log evidence, mean error and variance of H θ before [ds], and the
            expected square of the error that is left [ds].
        """
        given = [np.array(a, float, order='C') for a in (phi, tangent, whole, noise)]
        found = [np.empty(len(whole)) for _ in range(3)]
        evidence = load().hypotheses_learn(
            ctypes.byref(self._family), *addresses(*given, *state, *found)
        )
        return evidence, found[0], found[1], found[2]

    def draw(
        self,
        weights: np.ndarray,
        state: tuple[np.ndarray, np.ndarray, np.ndarray],
        columns: tuple[np.ndarray, np.ndarray],
        normal: np.ndarray,
        negligible: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the mixture [n] and draws less it [n, E], less the reference of hypotheses.

        Args:
            weights: probabilities [s].
            state: z, its covariance and coefficients there, C-contiguous float64.
            columns: numbers of the columns of each hypothesis [s, r], int32, −1 where there is
                none, and the columns [.., n], float32.
            normal: standard normal numbers [k, E].
            negligible: probability up to which a hypothesis does not show in the mean.
        """
        used, rows = columns
        size, draws = rows.shape[1], normal.shape[1]
        mean, deviations = np.empty(size), np.empty((size, draws))
        weights, normal = (np.array(a, float, order='C') for a in (weights, normal))
        arrays = (weights, *state, used, rows, normal, mean, deviations)
        load().hypotheses_draw(
            ctypes.byref(self._family), size, draws, negligible, *addresses(*arrays)
        )
        return mean, deviations
