"""Rollouts in compiled C: the same as numpy's, several times faster, without the interpreter lock.

`rollout.c` is built on first use (see `blr.kernel`); where there is no C compiler, or a channel
count that it is not made for, numpy's rollout serves.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..blr.kernel import PRECISE, library_of
from ..dynamics.model import DELAYS, Dynamics
from .rollout import Rollout, Weights

SOURCE = Path(__file__).with_name('rollout.c')
OUT, PAIR = 3, 2  # see rollout.c


class Model(ctypes.Structure):
    """Sizes and addresses of the weights; see rollout.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                'state',
                'action',
                'values',
                'angles',
                'hidden',
                'outputs',
                'delays',
                'horizon',
            )
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                'value_at',
                'angle_at',
                'centre',
                'unit',
                'w1',
                'b1',
                'w2',
                'b2',
                'nominal',
            )
        ),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The compiled rollout, or None where it cannot be built."""
    library = library_of(SOURCE, PRECISE, 'the planner')
    if library is not None:
        library.rollout_scratch.restype = ctypes.c_int64
        library.rollout.restype = None
        library.rollout.argtypes = [
            *[ctypes.c_void_p] * 2,
            ctypes.c_int64,
            *[ctypes.c_void_p] * 6,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]
    return library


def native_rollout(dynamics: Dynamics) -> Rollout:
    """A compiled rollout, or numpy's with a warning where there is none."""
    if load() is not None:
        return NativeRollout(dynamics)
    warnings.warn('no C compiler was found: the planner runs on numpy, slower', stacklevel=2)
    return Rollout(dynamics)


class NativeRollout(Rollout):
    """The dynamics of a Belief, rolled out in C."""

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__(dynamics)
        trunk, encoder = self.trunk, dynamics.trunk.encoder
        width, ds = trunk.w1.shape[1], len(dynamics.scale)
        self._hidden, self._outputs = -(-width // OUT) * OUT, -(-ds // PAIR) * PAIR
        self._width, more = width, self._hidden - width
        w2 = np.pad(trunk.w2, ((0, more), (0, more))).reshape(self._hidden, -1, OUT)
        da = len(dynamics.spec.action)
        commands = slice(width + len(trunk.mean) - da, width + len(trunk.mean))
        nominal = np.concatenate([self.nominal[:width], self.nominal[commands]])
        kept = {
            'value_at': encoder.values.astype(np.int32),
            'angle_at': encoder.angles.astype(np.int32),
            'centre': trunk.mean,
            'unit': 1 / trunk.scale,
            'w1': np.pad(trunk.w1, ((0, 0), (0, more))),
            'b1': np.pad(trunk.b1, (0, more)),
            'w2': w2.transpose(1, 0, 2),
            'b2': np.pad(trunk.b2, (0, more)),
            'nominal': self._spread_out(nominal),
        }
        self._kept = {  # their addresses are handed out
            k: np.ascontiguousarray(v, v.dtype if v.dtype == np.int32 else np.float32)
            for k, v in kept.items()
        }
        self._model = Model(
            ds, da, len(encoder.values), len(encoder.angles), self._hidden, self._outputs, DELAYS
        )
        for name, array in self._kept.items():
            setattr(self._model, name, array.ctypes.data)
        self._scratch = np.empty(load().rollout_scratch(ctypes.byref(self._model)), np.uint8)

    def run(
        self, weights: Weights, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        n = len(actions)
        if weights[0].ndim == 2:
            stacked = tuple(w[None] for w in weights)
            return self._run(stacked, [np.arange(n)], x, actions, past)[0]
        return self._run(weights, np.arange(n)[:, None], x, actions, past)[0]

    def run_shared(
        self, draws: Weights, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        count, n = len(draws[0]), len(actions)
        turns = [np.arange(e, n, count) for e in range(count)]
        return self._run(draws, turns, x, actions, past)[0]

    def run_all(
        self, draws: Weights, x: np.ndarray, actions: np.ndarray, past: np.ndarray
    ) -> np.ndarray:
        each = [np.arange(len(actions))] * len(draws[0])
        return self._run(draws, each, x, actions, past, apart=True)

    def _run(
        self,
        draws: Weights,
        taken: Sequence[np.ndarray],
        x: np.ndarray,
        actions: np.ndarray,
        past: np.ndarray,
        apart: bool = False,
    ) -> np.ndarray:
        """States [layers, n, h, ds] of plans [n, h, da], of which each draw has `taken` some.

        The draws share one layer, or have one each if they are kept apart.
        """
        model, count = self._model, len(draws[0])
        n, model.horizon, _ = actions.shape
        # Named, so that they outlive the call that is given their addresses.
        head, *other = (np.ascontiguousarray(w, np.float32) for w in draws)
        head = self._spread_out(head)
        start, before, plans = (np.ascontiguousarray(a, np.float32) for a in (x, past, actions))
        rows = np.concatenate(taken).astype(np.int32)
        ends = np.cumsum([len(t) for t in taken], dtype=np.int64)
        states = np.empty((count if apart else 1, n, model.horizon, len(start)), np.float32)
        addresses = [w.ctypes.data + w.strides[0] * np.arange(count) for w in (head, *other)]
        table = np.ascontiguousarray(np.stack(addresses, axis=1), np.uintp)
        load().rollout(
            ctypes.addressof(model),
            table.ctypes.data,
            count,
            start.ctypes.data,
            before.ctypes.data,
            plans.ctypes.data,
            rows.ctypes.data,
            ends.ctypes.data,
            states.ctypes.data,
            states[0].size if apart else 0,
            self._scratch.ctypes.data,
        )
        return states

    def _spread_out(self, head: np.ndarray) -> np.ndarray:
        """Heads [..., nf, ds] with zeros for the units and outputs that only fill up."""
        rows, ds = head.shape[-2:]
        size = rows + self._hidden - self._width, self._outputs
        wide = np.zeros((*head.shape[:-2], *size), np.float32)
        wide[..., : self._width, :ds] = head[..., : self._width, :]
        wide[..., self._hidden :, :ds] = head[..., self._width :, :]
        return wide
