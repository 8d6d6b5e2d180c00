"""The policy node by itself: beliefs in any order, goals, stops, late plans and what it says."""

import math
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Path
from rclpy.parameter import Parameter as RosParameter
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lifelong_bayes_ros.control.goals import FileGoal
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import encode_belief, encode_prior, fingerprint
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.nodes import topics
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.codecs import (
    bytes_to_msg,
    from_named,
    state_messages,
    table_from_msg,
)
from lifelong_bayes_ros.nodes.goals import read_goal
from lifelong_bayes_ros.nodes.inputs import Input
from lifelong_bayes_ros.nodes.policy import Policy, _why_careful
from lifelong_bayes_ros.nodes.topics import Topic
from lifelong_bayes_ros.nodes.transition_streamer import TransitionStreamer
from lifelong_bayes_ros.robot.spec import load_robot
from plants import QUAD


@pytest.fixture
def policy():
    """An active policy for the quadrotor, alone in a domain of its own."""
    domain, lock = claim_domain()
    rclpy.init(args=['--ros-args', '-p', 'robot:=quad'], domain_id=domain)
    node = Policy()
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node._settle()
    node.destroy_node()
    rclpy.try_shutdown()
    lock.close()


@pytest.mark.parametrize('head_first', [False, True])
def test_a_head_that_overtakes_its_trunk_is_not_lost(policy, tiny_prior, head_first):
    belief = Learner(tiny_prior).belief()
    trunk = bytes_to_msg(encode_prior(tiny_prior))
    head = bytes_to_msg(encode_belief(belief, fingerprint(tiny_prior)))
    arrivals = [(policy._on_belief, head), (policy._on_trunk, trunk)]
    for receive, message in arrivals if head_first else reversed(arrivals):
        assert policy.belief is None
        receive(message)
    assert policy.belief.version == belief.version


def test_a_head_of_another_trunk_is_left_out_when_a_trunk_arrives(policy, tiny_prior):
    policy._on_belief(bytes_to_msg(encode_belief(Learner(tiny_prior).belief(), 'another')))
    policy._on_trunk(bytes_to_msg(encode_prior(tiny_prior)))
    assert policy.belief is None
    assert policy.controller is not None


def test_until_a_new_trunk_has_its_head_the_old_one_answers(policy, tiny_prior):
    believe(policy, tiny_prior)
    dynamics = tiny_prior.dynamics
    changed = replace(tiny_prior, dynamics=replace(dynamics, nominal=2 * dynamics.nominal))
    policy._on_trunk(bytes_to_msg(encode_prior(changed)))
    assert policy.belief is not None
    np.testing.assert_array_equal(policy.controller.dynamics.nominal, dynamics.nominal)
    late = encode_belief(Learner(tiny_prior).belief(), fingerprint(tiny_prior))
    policy._on_belief(bytes_to_msg(late))  # a last one of the old trunk
    np.testing.assert_array_equal(policy.controller.dynamics.nominal, dynamics.nominal)
    head = encode_belief(Learner(changed).belief(), fingerprint(changed))
    policy._on_belief(bytes_to_msg(head))
    np.testing.assert_array_equal(policy.controller.dynamics.nominal, 2 * dynamics.nominal)
    assert policy.prior_id == fingerprint(changed)


def test_a_head_that_cannot_be_read_makes_the_one_before_no_younger(policy, sent, tiny_prior):
    believe(policy, tiny_prior, replace(Learner(tiny_prior).belief(), stamp_ns=0))
    tell_state(policy, 0)
    foreign = bytes_to_msg(encode_belief(Learner(tiny_prior).belief(), 'another'))
    for tick in range(1, 60):
        with pytest.raises(UserError, match='made for prior another'):
            policy._on_belief(foreign)
        tell_state(policy, tick)
    assert policy.counts['stale belief'] > 0  # after max_belief_age
    assert diagnosis(policy)[0].startswith('acting carefully: the belief is stale')


# ---------------------------------------------------------------------- acting
PERIOD = QUAD.period_ns


