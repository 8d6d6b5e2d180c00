"""Figures of every step for those who listen, and few per second for displays."""

import itertools

import numpy as np
import pytest

pytest.importorskip('rclpy')

from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.codecs import from_named
from lifelong_bayes_ros.nodes.figures import DISPLAY_NS, Figures


class Output:
    def __init__(self):
        self.listeners, self.sent = 0, []

    def get_subscription_count(self):
        return self.listeners

    def publish(self, message):
        self.sent.append(from_named(message))


class Node:
    """Advertises what can be looked into."""

    def __init__(self):
        self.outputs = {}

    def advertise(self, topic):
        return self.outputs.setdefault(topic.name, Output())


def figures():
    node = Node()
    made = Figures(node, topics.UNCERTAINTY, topics.UNCERTAINTY_DISPLAY)
    return made, *node.outputs.values()


@given(
    st.lists(st.integers(1, 3 * DISPLAY_NS), min_size=1, max_size=60),
    st.integers(0, 10**18),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_display_gets_no_more_than_its_rate_and_misses_nothing_else(gaps, start, listened):
    made, every, display = figures()
    every.listeners, display.listeners = int(listened), 1
    stamps = [start + t for t in itertools.accumulate(gaps)]
    for stamp in stamps:
        assert made.wanted(stamp) or not listened
        if made.wanted(stamp):
            made.publish({'stamp': float(stamp % 1000)}, stamp)
    assert [s for s, _ in every.sent] == (stamps if listened else [])
    shown = [s for s, _ in display.sent]
    assert shown[0] == stamps[0]
    assert (np.diff(shown) >= DISPLAY_NS).all()
    # What is told is never older than the rate asks for.
    for stamp in stamps:
        assert stamp - max(s for s in shown if s <= stamp) < DISPLAY_NS
    assert all(values == {'stamp': float(s % 1000)} for s, values in display.sent)


def test_nothing_is_wanted_where_nobody_listens():
    made, every, display = figures()
    assert not made.wanted(10**9)
    display.listeners = 1
    assert made.wanted(10**9)
    made.publish({'nis': 1.0}, 10**9)
    assert not made.wanted(10**9 + DISPLAY_NS // 2)
    assert (len(every.sent), len(display.sent)) == (0, 1)
    every.listeners = 1
    assert made.wanted(10**9 + DISPLAY_NS // 2)


def test_a_clock_that_is_set_back_does_not_silence_it():
    made, _, display = figures()
    display.listeners = 1
    for stamp in (10**12, 0, 1):
        if made.wanted(stamp):
            made.publish({}, stamp)
    assert [s for s, _ in display.sent] == [10**12, 0]
