"""The offset: against the mean residual of what was acted on, worked out beside the learner."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.belief import predict
from lifelong_bayes_ros.learning import surprise
from lifelong_bayes_ros.learning.learner import HYPOTHESES, LIVE, Learner
from lifelong_bayes_ros.learning.offset import CLIP, SHARE, Offset
from lifelong_bayes_ros.memory.regimes import NOMINAL
from plants import HOME, LOSS, stream
from test_learner import live


@given(st.lists(st.floats(-2.9, 2.9), min_size=2, max_size=2), st.integers(1, 400))
def test_it_comes_to_what_a_model_is_always_off_by(off, steps):
    offset = Offset(np.ones(2))
    for _ in range(steps):
        offset.follow(np.array(off))
    left = (1 - SHARE) ** steps
    np.testing.assert_allclose(offset.mean, (1 - left) * np.array(off), atol=1e-12)


@settings(max_examples=30)
@given(st.floats(1e-6, 1e3), st.floats(-1e12, 1e12), st.integers(1, 50))
def test_a_residual_counts_for_no_more_than_chance_makes(variance, residual, steps):
    offset, limit = Offset(np.full(1, variance)), CLIP * np.sqrt(variance)
    for _ in range(steps):
        before = offset.mean
        offset.follow(np.array([residual]))
        assert np.abs(offset.mean - before) <= SHARE * 2 * limit
    assert np.abs(offset.mean) <= limit


def test_it_is_the_mean_residual_of_the_model_alone(tiny_prior):
    prior = replace(tiny_prior, hypotheses=None)  # what is learned is what is acted on
    learner, dynamics = Learner(prior), prior.dynamics
    limit, expected = CLIP * np.sqrt(prior.noise), np.zeros(len(dynamics.scale))
    happened = []
    for transition in stream(HOME, 70, 0) + stream(LOSS, 90, 1, 70):
        learner.guarded = False
        belief, past = learner.belief(), learner.past
        np.testing.assert_allclose(belief.offset, expected, rtol=1e-3, atol=1e-5)
        x, u = transition.state.astype(float), transition.action.astype(float)
        alone = predict(dynamics, belief.anywhere(), x, u, past).mean
        with_it = predict(dynamics, belief, x, u, past).mean
        np.testing.assert_allclose(with_it - alone, dynamics.scale * belief.offset, atol=1e-6)
        residual = (transition.next_state - alone) / dynamics.scale
        expected = expected + SHARE * (np.clip(residual, -limit, limit) - expected)
        learner.observe(transition)
        events = {e.event for e in learner.take_events()}
        happened += events
        if events & {'shift', 'recall', 'soft_shift'}:
            expected = np.zeros_like(expected)
    assert 'shift' in happened
    assert np.abs(learner.offset).max() > 1e-2


def test_each_model_has_its_own_and_the_nominal_one_of_the_guard_none(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 40, 0))
    seen = {}
    for guarded, dense in ((False, False), (False, True), (True, False)):
        learner.guarded, learner.dense = guarded, dense
        seen[learner.acted] = learner.belief().offset
    assert np.abs(seen[HYPOTHESES]).min() > 0
    assert np.abs(seen[LIVE] - seen[HYPOTHESES]).max() > 0
    assert not seen[NOMINAL].any()


@pytest.mark.parametrize('how', ['refused', 'not learning', 'other memories'])
def test_where_the_robot_may_be_elsewhere_there_is_none(tiny_prior, how):
    learner, after = live(tiny_prior, stream(HOME, 40, 0)), stream(HOME, 1, 1, 40)[0]
    learner.guarded = False
    assert np.abs(learner.belief().offset).max() > 0
    if how == 'refused':
        learner.observe(replace(after, state=np.full(6, np.nan, np.float32)))
    elif how == 'not learning':
        learner.learning = False
        learner.observe(after)
    else:
        learner.relearn([])
    assert not learner.belief().offset.any()


def test_at_a_weak_shift_it_begins_again(tiny_prior, monkeypatch):
    for limit in ('FAST_LIMIT', 'SLOW_LIMIT'):  # else the surprise test is first
        monkeypatch.setattr(surprise, limit, np.inf)
    learner = live(tiny_prior, stream(LOSS, 200, 0), recall_nats_calm=np.inf)
    learner.take_events()
    for transition in stream(HOME, 150, 2, first=200):
        learner.observe(transition)
        if 'soft_shift' in {e.event for e in learner.take_events()}:
            break
    else:
        pytest.fail('there was no weak shift')
    assert not any(offset.mean.any() for offset in learner.offsets.values())
