"""Node: everything the graph says, into one MCAP bag."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ..errors import UserError
from . import topics
from .base import OK, BaseNode, Parameter, run
from .topics import Topic

DEPTH = 1000  # messages that may wait while the disk is busy


class Recorder(BaseNode):
    """Writes every topic of the graph to a bag that `ros2 bag` and rosbags read."""

    NAME = 'recorder'
    TASK = 'recording'
    PARAMETERS = (Parameter('out', '', 'folder of the bag; must not exist yet'),)

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
            topics.command_topic(self.spec),
        ]
        if (goal := topics.goal_topic(self.spec)) is not None:
            self.topics.append(goal)
        for topic in self.topics:
            self.listen(topic, partial(self._write, topic.name), _wanted(topic), raw=True)

    def activate(self) -> None:
        self.written = 0
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.writer = Writer(self.out, version=9, storage_plugin=StoragePlugin.MCAP)
        self.writer.open()
        store = get_typestore(Stores.ROS2_JAZZY)
        self.connections = {
            topic.name: self.writer.add_connection(
                self.resolve_topic_name(topic.name),
                type_name(topic),
                typestore=store,
                offered_qos_profiles=[_offered(topic.qos)],
            )
            for topic in self.topics
        }

    def deactivate(self) -> None:
        """The bag is complete: recording again takes a new folder."""
        self.writer.close()

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        return OK, f'recording to {self.value("out")}', {'messages': self.written}

    def _write(self, topic: str, message: bytes) -> None:
        self.writer.write(self.connections[topic], self.get_clock().now().nanoseconds, message)
        self.written += 1


def type_name(topic: Topic) -> str:
    """ROS name of the type of a topic, e.g. std_msgs/msg/String."""
    package = topic.type.__module__.split('.')[0]
    return f'{package}/msg/{topic.type.__name__}'


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
