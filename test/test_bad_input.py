"""Bad input, drawn at random: counted or refused, and the posterior stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plants
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.settings import COUNTS, LearnerConfig
from lifelong_bayes_ros.robot.transitions import Flag, StateAssembler, TransitionBuilder
from plants import HOME, QUAD, stream

CONFIG = LearnerConfig(background=False)
BAD = st.sampled_from([np.nan, np.inf, -np.inf])
UNUSABLE = (Flag.FIRST, Flag.GAP, Flag.NO_ACTION)


@pytest.fixture(scope='module')
def grown():
    """A learner with something to lose."""
    learner = Learner(plants.tiny_prior(), CONFIG)
    for transition in stream(HOME, 40, 0):
        learner.observe(transition)
    learner.take_events()
    return learner


@st.composite
def spoilt(draw):
    """A transition that nothing can be learned from, and why."""
    good = stream(HOME, 1, draw(st.integers(0, 20)), 40)[0]
    part = draw(st.sampled_from(['state', 'action', 'next_state']))
    values = getattr(good, part).copy()
    where = draw(st.integers(0, len(values) - 1))
    kinds = ['not finite', 'out of range', 'beyond', 'not usable', 'dt', 'repeated stamp']
    kind = draw(st.sampled_from(kinds))
    if kind == 'not usable':
        return replace(good, flags=draw(st.sampled_from(UNUSABLE))), kind
    if kind == 'dt':
        dt = draw(st.one_of(BAD, st.sampled_from([0.0, -0.03, 0.0149, 0.0451, 100.0])))
        return replace(good, dt=dt), 'dt far from the period'
    if kind == 'repeated stamp':
        return replace(good, stamp_ns=None), kind
    if kind == 'beyond':
        part, values = 'action', good.action.copy()
        where = draw(st.integers(0, 1))
        outside = draw(st.floats(0.1, 50)) * QUAD.action_half_range[where]
        ends = QUAD.action_low[where] - outside, QUAD.action_high[where] + outside
        values[where] = draw(st.sampled_from(ends))
        return replace(good, **{part: values}), 'command beyond the limits'
    values[where] = draw(BAD) if kind == 'not finite' else draw(st.sampled_from([1e9, -1e9]))
    # Where the robot is, and at which angle, is not limited: an angle wraps.
    if kind == 'out of range' and part != 'action' and where < 3:
        values[3] = 1e9
    if kind == 'out of range' and part == 'action':
        kind = 'command beyond the limits'
    return replace(good, **{part: values}), kind


@settings(max_examples=60)
@given(st.lists(spoilt(), min_size=1, max_size=5))
def test_spoilt_transitions_are_counted_and_leave_the_posterior_as_it_was(grown, transitions):
    digest, skipped, learned = grown.digest(), grown.skipped.copy(), grown.learned
    theta = grown.belief().theta.copy()
    for transition, reason in transitions:
        later = 0 if transition.stamp_ns is None else QUAD.period_ns
        grown.observe(replace(transition, stamp_ns=grown.stamp_ns + later))
        skipped[reason] += 1
    assert grown.digest() == digest and grown.learned == learned
    np.testing.assert_array_equal(grown.belief().theta, theta)
    assert grown.skipped == skipped
    assert grown.take_events() == []


def test_commands_at_the_limits_are_learned_from(grown):
    good = stream(HOME, 1, 5, 40)[0]
    learner = Learner(plants.tiny_prior(), CONFIG)
    for stamp_ns, value in enumerate((QUAD.action_low, QUAD.action_high)):
        learner.observe(replace(good, action=value.astype(np.float32), stamp_ns=stamp_ns))
    assert learner.learned == 2 and not learner.skipped


READINGS = st.tuples(
    st.sampled_from([0.0, 0.2, 0.74, 0.8, 1.0, 1.3, 1.6, 4.0, -1.0]),  # periods since the last one
    st.one_of(st.floats(-3, 3), BAD),
    st.integers(0, 5),  # the channel that has this value
    st.booleans(),  # whether it is answered by a command
)


@settings(max_examples=40)
@given(st.lists(READINGS, min_size=3, max_size=25))
def test_whatever_the_stamps_and_readings_what_is_learned_from_is_sound(readings):
    """Repeated stamps, gaps, time that runs backwards, values that are not finite."""
    learner = Learner(plants.tiny_prior(), CONFIG)
    assembler, builder = StateAssembler(QUAD), TransitionBuilder(QUAD)
    names, stamp, sent = QUAD.state_names, 10**9, []
    for periods, value, channel, answered in readings:
        stamp += round(periods * QUAD.period_ns)
        values = dict.fromkeys(names, 0.1) | {names[channel]: value}
        state = assembler.update('odom', stamp, values)
        if state is not None:
            sent += builder.add_state(state)
            if answered:
                sent += builder.add_command(state.stamp_ns, QUAD.neutral)
    for transition in sent:
        before = learner.digest()
        learner.observe(transition)
        sound = 0.499 < transition.dt / QUAD.period < 1.501
        assert not transition.usable or sound
        assert transition.usable or learner.digest() == before
    covariance = learner.live.posterior.covariance
    assert np.isfinite(covariance.numpy()).all()
    assert learner.live.posterior.factor().isfinite().all()  # positive definite
    assert learner.learned + sum(learner.skipped.values()) == len(sent)


def test_constant_channels_teach_nothing_about_others():
    """A robot at rest: nothing grows, and what is not excited stays as open as it was."""
    learner = Learner(plants.tiny_prior(), CONFIG)
    good = stream(HOME, 1, 3)[0]
    probe = stream(HOME, 1, 8)[0]
    design = learner.dynamics.design(
        probe.state.astype(float), probe.action.astype(float), learner.dynamics.history()
    )

    def openness(posterior):
        return np.trace(design @ posterior.covariance.numpy() @ design.T)

    before = openness(learner.family)
    for number in range(300):
        still = replace(
            good, next_state=good.state, stamp_ns=(number + 1) * QUAD.period_ns, sequence=number
        )
        learner.observe(still)
    assert learner.learned == 300
    assert np.isfinite(learner.belief().theta).all()
    assert learner.live.posterior.factor().isfinite().all()
    assert 1e-3 * before < openness(learner.live.posterior) < 200 * before


def test_a_prior_of_other_dimensions_is_refused(tmp_path):
    pytest.importorskip('rclpy')
    import rclpy

    from lifelong_bayes_ros.nodes.learner import LearnerNode

    path = tmp_path / 'quad.safetensors'
    path.write_bytes(encode_prior(plants.tiny_prior()))
    rclpy.init(args=['--ros-args', '-p', 'robot:=arm', '-p', f'prior:={path}'])
    try:
        node = LearnerNode()
        with pytest.raises(UserError, match=r"the prior was made for robot 'quad' with other"):
            node.configure()
        node.destroy_node()
    finally:
        rclpy.shutdown()


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *((name, least - 1) for name, least in COUNTS.items()),
        ('journal', 1.5),
        ('random_walk', -1e-9),
        ('recall_widen', np.nan),
        ('confidence_home', 1.1),
        ('guard_weight', -0.1),
        ('recall_nats', np.nan),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f'^{name} {value}: give'):
        LearnerConfig(**{name: value})


@pytest.mark.parametrize('name', COUNTS)
def test_the_least_of_every_setting_serves(name):
    """With the trunk learning, so that every part is there."""
    config = replace(LearnerConfig(), trunk_every=40, trunk_window=60)
    learner = Learner(plants.tiny_prior(), replace(config, **{name: COUNTS[name]}))
    for transition in stream(HOME, 60, 0) + stream(plants.LOSS, 60, 1, 60):
        learner.observe(transition)
    learner.consolidate()
    assert learner.learned == 120
    assert learner.live.posterior.factor().isfinite().all()
    learner.background.close()
