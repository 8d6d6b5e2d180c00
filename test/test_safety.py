"""The safety stage: what it lets through, judged by the robot file alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.control.fence import Fence, Outlook
from lifelong_bayes_ros.control.limiter import Limiter
from lifelong_bayes_ros.control.safety import Safety
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.bench_safety import Judge, Question, drive, fuzz, variants
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot, parse_robot

ARM, CART, QUAD, SIX = (load_robot(n) for n in ('arm', 'cartpole', 'quad', 'six_axis'))


def changed(spec: RobotSpec, **sections) -> RobotSpec:
    return RobotSpec.model_validate(spec.model_dump() | sections)


# The shipped cart has no fence.
FENCE = {'limits': {'x': {'deceleration': 3.0}}}
CART = changed(CART, safety=CART.safety.model_dump() | FENCE)


def with_action(spec: RobotSpec, **limits) -> RobotSpec:
    return changed(spec, action=[a.model_dump() | limits for a in spec.action])


def outlook(spec: RobotSpec, command, **parts) -> Outlook:
    ds, da = len(spec.state), len(spec.action)
    calm = Outlook(np.asarray(command, float), np.zeros(ds), np.zeros((ds, da)), np.zeros(ds))
    return replace(calm, **parts)


# ---------------------------------------------------------------------- hostile inputs
NUMBER = st.floats() | st.floats(width=32) | st.floats(-20, 20)
ARRAYS = st.lists(NUMBER, min_size=2, max_size=2).map(np.array)
HOSTILE = ARRAYS | st.lists(NUMBER, max_size=4).map(np.array) | st.sampled_from([None, 'go', 3.0])


@st.composite
def questions(draw):
    def numbers(*shape):
        size = math.prod(shape)
        values = draw(st.lists(NUMBER, min_size=size, max_size=size))
        return np.array(values).reshape(shape)

    look = None
    if draw(st.booleans()):
        ood, age, trust = (draw(st.floats()) for _ in range(3))
        look = Outlook(numbers(2), numbers(6), numbers(6, 2), numbers(6), ood, age, trust)
    stamp = draw(st.none() | st.integers(-(2**63), 2**63))
    return Question(draw(HOSTILE), look, stamp)


@pytest.mark.parametrize('spec', [v for v in variants() if v.name == 'quad'][:5])
@given(asked=st.lists(questions(), max_size=12), stop_at=st.integers(0, 20))
def test_whatever_is_asked_no_unsafe_command_comes(spec, asked, stop_at):
    safety, judge = Safety(spec), Judge(spec)
    for n, question in enumerate(asked):
        if n == stop_at:
            safety.stop('test')
            judge.stopped = True
            judge.unsafe = 0
        answer = safety.check(question.wanted, question.outlook, question.stamp_ns)
        # Where a Belief's numbers span many orders of size, rounding decides what brakes.
        assert judge.verdict(question, answer) in ('', 'beyond where it can brake')


@pytest.mark.parametrize('number', range(0, 20, 3))
def test_a_fuzz_loop_finds_nothing(number):
    assert fuzz(variants()[number], 1500, number)[0] == {}


# ---------------------------------------------------------------------- range, slew, jerk
@given(
    st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=60),
    st.floats(0.5, 1e4),
    st.floats(0.5, 1e6),
)
def test_range_slew_and_jerk_hold_together(wanted, slew, jerk):
    spec = with_action(ARM, slew=slew, jerk=jerk)
    limiter, last, change = Limiter(spec), np.zeros(2), np.zeros(2)
    for values in wanted:
        sent = limiter.send(np.array(values)).astype(float)
        step = sent - last
        assert (np.abs(sent) <= [40, 16]).all()
        assert (np.abs(step) <= slew * spec.period + 1e-4).all()
        assert (np.abs(step - change) <= jerk * spec.period**2 + 1e-4).all()
        last, change = sent, step


def test_a_command_with_a_jerk_limit_reaches_the_end_of_its_range_and_stands():
    limiter = Limiter(with_action(ARM, slew=4000.0, jerk=2e4))
    path = [limiter.send(np.array([40.0, -16.0])) for _ in range(60)]
    np.testing.assert_allclose(path[-1], [40, -16], atol=0.2)
    speeds = np.diff([[0, 0], *path], axis=0)
    assert (speeds[:, 0] >= 0).all()
    assert np.abs(np.diff(speeds, axis=0)).max() <= 8 + 1e-4  # N m per step and step


# ---------------------------------------------------------------------- limits of the state
@pytest.mark.parametrize(('spec', 'name'), [(CART, 'x'), (QUAD, 'z')])
def test_a_robot_driven_at_its_limit_brakes_in_time(spec, name):
    assert sum(drive(spec, name, seed)[0] for seed in range(15)) == 0


def walled(deceleration):
    """A vehicle, of whose speed along x no channel tells, with walls at both ends."""
    limits = {'x': {'deceleration': deceleration}}
    return changed(load_robot('diffdrive'), safety={'limits': limits})


def test_a_vehicle_brakes_in_time_though_no_channel_is_its_speed():
    assert sum(drive(walled(2.0), 'x', seed)[0] for seed in range(15)) == 0
    assert drive(walled(2e6), 'x', 0)[0] > 0  # with hardly any braking distance it would not


def test_without_the_fence_it_would_not(monkeypatch):
    monkeypatch.setattr(Fence, 'keep', lambda self, wanted, low, high, outlook: wanted)
    assert drive(CART, 'x', 0)[0] > 0


def foreseen(arm, spec, x, wanted, sent):
    """The outlook of one who knows the arm as it is."""
    nudged = np.vstack([wanted, wanted - 0.1 * np.sign(wanted + 1e-9) * np.eye(len(wanted))])
    before = np.tile(sent[:3], (len(nudged), 1, 1))
    after = arm.one_step(np.tile(x, (len(nudged), 1)), nudged, before)
    gain = (after[1:] - after[0]).T / np.diag(nudged[1:] - wanted)
    return Outlook(wanted, after[0], gain, np.full(len(x), 1e-6))


def farthest(spec, joint, sign, shifts):
    """Where a joint of the six-axis arm gets to, driven at full speed for two seconds."""
    arm = sim.make('six_axis', spec=spec)
    arm.set_shifts([sim.shift_from_dict(shift) for shift in shifts])
    safety, x = Safety(spec), np.zeros(12)
    x[:6] = [0.0, 0.7, -1.0, 0.0, 0.3, 0.0]
    wanted, there = np.zeros(6), []
    wanted[joint] = spec.action_high[joint] * sign
    for step in range(round(2 / spec.period)):
        look = foreseen(arm, spec, x, wanted, safety.sent)
        sent = safety.sent.copy()
        command = safety.check(wanted, look, step * spec.period_ns)
        x = arm.one_step(x[None], command[None].astype(float), sent[None, :3])[0]
        there.append(x[joint])
    return max(there) if sign > 0 else min(there)


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('joint', range(6))
@pytest.mark.parametrize('shifts', [[], [{'payload': {'mass': 6.0}}]])
def test_the_six_axis_arm_stops_short_of_the_ends_of_its_joints(joint, sign, shifts):
    channel = SIX.state[joint]
    end = channel.high if sign > 0 else channel.low
    kept = farthest(SIX, joint, sign, shifts)
    assert 0 <= sign * (end - kept) < 0.1  # rad: it goes there all the same
    free = changed(SIX, safety=SIX.safety.model_dump() | {'limits': {}})
    assert sign * (farthest(free, joint, sign, shifts) - end) > 0


def speed_bound(spec, sd):
    """Fastest cart that is let go on, half a metre from its limit, by the sd of its speed."""
    gain, spread = np.zeros((4, 1)), np.zeros(4)
    gain[2], spread[2] = 0.04, sd
    for speed in np.arange(0.0, 4.0, 0.01):
        wanted, mean = np.zeros(1, np.float32), np.array([1.9, 0, speed, 0])
        look = outlook(spec, wanted, mean=mean, gain=gain, sd=spread)
        if Safety(spec).check(wanted, look)[0] != 0:
            return speed
    return np.inf


def test_the_braking_distance_is_that_of_physics_and_grows_with_ignorance():
    sharp, vague = speed_bound(CART, 0.0), speed_bound(CART, 0.2)
    # v T + v²/(2a) = 0.5 m with a = 3 m/s² and T = 0.04 s.
    assert sharp == pytest.approx(-0.12 + np.sqrt(0.12**2 + 3.0), abs=0.02)
    assert sharp - vague == pytest.approx(0.4, abs=0.02)  # two standard deviations


def test_the_nearest_command_is_taken_not_the_hardest():
    gain = np.zeros((4, 1))
    gain[2] = 0.04
    mean = np.array([1.9, 0, 1.7, 0])  # 0.083 m/s too fast
    wanted = np.zeros(1, np.float32)
    safety = Safety(CART)
    sent = safety.check(wanted, outlook(CART, wanted, mean=mean, gain=gain))
    assert 1.7 + 0.04 * sent[0] == pytest.approx(-0.12 + np.sqrt(0.12**2 + 3.0), abs=1e-3)
    assert safety.interventions == {'state limit': 1}


# ---------------------------------------------------------------------- authority
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_authority_falls_with_the_score_and_never_rises(one, two):
    safety, wanted = Safety(ARM), np.zeros(2)
    shares = []
    for ood in sorted((one, two)):
        safety.check(wanted, outlook(ARM, wanted, ood=ood))
        shares.append(safety.authority)
    assert 0 <= shares[1] <= shares[0] <= 1


def test_authority_is_whole_at_home_smooth_between_and_nothing_far_away():
    spec = with_action(ARM, slew=None)
    shares = []
    for ood in np.geomspace(2, 80, 200):
        safety, wanted = Safety(spec), np.array([40.0, -16.0])
        sent = safety.check(wanted, outlook(spec, wanted, ood=ood))
        shares.append(safety.authority)
        np.testing.assert_allclose(sent, wanted * safety.authority, rtol=1e-6)
    assert (shares[0], shares[-1]) == (1.0, 0.0)
    assert max(-np.diff(shares)) < 0.02


def test_far_away_only_the_safe_action_is_left_then_silence():
    safety = Safety(changed(ARM, safe_action={'mode': 'zero', 'ticks': 2}))
    wanted = np.array([40.0, 16.0])
    look = outlook(ARM, wanted, ood=41.0)
    answers = [safety.check(wanted, look) for _ in range(3)]
    assert [None if a is None else a.tolist() for a in answers] == [[0, 0], [0, 0], None]
    assert safety.interventions == {'out of distribution': 3}
    assert safety.check(wanted, outlook(ARM, wanted)) is not None


def test_a_belief_of_little_trust_holds_the_command_and_its_speed_down():
    spec = with_action(ARM, slew=1000.0)
    safety, wanted = Safety(spec), np.array([40.0, 0.0])
    torque = [safety.check(wanted, outlook(spec, wanted, trust=0.5))[0].item() for _ in range(4)]
    assert torque == [10, 20, 20, 20]  # N m; 20 per step and 40 in all with full authority
    assert safety.check(-wanted, outlook(spec, -wanted, trust=0.5))[0] == 0  # back: at full speed


# ---------------------------------------------------------------------- watchdogs and stop
def test_time_that_runs_backwards_is_answered_by_the_safe_action_once():
    safety, wanted = Safety(ARM), np.ones(2)
    stamps = [10**9, 2 * 10**9, 10**9, 10**9 + 1]
    sent = [safety.check(wanted, None, stamp).tolist() for stamp in stamps]
    assert sent == [[1, 1], [1, 1], [0, 0], [1, 1]]


def test_a_belief_that_is_too_old_ends_acting():
    spec = changed(ARM, safety={'belief_timeout': 3.0})
    safety, wanted = Safety(spec), np.ones(2)
    assert safety.check(wanted, outlook(spec, wanted, age=2.9)).tolist() == [1, 1]
    assert safety.check(wanted, outlook(spec, wanted, age=3.1)).tolist() == [0, 0]
    assert safety.interventions == {'belief too old': 1}


def test_a_stop_holds_until_it_is_enabled_again():
    safety, wanted = Safety(changed(ARM, safe_action={'mode': 'zero', 'ticks': 2})), np.ones(2)
    safety.check(wanted)
    safety.stop('operator')
    answers = [safety.check(wanted) for _ in range(4)]
    assert [None if a is None else a.tolist() for a in answers] == [[0, 0], [0, 0], None, None]
    for go_on in (safety.reset, safety.resume):
        go_on()
        assert safety.check(wanted).tolist() == [0, 0]
    safety.enable()
    assert safety.check(wanted).tolist() == [1, 1]


@pytest.mark.parametrize('ticks', [0, 1, 2, 5])
@pytest.mark.parametrize('again', ['enable', 'resume'])
def test_slew_and_jerk_limits_hold_over_the_end_of_a_stop(ticks, again):
    actions = [a.model_dump() | {'slew': 8.0, 'jerk': 80.0} for a in ARM.action]
    spec = changed(ARM, action=actions, safe_action={'mode': 'neutral', 'ticks': 2})
    safety, wanted = Safety(spec), np.ones(2)
    before = [safety.check(wanted) for _ in range(9)][-2:]
    if ticks:
        safety.stop('operator')
        answers = [safety.check(wanted) for _ in range(ticks)]
        before = [*before, *(a for a in answers if a is not None)][-2:]
        before = before if ticks <= 2 else [before[-1]] * 2  # silent: it stands
    if again == 'resume':
        before = [before[-1]] * 2
    safety.stopped = '' if again == 'resume' else safety.stopped
    getattr(safety, again)()
    change, slew, jerk = np.diff(before, axis=0)[0], 8.0 * spec.period, 80.0 * spec.period**2
    after = safety.check(wanted)
    assert (np.abs(after - before[-1]) <= slew + 1e-6).all()
    assert (np.abs(after - before[-1] - change) <= jerk + 1e-6).all()


def test_the_brake_brings_the_rates_down_and_without_a_belief_goes_to_neutral():
    spec = changed(CART, safe_action={'mode': 'brake', 'ticks': 9})
    gain = np.zeros((4, 1))
    gain[2] = 0.04
    mean = np.array([0, 0, 0.3, 0])
    safety = Safety(spec)
    assert safety.safe_action(outlook(spec, [0.0], mean=mean, gain=gain))[0] == pytest.approx(-7.5)
    assert safety.safe_action()[0] == 0


# ---------------------------------------------------------------------- the robot file
FAR = {'x': {'center': 2.2, 'amplitude': 0.3}, 'angle': {}}


@pytest.mark.parametrize(
    ('section', 'value', 'words'),
    [
        ('safety', {'limits': {'y': {}}}, ['safety.limits.y', 'unknown channel', 'angle_speed']),
        ('safety', {'limits': {'x': {}}}, ['safety.limits.x', 'deceleration', 'speed']),
        ('safety', {'limits': {'angle': {'deceleration': 1.0}}}, ['angle', 'neither low nor']),
        ('safety', {'limits': {'x': {'deceleration': -1.0}}}, ['deceleration', '-1.0']),
        ('safety', {'ood': {'begin': 5.0, 'stop': 5.0}}, ['begin 5.0', 'below stop 5.0']),
        ('safety', {'stale': 1.5}, ['safety.stale', '1.5']),
        ('safety', {'deadline': 0.0}, ['safety.deadline', '0.0']),
        ('safety', {'belief_timeout': -1}, ['belief_timeout', '-1']),
        ('safety', {'belief_timeout': 0.001}, ['belief_timeout', '0.001', 'a few periods']),
        ('safety', {'limit': {}}, ['safety.limit', 'unknown key']),
        ('safe_action', {'mode': 'stop'}, ['safe_action.mode', 'brake', 'stop']),
        ('goal', {'track': FAR, 'scale': 1}, ['goal.track.x', '2.5', 'high 2.4']),
        ('goal_input', {'type': 'nav_msgs/msg/Path', 'track': {'x': 1.0}}, ['Path', 'x']),
        ('goal_input', {'type': 'geometry_msgs/msg/Twist', 'track': {'y': 1}}, ['Twist', 'y']),
        ('goal_input', {'type': 'nav_msgs/msg/Map', 'track': {'x': 1}}, ['type', 'Map']),
        ('cost', {'track': {'y': 1.0}}, ['cost.track', 'y', 'angle']),
        ('cost', {'track': {'x': 1.0}, 'state': {'y': 1.0}}, ['cost.state', 'y']),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(section, value, words):
    data = CART.model_dump(mode='json') | {section: value}
    with pytest.raises(UserError) as caught:
        parse_robot(yaml.safe_dump(data), 'my.yaml')
    for word in ['my.yaml', *words]:
        assert word in str(caught.value)


def test_a_zero_that_is_no_command_is_no_safe_action():
    action = [a.model_dump() | {'low': 1.0, 'neutral': 5.0} for a in QUAD.action]
    with pytest.raises(ValueError, match='zero is outside'):
        changed(QUAD, action=action, safe_action={'mode': 'zero'})


def test_a_brake_needs_something_to_brake():
    with pytest.raises(ValueError, match='brake needs a channel with a deceleration'):
        changed(ARM, safe_action={'mode': 'brake'})
