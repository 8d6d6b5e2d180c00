"""Pictures of a recording: what is in view, and when it was."""

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.draw import HALF, SIZE, Frame, close_up, frames
from lifelong_bayes_ros.robot import scene
from lifelong_bayes_ros.robot.spec import load_robot

STORE = get_typestore(Stores.ROS2_JAZZY)
FIGURES = {'regime.nominal': 1.0, 'changed.actuator_gain_force': 0.9, 'changed.damping_of_it': 0.8}
PATHLESS = 5  # second of a picture whose path was lost
PACE = 0.6  # wall seconds of a second of the robot


def make(kind, **fields):
    """A message with the rest of its fields empty."""
    made = STORE.types[kind]
    empty = {'float64': 0.0, 'float32': 0.0, 'string': '', 'bool': False}
    for name, (node, detail) in STORE.fielddefs[kind][1]:
        if name not in fields and node == 1:
            fields[name] = empty.get(detail[0], 0)
        elif name not in fields and node == 2:
            fields[name] = make(detail)
        elif name not in fields:
            number = detail[0][1][0] in ('float64', 'uint8')
            fields[name] = np.zeros(0, detail[0][1][0]) if number else []
    return made(**fields)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Ten seconds of a robot's clock, from 100 s on, in six of the wall: it stands at its time."""
    path = tmp_path_factory.mktemp('drawn') / 'bag'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def send(topic, kind, message, second):
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=STORE)
            received = round((5 + PACE * second) * 1e9)
            writer.write(topics[topic], received, STORE.serialize_cdr(message, kind))

        topics = {}
        for second in range(11):
            stamp = make('builtin_interfaces/msg/Time', sec=100 + second)
            header = make('std_msgs/msg/Header', stamp=stamp)
            kind = 'sensor_msgs/msg/JointState'
            send('/lifelong/learner_state', kind, make(kind, header=header), second)
            if second:  # the display comes later
                place = make('geometry_msgs/msg/Point', x=float(second))
                pose = make('geometry_msgs/msg/Pose', position=place)
                pose.orientation.w = 1.0
                body = {'type': 1, 'ns': 'robot', 'pose': pose, 'header': header}
                kind = 'visualization_msgs/msg/MarkerArray'
                marker = make('visualization_msgs/msg/Marker', **body)
                send('/lifelong/markers', kind, make(kind, markers=[marker]), second)
                if second != PATHLESS:
                    kind, pose = 'nav_msgs/msg/Path', make('geometry_msgs/msg/PoseStamped')
                    pose.pose.position.x = float(second)
                    path_sent = make(kind, header=header, poses=[pose])
                    send('/lifelong/predicted_path', kind, path_sent, second + 0.01)
    return path


@pytest.mark.parametrize(('at', 'second'), [(None, 10), (0, 1), (5, 5), (7.4, 7), (10.9, 10)])
def test_a_picture_is_of_a_second_of_the_robots_clock(bag, at, second):
    with open_bag(bag) as opened:
        (frame,) = frames(opened, at, film=False)
    assert frame.shapes[0].position[0] == second
    assert frame.seconds == pytest.approx(second)
    assert frame.path[:, 0].tolist() == ([] if second == PATHLESS else [second])


def test_a_film_shows_every_picture_with_its_own_path(bag):
    with open_bag(bag) as opened:
        film = list(frames(opened, None, film=True))
    assert [frame.seconds for frame in film] == pytest.approx(range(1, 11))
    for second, frame in enumerate(film, start=1):
        assert frame.path[:, 0].tolist() == ([] if second == PATHLESS else [second])


@pytest.mark.parametrize(
    ('at', 'reason'),
    [('nan', 'since the first'), ('inf', 'since'), ('-1', 'since'), ('12', 'shows 0 to 10.0 s')],
)
def test_a_time_that_is_not_of_the_recording_is_refused(bag, tmp_path, capsys, at, reason):
    assert cli.main(['draw', str(bag), '--out', str(tmp_path / 'a.png'), '--at', at]) == 2
    assert reason in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('name', ['quad', 'arm', 'diffdrive', 'cartpole'])
def test_robot_path_and_words_are_in_view_however_unsure_it_is(name):
    spec = load_robot(name)
    rng = np.random.default_rng(0)
    x = np.full(len(spec.state), 0.3)
    members = x + rng.standard_normal((16, 12, len(x))).cumsum(axis=1)
    spread = np.stack([members.mean(axis=0), *np.full((2, 12, len(x)), 9.0)])
    futures = scene.place(spec, members)
    shapes = scene.scene(spec, x, FIGURES, futures, spread)
    path = futures.mean(axis=0)
    camera = close_up(Frame(0.0, shapes, path))
    robot = [s for s in shapes if s.ns == 'robot']
    texts = [s for s in shapes if s.kind == 'text']
    points = np.concatenate([path, *([s.position] for s in robot + texts)])
    at, depth = camera(points)
    assert (np.abs(at) < [HALF * SIZE[0] / SIZE[1], HALF]).all()
    # Large enough to read, and near the robot.
    assert texts[0].size[0] / depth[-len(texts)] / (2 * HALF) > 0.015
    assert texts[0].position[2] - max(s.position[2] for s in robot) < 2.5
    ellipsoids = [s.size.max() for s in shapes if s.ns in ('noise', 'ignorance')]
    assert max(ellipsoids) <= scene.WIDEST * scene.length(spec) + 1e-9
    assert any('drawn at most' in s.text for s in texts)
    assert [s.text for s in texts[:2]] == [
        'CHANGED: actuator gain force 90%,',
        'damping of it 80%',
    ]
