"""Reading MCAP bags of the graph's topics, with no ROS needed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.codec import decode_prior
from ..learning.learner import Event
from .life import Trace

# What rosbags raises on files that are not bags, or only parts of one.
DAMAGED = (AnyReaderError, ReaderError, OSError, ValueError, KeyError, struct.error)


class Bag:
    """An open bag: messages by the last parts of their topic's name."""

    def __init__(self, reader: AnyReader, path: Path) -> None:
        self.reader = reader
        self.path = path

    def topics(self) -> dict[str, int]:
        """Number of messages per topic."""
        return {name: info.msgcount for name, info in self.reader.topics.items()}

    def has(self, ending: str) -> bool:
        """Whether a topic ends so."""
        return any(name.endswith('/' + ending) for name in self.reader.topics)

    def messages(self, *endings: str) -> Iterator[tuple[str, Any]]:
        """(ending, message) of the topics that end so, in the order received.

        Raises:
            UserError: the bag has none of these topics.
        """
        chosen = {
            c.id: ending
            for c in self.reader.connections
            for ending in endings
            if c.topic.endswith('/' + ending)
        }
        if not chosen:
            raise UserError(
                f'{self.path}: no topic ends with {" or ".join(endings)}; it holds '
                f'{", ".join(sorted(self.reader.topics)) or "nothing"}'
            )
        connections = [c for c in self.reader.connections if c.id in chosen]
        for connection, _, data in self.reader.messages(connections=connections):
            yield chosen[connection.id], self.reader.deserialize(data, connection.msgtype)

    def prior(self) -> tuple[Prior, dict[str, Any]]:
        """The prior that the recorded learner started from, and its settings."""
        for _, message in self.messages('belief/trunk'):
            return decode_prior(np.asarray(message.data, np.uint8).tobytes(), str(self.path))
        raise UserError(f'{self.path}: belief/trunk was never published while it was recorded')


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag folder.

    Raises:
        UserError: it does not exist or is not a readable bag.
    """
    if not path.exists():
        raise UserError(f'{path}: no such bag; give the folder that holds metadata.yaml')
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except DAMAGED as error:
        raise UserError(
            f'{path}: not a readable bag ({error}); give a folder with metadata.yaml and an MCAP '
            'file that its recorder has closed'
        ) from None
    try:
        yield Bag(reader, path)
    finally:
        reader.close()


def read_trace(path: Path) -> Trace:
    """The life that a bag of the simulated robot recorded, step by step."""
    trace = Trace()
    with open_bag(path) as bag:
        prior, _ = bag.prior()
        scale = dict(zip(prior.dynamics.spec.state_names, prior.dynamics.scale, strict=True))
        chosen = ('sim_robot/regime', 'uncertainty', 'learner_state', 'event')
        for kind, message in bag.messages(*chosen):
            if kind == 'sim_robot/regime':
                truth = json.loads(message.data)
                if 'score' in truth and truth['score'] is not None:
                    trace.score.append(truth['score'])
                    trace.crashed.append(truth['crashed'])
            elif kind == 'event':
                detail = json.loads(message.data)
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
