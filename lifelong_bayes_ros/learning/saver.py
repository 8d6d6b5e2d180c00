"""Keeping the state of a learner that goes on: written in a thread of its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

from .store import Snapshot

if TYPE_CHECKING:
    from .learner import Learner


@dataclass(frozen=True)
class Saved:
    """What became of a snapshot."""

    step: int  # transition that it was taken at, and its time
    stamp_ns: int
    digest: str  # of the learner then; empty if it could not be written
    seconds: float  # that writing took
    error: str = ''  # why it could not be written


class Saver:
    """Writes snapshots of a learner to its state directory, one after the other.

    What is not begun when a newer one comes is left out: a slow disk gets the newest only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, 'saver')
        self._lock = Lock()
        self._waiting: Snapshot | None = None
        self._outcomes: SimpleQueue[Saved] = SimpleQueue()

    def save(self, learner: Learner) -> None:
        """Take a snapshot now, between two transitions, and have it written."""
        snapshot = Snapshot.of(learner)
        with self._lock:
            busy, self._waiting = self._waiting is not None, snapshot
        if not busy:
            self._thread.submit(self._write)

    def take(self) -> list[Saved]:
        """What has been written, or failed, since the last call."""
        found: list[Saved] = []
        while True:
            try:
                found.append(self._outcomes.get_nowait())
            except Empty:
                return found

    def wait(self) -> list[Saved]:
        """What `take` gives once nothing is left to write."""
        self._thread.submit(lambda: None).result()
        return self.take()

    def close(self) -> list[Saved]:
        """The last outcomes; nothing can be saved afterwards."""
        self._thread.shutdown(wait=True)
        return self.take()

    def _write(self) -> None:
        with self._lock:
            snapshot, self._waiting = self._waiting, None
        started, digest, why = time.perf_counter(), '', ''
        try:
            digest = snapshot.write(self.folder)
        except Exception as error:  # whatever it is must be told, not end a thread unseen
            why = f'{self.folder}: the state could not be written ({error or type(error)})'
        seconds = time.perf_counter() - started
        meta = snapshot.meta
        self._outcomes.put(Saved(meta['step'], meta['stamp_ns'], digest, seconds, why))
