"""A first robot file from what a robot publishes: it loads, it holds what was seen, it can act."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.robot import scene
from lifelong_bayes_ros.robot.command import COMMAND_FIELDS
from lifelong_bayes_ros.robot.draft import draft
from lifelong_bayes_ros.robot.messages import quaternion
from lifelong_bayes_ros.robot.observation import Seen
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot

STORE = get_typestore(Stores.ROS2_JAZZY)
JOINTS, ODOM = 'sensor_msgs/msg/JointState', 'nav_msgs/msg/Odometry'
POSE, TWIST = 'geometry_msgs/msg/PoseStamped', 'geometry_msgs/msg/TwistStamped'
ARRAY, TRAJECTORY = 'std_msgs/msg/Float64MultiArray', 'trajectory_msgs/msg/JointTrajectory'


def make(kind, **values):
    return STORE.types[kind](**values)


def header(seconds, frame='odom'):
    stamp = make('builtin_interfaces/msg/Time', sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
    return make('std_msgs/msg/Header', stamp=stamp, frame_id=frame)


def vector(x=0.0, y=0.0, z=0.0):
    return make('geometry_msgs/msg/Vector3', x=x, y=y, z=z)


def joint_state(t, names, position, velocity=()):
    values = {'position': position, 'velocity': velocity, 'effort': ()}
    values = {k: np.array(v, float) for k, v in values.items()}
    return make(JOINTS, header=header(t, 'base_link'), name=list(names), **values)


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0):
    w, i, j, k = quaternion(0.0, 0.0, yaw)
    return make(
        'geometry_msgs/msg/Pose',
        position=make('geometry_msgs/msg/Point', x=x, y=y, z=z),
        orientation=make('geometry_msgs/msg/Quaternion', x=i, y=j, z=k, w=w),
    )


def odometry(t, speed=0.5, turn=0.3, z=0.0):
    square = np.zeros(36)
    twist = make('geometry_msgs/msg/Twist', linear=vector(speed), angular=vector(0.0, 0.0, turn))
    return make(
        ODOM,
        header=header(t),
        child_frame_id='base_link',
        pose=make(
            'geometry_msgs/msg/PoseWithCovariance',
            pose=pose(speed * t, 0.1 * t, z, turn * t),
            covariance=square,
        ),
        twist=make('geometry_msgs/msg/TwistWithCovariance', twist=twist, covariance=square),
    )


def twist_stamped(t, speed, turn):
    twist = make('geometry_msgs/msg/Twist', linear=vector(speed), angular=vector(0.0, 0.0, turn))
    return make(TWIST, header=header(t, 'base_link'), twist=twist)


def array(values):
    layout = make('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    return make(ARRAY, layout=layout, data=np.array(values, float))


def seen(topic, kind, messages, rate=100.0, taken=False):
    times = [k / rate for k in range(len(messages))]
    return Seen(topic, kind, list(messages), times, taken)


def arm(names=('a', 'b', 'gripper'), velocity=True):
    """A robot whose first two joints move, at 100 Hz; the last one stays."""
    t = np.arange(200) / 100
    rows = []
    for s in t:
        place = [np.sin(s), 0.5 * np.cos(s), 0.02]
        speed = [np.cos(s), -0.5 * np.sin(s), 0.0] if velocity else []
        rows.append(joint_state(s, names, place, speed))
    return seen('/joint_states', JOINTS, rows)


def vehicle():
    return seen('/odom', ODOM, [odometry(k / 50) for k in range(100)], 50.0)


def test_an_arm_with_a_forward_controller():
    values = [array([0.3 * np.sin(k / 10), -0.1]) for k in range(50)]
    controller = seen('/forward_velocity_controller/commands', ARRAY, values, 40.0, True)
    text = draft([arm(), controller, seen('/cmd_vel', TWIST, [])], 'two joints')
    spec = parse_robot(text)
    assert spec.name == 'two_joints'
    assert spec.period == pytest.approx(1 / 40)  # as it was commanded
    assert spec.sources['joint_states'].rate == pytest.approx(100, rel=1e-2)
    assert spec.state_names == ['a', 'b', 'a_rate', 'b_rate']
    assert [c.field for c in spec.state] == ['position'] * 2 + ['velocity'] * 2
    low, high = spec.state[0].low, spec.state[0].high
    assert -0.5 < low < 0.0 and 1.0 < high < 1.5
    assert 'gripper' in text and '/cmd_vel' in text  # for the person who edits it
    assert [a.name for a in spec.action] == ['u0_command', 'u1_command']
    assert spec.action_high[0] == pytest.approx(0.3, rel=0.02)
    assert spec.command.topic == '/forward_velocity_controller/commands'
    assert list(spec.goal.track) == ['a', 'b'] and list(spec.cost.rate) == ['a', 'b']
    assert (spec.view.kind, spec.view.joints) == ('chain', ['a', 'b'])
    scene.scene(spec, np.zeros(4), {'nis': 1.0})  # it can be drawn


def test_a_vehicle_with_a_cmd_vel():
    sent = [twist_stamped(k / 20, 0.4, -0.8) for k in range(40)]
    wheels = arm(('left_wheel', 'right_wheel', 'caster'))
    topics = [wheels, vehicle(), seen('/cmd_vel', TWIST, sent, 20.0)]
    spec = parse_robot(draft(topics, 'rover'))
    assert list(spec.sources) == ['odom'] and spec.frame == 'odom'
    assert spec.state_names == ['x', 'y', 'heading', 'forward', 'yaw_rate'] or set(
        spec.state_names
    ) == {'x', 'y', 'heading', 'forward', 'yaw_rate'}
    assert [a.field for a in spec.action] == ['linear.x', 'angular.z']
    np.testing.assert_allclose(spec.action_high, [0.4, 0.8])
    assert spec.command.frame == 'base_link' and spec.period == pytest.approx(0.05)
    assert spec.state[spec.state_names.index('yaw_rate')].derivative_of == 'heading'
    assert (spec.view.kind, spec.view.heading) == ('vehicle', 'heading')
    scene.scene(spec, np.zeros(5), {'nis': 1.0})


def test_velocities_that_nobody_publishes_are_differences():
    spec = parse_robot(draft([arm(velocity=False), seen('/cmd', TRAJECTORY, [])], 'slow'))
    assert [c.field for c in spec.state[2:]] == ['difference'] * 2
    assert spec.safe_action.mode == 'hold'  # zero is a place like any other
    tracked = seen('/mocap/pose', POSE, [])
    for k in range(30):
        stamped = make(POSE, header=header(k / 30, 'map'), pose=pose(0.1 * k, 0.0, 0.0, 0.02 * k))
        tracked.add(stamped, k / 30)
    spec = parse_robot(draft([tracked, seen('/cmd_vel', TWIST, [])], 'ball'))
    assert spec.frame == 'map'
    assert {c.name: c.field for c in spec.state if c.derivative_of} == dict.fromkeys(
        ('vx', 'vy', 'yaw_rate'), 'difference'
    )


def test_commands_never_seen_get_careful_limits_and_say_so():
    text = draft([vehicle(), seen('/cmd_vel', TWIST, [], taken=True)], 'rover')
    spec = parse_robot(text)
    np.testing.assert_allclose(spec.action_high, [0.2, 0.3])
    assert 'guesses' in text


@settings(max_examples=60)
@given(
    names=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4, unique=True),
    kind=st.sampled_from(sorted(COMMAND_FIELDS)),
    scale=st.sampled_from([0.0, 1e-12, 1.0, 1e9]),
    count=st.integers(1, 5),
    robot=st.text(max_size=8),
)
def test_whatever_the_joints_are_called_the_file_loads(names, kind, scale, count, robot):
    rows = [joint_state(k, names, scale * np.sin(k + np.arange(len(names)))) for k in range(count)]
    text = draft([seen('/joint_states', JOINTS, rows), seen('/cmd', kind, [])], robot)
    spec = parse_robot(text)
    assert {c.joint for c in spec.state if c.joint} <= set(names)


def test_joints_without_finite_values_or_commands_are_told():
    nothing = seen('/joint_states', JOINTS, [joint_state(0, ['a'], [np.nan])])
    with pytest.raises(UserError, match='/joint_states: no finite numbers'):
        draft([nothing, seen('/cmd_vel', TWIST, [])], 'x')
    with pytest.raises(UserError, match='no topic that takes commands'):
        draft([arm()], 'x')
    with pytest.raises(UserError, match='no JointState, Odometry or PoseStamped'):
        draft([seen('/cmd_vel', TWIST, [])], 'x')
    with pytest.raises(UserError, match=r'/commands .* never sent'):
        draft([vehicle(), seen('/commands', ARRAY, [])], 'x')


# ---------------------------------------------------------------------- the command
def write_bag(path: Path, topics) -> None:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in topics:
            connection = writer.add_connection(topic.topic, topic.type, typestore=STORE)
            for message, t in zip(topic.messages, topic.times, strict=True):
                data = STORE.serialize_cdr(message, topic.type)
                writer.write(connection, round(t * 1e9), data)


def test_from_a_bag_to_a_file_that_the_check_accepts(tmp_path, capsys):
    sent = seen('/cmd_vel', TWIST, [twist_stamped(k / 20, 0.4, 0.8) for k in range(40)], 20.0)
    write_bag(tmp_path / 'bag', [vehicle(), sent])
    out = tmp_path / 'rover.yaml'
    words = ['robot', 'init', '--from-bag', str(tmp_path / 'bag'), '--name', 'rover']
    assert cli.main([*words, '--out', str(out)]) == 0
    assert out.read_text().count('EDIT') >= 2
    assert load_robot(out).command.topic == '/cmd_vel'
    assert cli.main(['robot', 'check', str(out), '--json']) == 0
    assert '/cmd_vel' in capsys.readouterr().out
    before = out.read_text()
    out.write_text('mine')
    assert cli.main([*words, '--out', str(out)]) == 2  # nothing of a person's is overwritten
    assert out.read_text() == 'mine'
    assert cli.main([*words, '--out', str(out), '--force']) == 0
    assert out.read_text() == before


def test_bags_that_hold_no_robot_are_told(tmp_path, capsys):
    assert cli.main(['robot', 'init', '--from-bag', str(tmp_path / 'none')]) == 2
    assert 'no such bag' in ' '.join(capsys.readouterr().err.split())
    note = seen('/chatter', 'std_msgs/msg/String', [make('std_msgs/msg/String', data='hi')])
    write_bag(tmp_path / 'bag', [note])
    out = tmp_path / 'x.yaml'
    words = ['robot', 'init', '--from-bag', str(tmp_path / 'bag'), '--out', str(out)]
    assert cli.main(words) == 2
    assert '/chatter' in capsys.readouterr().err and not out.exists()


def test_a_shipped_robot_reads_as_it_was_written():
    for name in ('base', 'six_axis'):
        assert yaml.safe_load(load_robot(name).dump())['name'] == name
