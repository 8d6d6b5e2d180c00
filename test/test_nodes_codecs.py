"""Messages and what they mean to the core: exact both ways, and clear when they do not fit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy')

from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32MultiArray, Float64MultiArray

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.nodes import codecs, qos
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot import check
from lifelong_bayes_ros.robot.messages import FIELDS, IMU, ODOMETRY
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot, parse_robot, robot_names
from lifelong_bayes_ros.robot.transitions import Flag, Transition

QUAD, ARM = load_robot('quad'), load_robot('arm')
TEXT = (share_dir() / 'config' / 'robots' / 'quad.yaml').read_text()
SHORT = st.floats(-1e3, 1e3, width=32)
STAMP = st.integers(0, 2**31 * 1_000_000_000 - 1)


def robot(*fields: str, kind: str = 'nav_msgs/msg/Odometry'):
    """A robot whose channels are these fields of one source."""
    return RobotSpec.model_validate(
        {
            'name': 'thing',
            'period': 0.1,
            'sources': {'odom': {'topic': 'odom', 'type': kind}},
            'state': [
                {'name': f'c{i}', 'source': 'odom', 'field': f} for i, f in enumerate(fields)
            ],
            'action': [{'name': 'push', 'low': -1, 'high': 1}],
            'goal': {'track': {'c0': {}}, 'scale': 1},
            'cost': {'track': {'c0': 1}},
        }
    )


def through_ros(message):
    """The message as it comes out at the other end of a topic."""
    return deserialize_message(serialize_message(message), type(message))


class TestState:
    """State messages."""

    @given(st.sampled_from(robot_names()), st.lists(SHORT, min_size=12, max_size=12), STAMP)
    def test_a_state_survives_the_round_trip(self, name, values, stamp_ns):
        spec = load_robot(name)
        x = spec.wrap(np.array(values[: len(spec.state)])).astype(np.float32)
        read = {}
        for source, message in codecs.state_messages(spec, stamp_ns, x).items():
            stamp, channels = codecs.read_channels(spec, source, through_ros(message))
            assert stamp == stamp_ns
            read |= channels
        back = np.array([read[n] for n in spec.state_names])
        np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-12)

    @given(
        st.tuples(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1)),
        st.tuples(SHORT, SHORT, SHORT),
    )
    def test_angles_and_velocities_of_a_body_in_space(self, angles, velocity):
        spec = robot(*FIELDS[ODOMETRY][:9])
        x = np.array([1.0, 2.0, 3.0, *angles, *velocity])
        message = codecs.state_messages(spec, 0, x)['odom']
        _, read = codecs.read_channels(spec, 'odom', message)
        np.testing.assert_allclose(list(read.values()), x, rtol=1e-9, atol=1e-9)
        twist = message.twist.twist.linear
        assert math.hypot(twist.x, twist.y, twist.z) == pytest.approx(math.hypot(*velocity))

    def test_a_twist_is_in_the_frame_of_the_body(self):
        """Nose straight down, a body that moves along its own x falls."""
        spec = robot('velocity.z', 'body_velocity.x', 'orientation.pitch')
        message = Odometry()
        half = math.pi / 4
        message.pose.pose.orientation.y, message.pose.pose.orientation.w = (
            math.sin(half),
            math.cos(half),
        )
        message.twist.twist.linear.x = 2.0
        _, read = codecs.read_channels(spec, 'odom', message)
        assert read == pytest.approx({'c0': -2.0, 'c1': 2.0, 'c2': math.pi / 2})

    def test_imu(self):
        spec = robot(*FIELDS[IMU], kind='sensor_msgs/msg/Imu')
        x = np.array([0.1, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        message = through_ros(codecs.state_messages(spec, 5, x)['odom'])
        stamp, read = codecs.read_channels(spec, 'odom', message)
        assert stamp == 5
        np.testing.assert_allclose(list(read.values()), x, rtol=1e-12)

    def test_joints_are_taken_by_name_in_any_order(self):
        message = JointState(
            name=['gripper', 'elbow', 'shoulder'],
            position=[9.0, 2.0, 1.0],
            velocity=[9.0, 4.0, 3.0],
        )
        _, read = codecs.read_channels(ARM, 'joint_states', message)
        assert read == {
            'shoulder': 1.0,
            'elbow': 2.0,
            'shoulder_speed': 3.0,
            'elbow_speed': 4.0,
        }

    @pytest.mark.parametrize(
        ('message', 'words'),
        [
            (JointState(name=['elbow'], position=[0.0]), ['shoulder', "['elbow']", 'joint:']),
            (JointState(), ['shoulder', '[]']),
            (
                JointState(name=['shoulder', 'elbow'], position=[0.0, 1.0]),
                ['velocity', 'shoulder', '0 of them', 'publish'],
            ),
            (
                JointState(name=['shoulder', 'elbow'], position=[0.0], velocity=[1.0, 2.0]),
                ['position', 'elbow', '1 of them'],
            ),
        ],
    )
    def test_what_a_joint_state_lacks_is_named(self, message, words):
        with pytest.raises(UserError) as caught:
            codecs.read_channels(ARM, 'joint_states', message)
        for word in ['joint_states', *words]:
            assert word in str(caught.value)

    def test_values_that_are_not_finite_are_passed_on_for_the_assembler_to_count(self):
        message = codecs.state_messages(QUAD, 0, np.zeros(6))['odom']
        message.pose.pose.position.x = math.nan
        _, read = codecs.read_channels(QUAD, 'odom', message)
        assert math.isnan(read['x'])

    def test_an_orientation_that_is_no_rotation_is_refused(self):
        message = Odometry()
        message.pose.pose.orientation.w = 0.0
        with pytest.raises(UserError, match='zero quaternion'):
            codecs.read_channels(QUAD, 'odom', message)

    def test_unknown_fields_are_refused_with_the_possible_ones(self):
        with pytest.raises(
            UserError, match=r"state.x.field: 'position.w'.*position.x, position.y"
        ):
            parse_robot(TEXT.replace('field: position.x', 'field: position.w'))


class TestTransition:
    """The `transition` topic."""

    @given(
        st.lists(SHORT, min_size=14, max_size=14),
        st.floats(0, 10, width=32),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**24),
        st.integers(0, 15),
    )
    def test_round_trip_is_exact(self, values, dt, stamp_ns, sequence, episode, flags):
        s, a, s_next = np.split(np.array(values, np.float32), [6, 8])
        sent = Transition(s, a, s_next, dt, stamp_ns, Flag(flags), sequence, episode)
        message = through_ros(codecs.transition_to_msg(QUAD, sent))
        got = codecs.transition_from_msg(QUAD, message)
        for field in Transition.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(got, field), getattr(sent, field), field)
        assert got.flags == sent.flags

    def test_not_a_number_survives(self):
        nan = np.full(6, np.nan, np.float32)
        sent = Transition(nan, np.zeros(2, np.float32), nan, 0.03, 1, Flag(0), 1, 0)
        message = codecs.transition_to_msg(QUAD, sent)
        assert np.isnan(codecs.transition_from_msg(QUAD, message).state).all()

    @pytest.mark.parametrize(
        ('spoil', 'words'),
        [
            (lambda m: m.layout.dim.pop(-2), ['stamp', 'none', '4']),
            (lambda m: setattr(m.layout.dim[1], 'size', 3), ['a has size 3', 'expected 2']),
            (lambda m: setattr(m.layout.dim[0], 'label', 'x'), ['s has size none', 'expected 6']),
            (lambda m: m.data.pop(), ['has 22 numbers', 'expected 23']),
            (lambda m: m.layout.dim.reverse(), ['stamp', 'expected 23']),
        ],
    )
    def test_another_layout_is_refused(self, spoil, words):
        zero = np.zeros(6, np.float32)
        sent = Transition(zero, zero[:2], zero, 0.03, 1, Flag(0), 1, 0)
        message = codecs.transition_to_msg(QUAD, sent)
        spoil(message)
        with pytest.raises(UserError) as caught:
            codecs.transition_from_msg(QUAD, message)
        for word in words:
            assert word in str(caught.value)

    def test_the_transition_of_another_robot_is_refused(self):
        zero = np.zeros(4, np.float32)
        sent = Transition(zero, zero[:2], zero, 0.02, 1, Flag(0), 1, 0)
        message = codecs.transition_to_msg(ARM, sent)
        with pytest.raises(UserError, match='s has size 4, expected 6'):
            codecs.transition_from_msg(QUAD, message)

    def test_one_of_the_same_sizes_is_known_by_its_name(self):
        zero = np.zeros(6, np.float32)
        sent = Transition(zero, zero[:2], zero, 0.03, 1, Flag(0), 1, 0)
        base = load_robot('base')
        message = codecs.transition_to_msg(base, sent)
        with pytest.raises(UserError, match=r'robot base, .* not of quad'):
            codecs.transition_from_msg(QUAD, message)
        slower = RobotSpec.model_validate({**QUAD.model_dump(), 'period': 0.1})
        with pytest.raises(UserError, match='another robot file'):
            codecs.transition_from_msg(slower, codecs.transition_to_msg(QUAD, sent))
        del message.layout.dim[-1]  # as recorded before it had a name
        assert codecs.transition_from_msg(QUAD, message).dt == pytest.approx(0.03)


class TestCommand:
    """Commands and the stamped action beside them."""

    def test_round_trip(self):
        command = np.array([1.5, 2.5], np.float32)
        message = through_ros(codecs.command_to_msg(QUAD, command))
        assert [d.label for d in message.layout.dim] == QUAD.action_names
        np.testing.assert_array_equal(codecs.command_from_msg(QUAD, message), command)

    def test_a_bare_array_is_taken_too(self):
        message = Float64MultiArray(data=[1.0, 2.0])
        np.testing.assert_array_equal(codecs.command_from_msg(QUAD, message), [1.0, 2.0])

    @pytest.mark.parametrize('data', [[1.0], [1.0, 2.0, 3.0], [1.0, math.nan], []])
    def test_wrong_sizes_and_not_finite_ones_are_refused(self, data):
        with pytest.raises(UserError, match='2 finite numbers'):
            codecs.command_from_msg(QUAD, Float64MultiArray(data=data))

    def test_actions_keep_stamp_command_plan_and_spread(self):
        command, planned = np.array([1.1, 2.2], np.float32), np.array([1.5, 2.2], np.float32)
        message = codecs.action_to_msg(QUAD, 123_456_789_012, command, planned, planned / 10)
        message = through_ros(message)
        stamp, got = codecs.action_from_msg(QUAD, message)
        assert stamp == 123_456_789_012
        np.testing.assert_array_equal(got.astype(np.float32), command)
        np.testing.assert_array_equal(np.array(message.velocity, np.float32), planned)

    def test_actions_of_another_robot_are_refused(self):
        message = codecs.action_to_msg(ARM, 0, np.zeros(2))
        with pytest.raises(UserError, match='shoulder_torque'):
            codecs.action_from_msg(QUAD, message)


def commanded(kind: str, *places: dict, **command):
    """A robot with one action for each of these places in its command message."""
    return RobotSpec.model_validate(
        {
            'name': 'thing',
            'period': 0.1,
            'sources': {'odom': {'topic': 'odom', 'type': 'nav_msgs/msg/Odometry'}},
            'state': [{'name': 'x', 'source': 'odom', 'field': 'position.x'}],
            'action': [{'name': f'a{i}', 'low': -9, 'high': 9, **p} for i, p in enumerate(places)],
            'command': {'topic': 'command', 'type': kind, **command},
            'goal': {'track': {'x': {}}, 'scale': 1},
            'cost': {'track': {'x': 1}},
        }
    )


TWISTED = ({'field': 'linear.x'}, {'field': 'angular.z'})
JOINTED = ({'joint': 'b', 'field': 'velocity'}, {'joint': 'a', 'field': 'velocity'})
POINTED = (
    {'joint': 'b', 'field': 'positions'},
    {'joint': 'a', 'field': 'positions'},
    {'joint': 'a', 'field': 'velocities'},
)
COMMANDED = [
    commanded('std_msgs/msg/Float64MultiArray', {}, {}),
    commanded('geometry_msgs/msg/Twist', *TWISTED),
    commanded('geometry_msgs/msg/TwistStamped', *TWISTED, frame='base_link'),
    commanded('sensor_msgs/msg/JointState', *JOINTED),
    commanded('trajectory_msgs/msg/JointTrajectory', *POINTED, reach=0.25),
]


class TestEveryCommand:
    """Commands of each type, as the controllers of ros2_control take them."""

    @pytest.mark.parametrize('spec', COMMANDED, ids=lambda s: s.command.type)
    @given(values=st.lists(SHORT, min_size=3, max_size=3))
    def test_a_command_survives_the_round_trip(self, spec, values):
        command = np.array(values[: len(spec.action)])
        message = through_ros(codecs.command_to_msg(spec, command, codecs.to_stamp(7)))
        np.testing.assert_array_equal(codecs.command_from_msg(spec, message), command)

    def test_twists_go_where_they_belong_with_stamp_and_frame(self):
        message = codecs.command_to_msg(COMMANDED[2], [0.5, -1.0], codecs.to_stamp(7_000_000_001))
        assert (message.twist.linear.x, message.twist.angular.z) == (0.5, -1.0)
        assert codecs.to_ns(message.header.stamp) == 7_000_000_001
        assert message.header.frame_id == 'base_link'
        assert codecs.command_to_msg(COMMANDED[1], [0.5, -1.0]).angular.z == -1.0

    def test_a_trajectory_has_one_point_to_be_reached_from_now(self):
        message = codecs.command_to_msg(COMMANDED[4], [1.0, 2.0, 3.0], codecs.to_stamp(5))
        assert codecs.to_ns(message.header.stamp) == 0 and message.joint_names == ['b', 'a']
        (point,) = message.points
        assert point.time_from_start.nanosec == 250_000_000
        np.testing.assert_array_equal(point.positions, [1.0, 2.0])
        np.testing.assert_array_equal(point.velocities, [np.nan, 3.0])  # b has none, not zero

    def test_joints_come_in_any_order_and_what_is_missing_is_named(self):
        spec = COMMANDED[3]
        message = JointState(name=['a', 'x', 'b'], velocity=[1.0, 9.0, 2.0])
        np.testing.assert_array_equal(codecs.command_from_msg(spec, message), [2.0, 1.0])
        with pytest.raises(UserError, match=r"no velocity for joint 'b'"):
            codecs.command_from_msg(spec, JointState(name=['a', 'b'], velocity=[1.0]))
        empty = codecs.command_to_msg(COMMANDED[4], [1.0, 2.0, 3.0])
        empty.points = []
        with pytest.raises(UserError, match='0 points'):
            codecs.command_from_msg(COMMANDED[4], empty)


class TestSources:
    """Sources beyond those of the shipped robots."""

    def test_arrays_and_poses_with_scale_and_offset(self):
        spec = parse_robot((share_dir() / 'config' / 'robots' / 'template.yaml').read_text())
        x = np.array([0.3, 0.2, -0.4, 0.0])
        sent = codecs.state_messages(spec, 9, x)
        assert sent['hook'].data[0] == pytest.approx(math.degrees(0.2))  # as the robot tells it
        stamp, read = codecs.read_channels(spec, 'hook', through_ros(sent['hook']), 77)
        assert stamp == 77 and read == {'swing': pytest.approx(0.2)}
        stamp, read = codecs.read_channels(spec, 'joints', through_ros(sent['joints']), 77)
        assert stamp == 9 and read == {'trolley': 0.3, 'trolley_speed': -0.4}
        with pytest.raises(UserError, match=r'source hook: no data\[0\]: the message has 0'):
            codecs.read_channels(spec, 'hook', Float64MultiArray())

    def test_poses(self):
        spec = robot('position.x', 'orientation.yaw', kind='geometry_msgs/msg/PoseStamped')
        sent = through_ros(codecs.state_messages(spec, 5, np.array([1.5, 0.7]))['odom'])
        stamp, read = codecs.read_channels(spec, 'odom', sent)
        assert stamp == 5 and read == {'c0': 1.5, 'c1': pytest.approx(0.7)}


@pytest.mark.parametrize(
    ('told', 'profile'),
    [
        (check.SENSOR_QOS, qos.SENSOR),
        (check.COMMAND_QOS, qos.COMMAND),
        (check.GOAL_QOS, qos.TELEMETRY),
    ],
)
def test_the_check_tells_the_quality_of_service_that_the_nodes_use(told, profile):
    words = [profile.reliability.name, profile.durability.name, profile.history.name]
    said = ', '.join(word.lower().replace('_', ' ') for word in words)
    assert told == f'{said} {profile.depth}'


class TestTheRest:
    """Named channels, bytes, events, tables."""

    @given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(allow_nan=False)), STAMP)
    def test_named_channels(self, values, stamp_ns):
        assert codecs.from_named(codecs.named(values, stamp_ns)) == (stamp_ns, values)

    @given(st.binary(max_size=200))
    def test_bytes(self, data):
        assert codecs.msg_to_bytes(through_ros(codecs.bytes_to_msg(data))) == data

    def test_events_are_json(self):
        message = codecs.event_to_msg('recall', 7, 3, {'regime': 'r1'})
        assert json.loads(message.data) == {
            'event': 'recall',
            'stamp_ns': 7,
            'step': 3,
            'regime': 'r1',
        }

    def test_tables(self):
        table = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        message = through_ros(codecs.table_to_msg(table, 'abc'))
        assert [d.stride for d in message.layout.dim] == [24, 12, 4]
        np.testing.assert_array_equal(codecs.table_from_msg(message, 'abc'), table)
        empty = codecs.table_to_msg(np.zeros((0, 3), np.float32), 'ab')
        assert codecs.table_from_msg(empty, 'ab').shape == (0, 3)
        with pytest.raises(UserError, match='expected axes'):
            codecs.table_from_msg(message, 'abd')
        with pytest.raises(UserError, match='1 numbers'):
            codecs.table_from_msg(Float32MultiArray(layout=message.layout, data=[1.0]), 'abc')
