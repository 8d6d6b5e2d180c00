"""Whether what a node listens to really comes in, and if it does not, why."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from .topics import Topic, type_name

WINDOW = 20  # stamps that a rate is taken from
MISFIT = 'its quality of service does not fit'
FITTING = 'start it with one of docs/reference.md'
RECORDERS = ('recorder', 'rosbag2_recorder')
SLOW = 1.5  # control periods between two states from which on nothing is learned from them


@dataclass
class Input:
    """A topic that a node listens to, and what has come of it.

    `mend`: what an operator may change, for the text of a complaint; empty: it may well be silent.
    `period`: s between two stamps that are wanted at most; none: any. `frame`: the frame that the
    messages should be in; empty: any. `now`: the node's time, ns, of messages without a stamp.
    """

    topic: Topic
    qos: QoSProfile
    mend: str = ''
    period: float | None = None
    frame: str = ''
    now: Callable[[], int] = time.monotonic_ns
    received: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    stamps: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    wrong_frame: str | None = None

    def saw(self, message: Any) -> None:
        """Note a message that came in."""
        self.received += 1
        self.heard_at = time.monotonic()
        if not (self.period or self.frame):
            return
        header = getattr(message, 'header', None)
        if header is None:
            stamp = self.now()
        else:
            stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
            self.wrong_frame = header.frame_id if header.frame_id != self.frame else None
        if self.stamps and stamp < self.stamps[-1]:
            self.stamps.clear()  # time ran backwards
        self.stamps.append(stamp)

    def begin(self) -> None:
        """Measure from now on."""
        self.heard_at = time.monotonic()
        self.stamps.clear()

    def complaint(self, node: Node, patience: float) -> str:
        """What is wrong with this input, and the mend; empty: nothing.

        Args:
            node: whose input it is; its graph is asked only where nothing comes in.
            patience: s without a message that are no reason to complain.
        """
        silent = time.monotonic() - self.heard_at
        if silent > patience:
            return self._why_silent(node)
        return self._wrong_rate() or self._wrong_frame()

    def _why_silent(self, node: Node) -> str:
        name = node.resolve_topic_name(self.topic.name)
        writers = node.get_publishers_info_by_topic(name)
        if not writers:
            return f'nobody publishes {name}; {self.mend}' if self.mend else ''
        wrong = [refusal(self, writer) for writer in writers]
        if all(wrong):
            return f'{name}: {wrong[0]}'
        if self.mend and self.received == 0:
            return f'{name} is published, but no message has come yet; {self.mend}'
        return f'{name}: no message comes any more; {self.mend}' if self.mend else ''

    def _wrong_rate(self) -> str:
        if self.period is None or len(self.stamps) < WINDOW:
            return ''
        each = float(np.median(np.diff(self.stamps))) * 1e-9  # a single leap is no rate
        if each == 0:
            return f'{self.topic.name}: all messages have one stamp; its publisher must stamp them'
        if each <= SLOW * self.period:
            return ''
        return (
            f'{self.topic.name} comes at {1 / each:.3g} Hz, period {self.period:g} wants '
            f'{1 / self.period:.3g} Hz, so nothing is learned; publish it faster or mend period'
        )

    def _wrong_frame(self) -> str:
        if self.wrong_frame is None or not self.frame:
            return ''
        return (
            f'{self.topic.name} is in frame {self.wrong_frame!r}, the robot file says '
            f'{self.frame!r}; mend `frame` there or the header'
        )


def refusal(wanted: Input, writer: TopicEndpointInfo) -> str:
    """Why messages of a publisher cannot come in; empty: they can."""
    who = f'{writer.node_namespace.rstrip("/")}/{writer.node_name}'
    expected = type_name(wanted.topic)
    if writer.topic_type != expected:
        return f'{who} publishes {writer.topic_type}, {expected} is expected'
    verdict, reason = qos_check_compatible(writer.qos_profile, wanted.qos)
    if verdict == QoSCompatibility.ERROR:
        return f'{who}: {MISFIT} ({reason.strip()}); {FITTING}'
    return ''


def unheard(node: Node, topic: Topic, mend: str = '') -> str:
    """Why somebody does not hear what we publish, and the mend; empty: all do.

    `mend`: for the case that nobody listens; empty: nobody need. Recorders do not count.
    """
    name, expected = node.resolve_topic_name(topic.name), type_name(topic)
    readers = node.get_subscriptions_info_by_topic(name) if mend else []
    readers = [reader for reader in readers if reader.node_name not in RECORDERS]
    if mend and not readers:
        return f'nobody hears {name}; {mend}'
    for reader in readers:
        if reader.topic_type != expected:
            who = f'{reader.node_namespace.rstrip("/")}/{reader.node_name}'
            return (
                f'{who} hears {name} as {reader.topic_type}, {expected} is sent; mend '
                'command.type in the robot file'
            )
    me = (node.get_namespace(), node.get_name())
    for writer in node.get_publishers_info_by_topic(name):
        if (writer.node_namespace, writer.node_name) != me:
            continue
        for reader in node.get_subscriptions_info_by_topic(name):
            verdict, reason = qos_check_compatible(writer.qos_profile, reader.qos_profile)
            if verdict == QoSCompatibility.ERROR:
                who = f'{reader.node_namespace.rstrip("/")}/{reader.node_name}'
                return f'{who} cannot hear {name}: {MISFIT} ({reason.strip()}); {FITTING}'
    return ''
