"""Memory for covariances, used again as soon as nobody holds it.

A learner on board makes a covariance of megabytes with every few transitions, for a life. Left to
malloc, such blocks are cut up by small ones that live longer, so that a process grows without end,
and every fresh page costs a fault.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from threading import Lock

import torch
from torch import Tensor

LEAST = 1 << 16  # bytes; malloc serves smaller ones well


def _references(buffers: list[bytearray]) -> list[int]:
    return [sys.getrefcount(buffer) for buffer in buffers]


# Of a buffer that nobody else holds: Pythons count differently.
IDLE = _references([bytearray()])[0]


class Buffers:
    """Square matrices of float64; memory that is held no longer is handed out again."""

    def __init__(self) -> None:
        self._buffers: defaultdict[int, list[bytearray]] = defaultdict(list)
        self._lock = Lock()

    def square(self, n: int) -> Tensor:
        """A matrix [n, n] of arbitrary numbers on the CPU."""
        if 8 * n * n < LEAST:
            return torch.empty((n, n), dtype=torch.float64)
        with self._lock:
            # A tensor on a buffer, a view of it, or an array of either, all hold the buffer.
            buffers = self._buffers[n]
            references = _references(buffers)
            if IDLE not in references:
                buffers.append(bytearray(8 * n * n))
            found = buffers[references.index(IDLE) if IDLE in references else -1]
            return torch.frombuffer(found, dtype=torch.float64).view(n, n)

    def count(self, n: int) -> int:
        """How many buffers there are for matrices of this size."""
        return len(self._buffers[n])


SHARED = Buffers()
