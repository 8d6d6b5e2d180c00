"""The command line as its user meets it: results, exit codes, and no traceback for a mistake."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.experiments import bench
from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.draw import frames
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.lives import report_object, row
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.store import START, STATE_FOLDER, load_state, save_state
from lifelong_bayes_ros.robot import wire
from lifelong_bayes_ros.robot.spec import load_robot

QUAD = load_robot('quad')


class Tape(LearningAgent):
    """Drives the robot and keeps every transition."""

    def __init__(self, prior, seed):
        super().__init__(prior, seed)
        self.tape = []

    def observe(self, transition):
        self.tape.append(transition)
        super().observe(transition)


def write_bag(
    path: Path, prior, tape, digest: str | None, spoil=lambda data: data, step=81, start=None
) -> None:
    """A bag as the recorder writes it, made without ROS."""
    store = get_typestore(Stores.ROS2_JAZZY)
    message = {n: store.types[f'std_msgs/msg/{n}'] for n in ('String', 'MultiArrayLayout')}
    dimension = store.types['std_msgs/msg/MultiArrayDimension']
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def send(topic, kind, content, stamp):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_cdr(content, kind))

        connections = {}
        layout = message['MultiArrayLayout'](dim=[], data_offset=0)
        if prior is not None:
            kind = 'std_msgs/msg/UInt8MultiArray'
            data = encode_prior(prior, seed=0, config={})
            data = np.frombuffer(spoil(data), np.uint8)
            send('/lifelong/belief/trunk', kind, store.types[kind](layout=layout, data=data), 0)
        kind = 'std_msgs/msg/Float32MultiArray'
        labels = [dimension(label=k, size=n, stride=n) for k, n in wire.sizes(QUAD).items()]
        labelled = message['MultiArrayLayout'](dim=labels, data_offset=0)
        if start is not None:  # the learner has just told of its state
            text = message['String'](data=json.dumps({'event': 'saved', **start}))
            send('/lifelong/event', 'std_msgs/msg/String', text, 0)
        for number, transition in enumerate(tape, start=1):
            content = store.types[kind](layout=labelled, data=wire.encode(transition))
            send('/lifelong/transition', kind, content, number)
        if digest is not None:
            text = message['String'](
                data=json.dumps({'event': 'saved', 'digest': digest, 'step': step})
            )
            send('/lifelong/event', 'std_msgs/msg/String', text, len(tape) + 1)


@pytest.fixture(scope='module')
def recorded(tiny_prior):
    """A short life of the quadrotor: its transitions and the learner at its end."""
    phases = {'phases': [('A', 40), ('B', 40)], 'episode': 50}
    life = load_life('quad').model_copy(update=phases)
    agent = Tape(tiny_prior, seed=0)
    run_life(QUAD, life, agent, seed=0)
    return agent


def test_a_replayed_bag_ends_in_the_posterior_of_the_live_learner(
    recorded, tiny_prior, tmp_path, capsys
):
    digest = recorded.learner.digest()
    write_bag(tmp_path / 'bag', tiny_prior, recorded.tape, digest)
    code = cli.main(['replay', str(tmp_path / 'bag'), '--out', str(tmp_path / 'state'), '--json'])
    outcome = json.loads(capsys.readouterr().out)
    assert code == 0
    assert outcome['equal'] is True
    assert outcome['transitions'] == len(recorded.tape) == 81
    assert outcome['lost'] == 0
    assert load_state(tmp_path / 'state').digest() == digest
    speed, same = outcome['rows']
    assert speed == row('replay, times real time', outcome['speed'], '', 'higher', 20.0)
    assert same == row('posterior equal to the live one', 1.0, '', 'higher', 1.0)
    assert outcome['machine'] and outcome['seeds'] == [0]


def test_a_replay_needs_no_simulator(recorded, tiny_prior, tmp_path, capsys, monkeypatch):
    write_bag(tmp_path / 'bag', tiny_prior, recorded.tape, recorded.learner.digest())
    for missing in ('mujoco', 'gymnasium', 'lifelong_bayes_ros_sim'):
        monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(['replay', str(tmp_path / 'bag'), '--json']) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome['equal'] is outcome['rows'][1]['ok'] is True


def test_a_bag_that_lost_a_transition_says_so(recorded, tiny_prior, tmp_path, capsys):
    tape = recorded.tape[:30] + recorded.tape[31:]
    write_bag(tmp_path / 'bag', tiny_prior, tape, recorded.learner.digest(), step=80)
    assert cli.main(['replay', str(tmp_path / 'bag'), '--json']) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome['lost'] == 1
    assert outcome['equal'] is False
    assert outcome['rows'][1]['ok'] is False
    assert cli.main(['replay', str(tmp_path / 'bag')]) == 1
    assert 'saved: NO, transitions are missing in the bag' in capsys.readouterr().out


def test_a_recording_of_a_learner_that_knew_more_is_not_taken_for_its_whole_life(
    recorded, tiny_prior, tmp_path, capsys
):
    for name, tape, knew in (('whole', recorded.tape, False), ('late', recorded.tape[30:], True)):
        write_bag(tmp_path / name, tiny_prior, tape, None)
        assert cli.main(['replay', str(tmp_path / name)]) == 0
        assert ('this is not its posterior' in capsys.readouterr().out) == knew
        assert cli.main(['replay', str(tmp_path / name), '--json']) == 0
        same = json.loads(capsys.readouterr().out)['rows'][1]
        assert (same['value'], same['bar'], same['ok']) == (None, None, None)


def damage(data: bytes) -> bytes:
    spoilt = bytearray(data)
    spoilt[-5] ^= 1
    return bytes(spoilt)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda path, prior, tape: None, 'no such bag'),
        (lambda path, prior, tape: path.mkdir(), 'not a readable bag'),
        (lambda path, prior, tape: write_bag(path, None, tape, None), 'belief/trunk'),
        (lambda path, prior, tape: write_bag(path, prior, [], None), 'no transitions'),
        (lambda path, prior, tape: write_bag(path, prior, tape, None, damage), 'damaged'),
    ],
    ids=['missing', 'empty folder', 'no trunk', 'no transitions', 'damaged trunk'],
)
def test_a_bag_that_cannot_be_replayed_is_refused_with_the_reason(
    make, words, recorded, tiny_prior, tmp_path, capsys
):
    make(tmp_path / 'bag', tiny_prior, recorded.tape)
    assert cli.main(['replay', str(tmp_path / 'bag')]) == 2
    assert words in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    'command', [['demo', '--robot'], ['life', '--robots'], ['pretrain', '--robot']]
)
def test_an_unknown_robot_ends_with_status_2_and_the_known_ones(command, capsys):
    assert cli.main([*command, 'wombat']) == 2
    message = capsys.readouterr().err.replace('\n', ' ')
    assert 'wombat' in message
    assert 'quad' in message
    assert 'Traceback' not in message


def test_a_demo_does_not_overwrite_what_is_not_its_own(tmp_path, capsys):
    (tmp_path / 'thesis.txt').write_text('years of work')
    assert cli.main(['demo', '--out', str(tmp_path)]) == 2
    assert 'thesis.txt' in capsys.readouterr().err
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


def test_a_row_is_judged_in_the_direction_that_is_better():
    assert row('score', 0.8, '', 'higher', 0.7)['ok'] is True
    assert row('score', 0.6, '', 'higher', 0.7)['ok'] is False
    assert row('latency', 5.0, 'ms', 'lower', 6.0)['ok'] is True
    assert row('latency', 7.0, 'ms', 'lower', 6.0)['ok'] is False
    assert row('share', 0.1, '', 'lower', None)['ok'] is None


def test_a_missed_bar_is_the_exit_status(capsys):
    good, bad = row('a', 1.0, '', 'higher', 0.5), row('b', 0.1, '', 'higher', 0.5)
    assert cli.deliver({'rows': [good]}, True) == 0
    assert cli.deliver({'rows': [good, bad]}, True) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_what_a_gpu_gains_is_not_measured_without_one(capsys):
    assert cli.main(['bench', 'gpu']) == 2
    assert 'sees no CUDA device' in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('gpu', [False, True])
def test_benchmarks_are_kept_and_written_under_their_commands(tmp_path, monkeypatch, capsys, gpu):
    measured = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    commands = {what: c for what, c in bench.COMMANDS.items() if gpu or what != 'gpu'}

    def measure(what, status):
        measured.append(what)
        rows = [row(f'figure of {what}', 1.25, 'ms', 'lower', 1.0)]
        return report_object(what, [0], rows)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, 'run_bench', measure)
    assert cli.main(['bench', 'all', '--json']) == 1
    assert cli.main(['bench', 'all', '--json']) == 1
    assert measured == list(commands)  # once each: the second call found them
    page = (tmp_path / 'BENCHMARKS.md').read_text()
    for what, command in commands.items():
        assert f'## `{command}`' in page
        assert f'| figure of {what} | 1.25 | ms | ≤ 1 | **no** |' in page
    assert len(json.loads(capsys.readouterr().out.splitlines()[0])['rows']) == len(commands)


def write_late_bag(path, prior, at, heard, spoil=lambda tape: tape):
    """A bag of a learner that had seen `at` transitions when it was asked for its state.

    It is recorded from transition `heard` on, and holds its digest at the end; returns it and what
    is told of the state.
    """
    phases = {'phases': [('A', 40), ('B', 40)], 'episode': 50}
    life = load_life('quad').model_copy(update=phases)
    agent = Tape(prior, seed=0)
    learner, start = agent.learner, {}

    def save(step):
        if learner.step == at:
            digest = save_state(learner, path / STATE_FOLDER)
            start.update(step=at, stamp_ns=learner.stamp_ns, digest=digest)
            (path / STATE_FOLDER / START).write_text(json.dumps(start))

    run_life(QUAD, life, agent, seed=0, progress=save)
    made = path.with_name('made')
    write_bag(made, prior, spoil(agent.tape[heard:]), learner.digest(), start=start)
    for file in made.iterdir():
        file.rename(path / file.name)
    return learner.digest(), start


@pytest.mark.parametrize('heard', [20, 33])
def test_a_replay_goes_on_from_the_state_at_the_start_of_a_recording(
    tiny_prior, tmp_path, capsys, heard
):
    """The recording begins while the learner has long been learning, at transition `heard`."""
    bag = tmp_path / 'bag'
    digest, start = write_late_bag(bag, tiny_prior, 34, heard)
    assert cli.main(['replay', str(bag), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['began_at'] == start['step'] == 34
    assert found['transitions'] == 81 - 34
    assert found['digest'] == digest
    assert found['equal'] is True and found['rows'][1]['ok'] is True
    assert found['recorded'] == {'81': digest}
    assert cli.main(['replay', str(bag)]) == 0
    said = capsys.readouterr().out
    assert 'the recording began at transition 34 of the learner' in said
    assert 'equal to the live posterior at the 1 times that it was saved: yes' in said


@pytest.mark.parametrize(
    ('at', 'spoil', 'reason'),
    [
        (50, lambda tape: tape, 'lacks the last steps before it'),  # soon after the change
        (34, lambda tape: tape[:30] + tape[31:], 'transitions are missing in the bag'),
        (34, lambda tape: tape[:-1], 'transitions are missing in the bag'),
    ],
    ids=['a change', 'one lost', 'the last lost'],
)
def test_a_replay_from_a_state_says_why_it_ends_elsewhere(
    tiny_prior, tmp_path, capsys, at, spoil, reason
):
    write_late_bag(tmp_path / 'bag', tiny_prior, at, 20, spoil)
    assert cli.main(['replay', str(tmp_path / 'bag'), '--json']) == 1
    found = json.loads(capsys.readouterr().out)
    assert found['equal'] is False and found['rows'][1]['ok'] is False
    assert reason in found['reason']
    assert cli.main(['replay', str(tmp_path / 'bag')]) == 1
    assert f'NO, {found["reason"]}' in capsys.readouterr().out


def test_a_recording_may_end_with_the_state_at_its_start(tiny_prior, tmp_path, capsys):
    bag = tmp_path / 'bag'
    write_late_bag(bag, tiny_prior, 34, 20, lambda tape: tape[:14])
    assert cli.main(['replay', str(bag), '--json']) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found['began_at'], found['transitions'], found['speed']) == (34, 0, 0.0)


def test_methods_are_compared_on_a_recording(recorded, tiny_prior, tmp_path, capsys):
    bag = tmp_path / 'bag'
    write_bag(bag, tiny_prior, recorded.tape, None)
    assert cli.main(['replay', str(bag), '--method', 'frozen,walk', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    found = {r['name']: r['value'] for r in report['rows']}
    assert {name.split(':')[0] for name in found} == {'frozen', 'walk'}
    # The nominal model's errors, computed once more from its parameters alone.
    dynamics, past, squares = tiny_prior.dynamics, tiny_prior.dynamics.history(), []
    for t in recorded.tape:
        if not t.usable:
            past = dynamics.history()
            continue
        x, u = t.state.astype(float), t.action.astype(float)
        change = dynamics.design(x, u, past) @ dynamics.nominal_theta.astype(np.float32)
        error = QUAD.wrap(t.next_state - x - dynamics.scale * change) / dynamics.scale
        squares.append(np.mean(error**2))
        past = np.vstack([u, past[:-1]])
    assert found['frozen: one-step error'] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-4)
    assert found['walk: one-step error'] != found['frozen: one-step error']
    for method in ('frozen', 'walk'):
        assert 0 < found[f'{method}: 90 % intervals cover'] <= 1
        assert found[f'{method}: 15-step error'] > found[f'{method}: one-step error']


@pytest.mark.parametrize(
    ('method', 'reason'),
    [('oracle', 'made in a simulator'), ('owrs', 'unknown; use'), (' ,', 'none given')],
)
def test_a_method_that_cannot_be_compared_is_refused(tmp_path, capsys, method, reason):
    assert cli.main(['replay', str(tmp_path), '--method', method]) == 2
    assert reason in ' '.join(capsys.readouterr().err.split())


def test_a_bag_without_markers_is_drawn_all_the_same(recorded, tiny_prior, tmp_path):
    bag = tmp_path / 'bag'
    write_bag(bag, tiny_prior, recorded.tape, None)
    out = tmp_path / 'view.png'
    assert cli.main(['draw', str(bag), '--out', str(out)]) == 0
    with open_bag(bag) as opened:
        (frame,) = frames(opened, film=False)
    (body,) = [s for s in frame.shapes if s.ns == 'robot']
    places = np.array([t.next_state[:2] for t in recorded.tape])
    assert np.linalg.norm(places - body.position[[0, 2]], axis=1).min() < 1e-6


def test_a_bag_without_a_learner_has_no_page(recorded, tiny_prior, tmp_path, capsys):
    bag = tmp_path / 'bag'
    write_bag(bag, tiny_prior, recorded.tape, None)
    assert cli.main(['report', str(bag)]) == 2
    assert 'no topic `learner_state`' in ' '.join(capsys.readouterr().err.split())


def test_a_broken_file_of_parameters_is_told_before_a_node_starts(tmp_path, capfd):
    pytest.importorskip('rclpy')
    file, logs = tmp_path / 'params.yaml', tmp_path / 'logs'
    file.write_text('/**:\n  ros__parameters:\n    seed: [1, two]\n')
    words = ['up', '--robot', 'quad', '--logs', str(logs), '--params-file', str(file)]
    assert cli.main(words) == 2
    said = capfd.readouterr().err
    assert f'params_file: {file} is not YAML that ROS takes (' in said and 'line_num 3' in said
    assert len(said.splitlines()) == 1
    assert not logs.exists()
