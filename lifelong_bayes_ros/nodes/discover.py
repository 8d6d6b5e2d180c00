"""What the running robot publishes, for a first robot file."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from ..errors import UserError
from ..robot.observation import Seen, in_robot_time
from .commands import COMMAND_TYPES
from .executor import Executor
from .topics import STATE_TYPES

FIND_SECONDS = 4.0  # a participant that was there before is found within 3.3 s
TYPES = {**STATE_TYPES, **COMMAND_TYPES}
LISTEN = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)


def observe_topics(seconds: float, domain_id: int | None = None) -> list[Seen]:
    """Listen to every topic that may be state or command.

    Args:
        seconds: how long to listen, after the topics were found.
        domain_id: ROS domain; the environment's if not given.

    Raises:
        UserError: no such topic is there.
    """
    context = Context()
    context.init(domain_id=domain_id)
    executor = Executor(context)
    try:
        node = rclpy.create_node('robot_init', context=context)
        executor.add_node(node)
        found: dict[str, Seen] = {}
        started = time.monotonic()
        while time.monotonic() < started + FIND_SECONDS + seconds:
            executor.round(0.05)
            if time.monotonic() < started + FIND_SECONDS:
                _join(node, found)
        for seen in found.values():
            seen.taken = node.count_subscribers(seen.topic) > 1  # one is ours
        others = sorted(dict(node.get_topic_names_and_types()).keys() - found.keys())
        node.destroy_node()
    finally:
        executor.shutdown()
        context.try_shutdown()
    if not found:
        raise UserError(
            f'no topic of state or commands was found, only {", ".join(others)}; start the robot, '
            'and give the ROS domain that it is in'
        )
    in_robot_time(found.values())
    return list(found.values())


def _join(node: Node, found: dict[str, Seen]) -> None:
    for topic, types in node.get_topic_names_and_types():
        known = [kind for kind in types if kind in TYPES]
        if topic in found or not known:
            continue
        found[topic] = Seen(topic, known[0])
        node.create_subscription(TYPES[known[0]], topic, partial(_take, found[topic]), LISTEN)


def _take(seen: Seen, message: Any) -> None:
    seen.add(message, time.monotonic())
