"""`Dynamics.parts` in compiled C; numpy takes longer to begin than to finish.

`parts.c` is built on first use (see `blr.kernel`); where there is no C compiler, numpy serves.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from ..blr.kernel import PRECISE, addresses, library_of
from .trunk import Trunk

SOURCE = Path(__file__).with_name('parts.c')


class Model(ctypes.Structure):
    """Sizes and addresses; see parts.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ('values', 'angles', 'actions', 'hidden', 'outputs', 'delays')
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *('value_at', 'angle_at', 'mean', 'scale', 'w1', 'b1', 'w2', 'b2'),
                *('whiten', 'from_slope', 'half_range'),
            )
        ),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The compiled features, or None where they cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the model')
    if library is not None:
        library.parts.argtypes = [ctypes.POINTER(Model), *[ctypes.c_void_p] * 5]
        library.parts.restype = None
    return library


class NativeParts:
    """Features and structured columns of one step."""

    def __init__(
        self, trunk: Trunk, from_slope: np.ndarray, half_range: np.ndarray, delays: int
    ) -> None:
        """For a model whose W₀ on derivatives of raw features is `from_slope` [nf, ds]."""
        encoder, floats = trunk.encoder, (trunk.mean, trunk.scale, trunk.w1, trunk.b1, trunk.w2)
        floats += (trunk.b2, trunk.whiten, from_slope, half_range)
        self._kept = [  # their addresses are used
            *(np.ascontiguousarray(a, np.int64) for a in (encoder.values, encoder.angles)),
            *(np.ascontiguousarray(a, float) for a in floats),
        ]
        sizes = len(encoder.values), len(encoder.angles), len(half_range), len(trunk.b1)
        outputs = from_slope.shape[1]
        self._model = Model(*sizes, outputs, delays, *(a.ctypes.data for a in self._kept))
        self._shapes = trunk.size, (outputs, 2 * len(half_range) + delays)

    def __call__(
        self, x: np.ndarray, u: np.ndarray, past: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`Dynamics.parts`."""
        given = [np.array(a, float, order='C') for a in (x, u, past)]
        found = [np.empty(shape) for shape in self._shapes]
        load().parts(ctypes.byref(self._model), *addresses(*given, *found))
        return found[0], found[1]
