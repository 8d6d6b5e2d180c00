"""What a bag shows of a robot's topics."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..robot.observation import COMMAND_TYPES, STATE_TYPES, Seen, in_robot_time
from .bag import DAMAGED, open_bag


def observe_bag(path: Path) -> list[Seen]:
    """Every topic of a bag that may be state or command, with its messages.

    Raises:
        UserError: it does not exist, is not readable, or holds no such topic.
    """
    with open_bag(path) as bag:
        wanted = [c for c in bag.reader.connections if c.msgtype in {*STATE_TYPES, *COMMAND_TYPES}]
        topics = {c.topic: Seen(c.topic, c.msgtype) for c in wanted}
        if not topics:
            raise UserError(
                f'{path}: no topic of state or commands; it holds '
                f'{", ".join(sorted(bag.reader.topics)) or "nothing"}'
            )
        try:
            for connection, stamp_ns, data in bag.reader.messages(connections=wanted):
                message = bag.reader.deserialize(data, connection.msgtype)
                topics[connection.topic].add(message, stamp_ns * 1e-9)
        except DAMAGED as error:
            raise UserError(f'{path}: not readable to its end ({error}); record it anew') from None
    in_robot_time(topics.values())
    return list(topics.values())