@pytest.fixture
def sent(policy, monkeypatch):
    """What the policy publishes, by topic."""
    publishers = {
        'command': policy.commands,
        'uncertainty': policy.uncertainty.every,
        'plan_spreads': policy.plan_spreads,
    }
    sent = {name: [] for name in publishers}
    for name, publisher in publishers.items():
        monkeypatch.setattr(publisher, 'publish', sent[name].append)
        monkeypatch.setattr(publisher, 'get_subscription_count', lambda: 1)
    return sent


def believe(policy, prior, belief=None):
    policy._on_trunk(bytes_to_msg(encode_prior(prior)))
    belief = belief or Learner(prior).belief()
    policy._on_belief(bytes_to_msg(encode_belief(belief, fingerprint(prior))))


def tell_state(policy, tick, x=(0.0, 1.5, 0.0, 0.0, 0.0, 0.0)):
    for source, message in state_messages(QUAD, (tick + 1) * PERIOD, np.float32(x)).items():
        policy._on_state(source, message)


def diagnosis(policy):
    _, message, figures = policy.diagnose()
    return message, figures


def test_nothing_is_told_to_nobody(policy, sent, tiny_prior, monkeypatch):
    believe(policy, tiny_prior)
    for listeners in (0, 1):
        listened_to = policy.uncertainty.every
        monkeypatch.setattr(listened_to, 'get_subscription_count', lambda n=listeners: n)
        tell_state(policy, listeners)
        assert (len(sent['command']), len(sent['uncertainty'])) == (listeners + 1, listeners)


def test_a_belief_of_another_robot_leaves_the_robot_in_its_safe_action(policy, sent, tiny_prior):
    spec = QUAD.model_copy(update={'period': 0.02})
    other = replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=spec))
    believe(policy, other)
    assert policy.counts['belief of another robot'] == 1
    assert policy.belief is None
    for tick in range(QUAD.safe_action.ticks + 3):
        tell_state(policy, tick)
    commands = [list(m.data) for m in sent['command']]
    np.testing.assert_allclose(commands, [QUAD.neutral] * QUAD.safe_action.ticks, rtol=1e-6)
    why = 'no belief yet: period_ns is 20000000, here 30000000; start the learner with'
    assert diagnosis(policy)[0].startswith(why)
    believe(policy, tiny_prior)
    tell_state(policy, tick + 1)
    assert 'no belief' not in diagnosis(policy)[0]


def test_a_belief_of_another_version_is_refused(policy, tiny_prior, monkeypatch):
    monkeypatch.setattr('lifelong_bayes_ros.learning.codec.VERSION', 99)
    message = bytes_to_msg(encode_prior(tiny_prior))
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"format version '99', this package reads"):
        policy._on_trunk(message)
    assert policy.controller is None


def test_it_says_how_sure_it_is_per_channel_and_along_its_plan(
    policy, sent, tiny_prior, monkeypatch
):
    monkeypatch.setattr(policy.plans, 'get_subscription_count', lambda: 1)
    believe(policy, tiny_prior)
    policy.deadline.seconds = 30.0
    tell_state(policy, 10)
    _, values = from_named(sent['uncertainty'][0])
    kinds = ('mean', 'epistemic', 'aleatoric')
    assert {f'{n}.{k}' for n in QUAD.state_names for k in kinds} <= values.keys()
    assert (values['authority'], values['late']) == (1.0, 0.0)
    policy.forecaster.settle()
    table = table_from_msg(sent['plan_spreads'][0], topics.SPREAD_AXES)
    assert table.shape == (3, QUAD.planner.horizon, len(QUAD.state))
    first = np.array([[values[f'{n}.{k}'] for n in QUAD.state_names] for k in kinds])
    np.testing.assert_allclose(table[:, 0], first, rtol=0.05, atol=1e-4)
    assert (table[2, -1] > table[2, 0]).all()  # noise adds up


