"""A bag in several MCAP files that a crash leaves readable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rosbags.interfaces import Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

UNFINISHED = 'unfinished'  # folder of the file being written
METADATA = 'metadata.yaml'
INFORMATION = 'rosbag2_bagfile_information'


class Recorded(NamedTuple):
    """A topic as a bag tells of it."""

    name: str
    type: str
    qos: Qos


class BagWriter:
    """Writes `<folder>/<name>_0.mcap`, `_1`, ... with the metadata of all that are finished.

    What `flush` has returned from survives the process and the power: it lies in whole chunks of
    `unfinished/unfinished.mcap`, which `experiments.salvage` reads without the index that a
    recorder writes last.
    """

    def __init__(self, folder: Path, topics: Mapping[str, Recorded], max_bytes: int) -> None:
        """Create the bag.

        Args:
            folder: must not exist.
            topics: by any key, for `write`.
            max_bytes: size from which a file is finished and the next one begun.
        """
        self.folder = folder
        self.topics = topics
        self.max_bytes = max_bytes
        self.written = 0
        self._files = 0
        self._store = get_typestore(Stores.ROS2_JAZZY)
        folder.mkdir(parents=True)
        self._begin()

    def write(self, key: str, stamp_ns: int, data: bytes) -> None:
        """Add a serialised message."""
        self._writer.write(self._connections[key], stamp_ns, data)
        self.written += 1
        self._bytes += len(data)
        if self._bytes >= self.max_bytes:
            self._finish()
            self._begin()

    def flush(self) -> None:
        """Bring everything written so far to the disk.

        Raises:
            OSError: the disk does not take it, or the file was removed.
        """
        storage: Any = self._writer.storage
        if storage.chunk.bio.tell():
            storage.close_chunk()
        storage.bio.flush()
        os.fdatasync(storage.bio.fileno())
        # A removed file takes all that is written, and keeps nothing.
        (self.folder / UNFINISHED / f'{UNFINISHED}.mcap').stat()

    def close(self) -> None:
        """Finish the bag."""
        self._finish()

    def _begin(self) -> None:
        self._bytes = 0
        self._writer = Writer(
            self.folder / UNFINISHED, version=9, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.open()
        self._connections = {
            key: self._writer.add_connection(
                topic.name, topic.type, typestore=self._store, offered_qos_profiles=[topic.qos]
            )
            for key, topic in self.topics.items()
        }
        self.flush()  # so that a reader finds at least the topics

    def _finish(self) -> None:
        self._writer.close()
        part = self.folder / UNFINISHED
        added = yaml.safe_load((part / METADATA).read_text('utf-8'))
        name = f'{self.folder.name}_{self._files}.mcap'
        (part / f'{UNFINISHED}.mcap').replace(self.folder / name)
        _rename(added[INFORMATION], name)
        known = self.folder / METADATA
        if known.is_file():
            added[INFORMATION] = _joined(
                yaml.safe_load(known.read_text('utf-8'))[INFORMATION], added[INFORMATION]
            )
        temporary = self.folder / f'.{METADATA}'
        temporary.write_text(yaml.safe_dump(added, sort_keys=False), 'utf-8')
        temporary.replace(known)
        shutil.rmtree(part)
        self._files += 1


def _rename(information: dict[str, Any], name: str) -> None:
    information['relative_file_paths'] = [name]
    information['files'][0]['path'] = name


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a bag and of one more file of it."""
    if not one['message_count'] or not other['message_count']:
        times = other if other['message_count'] else one
        start, end = _span(times)
    else:
        start = min(_span(one)[0], _span(other)[0])
        end = max(_span(one)[1], _span(other)[1])
    counts = [
        dict(a, message_count=a['message_count'] + b['message_count'])
        for a, b in zip(
            one['topics_with_message_count'], other['topics_with_message_count'], strict=True
        )
    ]
    return one | {
        'relative_file_paths': one['relative_file_paths'] + other['relative_file_paths'],
        'files': one['files'] + other['files'],
        'starting_time': {'nanoseconds_since_epoch': start},
        'duration': {'nanoseconds': end - start},
        'message_count': one['message_count'] + other['message_count'],
        'topics_with_message_count': counts,
    }


def _span(information: dict[str, Any]) -> tuple[int, int]:
    start = information['starting_time']['nanoseconds_since_epoch']
    return start, start + information['duration']['nanoseconds']
