"""What an operator sees: the files of RViz and PlotJuggler, the terminal, the bag and its picture.

Against one life through real nodes, whose recorder is killed at the end.
"""

import io
import json
import os
import signal
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('mujoco')

import matplotlib.image
from matplotlib.animation import FFMpegWriter
from rich.console import Console

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.draw import frames
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.nodes import topics, viewers
from lifelong_bayes_ros.nodes.bringup import Bringup
from lifelong_bayes_ros.nodes.table import Common
from lifelong_bayes_ros.nodes.watch import Watch
from lifelong_bayes_ros.robot import scene
from lifelong_bayes_ros.robot.spec import load_robot, robot_names
from source_tree import ROOT

PATIENCE = 240.0
LIFE = """
robot: quad
regimes: {A: [], B: [{payload: {mass: 0.4}}]}
phases: [[A, 40], [B, 40]]
episode: 30
"""
RVIZ = yaml.safe_load((ROOT / 'config' / 'lifelong.rviz').read_text())['Visualization Manager']
LAYOUT = ElementTree.parse(ROOT / 'config' / 'lifelong.plotjuggler.xml').getroot()
# The message that each display takes (rviz_default_plugins).
DISPLAYS = {
    'rviz_default_plugins/MarkerArray': 'visualization_msgs/msg/MarkerArray',
    'rviz_default_plugins/Path': 'nav_msgs/msg/Path',
    'rviz_default_plugins/PoseWithCovariance': 'geometry_msgs/msg/PoseWithCovarianceStamped',
    'rviz_default_plugins/PointCloud2': 'sensor_msgs/msg/PointCloud2',
}
SHOWN = [d for d in RVIZ['Displays'] if 'Topic' in d]
CURVES = [c.get('name') for c in LAYOUT.iter('curve')]
SELECTED = LAYOUT.find('.//selected_topics').get('value').split(';')


class Run:
    """What is left of the life."""

    def __init__(self) -> None:
        self.offered = {}  # by full name: type, reliable, transient local
        self.screen = ''
        self.steps = 0


@pytest.fixture(scope='module')
def run(tmp_path_factory, tiny_prior):
    folder = tmp_path_factory.mktemp('watching')
    (folder / 'life.yaml').write_text(LIFE)
    (folder / 'tiny.safetensors').write_bytes(encode_prior(tiny_prior))
    found = Run()
    found.bag, found.life = folder / 'bag', load_life(folder / 'life.yaml')
    settings = {
        'robot': 'quad',
        'prior': str(folder / 'tiny.safetensors'),
        'sim': True,
        'viz': True,
        'life': str(folder / 'life.yaml'),
        'out': str(found.bag),
    }
    reports = []
    with Bringup(settings, folder / 'log', private=True) as bringup:
        node = bringup.node
        watch = Watch(node)

        def on_truth(message):
            found.steps = json.loads(message.data)['step'] + 1

        def on_diagnostics(message):
            reports.extend(s for s in message.status if s.name.startswith('recorder'))

        def until(done, what):
            deadline = time.monotonic() + PATIENCE
            while not done():
                assert time.monotonic() < deadline, f'{what}: not within {PATIENCE:g} s'
                assert not bringup.watch() or 'recorder' in bringup.watch(), bringup.watch()
                bringup.spin(0.05)

        truth, told = topics.REGIME, topics.DIAGNOSTICS
        node.create_subscription(truth.type, truth.name, on_truth, truth.qos)
        node.create_subscription(told.type, told.name, on_diagnostics, told.qos)
        bringup.start()
        for name in {d['Topic']['Value'] for d in SHOWN} | set(SELECTED):
            until(lambda n=name: node.get_publishers_info_by_topic(n), f'{name} is advertised')
            found.offered[name] = node.get_publishers_info_by_topic(name)[0]
        until(lambda: found.steps == found.life.steps, 'end of the life')
        heard = len(reports)
        # A report a second, and a flush a second: after three, all was flushed.
        until(lambda: len(reports) > heard + 3, 'the recorder goes on')
        found.diagnosis = reports[-1].message
        console = Console(record=True, width=110, file=io.StringIO())
        console.print(watch.view())
        found.screen = console.export_text()
        found.events = list(watch.events)
        os.killpg(bringup.processes['recorder'].pid, signal.SIGKILL)
        until(lambda: 'recorder' in bringup.watch(), 'the recorder is gone')
    return found


