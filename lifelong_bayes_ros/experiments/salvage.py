"""MCAP files that nobody finished: of a recorder that was killed, or that is still at work."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = b'\x89MCAP0\r\n'
CHUNK, MESSAGE, DATA_END, FOOTER = 0x06, 0x05, 0x0F, 0x02
# An empty summary: readers look through the data for what an index would tell.
END = struct.pack('<BQI', DATA_END, 4, 0) + struct.pack('<BQQQI', FOOTER, 20, 0, 0, 0) + MAGIC
KEPT = (0x01, 0x03, 0x04, MESSAGE, CHUNK)  # header, schema, channel; no index of anything


class Record(NamedTuple):
    """Where a whole record lies in a file."""

    kind: int
    start: int
    end: int


def is_finished(path: Path) -> bool:
    """Whether an MCAP file has its end."""
    size = path.stat().st_size
    with path.open('rb') as file:
        if size < 2 * len(MAGIC) or file.read(len(MAGIC)) != MAGIC:
            return False
        file.seek(-len(MAGIC), 2)
        return file.read() == MAGIC


def whole_records(file: BinaryIO, size: int) -> Iterator[Record]:
    """The records of an MCAP file up to the first that is not there in full."""
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return
    at = len(MAGIC)
    while at + 9 <= size:
        file.seek(at)
        kind, length = struct.unpack('<BQ', file.read(9))
        end = at + 9 + length
        if end > size or kind == 0:
            return
        yield Record(kind, at, end)
        at = end


def salvage(path: Path, out: Path) -> int:
    """Write what is whole of an unfinished MCAP file to a finished one.

    Returns:
        Number of records kept, chunks of many messages counted once.
    """
    kept = 0
    size = path.stat().st_size
    with path.open('rb') as source, out.open('wb') as target:
        target.write(MAGIC)
        for record in whole_records(source, size):
            if record.kind not in KEPT:
                continue
            source.seek(record.start)
            target.write(source.read(record.end - record.start))
            kept += 1
        target.write(END)
    return kept