def test_an_estop_latches_and_silence_follows(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    policy._on_estop(Bool(data=True))
    policy._on_estop(Bool(data=False))
    for tick in range(QUAD.safe_action.ticks + 3):
        tell_state(policy, tick)
    assert len(sent['command']) == QUAD.safe_action.ticks
    np.testing.assert_allclose(sent['command'][-1].data, QUAD.neutral, rtol=1e-6)
    said, figures = diagnosis(policy)
    assert said == 'stopped; call ~/enable to go on'
    assert figures['why stopped'] == 'stopped by estop'
    assert policy._on_enable(SetBool.Request(data=True)) == (True, 'acting')
    tell_state(policy, tick + 1)
    assert len(sent['command']) == QUAD.safe_action.ticks + 1


def test_a_stop_outlasts_deactivation(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    tell_state(policy, 0)
    policy._on_estop(Bool(data=True))
    policy.trigger_deactivate()
    policy.trigger_activate()
    assert policy.safety.stopped == 'stopped by estop'
    assert not policy.value('enabled')
    policy._on_enable(SetBool.Request(data=True))
    policy.trigger_deactivate()
    policy.trigger_activate()
    assert not policy.safety.stopped
    assert policy.value('enabled')


def test_what_an_operator_said_outlasts_configuration_and_process(policy):
    policy.set_parameters([RosParameter('limits.left.high', value=5.0)])
    policy._on_estop(Bool(data=True))
    policy.trigger_deactivate()
    policy.trigger_cleanup()
    policy.trigger_configure()
    policy.trigger_activate()
    assert policy.safety.stopped == 'stopped by estop'
    policy.set_parameters([RosParameter('limits.right.high', value=6.0)])
    for orderly in (False, True):
        if orderly:
            policy.operator.kept.forget()  # as `destroy_node` does
        node = Policy()
        node.trigger_configure()
        node.trigger_activate()
        try:
            assert node.safety.stopped == ('' if orderly else 'stopped by estop')
            assert node.value('enabled') == orderly
            ends = [a.high for a in QUAD.action] if orderly else [5.0, 6.0]
            assert [node.value(f'limits.{a}.high') for a in ('left', 'right')] == ends
            np.testing.assert_allclose(node.safety.allowed[1], ends, rtol=1e-6)
        finally:
            node.destroy_node()


def test_the_last_command_does_not_stay_in_force(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    tell_state(policy, 0)
    policy.trigger_deactivate()
    assert len(sent['command']) == 2
    np.testing.assert_allclose(sent['command'][1].data, QUAD.neutral, rtol=1e-6)


def test_in_lockstep_a_learner_that_began_anew_is_not_waited_for(policy, sent, tiny_prior):
    policy.lockstep, policy.deadline = True, None
    believe(policy, tiny_prior)
    policy.belief = replace(policy.belief, stamp_ns=PERIOD)
    tell_state(policy, 0)
    assert len(sent['command']) == 1
    tell_state(policy, 1)  # what led to it was lost with the learner
    assert len(sent['command']) == 1
    believe(policy, tiny_prior)
    assert len(sent['command']) == 2
    tell_state(policy, 2)  # but what comes from then on is awaited
    assert len(sent['command']) == 2


@pytest.mark.parametrize(
    ('probability', 'ood', 'said'),
    [(0.001, 0.1, ''), (0.6, 0.1, 'the regime is unknown (60%)'), (0.6, 50.0, 'far from what')],
)
def test_it_says_why_it_is_careful_and_only_where_it_is(probability, ood, said):
    begin = QUAD.safety.ood.begin
    trust = 1 - probability * (1 - QUAD.safety.new_regime)
    belief = SimpleNamespace(regimes={'new': probability})
    spread = SimpleNamespace(ood=ood)
    act = SimpleNamespace(stale=False, plan=object(), authority=trust, spread=spread)
    assert _why_careful(act, belief, begin).startswith(said)
    assert bool(said) == bool(_why_careful(act, belief, begin))


def test_a_late_plan_is_counted_and_answered_all_the_same(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    policy.deadline.seconds = 30.0
    tell_state(policy, 0)
    policy.deadline.seconds = 0.0
    think, gate = policy.controller.think, threading.Event()
    policy.controller.think = lambda *args: gate.wait() and think(*args)
    try:
        for tick in range(1, 4):
            tell_state(policy, tick)
    finally:
        gate.set()
    assert len(sent['command']) == 4
    assert policy.counts['late plans'] == 3
    assert from_named(sent['uncertainty'][-1])[1]['late'] == 1.0


def test_a_stop_and_a_goal_do_not_wait_for_a_plan(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    tell_state(policy, 0)
    policy.deadline.seconds = 0.0
    think, gate = policy.controller.think, threading.Event()
    policy.controller.think = lambda *args: gate.wait(60) and think(*args)
    try:
        tell_state(policy, 1)
        policy._on_goal(pose())
        assert policy.goal is not None
        policy._on_estop(Bool(data=True))
        tell_state(policy, 2)
        assert not gate.is_set()
        assert policy.safety.stopped
        assert policy.goal is None
        np.testing.assert_allclose(sent['command'][-1].data, QUAD.neutral, rtol=1e-6)
    finally:
        gate.set()
    policy._on_enable(SetBool.Request(data=True))
    target = policy.controller.planner.cost.target(9, 1)
    np.testing.assert_allclose(target, FileGoal(QUAD).target(9, 1), atol=1e-6)


def test_to_enable_what_acts_changes_nothing(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    policy.deadline.seconds = 30.0
    tell_state(policy, 0, x=(1.0, 1.0, 0.2, 0, 0, 0))
    policy._on_goal(pose())
    past = policy.controller.past.copy()
    assert policy._on_enable(SetBool.Request(data=True)) == (True, 'acting')
    np.testing.assert_array_equal(policy.controller.past, past)
    assert np.abs(past[0] - QUAD.neutral).max() > 0.1
    assert policy.goal is not None


def test_a_stop_is_heard_before_it_is_active(policy):
    policy.trigger_deactivate()
    publisher = policy.create_publisher(Bool, topics.ESTOP.name, topics.ESTOP.qos)
    wait_until = time.monotonic() + 10
    while not policy.safety.stopped and time.monotonic() < wait_until:
        publisher.publish(Bool(data=True))
        rclpy.spin_once(policy, timeout_sec=0.05)
    policy.trigger_activate()
    assert policy.safety.stopped == 'stopped by estop'
    assert not policy.value('enabled')


def test_a_fault_of_ours_ends_with_the_safe_action(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    tell_state(policy, 0, x=(1.0, 1.0, 0.2, 0, 0, 0))
    policy.fail()
    np.testing.assert_allclose(sent['command'][-1].data, QUAD.neutral, rtol=1e-6)
    assert len(sent['command']) == 2


@pytest.mark.parametrize('stamp_ns', [0, 10**18])
def test_a_belief_that_stays_is_stale_whatever_its_stamp(policy, sent, tiny_prior, stamp_ns):
    believe(policy, tiny_prior, replace(Learner(tiny_prior).belief(), stamp_ns=stamp_ns))
    policy.deadline.seconds = 30.0
    for seconds, stale in ((0.0, False), (0.9, False), (1.1, True), (-9.0, False), (-7.9, True)):
        tell_state(policy, round((20 + seconds) / QUAD.period))
        assert policy.counts['stale belief'] == stale, seconds
        policy.counts['stale belief'] = 0


def test_plans_keep_to_what_the_operator_allows(policy, tiny_prior):
    highest = [5.0, QUAD.action_high[1]]
    believe(policy, tiny_prior)
    assert policy.set_parameters([RosParameter('limits.left.high', value=5.0)])[0].successful
    np.testing.assert_array_equal(policy.controller.planner.optimizer.high, highest)
    for step in ('deactivate', 'cleanup', 'configure', 'activate'):
        getattr(policy, f'trigger_{step}')()
    assert policy.controller is None
    believe(policy, tiny_prior)  # what was said before counts, too
    np.testing.assert_array_equal(policy.controller.planner.optimizer.high, highest)


def atomically(policy, **values):
    wanted = [RosParameter(name.replace('__', '.'), value=value) for name, value in values.items()]
    return policy.set_parameters_atomically(wanted).successful


def test_what_is_set_together_holds_together_or_not_at_all(policy):
    low, high = QUAD.action_low, QUAD.action_high
    assert atomically(policy, limits__left__high=6.0, limits__right__high=7.0)
    np.testing.assert_array_equal(policy.safety.allowed, [low, [6.0, 7.0]])
    assert not atomically(policy, limits__left__high=5.5, limits__right__high=1.0)
    assert not atomically(policy, enabled=False, limits__right__high=1.0)
    assert policy.value('limits.left.high') == 6.0
    assert policy.operator.limits == {'limits.left.high': 6.0, 'limits.right.high': 7.0}
    np.testing.assert_array_equal(policy.safety.allowed, [low, [6.0, 7.0]])
    assert not policy.safety.stopped
    assert policy.value('enabled')
    narrow = {'limits__left__low': high[0] / 3, 'limits__left__high': high[0] / 2}
    assert atomically(policy, **narrow)
    np.testing.assert_allclose(policy.safety.allowed[0][0], high[0] / 3, rtol=1e-6)


def test_why_it_cannot_be_configured_is_on_diagnostics_too(policy, monkeypatch):
    said = []
    for step in ('deactivate', 'cleanup'):
        getattr(policy, f'trigger_{step}')()
    monkeypatch.setattr(policy._diagnostics, 'publish', said.append)
    policy._report()
    assert not said
    monkeypatch.setattr(policy, 'load_spec', lambda: load_robot('nowhere.yaml'))
    policy.trigger_configure()
    policy._report()
    assert [m.status[0].level for m in said] == [DiagnosticStatus.ERROR] * 2
    assert 'nowhere.yaml' in said[-1].status[0].message
    monkeypatch.undo()
    policy.trigger_configure()
    policy.trigger_activate()
    assert 'nowhere' not in diagnosis(policy)[0]


def test_time_that_does_not_come_is_said(policy, monkeypatch):
    monkeypatch.setattr(policy, '_active_at', -100.0)
    assert not any('/clock' in text for text in policy.complaints())
    policy.set_parameters([RosParameter('use_sim_time', value=True)])
    assert any('no time comes by /clock' in text for text in policy.complaints())


def test_a_node_of_the_same_name_is_told_from_one_that_was_killed(policy, monkeypatch):
    ours, other = ('policy', '/lifelong'), ('policy', '/other')
    there, now = [ours, other], time.monotonic()
    monkeypatch.setattr(policy, '_active_at', -100.0)
    monkeypatch.setattr(policy, 'get_node_names_and_namespaces', lambda: there)
    monkeypatch.setattr('lifelong_bayes_ros.nodes.base.time.monotonic', lambda: now)

    def told():
        return any('two nodes are called /lifelong/policy' in text for text in policy.complaints())

    assert not told()
    there.append(ours)
    now += 20.0  # as long as DDS may take one for alive
    assert not told()
    there.remove(ours)
    assert not told()
    there.append(ours)
    for _ in range(3):
        assert not told()
        now += 10.0
    assert told()


ARRAY = Topic('array', Float64MultiArray, topics.ESTOP.qos)


@pytest.mark.parametrize(('seconds', 'said'), [(0.05, ''), (0.5, 'array comes at 2 Hz')])
def test_a_rate_is_measured_without_stamps_too(policy, seconds, said):
    times = iter(range(10**9, 10**18, round(seconds * 1e9)))
    entry = Input(ARRAY, ARRAY.qos, period=0.05, now=lambda: next(times))
    for _ in range(30):
        entry.saw(Float64MultiArray())
    assert entry.complaint(policy, 9.0).startswith(said)
    assert bool(entry.complaint(policy, 9.0)) == bool(said)


POSED = """
name: posed
description: a cart seen by cameras
period: 0.05
frame: world
sources:
  mocap: {topic: /mocap/pose, type: geometry_msgs/msg/PoseStamped}
state:
  - {name: x, source: mocap, field: position.x}
  - {name: v, field: difference, derivative_of: x}
action:
  - {name: force, low: -1.0, high: 1.0}
goal: {track: {x: {}}, scale: 0.3}
cost: {track: {x: 1.0}}
"""


def test_the_frame_of_a_pose_is_looked_at(policy, tmp_path):
    (tmp_path / 'posed.yaml').write_text(POSED)
    node = TransitionStreamer()
    try:
        node.load_spec = lambda: load_robot(tmp_path / 'posed.yaml')
        node.trigger_configure()
        entry = next(e for e in node._inputs.values() if e.topic.type is PoseStamped)
        entry.saw(pose(frame='map'))
        assert "is in frame 'map', the robot file says 'world'" in entry.complaint(node, 9.0)
    finally:
        node.destroy_node()


def test_how_old_a_belief_may_be_is_told_the_planner_too(policy, tiny_prior):
    believe(policy, tiny_prior)
    results = policy.set_parameters([RosParameter('max_belief_age', value=3.0)])
    assert results[0].successful
    assert policy.controller.max_belief_age == policy.controller.planner.max_belief_age == 3.0
    assert not policy.set_parameters([RosParameter('max_belief_age', value=0.0)])[0].successful


# ---------------------------------------------------------------------- goals
def pose(x=0.5, z=2.0, frame='odom', seconds=0, y=0.0):
    message = PoseStamped()
    message.header.frame_id, message.header.stamp.sec = frame, seconds
    message.pose.position.x, message.pose.position.z = x, z
    message.pose.position.y = y
    return message


def test_a_pose_becomes_the_goal(policy, sent, tiny_prior):
    believe(policy, tiny_prior)
    tell_state(policy, 0)
    policy._on_goal(pose())
    assert policy.goal.channels == ('x', 'z')
    np.testing.assert_array_equal(policy.controller.planner.cost.target(9, 1)[0, :2], [0.5, 2.0])
    policy._on_estop(Bool(data=True))
    assert policy.goal is None  # it must be sent again


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (pose(frame='map'), "unknown frame 'map'"),
        (pose(frame=''), "unknown frame ''"),
        (pose(x=math.nan), 'not finite'),
        (pose(y=math.inf), 'position.y is inf, not finite'),
        (pose(x=1e300), 'above high 4'),
        (pose(seconds=9999), 's ahead'),
        (pose(x=9.0), '9 is above high 4 of state.x'),
        (pose(seconds=1), 'stamped'),
    ],
)
def test_a_bad_goal_is_refused_and_the_one_before_is_kept(policy, tiny_prior, message, words):
    believe(policy, tiny_prior)
    policy._on_goal(pose())
    assert 'no state' in policy.refusal
    tell_state(policy, 100_000)
    policy._on_goal(pose())
    goal = policy.goal
    policy._on_goal(message)
    assert policy.goal is goal
    assert policy.counts['goal refused'] == 2
    said, figures = diagnosis(policy)
    assert words in said
    assert words in figures['goal refused last']
    policy._on_goal(pose())
    assert diagnosis(policy)[0] == 'acting'


def test_where_a_goal_is_required_the_safe_action_is_sent_until_one_is_good(
    policy, sent, tiny_prior
):
    wanted = policy.spec.goal_input.model_copy(update={'required': True})
    policy.spec = policy.spec.model_copy(update={'goal_input': wanted})
    believe(policy, tiny_prior)
    tell_state(policy, 0, x=(1.0, 1.0, 0.2, 0, 0, 0))
    policy._on_goal(pose(frame='map'))
    tell_state(policy, 1, x=(1.0, 1.0, 0.2, 0, 0, 0))
    np.testing.assert_allclose([m.data for m in sent['command']], [QUAD.neutral] * 2, rtol=1e-6)
    assert diagnosis(policy)[0] == 'no goal yet: safe action'
    policy._on_goal(pose())
    policy.deadline.seconds = 30.0
    tell_state(policy, 2, x=(1.0, 1.0, 0.2, 0, 0, 0))
    assert np.abs(np.array(sent['command'][-1].data) - QUAD.neutral).max() > 0.1


ARM, DRIVE = load_robot('arm'), load_robot('diffdrive')


def trajectory(
    names=('elbow', 'shoulder'), points=(([0.1, 0.2], [0.0, 1.0], 1),), seconds=0, frame=''
):
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp.sec, message.header.frame_id = seconds, frame
    for positions, velocities, at in points:
        point = JointTrajectoryPoint(positions=positions, velocities=velocities)
        point.time_from_start.sec = at
        message.points.append(point)
    return message


@pytest.mark.parametrize('frame', ['', ARM.frame])
def test_a_joint_trajectory_is_read_by_the_names_of_its_joints(frame):
    goal = read_goal(ARM, trajectory(seconds=10, frame=frame), 10 * 10**9)
    assert goal.channels == ('shoulder', 'elbow')
    np.testing.assert_array_equal(goal.reference(11 * 10**9, 1)[0], [[0.2, 0.1]])


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (trajectory(names=('elbow',)), 'joint_names'),
        (trajectory(names=('elbow', 'wrist')), 'wrist'),
        (trajectory(points=(([0.1], [], 1),)), '1 positions for 2 joints'),
        (trajectory(points=(([0.1, 0.2], [0.0], 1),)), '1 velocities for 2 joints'),
        (trajectory(points=(([0.1, 0.2], [], 1), ([0.1, 0.2], [0.0, 0.0], 2))), 'all or none'),
        (trajectory(points=()), 'no points'),
        (trajectory(points=(([0.1, 0.2], [], 2), ([0.1, 0.2], [], 1))), 'increase'),
        (trajectory(seconds=8), 'ended 1.000 s ago'),
        (trajectory(seconds=2**31 - 1), 'stamped 2147483637.0 s ahead, goal_input.max_age is 5 s'),
        (
            trajectory(frame='tool0'),
            f"unknown frame 'tool0'; robot arm takes goals in '{ARM.frame}",
        ),
        (trajectory(points=(([math.inf, 0.2], [], 1),)), 'not finite'),
    ],
)
def test_a_trajectory_of_the_wrong_form_is_refused(message, words):
    with pytest.raises(UserError, match='goal') as caught:
        read_goal(ARM, message, 10 * 10**9)
    assert words in str(caught.value)


def test_a_trajectory_may_begin_later_or_have_begun():
    points = (([0.1, 0.2], [], 0), ([0.3, 0.4], [], 20))
    for seconds, expected in ((4, [0.26, 0.16]), (14, [0.2, 0.1])):
        goal = read_goal(ARM, trajectory(points=points, seconds=seconds), 10 * 10**9)
        np.testing.assert_allclose(goal.reference(10 * 10**9, 1)[0], [expected])


def test_a_path_and_its_faults():
    path = Path()
    path.header.frame_id = 'odom'
    with pytest.raises(UserError, match='no points'):
        read_goal(DRIVE, path, 0)
    for x in (0.0, 1.0, 2.0):
        stop = PoseStamped()
        stop.pose.position.x = x
        path.poses.append(stop)
    goal = read_goal(DRIVE, path, 0)
    speed = DRIVE.goal_input.speed
    np.testing.assert_allclose(goal.reference(10**9, 1)[0][0], [speed, 0, 0], atol=1e-9)
    path.poses[1].pose.orientation.w = 0.0
    with pytest.raises(UserError, match='zero quaternion'):
        read_goal(DRIVE, path, 0)
    path.poses[1].pose.orientation.w = 1.0
    path.poses[1].header.frame_id = 'map'
    with pytest.raises(UserError, match="unknown frame 'map'"):
        read_goal(DRIVE, path, 0)
    path.poses[1].header.frame_id = 'odom'
    path.poses[2].pose.position.y = 7.0
    with pytest.raises(UserError, match='7 is above high 3'):
        read_goal(DRIVE, path, 0)


def test_a_twist_is_tracked_in_the_frame_of_the_body():
    track = {'type': 'geometry_msgs/msg/Twist', 'track': {'forward': 20.0, 'yaw_rate': 2.0}}
    spec = type(DRIVE).model_validate(DRIVE.model_dump() | {'goal_input': track})
    message = Twist()
    message.linear.x, message.angular.z = 0.3, -0.5
    target = read_goal(spec, message, 0).target(0, 1)[0]
    np.testing.assert_array_equal(target, [0, 0, 0, 0.3, 0, -0.5])
    message.linear.y = 0.1
    with pytest.raises(UserError, match=r'linear.y is 0.1, but robot diffdrive follows only'):
        read_goal(spec, message, 0)
    message.linear.y = math.nan
    with pytest.raises(UserError, match=r'linear.y is nan, not finite'):
        read_goal(spec, message, 0)
    message.linear.y, message.linear.x = 0.0, math.nan
    with pytest.raises(UserError, match='not finite'):
        read_goal(spec, message, 0)