@pytest.mark.parametrize('display', SHOWN, ids=lambda d: d['Name'])
def test_rviz_is_shown_what_the_nodes_offer(run, display):
    wanted = display['Topic']
    offered = run.offered[wanted['Value']]
    assert offered.topic_type == DISPLAYS[display['Class']]
    profile = offered.qos_profile
    if wanted['Reliability Policy'] == 'Reliable':
        assert profile.reliability.name == 'RELIABLE'
    if wanted['Durability Policy'] == 'Transient Local':
        assert profile.durability.name == 'TRANSIENT_LOCAL'
    assert wanted['History Policy'] == 'Keep Last' and wanted['Depth'] >= 1


def test_a_latched_topic_is_asked_for_as_such():
    """Or RViz, which always comes late, would never see it."""
    latched = {t.name for t in topics.FIXED if t.qos.durability.name == 'TRANSIENT_LOCAL'}
    for display in SHOWN:
        name = display['Topic']['Value'].rpartition('/')[2]
        durability = display['Topic']['Durability Policy']
        assert (durability == 'Transient Local') == (name in latched)


def test_everything_for_rviz_is_shown():
    ours = {f'/lifelong/{t.name}' for t in topics.FIXED if t.node == 'uncertainty_viz'}
    assert {d['Topic']['Value'] for d in SHOWN} == ours


@pytest.mark.parametrize('robot', robot_names())
def test_rviz_takes_the_frame_of_each_robot(monkeypatch, tmp_path, robot):
    monkeypatch.setenv('PATH', str(tmp_path))
    (tmp_path / 'rviz2').touch(0o755)
    frame = load_robot(robot).frame
    ((words, _), _) = viewers.commands(Common(), robot=robot)
    assert words[words.index('-f') + 1] == frame
    assert words.index('-f') < words.index('--ros-args')  # what comes after is for ROS
    ((words, _), _) = viewers.commands(Common(), robot=robot, frame='map')
    assert words[words.index('-f') + 1] == 'map'
    # Without a word about it the view keeps its own, which is that of the first robot to try.
    ((words, _), _) = viewers.commands(Common())
    assert '-f' not in words
    assert RVIZ['Global Options']['Fixed Frame'] == load_robot('quad').frame


@pytest.mark.parametrize('topic', SELECTED)
def test_plotjuggler_listens_to_named_channels(run, topic):
    assert run.offered[topic].topic_type == 'sensor_msgs/msg/JointState'
    assert any(curve.startswith(f'{topic}/') for curve in CURVES)


def test_every_curve_is_a_channel_that_the_nodes_fill(run):
    with open_bag(run.bag) as bag:
        names = {
            f'/lifelong/{kind}/{name}/position'
            for kind in ('learner_state', 'uncertainty')
            for _, message in list(bag.messages(kind))[-1:]
            for name in message.name
        }
    assert set(CURVES) <= names
    assert {curve[: curve.index('/', 10)] for curve in CURVES} == set(SELECTED)


def test_the_killed_recorder_has_left_every_transition(run):
    with open_bag(run.bag) as bag:
        assert len(list(bag.messages('transition'))) == run.life.steps + 1
        assert bag.prior()[0].dynamics.spec == load_robot('quad')
    assert run.diagnosis.startswith('recording to')


