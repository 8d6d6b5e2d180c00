"""Node: a recorded bag into the graph again, for the learner and the display to follow live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..experiments.bag import Bag, open_bag
from . import topics
from .base import OK, BaseNode, Parameter, run
from .table import RANGES

AGAIN = ('learner', 'uncertainty_viz')  # what these publish is made anew from what is played
TICK = 0.002  # s between two looks at what is due


class Player(BaseNode):
    """Publishes what robot, policy and transition_streamer said, at the pace of the recording.

    The messages go out as they were recorded, byte for byte, so what the learner takes in is what
    the recorded one took in. (`lifelong-bayes replay` does the same without ROS, and faster.)
    """

    NAME = 'player'
    TASK = 'replay'
    PARAMETERS = (
        Parameter('bag', '', 'folder of the bag to play'),
        Parameter(
            'speed', 1.0, 'seconds of the recording per second', *RANGES['speed'], live=True
        ),
        Parameter('shutdown_at_end', False, 'end the process after the last message'),
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.speed = self.value('speed')
        self.opened = ExitStack()
        bag = self.opened.enter_context(open_bag(Path(self.value('bag'))))
        self._check_robot(bag)
        self.reader = bag.reader
        known = [
            *topics.FIXED,
            *topics.state_topics(self.spec).values(),
            topics.command_topic(self.spec),
        ]
        unheard = [topics.DIAGNOSTICS] + [topics.CHOICE] * (not self.spec.policy.used)
        wanted = {t.name: t for t in known if t.node not in AGAIN and t not in unheard}
        self.outputs = {}
        for connection in self.reader.connections:
            name = _known_as(connection.topic, [t.name for t in known])
            if name not in wanted:
                continue
            expected = topics.type_name(wanted[name])
            if connection.msgtype != expected:
                raise UserError(
                    f'{self.value("bag")}: {connection.topic} is {connection.msgtype}, robot '
                    f'{self.spec.name} has {expected} there; give the robot that was recorded'
                )
            self.outputs[connection.id] = self.advertise(wanted[name])
        if not self.outputs:
            raise UserError(
                f'{self.value("bag")} holds no topic of robot {self.spec.name}: '
                f'{", ".join(sorted(self.reader.topics)) or "nothing"}'
            )
        self.every(TICK, self._play)

    def activate(self) -> None:
        chosen = [c for c in self.reader.connections if c.id in self.outputs]
        self.messages: Iterator[Any] = self.reader.messages(connections=chosen)
        self.next = next(self.messages, None)
        self.played = 0
        self.at_ns = self.next[1] if self.next else 0  # how far the recording has come
        self.looked_at = time.monotonic()

    def change(self, news: Mapping[str, Any]) -> None:
        if 'speed' in news:
            self.speed = news['speed']

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        return OK, 'playing' if self.next else 'the bag is over', {'messages': self.played}

    def on_cleanup(self, state: Any) -> Any:
        """Lifecycle transition; closes the bag."""
        self.opened.close()
        return super().on_cleanup(state)

    def _check_robot(self, bag: Bag) -> None:
        """Refuse a bag that tells of another robot, all of whose transitions a learner refuses."""
        try:
            recorded = bag.prior()[0].dynamics.spec
        except UserError:  # without a learner, or of another version
            return
        if differs := self.spec.differs(recorded):
            raise UserError(
                f'{self.value("bag")}: recorded of another robot: {differs}; give the robot that '
                'was recorded'
            )

    def _play(self) -> None:
        now = time.monotonic()
        self.at_ns += round((now - self.looked_at) * self.speed * 1e9)
        self.looked_at = now
        while self.next is not None and self.next[1] <= self.at_ns:
            connection, _, data = self.next
            self.outputs[connection.id].publish(bytes(data))
            self.played += 1
            self.next = next(self.messages, None)
        if self.next is None and self.value('shutdown_at_end'):
            self.stop.set()


def _known_as(topic: str, names: Iterable[str]) -> str | None:
    """The name that a topic has here, recorded under whatever namespace; None: it has none.

    Of several that it ends with the longest; a name that begins with / is in no namespace, but
    for the clock, which each simulated robot may have in its own.
    """
    fits = [n for n in names if topic == n or topic.endswith(f'/{n}')]
    fits += [topics.CLOCK.name] * topic.endswith(topics.CLOCK.name)
    return max(fits, key=len, default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run(Player, argv)


if __name__ == '__main__':
    raise SystemExit(main())
