"""Node: everything the graph says, into one MCAP bag."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from std_srvs.srv import Trigger

from ..errors import UserError, of_a_path
from ..learning.codec import unpack
from ..learning.store import START, STATE, STATE_FOLDER, state_files, write_atomically
from ..robot import wire
from . import topics
from .bag_writer import BagWriter, Recorded
from .base import OK, WARN, BaseNode, Parameter, run
from .codecs import msg_to_bytes
from .disk import room
from .topics import Topic, type_name

DEPTH = 1000  # messages that may wait while the disk is busy
FLUSH_SECONDS = 1.0  # what a crash may cost
REMEMBERED = 100_000  # transitions; a learner that knows more began before the recording
REQUESTS = 5  # for the state at the start, one per FLUSH_SECONDS
LEAST_FREE = 1_000_000_000  # bytes of disk below which it warns
ERROR = DiagnosticStatus.ERROR
STARTS_WITH = ('step', 'stamp_ns', 'digest')  # what a copy of a state is told of
LOST_START = 'no copy of what the learner knew before'
FROM_PRIOR = 'a replay of this recording will begin with its prior'


class Recorder(BaseNode):
    """Writes every topic of the graph to a bag that `ros2 bag` and rosbags read.

    Where the learner has learned before the recording begins, it is asked to save, and a copy of
    its state goes into the bag's folder: a replay begins there.
    """

    NAME = 'recorder'
    TASK = 'recording'
    PARAMETERS = (
        Parameter('out', '', 'folder of the bag; must not exist yet'),
        Parameter('file_megabytes', 512, 'size from which the next file is begun', 1, 65536),
        Parameter('save_state', True, 'copy what the learner knew before into the bag'),
        Parameter(
            'last_words', 3.0, 'seconds to go on at the end while the learner does', 0.0, 60.0
        ),
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.out = Path(self.value('out'))
        if not self.value('out') or self.out.exists():
            raise UserError(
                f'parameter out: {str(self.out)!r} must be a folder that does not exist'
            )
        self.topics = [
            *topics.FIXED,
            *topics.state_topics(self.spec).values(),
            *topics.outcome_topics(self.spec).values(),
            topics.command_topic(self.spec),
        ]
        if (goal := topics.goal_topic(self.spec)) is not None:
            self.topics.append(goal)
        self.writer: BagWriter | None = None
        self.early: dict[str, bytes] = {}  # what came before activation
        self.trouble = ''  # why nothing is written any more
        for topic in {topic.name: topic for topic in self.topics}.values():  # some serve two parts
            self.listen(topic, partial(self._write, topic.name), _wanted(topic), raw=True)
        self.save = self.create_client(Trigger, 'learner/save')
        self._owned.append((self.destroy_client, self.save))
        self.every(FLUSH_SECONDS, self._flush)
        self.every(FLUSH_SECONDS, self._request)

    def activate(self) -> None:
        self.last_ns = 0
        # Stamps of what can be learned from, until a belief comes.
        self.usable: deque[int] = deque(maxlen=REMEMBERED)
        # Whether a belief was heard, a state is wanted, and it was copied or cannot be.
        self.begun = self.asked = self.copied = False
        self.lost_start = ''  # why there is no copy of the state, if the disk is to blame
        self.requests: list[Any] = []  # for the state
        self.ends_at: float | None = None  # when to end at the latest, once that is wanted
        recorded = {
            topic.name: Recorded(
                self.resolve_topic_name(topic.name), type_name(topic), _offered(topic.qos)
            )
            for topic in self.topics
        }
        try:
            self.writer = BagWriter(self.out, recorded, self.value('file_megabytes') * 1_000_000)
        except OSError as error:
            raise UserError(
                f'parameter out: {self.out} cannot be written ({error.strerror}); give another '
                'folder'
            ) from None
        for topic, message in self.early.items():
            self._write(topic, message)

    def deactivate(self) -> None:
        """The bag is complete: recording again takes a new folder."""
        if self.writer is not None and not self.trouble:
            self._attempt_to(self.writer.close)
        self.writer = None

    def may_end(self) -> bool:
        """Not before the learner has said its last, as all end at once; but soon."""
        if not self.active or not self.count_publishers(topics.EVENT.name):
            return True
        now = time.monotonic()
        if self.ends_at is None:
            self.ends_at = now + self.value('last_words')
        return now >= self.ends_at

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        free, low = room(self.out, LEAST_FREE)
        figures = {'messages': self.writer.written, 'disk free MB': free}
        if self.trouble:
            return ERROR, f'not recording: {self.trouble}', figures
        if self.lost_start:
            return ERROR, f'recording to {self.out}, but {self.lost_start}', figures
        if low:
            return WARN, f'recording to {self.out}, {low}', figures
        return OK, f'recording to {self.out}', figures

    def _write(self, topic: str, message: bytes) -> None:
        if self.writer is None:  # a latched one, which comes only once
            self.early[topic] = message
            return
        if self.trouble:
            return
        # Never backwards, whatever the clock does: a bag without an index is read in order.
        self.last_ns = max(self.last_ns, self.get_clock().now().nanoseconds)
        self._attempt_to(lambda: self.writer.write(topic, self.last_ns, message))
        if topic == topics.TRANSITION.name and not self.begun:
            self._note(message)
        elif topic == topics.HEAD.name and not self.begun:
            self.begun = True
            self._ask_for_state(message)
        elif topic == topics.EVENT.name and self.asked and not self.copied:
            self._copy_state(message)

    def _flush(self) -> None:
        if not self.trouble:
            self._attempt_to(self.writer.flush)

    def _attempt_to(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            mend = (
                'what was written until now can be read; free the disk and record to a new folder'
            )
            if isinstance(error, FileNotFoundError):
                mend = 'it was removed or moved; record to a new folder'
            self.trouble = f'{self.out}: {error.strerror or error}; {mend}'
            self.get_logger().error(self.trouble)

    # ------------------------------------------------------------------ the state at the start
    def _ask_for_state(self, message: bytes) -> None:
        """Of a learner that knew something before."""
        head = deserialize_message(message, topics.HEAD.type)
        self.asked = self.value('save_state') and _knew_more(head, self.usable)
        self._request()

    def _note(self, message: bytes) -> None:
        """Remember a transition that a learner learns from, if it is this robot's."""
        with suppress(UserError):
            data = deserialize_message(message, topics.TRANSITION.type)
            transition = wire.decode(self.spec, data)
            if transition.usable:
                self.usable.append(transition.stamp_ns)

    def _request(self) -> None:
        """Ask until there is an answer: what a service is asked before it is there gets lost."""
        if self.copied or not self.asked or any(call.done() for call in self.requests):
            return
        if len(self.requests) == REQUESTS:
            self.copied = True
            self.skip(LOST_START, f'the learner does not answer; {FROM_PRIOR}')
        elif self.save.service_is_ready():
            self.requests.append(self.save.call_async(Trigger.Request()))
            self.requests[-1].add_done_callback(self._on_saved)

    def _on_saved(self, answer: Any) -> None:
        if not answer.result().success and not self.copied:
            self.copied = True
            self.skip(LOST_START, f'{answer.result().message}; {FROM_PRIOR}')

    def _copy_state(self, message: bytes) -> None:
        """Take the state that the learner tells of; without it, the recording goes on."""
        event = _event(message)
        if event['event'] != 'saved':
            return
        try:
            folder, start = Path(event['folder']), {k: event[k] for k in STARTS_WITH}
        except (KeyError, TypeError):
            raise UserError(
                f'{event} does not tell of a state; let the learner alone send'
            ) from None
        self.copied = True
        copy = self.out / STATE_FOLDER
        try:
            if not (folder / STATE).is_file():
                raise UserError(f'{folder} is not on this machine')
            copy.mkdir()
            for path in state_files(folder):
                shutil.copyfile(path, copy / path.name)
            write_atomically(copy / START, json.dumps(start).encode())
        except UserError as error:
            self.skip(LOST_START, f'{error}; {FROM_PRIOR}')
        except OSError as error:
            why = of_a_path(error) or error
            self.lost_start = f'{LOST_START} in {copy}: {why}; {FROM_PRIOR}'
            self.get_logger().error(self.lost_start)
        if not (copy / START).is_file():
            shutil.rmtree(copy, ignore_errors=True)  # half a state is none