def test_the_terminal_shows_state_beliefs_events_and_diagnostics(run):
    quad = load_robot('quad')
    assert any(word in run.screen for word in ('AS BUILT', 'CHANGED', 'NEW', 'TRUSTED'))
    for name in quad.state_names:
        assert f' {name} ' in run.screen
    for text in ('regime nominal', 'regime new', 'surprise', 'model', 'policy: control', '±'):
        assert text in run.screen
    assert 'lost 0' in run.screen
    for event in run.events:
        assert f'step {event["step"]}: {event["event"]}' in run.screen


def test_what_is_drawn_is_where_the_robot_was(run):
    quad = load_robot('quad')
    with open_bag(run.bag) as bag:
        shown = list(frames(bag))
        states = [
            np.array([m.pose.pose.position.x, m.pose.pose.position.z])
            for _, m in bag.messages('odom')
        ]
    assert shown
    for frame in shown:
        (body,) = [s for s in frame.shapes if s.ns == 'robot']
        off = np.linalg.norm(np.array(states) - body.position[[0, 2]], axis=1)
        assert off.min() < 1e-6
        assert np.allclose(np.sort(body.size), [0.04, 0.06, 0.4])
    last = shown[-1]
    kinds = [s.ns for s in last.shapes]
    assert kinds.count('noise') == kinds.count('ignorance') == scene.TUBE
    assert {'futures', 'headline', 'figures', 'mode'} <= set(kinds)
    (fan,) = [s for s in last.shapes if s.ns == 'futures']
    futures = fan.points.reshape(-1, scene.LEGS, 2, 3)
    assert len(last.path) == quad.planner.horizon
    # The path is that of this picture: the mean of its futures.
    np.testing.assert_allclose(futures[:, 0, 0].mean(axis=0), last.path[0], atol=1e-6)
    np.testing.assert_allclose(futures[:, -1, 1].mean(axis=0), last.path[-1], atol=1e-6)


@pytest.mark.parametrize('ending', ['png', 'gif', 'mp4'])
def test_a_bag_is_drawn(run, tmp_path, capsys, ending):
    if ending == 'mp4' and not FFMpegWriter.isAvailable():
        pytest.skip('no ffmpeg')
    out = tmp_path / f'view.{ending}'
    assert cli.main(['draw', str(run.bag), '--out', str(out)]) == 0
    assert capsys.readouterr().out == f'{out}\n'
    if ending == 'png':
        picture = matplotlib.image.imread(out)[..., :3]
        orange = (picture[..., 0] > 0.6) & (picture[..., 2] < 0.2)
        blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.4)
        assert orange.sum() > 20 and blue.sum() > 20
    elif ending == 'gif':
        assert out.read_bytes()[:4] == b'GIF8'
    else:
        assert out.read_bytes()[4:8] == b'ftyp'
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_a_page_tells_of_it(run, tmp_path, capsys):
    out = tmp_path / 'page.html'
    assert cli.main(['report', str(run.bag), '--out', str(out), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['transitions'] == run.life.steps + 1
    page = out.read_text()
    assert page.count('data:image/png;base64,') == 2
    assert 'http' not in page  # nothing is fetched from elsewhere
    assert out.with_suffix('.png').read_bytes()[:4] == b'\x89PNG'
    for event in found['events']:
        assert f'<td>{event}</td>' in page


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--out', 'view.bmp'], 'ends with .bmp'),
        (['--out', 'view.gif', '--at', '1'], 'is for pictures'),
    ],
)
def test_what_cannot_be_drawn_is_refused(run, capsys, arguments, reason):
    assert cli.main(['draw', str(run.bag), *arguments]) == 2
    assert reason in ' '.join(capsys.readouterr().err.split())


def test_a_film_without_an_encoder_is_refused(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('matplotlib.animation.FFMpegWriter.isAvailable', lambda: False)
    assert cli.main(['draw', str(run.bag), '--out', str(tmp_path / 'view.mp4')]) == 2
    assert 'needs ffmpeg' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
