"""What the recorder and the terminal make of full disks, lost folders and messages of others."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')

import rclpy
from rclpy.duration import Duration
from rclpy.serialization import serialize_message
from rich.console import Console
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.store import START, STATE_FOLDER, load_state, save_state
from lifelong_bayes_ros.nodes import bag_writer, disk, recorder, topics
from lifelong_bayes_ros.nodes.base import ERROR, OK, WARN
from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.codecs import event_to_msg, named, transition_to_msg
from lifelong_bayes_ros.nodes.this_machine import environment, this_machine
from lifelong_bayes_ros.nodes.watch import Watch
from plants import HOME, QUAD, stream

FOREIGN = ['hello', '[1, 2]', '{"step": 3}', '{"event": "saved", "folder": 3}', '\u00e4' * 100]


class Log:
    """Keeps what a node logs."""

    def __init__(self):
        self.lines = {'error': [], 'warning': [], 'info': []}

    def __getattr__(self, level):
        return lambda text, **_: self.lines[level].append(text)


@pytest.fixture
def node(tmp_path):
    """An active recorder, alone in a domain of its own."""
    domain, lock = claim_domain()
    arguments = ['-p', 'robot:=quad', '-p', f'out:={tmp_path / "bag"}']
    rclpy.init(args=['--ros-args', *arguments], domain_id=domain)
    node = recorder.Recorder()
    node.trigger_configure()
    node.trigger_activate()
    yield node
    if node.active:
        node.trigger_deactivate()
    node.destroy_node()
    rclpy.try_shutdown()
    lock.close()


@pytest.fixture
def log(node, monkeypatch):
    log = Log()
    monkeypatch.setattr(node, 'get_logger', lambda: log)
    return log.lines


@pytest.fixture
def state(tiny_prior, tmp_path):
    """A state directory of a learner, and the event that tells of it."""
    folder = tmp_path / 'state'
    digest = save_state(Learner(tiny_prior), folder)
    return folder, event_to_msg('saved', 7, 0, {'folder': str(folder), 'digest': digest})


def hear(node, message, topic=topics.EVENT):
    """As from DDS."""
    name = node.resolve_topic_name(topic.name)
    (entity,) = (s for s in node.subscriptions if s.topic_name == name)
    entity.callback(serialize_message(message))


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_recorder_that_stands_still_for_seconds_loses_nothing(tmp_path):
    """As where the disk or the host is busy: 800 transitions, 24 s of the quadrotor."""
    domain, lock = claim_domain()
    arguments = ['-p', 'robot:=quad', '-p', f'out:={tmp_path / "bag"}', '-p', 'autostart:=true']
    command = [sys.executable, '-m', 'lifelong_bayes_ros.nodes.recorder', '--ros-args', *arguments]
    sent, before = stream(HOME, 850, 0), 50
    with environment(this_machine() | {'ROS_DOMAIN_ID': str(domain)}), lock:
        process = subprocess.Popen(command)
        rclpy.init()
        try:
            sender = rclpy.create_node('sender', namespace='lifelong')
            topic = topics.TRANSITION
            publisher = sender.create_publisher(topic.type, topic.name, topic.qos)
            deadline = time.monotonic() + 30
            while not (publisher.get_subscription_count() and (tmp_path / 'bag').exists()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for number, transition in enumerate(sent):
                if number == before:
                    process.send_signal(signal.SIGSTOP)
                publisher.publish(transition_to_msg(QUAD, transition))
                time.sleep(0.002)
            process.send_signal(signal.SIGCONT)
            assert publisher.wait_for_all_acked(Duration(seconds=20))
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            rclpy.shutdown()
    with open_bag(tmp_path / 'bag') as recorded:
        assert recorded.topics()['/lifelong/transition'] == len(sent)


def test_a_state_is_copied_whole(node, state, tmp_path):
    node.asked = True
    hear(node, state[1])
    copy = tmp_path / 'bag' / STATE_FOLDER
    start = json.loads((copy / START).read_text())
    assert start == {'step': 0, 'stamp_ns': 7, 'digest': load_state(copy).digest()}
    assert node.diagnose()[:2] == (OK, f'recording to {tmp_path / "bag"}')


@pytest.mark.parametrize('step', ['copyfile', 'write_atomically', 'mkdir'])
def test_a_disk_too_full_for_a_state_is_an_error_and_the_recording_goes_on(
    node, log, state, tmp_path, monkeypatch, step
):
    bag = tmp_path / 'bag'
    node.asked = True
    with monkeypatch.context() as patch:
        place = {'copyfile': shutil, 'write_atomically': recorder, 'mkdir': recorder.Path}[step]
        patch.setattr(place, step, full)
        hear(node, state[1])
        hear(node, state[1])
    node._flush()
    level, message, _ = node.diagnose()
    assert level == ERROR
    for text in (str(bag), 'No space left', 'make room', recorder.FROM_PRIOR):
        assert text in message
    assert log['error'] == [node.lost_start] and node.lost_start in message
    hear(node, event_to_msg('shift', 8, 1, {}))
    node.trigger_deactivate()
    assert not (bag / STATE_FOLDER).exists()  # half a state would be taken for one
    with open_bag(bag) as opened:
        assert len(list(opened.messages('event'))) == 3


def test_a_full_disk_is_an_error_that_is_logged_once(node, log, tmp_path, monkeypatch):
    hear(node, event_to_msg('shift', 8, 1, {}))
    monkeypatch.setattr(bag_writer.os, 'fdatasync', full)
    for _ in range(3):
        node._flush()
        hear(node, event_to_msg('shift', 9, 2, {}))
    level, message, figures = node.diagnose()
    assert (level, message) == (ERROR, f'not recording: {node.trouble}')
    assert node.trouble.startswith(f'{tmp_path / "bag"}: No space left')
    assert 'free the disk and record to a new folder' in message
    assert log['error'] == [node.trouble]
    assert figures['messages'] == 1


def test_a_bag_that_was_removed_is_an_error(node, log, tmp_path):
    shutil.rmtree(tmp_path / 'bag')
    node.diagnose()
    for _ in range(3):
        node._flush()
    level, message, _ = node.diagnose()
    assert level == ERROR
    assert f'{tmp_path / "bag"}: No such file' in message
    assert 'it was removed or moved; record to a new folder' in message
    assert log['error'] == [node.trouble]
    node.trigger_deactivate()
    assert len(log['error']) == 1


def test_a_disk_that_fills_is_a_warning(node, tmp_path, monkeypatch):
    free = recorder.LEAST_FREE - 1e6
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(0, 0, free))
    level, message, figures = node.diagnose()
    assert level == WARN
    assert message.startswith(f'recording to {tmp_path / "bag"}, only 999 MB are left on the disk')
    assert figures['disk free MB'] == '999'


def test_how_much_room_is_left_is_told_of_the_folder_that_is_there(tmp_path, monkeypatch):
    figure, said = disk.room(tmp_path / 'not' / 'yet', 0)
    assert figure.isdigit() and said == ''
    lean = shutil._ntuple_diskusage(0, 0, disk.LOW - 1e6)
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda _: lean)
    figure, said = disk.room(tmp_path / 'not' / 'yet')
    assert figure == '499'
    assert said == f'only 499 MB are left on the disk of {tmp_path}; make room'
    assert disk.room(tmp_path, lean.free) == ('499', '')
    monkeypatch.setattr(disk.Path, 'exists', full)
    assert disk.room(tmp_path) == ('unknown', f'{tmp_path}: No space left on device')


@pytest.mark.parametrize('text', FOREIGN)
def test_an_event_of_others_is_recorded_and_not_taken_for_a_state(node, log, text, tmp_path):
    node.asked = True
    hear(node, String(data=text))
    assert node.counts['bad message on event'] == 1
    assert 'let' in log['warning'][0] and 'bad message on event' in log['warning'][0]
    assert not node.copied
    node.trigger_deactivate()
    with open_bag(tmp_path / 'bag') as bag:
        assert [m.data for _, m in bag.messages('event')] == [text]


class Hub:
    """A node that only keeps who listens."""

    def __init__(self):
        self.hear = {}

    def create_subscription(self, kind, name, callback, qos):
        self.hear[name] = callback


def screen(watch):
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(watch.view())
    return ' '.join(console.export_text().split())


@pytest.mark.parametrize('text', [*FOREIGN[:3], '{"event": "x", "step": 1, "regimes": 3}'])
def test_the_terminal_leaves_out_an_event_of_others_with_a_word(text):
    hub = Hub()
    watch = Watch(hub)
    hub.hear[topics.EVENT.name](String(data=text))
    hub.hear[topics.EVENT.name](event_to_msg('shift', 8, 12, {'reason': 'a [/b] of it'}))
    said = screen(watch)
    assert f'left out on event: {text!r} is no event of our nodes' in said
    assert 'step 12: shift a [/b] of it' in said


def test_the_terminal_leaves_out_figures_of_others_with_a_word():
    hub = Hub()
    watch = Watch(hub)
    hub.hear[topics.LEARNER_DISPLAY.name](named({'surprise.fast': 1.25}, 8))
    hub.hear[topics.LEARNER_DISPLAY.name](JointState(name=['a', 'b'], position=[1.0]))
    said = screen(watch)
    why = '2 names with 1 values are no figures of our nodes'
    assert f'left out on learner_state/display: {why}' in said
    assert 'surprise 1.25' in said
