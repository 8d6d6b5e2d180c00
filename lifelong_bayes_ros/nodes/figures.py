"""Named figures of every step on one topic, and a few of them per second on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .codecs import named

if TYPE_CHECKING:
    from .base import BaseNode
    from .topics import Topic

DISPLAY_NS = 100_000_000  # between two messages for displays, by the stamps of what they tell of


class Figures:
    """Tells whoever listens how things stand; what nobody listens to need not be worked out.

    A display draws a few pictures per second. To be sent every step costs it, and a radio link,
    more than the drawing does.
    """

    def __init__(self, node: BaseNode, every: Topic, display: Topic) -> None:
        """Advertise both topics.

        Args:
            node: that is being configured.
            every: where each step is told of.
            display: the same, for displays.
        """
        self.every, self.display = node.advertise(every), node.advertise(display)
        self._told_ns = -DISPLAY_NS

    def wanted(self, stamp_ns: int) -> bool:
        """Whether somebody listens to what is to be told of this time."""
        return self.every.get_subscription_count() > 0 or self._due(stamp_ns)

    def publish(self, values: Mapping[str, float], stamp_ns: int) -> None:
        """Tell of one step to those who listen."""
        message = named(values, stamp_ns)
        if self.every.get_subscription_count():
            self.every.publish(message)
        if self._due(stamp_ns):
            self._told_ns = stamp_ns
            self.display.publish(message)

    def _due(self, stamp_ns: int) -> bool:
        since = stamp_ns - self._told_ns  # below 0 where the clock was set back
        return not 0 <= since < DISPLAY_NS and self.display.get_subscription_count() > 0