def _event(message: bytes) -> dict[str, Any]:
    """What an event tells.

    Raises:
        UserError: it is of others.
    """
    text = deserialize_message(message, topics.EVENT.type).data
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or 'event' not in found:
        raise UserError(f'{text[:40]!r} is no event of the learner; let it alone send there')
    return found


def _knew_more(head: Any, recorded: Collection[int]) -> bool:
    """Whether a belief has learned from more than was recorded before it, at these stamps.

    The first belief to come need not be the learner's first: a newer one takes its place where DDS
    is slow to find the recorder.
    """
    meta = unpack('belief', msg_to_bytes(head), topics.HEAD.name)[1]
    return meta['version'] > sum(stamp <= meta['stamp_ns'] for stamp in recorded)


def _wanted(topic: Topic) -> QoSProfile:
    """As reliable as the publisher, and deep enough to lose nothing.

    State comes from robots that may offer best effort only, so it is taken as sensor data is.
    """
    sensor = topic.type in topics.STATE_TYPES.values() and not topic.node
    return QoSProfile(
        depth=DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if sensor else topic.qos.reliability,
        durability=topic.qos.durability,
    )


def _offered(profile: QoSProfile) -> Qos:
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    never = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        profile.depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run(Recorder, argv)


if __name__ == '__main__':
    raise SystemExit(main())
