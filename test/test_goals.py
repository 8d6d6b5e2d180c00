"""Goals: references over time, and which are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.control.cost import Cost
from lifelong_bayes_ros.control.goals import FileGoal, Trajectory, Velocity, along_path
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot, robot_names

QUAD, ARM, DRIVE = (load_robot(name) for name in ('quad', 'arm', 'diffdrive'))
XZ = {'x': 10.0, 'z': 5.0}
SECOND = 10**9


@pytest.mark.parametrize('name', robot_names())
def test_the_file_goal_is_the_reference_of_the_robot_file(name):
    spec = load_robot(name)
    goal, stamp = FileGoal(spec), 123 * SECOND
    value, rate = spec.reference(stamp, 7)
    target = goal.target(stamp, 7)
    for i, channel in enumerate(spec.goal.track):
        at = spec.state_names.index(channel)
        np.testing.assert_array_equal(target[:, at], value[:, i])
        assert goal.weights[at] == spec.cost.track[channel]
    for i, channel in enumerate(spec.state):
        if channel.derivative_of in spec.cost.rate:
            column = list(spec.goal.track).index(channel.derivative_of)
            np.testing.assert_array_equal(target[:, i], rate[:, column])
            assert goal.weights[i] == spec.cost.rate[channel.derivative_of]


def test_a_state_is_reached_and_held():
    goal = Trajectory(QUAD, XZ, [SECOND], [[1.0, 2.0]], now_ns=SECOND)
    target = goal.target(50 * SECOND, 4)
    np.testing.assert_array_equal(target, np.tile([1.0, 2, 0, 0, 0, 0], (4, 1)))
    np.testing.assert_array_equal(goal.weights, [10, 5, 0, 1, 1, 0])  # with cost.rate


def test_between_points_lines_before_and_after_rest():
    times = [SECOND, 2 * SECOND, 4 * SECOND]
    goal = Trajectory(QUAD, XZ, times, [[0, 1], [1, 1], [1, 2]])
    for seconds, place, speed in (
        (0.0, [0, 1], [0, 0]),
        (1.25, [0.25, 1], [1, 0]),
        (3.0, [1, 1.5], [0, 0.5]),
        (9.0, [1, 2], [0, 0]),
    ):
        value, rate = goal.reference(round(seconds * 1e9), 1)
        np.testing.assert_allclose(value[0], place, atol=1e-9)
        np.testing.assert_allclose(rate[0], speed, atol=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.floats(0.2, 5))
def test_with_velocities_it_is_the_cubic_through_both_ends(ends, span):
    a, b, p, q = ends
    times = [0, round(span * 1e9)]
    goal = Trajectory(ARM, {'shoulder': 1.0}, times, [[a], [b]], [[p], [q]])
    t = np.linspace(0, span * (1 - 1e-6), 40)
    value = np.array([goal.reference(round(s * 1e9), 1)[0][0, 0] for s in t])
    rate = np.array([goal.reference(round(s * 1e9), 1)[1][0, 0] for s in t])
    matrix = [
        [1, 0, 0, 0],
        [1, span, span**2, span**3],
        [0, 1, 0, 0],
        [0, 1, 2 * span, 3 * span**2],
    ]
    c = np.linalg.solve(matrix, [a, b, p, q])
    np.testing.assert_allclose(value, np.polyval(c[::-1], t), atol=1e-6)
    np.testing.assert_allclose(rate, np.polyval(np.polyder(c[::-1]), t), atol=1e-5)


def test_angles_turn_the_shorter_way():
    goal = Trajectory(DRIVE, {'heading': 1.0}, [0, SECOND], [[3.0], [-3.0]])
    assert goal.reference(SECOND // 2, 1)[0][0, 0] == pytest.approx(np.pi)


def test_a_path_is_followed_at_its_speed_from_now_on():
    track = {'x': 1.0, 'y': 1.0, 'heading': 1.0}
    poses = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 2, 1.5]])
    goal = along_path(DRIVE, track, poses, 0.5, 7 * SECOND)
    np.testing.assert_allclose(goal.reference(8 * SECOND, 1)[0][0], [0.5, 0, 0])
    np.testing.assert_allclose(goal.reference(11 * SECOND, 1)[0][0, :2], [1, 1])
    np.testing.assert_allclose(goal.reference(99 * SECOND, 1)[0][0], [1, 2, 1.5])


def test_a_velocity_holds_for_its_time_then_the_robot_stands():
    goal = Velocity(DRIVE, {'forward': 9.0, 'yaw_rate': 2.0}, np.array([0.4, -1.0]), SECOND)
    steps = round(1 / DRIVE.period)
    target = goal.target(SECOND // 2, steps)
    half = steps // 2
    at = DRIVE.index(['forward', 'yaw_rate'])
    np.testing.assert_array_equal(target[:half, at], np.tile([0.4, -1.0], (half, 1)))
    assert not target[half:].any()
    np.testing.assert_array_equal(goal.weights[at], [9.0, 2.0])


def test_the_cost_follows_the_goal_it_is_aimed_at():
    cost, goal = Cost(QUAD), Trajectory(QUAD, XZ, [0], [[1.0, 2.0]])
    cost.aim(goal)
    target = cost.target(0, 5)
    at_goal = np.tile(np.float32([1, 2, 0, 0, 0, 0]), (1, 5, 1))
    still = np.tile(QUAD.neutral.astype(np.float32), (1, 5, 1))
    assert cost(at_goal, still, still[0, 0], target) == 0
    away = at_goal + np.float32([0, 0.1, 0, 0, 0, 0])
    terminal = (4 + QUAD.cost.terminal) / 5
    assert cost(away, still, still[0, 0], target)[0] == pytest.approx(0.05 * terminal, rel=1e-5)


LIMITED = RobotSpec.model_validate(
    QUAD.model_dump()
    | {'state': [c.model_dump() | ({'high': 2.0} if c.name == 'vx' else {}) for c in QUAD.state]}
)


@pytest.mark.parametrize(
    ('times', 'values', 'rates', 'words'),
    [
        ([], np.zeros((0, 2)), None, 'no points'),
        ([0], [[1.0]], None, 'shape'),
        ([0], [[1.0, 1.0, 1.0]], None, 'shape'),
        ([0, SECOND], [[1.0, 1.0]], None, 'shape'),
        ([0], [['a', 1.0]], None, 'not a table'),
        ([0], [[np.nan, 1.0]], None, 'not finite'),
        ([0], [[0.0, 1.0]], [[np.inf, 0.0]], 'not finite'),
        ([0], [[0.0, 1.0]], [[0.0]], 'velocities have the shape'),
        ([SECOND, SECOND], [[0, 1], [0, 1]], None, 'increase'),
        ([-2 * SECOND, -SECOND], [[0, 1], [0, 1]], None, 'ended 1.000 s ago'),
        ([0], [[4.5, 1.0]], None, '4.5 is above high 4 of state.x'),
        ([0], [[0.0, 0.1]], None, '0.1 is below low 0.2 of state.z'),
        ([0, SECOND], [[0, 1], [3, 1]], None, '3 is above high 2 of state.vx'),
        ([0, 4 * SECOND], [[3.9, 1], [3.9, 1]], [[1.0, 0], [0, 0]], 'above high 4 of state.x'),
        ([0, SECOND], [[0, -1e308], [0, 1e308]], None, 'state.z'),
        ([0, 1], [[0, 1], [0, 1e6]], None, 'above high'),
    ],
)
def test_a_goal_that_cannot_be_followed_is_refused(times, values, rates, words):
    with pytest.raises(UserError, match='goal: ') as caught:
        Trajectory(LIMITED, XZ, times, values, rates, now_ns=0)
    assert words in str(caught.value)


WIDE = RobotSpec.model_validate(
    ARM.model_dump() | {'state': [c.model_dump() | {'low': None, 'high': None} for c in ARM.state]}
)


@given(
    st.lists(st.tuples(st.integers(0, 2**62), *[st.floats(allow_nan=False)] * 2), max_size=4),
    st.booleans(),
    st.integers(-(2**62), 2**62),
)
def test_a_goal_that_exists_has_a_finite_reference(points, moving, stamp):
    points = sorted(points)
    values = np.array([p[1:2] for p in points]).reshape(-1, 1)
    rates = np.array([p[2:] for p in points]).reshape(-1, 1) if moving else None
    try:
        goal = Trajectory(WIDE, {'shoulder': 1.0}, [p[0] for p in points], values, rates)
    except UserError:
        return
    assert np.isfinite(goal.target(stamp, 5).astype(np.float32)).all()


@given(st.lists(st.tuples(*[st.floats(allow_nan=False)] * 2), max_size=4), st.floats(1e-6, 1e6))
def test_any_path_is_followed_or_refused(points, speed):
    poses = np.array(points).reshape(-1, 2)
    try:
        goal = along_path(WIDE, {'shoulder': 1.0, 'shoulder_speed': 1.0}, poses, speed, 0)
    except UserError:
        return
    assert np.isfinite(goal.target(SECOND, 5).astype(np.float32)).all()


@pytest.mark.parametrize(
    ('values', 'words'), [([3.0], '3 is above'), ([np.nan], 'not finite'), ([1, 1], 'shape')]
)
def test_a_velocity_that_cannot_be_held_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        Velocity(LIMITED, {'vx': 1.0}, np.array(values), SECOND)


WALLED = RobotSpec.model_validate(
    QUAD.model_dump()
    | {'cost': QUAD.cost.model_dump() | {'chance': {'x': {'high': 1.5}, 'vx': {'low': -0.5}}}}
)


def test_a_goal_beyond_a_chance_constraint_is_refused():
    Trajectory(WALLED, XZ, [0, 10 * SECOND], [[1.5, 1.0], [0.0, 1.0]])
    with pytest.raises(UserError, match=r'1\.6 is above high 1\.5 of cost\.chance\.x'):
        Trajectory(WALLED, XZ, [0], [[1.6, 1.0]])
    with pytest.raises(UserError, match=r'-1 is below low -0\.5 of cost\.chance\.vx'):
        Trajectory(WALLED, XZ, [0, SECOND], [[1.0, 1.0], [0.0, 1.0]])
    with pytest.raises(UserError, match=r'-0\.6 is below low -0\.5 of cost\.chance\.vx'):
        Velocity(WALLED, {'vx': 1.0}, np.array([-0.6]), SECOND)
