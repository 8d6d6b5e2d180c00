"""Transitions on their way: what is no transition is refused or counted, and teaches nothing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.robot import wire
from plants import HOME, stream
from test_outcomes import OUTCOMES, labelled, robot

QUAD = robot(**OUTCOMES)
SIZES = wire.sizes(QUAD)
COUNTS = ('flags', 'sequence', 'episode', 'stamp', 'outcomes')


def message_of(data):
    dim = [SimpleNamespace(label=label, size=size) for label, size in SIZES.items()]
    return SimpleNamespace(layout=SimpleNamespace(dim=dim), data=data)


@given(
    st.sampled_from(COUNTS),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.5, -2.0, 3e7]),
    st.data(),
)
def test_what_counts_must_be_a_whole_number(label, value, data):
    numbers = wire.encode(replace(stream(HOME, 1, 0)[0], outcomes=(1, 2)))
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(label)])
    numbers[start + data.draw(st.integers(0, SIZES[label] - 1))] = value
    with pytest.raises(UserError, match=f'transition of robot quad: {label} is .*whole numbers'):
        wire.decode(QUAD, message_of(numbers))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**24))
def test_every_whole_number_survives(sequence, stamp_ns, episode):
    sent = stream(HOME, 1, 0)[0]
    sent = replace(sent, sequence=sequence, stamp_ns=stamp_ns, episode=episode, outcomes=(0, -1))
    got = wire.decode(QUAD, message_of(wire.encode(sent)))
    assert (got.sequence, got.stamp_ns, got.episode) == (sequence, stamp_ns, episode)
    assert got.outcomes == (0, -1)


@pytest.mark.parametrize('labels', [(2, 0), (0, 3), (-2, 0), (1,), (1, 0, 0)])
def test_a_label_of_no_class_is_counted_and_teaches_nothing(tiny_prior, labels):
    prior = replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=QUAD))
    learner = Learner(prior)
    *before, last = labelled(20, 0)
    for transition in before:
        learner.observe(transition)
    digest = learner.digest()
    learner.observe(replace(last, outcomes=labels))
    assert learner.digest() == digest
    assert learner.skipped == {'no label of an outcome': 1}
    learner.observe(replace(last, stamp_ns=last.stamp_ns + QUAD.period_ns))
    assert learner.learned == 20
