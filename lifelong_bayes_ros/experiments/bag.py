"""Reading MCAP bags of the graph's topics, with no ROS needed."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.storage_mcap import zstd
from rosbags.typesys import Stores, get_typestore

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.codec import decode_prior
from ..learning.report import Event
from ..nodes.bag_writer import METADATA, UNFINISHED
from .salvage import MAGIC, is_finished, salvage

if TYPE_CHECKING:
    from .life import Trace

# What the topics of the graph are, by the last parts of their names.
TYPES = {
    'transition': 'std_msgs/msg/Float32MultiArray',
    'episode': 'std_msgs/msg/String',
    'belief/trunk': 'std_msgs/msg/UInt8MultiArray',
    'belief/head': 'std_msgs/msg/UInt8MultiArray',
    'belief/memory': 'std_msgs/msg/Float32MultiArray',
    'belief/policy': 'std_msgs/msg/UInt8MultiArray',
    'learner_state': 'sensor_msgs/msg/JointState',
    'event': 'std_msgs/msg/String',
    'choice': 'std_msgs/msg/Float32MultiArray',
    'uncertainty': 'sensor_msgs/msg/JointState',
    'plan': 'std_msgs/msg/Float32MultiArray',
    'uncertainty/plan': 'std_msgs/msg/Float32MultiArray',
    'sim_robot/regime': 'std_msgs/msg/String',
    'markers': 'visualization_msgs/msg/MarkerArray',
    'predicted_path': 'nav_msgs/msg/Path',
    'memory_map': 'sensor_msgs/msg/PointCloud2',
}
# What rosbags, and who takes its messages apart, raise on files that are no bags, or only parts of
# one, or damaged: a length, an offset or a name may be anything there.
DAMAGED = (
    AnyReaderError,
    ReaderError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zstd.ZstdError,
)


@contextmanager
def legible(path: Path) -> Iterator[None]:
    """Around code that reads a bag or takes its messages apart, and does nothing else.

    Raises:
        UserError: the bag is damaged there, or holds what is not expected there.
    """
    try:
        yield
    except UserError as error:
        named = str(error).startswith(str(path))
        raise error if named else UserError(f'{path}: {error}') from None
    except DAMAGED as error:
        what = f'{type(error).__name__}: {error}'
        raise UserError(f'{path}: not readable to its end ({what}); record it anew') from error


class Bag:
    """An open bag: messages by the last parts of their topic's name."""

    def __init__(self, reader: AnyReader, path: Path) -> None:
        self.reader = reader
        self.path = path

    def topics(self) -> dict[str, int]:
        """Number of messages per topic."""
        return {name: info.msgcount for name, info in self.reader.topics.items()}

    def has(self, ending: str) -> bool:
        """Whether a topic ends so, and is of the graph's type."""
        return bool(self._chosen(ending))

    def lack(self, *endings: str) -> str:
        """What there is in the place of topics that end so."""
        wanted = 'has no topic ' + ' or '.join(f'`{ending}`' for ending in endings)
        for c in self.reader.connections:
            for ending in endings:
                if c.topic.endswith(f'/{ending}') and ending in TYPES:
                    return f'{wanted} of {TYPES[ending]}: {c.topic} is of {c.msgtype}'
        return f'{wanted}, only {", ".join(sorted(self.reader.topics)) or "nothing"}'

    def _chosen(self, *endings: str) -> dict[tuple[str, str], str]:
        """Topics that end so, with their types, and what they end with."""
        return {
            (c.topic, c.msgtype): ending
            for c in self.reader.connections
            for ending in endings
            if c.topic.endswith(f'/{ending}') and c.msgtype == TYPES.get(ending, c.msgtype)
        }

    def messages(self, *endings: str) -> Iterator[tuple[str, Any]]:
        """(ending, message) of the topics that end so, in the order received.

        Raises:
            UserError: the bag has none of these topics.
        """
        for ending, message, _ in self.timed(*endings):
            yield ending, message

    def timed(self, *endings: str) -> Iterator[tuple[str, Any, int]]:
        """As `messages`, each with the time at which it was received, nanoseconds."""
        for ending, read, received in self.raw(*endings):
            yield ending, read(), received

    def raw(self, *endings: str) -> Iterator[tuple[str, Callable[[], Any], int]]:
        """As `timed`, but each message comes as a function that reads it: most are not wanted."""
        chosen = self._chosen(*endings)
        if not chosen:
            raise UserError(f'{self.path}: {self.lack(*endings)}')
        connections = [c for c in self.reader.connections if (c.topic, c.msgtype) in chosen]
        messages = self.reader.messages(connections=connections)
        while True:
            with legible(self.path):
                found = next(messages, None)
            if found is None:
                return
            connection, received, data = found
            read = partial(self._read, data, connection.msgtype)
            yield chosen[connection.topic, connection.msgtype], read, received

    def _read(self, data: bytes, kind: str) -> Any:
        with legible(self.path):
            return self.reader.deserialize(data, kind)

    def prior(self) -> tuple[Prior, dict[str, Any]]:
        """The prior that the recorded learner started from, and its settings."""
        for _, message in self.messages('belief/trunk'):
            data = np.asarray(message.data, np.uint8).tobytes()
            return decode_prior(data, f'{self.path}: belief/trunk')
        raise UserError(f'{self.path}: belief/trunk was never published while it was recorded')


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag: a folder, or one MCAP file.

    One that its recorder did not finish, or is still writing, is read as far as it goes.

    Raises:
        UserError: it does not exist, is not a readable bag, or holds several.
    """
    if not path.exists():
        raise UserError(f'{path}: no such bag; give the folder that holds metadata.yaml')
    folder = _folder(path)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            files = _whole_files(folder, Path(temporary))
            reader = AnyReader(files, default_typestore=get_typestore(Stores.ROS2_JAZZY))
            reader.open()
        except DAMAGED as error:
            raise UserError(
                f'{path}: not a readable bag ({error}); give a folder with metadata.yaml or MCAP '
                'files'
            ) from None
        try:
            yield Bag(reader, folder)
        finally:
            reader.close()


def _folder(path: Path) -> Path:
    """The bag in a path: itself, or the only one in the folders of it, as in that of a demo."""
    if path.is_file() or _is_bag(path):
        return path
    bags = sorted(part for part in path.glob('*/') if _is_bag(part))
    if len(bags) > 1:
        raise UserError(f'{path}: holds several bags, {", ".join(map(str, bags))}; give one')
    if not bags:
        raise UserError(
            f'{path}: not a readable bag: neither {METADATA} nor an MCAP file is in it; give the '
            'folder that they are in'
        )
    return bags[0]


def _is_bag(folder: Path) -> bool:
    return (folder / METADATA).is_file() or bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    """The MCAP files of a bag, with the one that is being written."""
    return sorted([*folder.glob('*.mcap'), *folder.glob(f'{UNFINISHED}/*.mcap')])


def _whole_files(path: Path, temporary: Path) -> list[Path]:
    """What to read of a bag: itself, or its files, with copies of those that were not finished."""
    files = [path] if path.is_file() else _files(path)
    finished = {file: is_finished(file) for file in files}
    if all(finished.values()) and (path / METADATA).is_file():
        return [path]
    whole = []
    for number, (file, good) in enumerate(finished.items()):
        if not good:
            copy = temporary / f'{number}.mcap'
            if not salvage(file, copy):
                continue  # nothing of it had reached the disk
            file = copy
        whole.append(file)
    if files and not whole:
        _check_begun(path, files)
    return whole or ([path] if (path / METADATA).is_file() else files)


def _check_begun(path: Path, files: list[Path]) -> None:
    """Tell files that a recorder had only begun, when it was killed, from what is no bag."""
    for file in files:
        with file.open('rb') as opened:
            begin = opened.read(len(MAGIC))
        if MAGIC.startswith(begin):
            state = 'holds no whole message' if begin else 'is empty'
            raise UserError(
                f'{path}: not a readable bag: {file} {state}; nothing had reached the disk when '
                'its recorder ended; record it anew'
            )


def content(message: Any) -> dict[str, Any]:
    """What a String message of our nodes tells.

    Raises:
        UserError: it is of others.
    """
    try:
        found = json.loads(message.data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f'the bag holds {message.data[:40]!r} where our nodes write JSON')
    return found


def read_trace(path: Path) -> Trace:
    """The life that a bag of the simulated robot recorded, step by step."""
    from .life import Trace  # needs the simulator, which no other bag does

    trace = Trace()
    with open_bag(path) as bag:
        prior, _ = bag.prior()
        scale = dict(zip(prior.dynamics.spec.state_names, prior.dynamics.scale, strict=True))
        chosen = ('sim_robot/regime', 'uncertainty', 'learner_state', 'event')
        for kind, message in bag.messages(*chosen):
            if kind == 'sim_robot/regime':
                truth = content(message)
                if 'score' in truth and truth['score'] is not None:
                    trace.score.append(truth['score'])
                    trace.crashed.append(truth['crashed'])
            elif kind == 'event':
                detail = content(message)
                head = [detail.pop(k) for k in ('event', 'stamp_ns', 'step')]
                trace.events.append(Event(*head, detail))
            else:
                values = dict(zip(message.name, message.position.tolist(), strict=True))
                if kind == 'uncertainty':
                    for share, column in (
                        ('epistemic', trace.epistemic),
                        ('aleatoric', trace.aleatoric),
                    ):
                        parts = [values[f'{c}.{share}'] / s for c, s in scale.items()]
                        column.append(float(np.mean(parts)))
                else:
                    trace.nis.append(values['nis'])
                    trace.inside.append(values['inside90'])
                    trace.learn_seconds.append(values.get('seconds', 0.0))
                    trace.regimes.append(
                        {
                            k.removeprefix('regime.'): v
                            for k, v in values.items()
                            if k.startswith('regime.')
                        }
                    )
    return trace
