"""What can go wrong around a command: paths, disks, foreign bags, odd arguments, Ctrl-C."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError, of_a_path
from lifelong_bayes_ros.experiments import (
    bench_policy,
    bench_risk,
    bench_stream,
    demo,
    lives,
    page,
)
from lifelong_bayes_ros.experiments.bag import TYPES, content, open_bag
from lifelong_bayes_ros.learning.store import STATE
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.draft import draft
from lifelong_bayes_ros.robot.observation import in_robot_time
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot
from test_cli import write_bag
from test_robot_init import ARRAY, array, seen, vehicle

STORE = get_typestore(Stores.ROS2_JAZZY)
ROBOTS = share_dir() / 'config' / 'robots'


def fails(capsys, *words):
    """What is said where a command ends with status 2, as one line of single spaces."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as end:  # of an argument that is no value of its kind
        code = end.code
    assert code == 2
    return ' '.join(capsys.readouterr().err.split())


def write_strings(path, **topics):
    """A bag of strings: topics by the last parts of their names, `__` for `/`."""
    kind = 'std_msgs/msg/String'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for number, (name, text) in enumerate(topics.items()):
            topic = '/lifelong/' + name.replace('__', '/')
            connection = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(STORE.types[kind](data=text), kind)
            writer.write(connection, number, data)


# ---------------------------------------------------------------------- the folder of a demo
def test_a_demo_clears_only_the_folder_of_a_demo(tmp_path):
    robots = tmp_path / 'robot'
    (robots / 'state').mkdir(parents=True)
    (robots / 'state' / STATE).write_text('a real robot')
    with pytest.raises(UserError, match="holds 'state' and was not made by a demo"):
        demo._clear(robots)
    assert (robots / 'state' / STATE).read_text() == 'a real robot'


def test_a_demo_runs_again_over_its_own_output_reports_and_interruptions(tmp_path):
    out = tmp_path / 'demo'
    demo._clear(out)
    for folder in ('bag', 'state', 'log'):
        (out / folder).mkdir()
        (out / folder / 'file').touch()
    for file in ('report.json', 'report.png', page.PAGE, page.PICTURE, 'mine.txt'):
        (out / file).touch()
    demo._clear(out)
    assert sorted(p.name for p in out.iterdir()) == [demo.MARK, 'mine.txt']
    (tmp_path / 'empty').mkdir()
    demo._clear(tmp_path / 'empty')


# ---------------------------------------------------------------------- paths and disks
@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (errno.ENOSPC, 'No space left on device; make room'),
        (errno.EACCES, 'Permission denied; give a path that you may'),
        (errno.ENOTDIR, 'Not a directory; a folder is needed'),
        (errno.EISDIR, 'Is a directory; a file is needed'),
        (errno.ENOENT, 'No such file or directory; give another path'),
    ],
)
def test_what_the_system_says_of_a_path_is_told_in_one_line(number, words, monkeypatch, capsys):
    def fail(args):
        raise OSError(number, os.strerror(number), '/there/.map.png.4711')

    monkeypatch.setattr(cli, 'life', fail)
    said = fails(capsys, 'life')
    assert said.startswith(f'lifelong-bayes life: /there/map.png: {words}')


def test_a_full_disk_is_told_without_a_path_and_a_fault_of_ours_is_not_hidden():
    assert 'make room' in str(of_a_path(OSError(errno.ENOSPC, 'No space left on device')))
    assert of_a_path(OSError(errno.EBADF, 'Bad file descriptor')) is None
    other = OSError(errno.EISDIR, 'Is a directory', '/there/.a.1', None, '/there/a')
    assert str(of_a_path(other)).startswith('/there/a: Is a directory')
    for written in ('/there/.a.png.4711', '/there/.a.partial.png'):  # while it is being written
        assert str(of_a_path(OSError(errno.EACCES, 'no', written))).startswith('/there/a.png: no')


def test_where_nothing_can_be_written_a_command_says_so(tmp_path, capsys):
    (tmp_path / 'file').touch()
    said = fails(capsys, 'demo', '--out', tmp_path / 'file')
    assert str(tmp_path / 'file') in said and 'a folder is needed' in said


@pytest.mark.parametrize(
    'command',
    [('life', '--robots', 'quad'), ('bench', 'stream'), ('bench', 'risk'), ('bench', 'policy')],
)
def test_where_results_cannot_be_written_is_told_before_the_work(
    command, tmp_path, monkeypatch, capsys
):
    for module in (lives, bench_stream):
        monkeypatch.setattr(module, 'trainings', lambda units: pytest.fail('it has begun'))
    for module in (bench_risk, bench_policy):
        monkeypatch.setattr(module, 'Training', lambda robot: pytest.fail('it has begun'))
    (tmp_path / 'file').touch()
    said = fails(capsys, *command, '--out', tmp_path / 'file' / 'results')
    assert f'--out: cannot write to {tmp_path}/file/results (Not a directory); give' in said


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
@pytest.mark.parametrize(('pipe', 'code', 'words'), [(False, 2, 'No space'), (True, 141, '')])
def test_output_that_nobody_takes_ends_without_a_traceback(pipe, code, words):
    command = [sys.executable, '-m', 'lifelong_bayes_ros', 'robot', 'check', 'quad', '--json']
    if pipe:
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open('/dev/full', os.O_WRONLY)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == code
    assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr
    assert words in done.stderr and bool(words) == bool(done.stderr)


@pytest.mark.parametrize('where', ['lifelong_bayes_ros.cli.parser', 'torch.set_num_threads'])
def test_ctrl_c_at_any_time_is_quiet(where, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    assert cli.main(['robot', 'check', 'quad']) == 130
    assert capsys.readouterr().err == 'interrupted\n'


@pytest.fixture
def bag(tiny_prior, tmp_path):
    """A bag of a learner that has seen one transition of the quadrotor."""
    from lifelong_bayes_ros.experiments import streams
    from lifelong_bayes_ros.experiments.schedule import load_life

    quad = load_robot('quad')
    tape = [t for t, _ in zip(streams.transitions(quad, load_life('quad'), 0), range(3))]
    write_bag(tmp_path / 'bag', tiny_prior, tape, None)
    return tmp_path / 'bag'


def test_a_replay_leaves_a_state_that_is_there_alone(bag, tmp_path, capsys):
    state = tmp_path / 'state'
    state.mkdir()
    (state / STATE).write_text('names and notes')
    assert 'is there already' in fails(capsys, 'replay', bag, '--out', state)
    assert (state / STATE).read_text() == 'names and notes'


def test_a_replay_onto_a_full_disk_leaves_no_state(bag, tmp_path, monkeypatch, capsys):
    from lifelong_bayes_ros.learning import store

    def full(path, data):
        if path.name == STATE:
            raise OSError(errno.ENOSPC, 'No space left on device')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(store, 'write_atomically', full)
    assert 'make room' in fails(capsys, 'replay', bag, '--out', tmp_path / 'state')
    assert [p.name for p in tmp_path.iterdir()] == ['bag']


# ---------------------------------------------------------------------- bags
@pytest.mark.parametrize(
    ('bags', 'words'),
    [
        ('', 'is empty'),
        ('a,', 'is empty'),
        ('a,./a', 'are the same'),
        ('a,b/../a', 'are the same'),
    ],
)
def test_a_list_of_bags_has_no_gaps_and_no_repeats(bags, words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'b').mkdir()
    assert words in fails(capsys, 'pretrain', '--bag', bags)


def test_an_empty_path_is_not_the_current_folder(capsys):
    assert 'is empty' in fails(capsys, 'learn-policy', '', '--state', 's')
    assert 'is empty' in fails(capsys, 'replay', '')
    assert "unknown robot ''" in fails(capsys, 'pretrain', '--robot', '')


@pytest.mark.parametrize(
    ('command', 'topic'),
    [
        (['replay'], 'belief/trunk'),
        (['pretrain', '--robot', 'quad', '--bag'], 'transition'),
        (['report'], 'learner_state'),
    ],
)
def test_a_topic_of_another_type_is_told(command, topic, tmp_path, capsys):
    write_strings(tmp_path / 'bag', **{topic.replace('/', '__'): 'hello'})
    said = fails(capsys, *command, tmp_path / 'bag')
    assert f'no topic `{topic}` of {TYPES[topic]}' in said
    assert f'/lifelong/{topic} is of std_msgs/msg/String' in said


def test_choices_and_transitions_of_another_type_are_told(tiny_prior, tmp_path, capsys):
    from lifelong_bayes_ros.learning.codec import encode_prior

    kind = 'std_msgs/msg/UInt8MultiArray'
    layout = STORE.types['std_msgs/msg/MultiArrayLayout'](dim=[], data_offset=0)
    data = np.frombuffer(encode_prior(tiny_prior, seed=0, config={}), np.uint8)
    trunk = STORE.types[kind](layout=layout, data=data)
    text = STORE.types['std_msgs/msg/String'](data='hello')
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, message in (('belief/trunk', trunk), ('choice', text), ('transition', text)):
            name = message.__msgtype__
            connection = writer.add_connection(f'/lifelong/{topic}', name, typestore=STORE)
            writer.write(connection, 0, STORE.serialize_cdr(message, name))
    said = fails(capsys, 'learn-policy', tmp_path / 'bag', '--state', tmp_path / 'state')
    assert 'no topic `choice` of std_msgs/msg/Float32MultiArray' in said
    said = fails(capsys, 'replay', tmp_path / 'bag')
    assert 'no topic `transition` of std_msgs/msg/Float32MultiArray' in said


def test_the_types_are_those_that_the_nodes_send():
    pytest.importorskip('rclpy')
    from lifelong_bayes_ros.nodes.topics import FIXED, type_name

    sent = {topic.name: type_name(topic) for topic in FIXED}
    assert {name: sent[name] for name in TYPES} == TYPES


def test_an_event_that_is_not_ours_is_told(tmp_path):
    write_strings(tmp_path / 'theirs', event='door opened')
    with open_bag(tmp_path / 'theirs') as opened:
        ((_, message),) = opened.messages('event')
    with pytest.raises(UserError, match=r"'door opened' where our nodes write JSON"):
        content(message)


def test_a_folder_of_several_bags_is_no_recording(tmp_path, capsys):
    for day in ('mon', 'tue'):
        write_strings(tmp_path / 'recs' / day, event='{}')
    said = fails(capsys, 'replay', tmp_path / 'recs')
    assert 'holds several bags' in said and 'recs/mon' in said and 'recs/tue' in said
    with open_bag(tmp_path / 'recs' / 'mon') as one:
        assert one.topics() == {'/lifelong/event': 1}
    (tmp_path / 'demo').mkdir()
    (tmp_path / 'recs' / 'mon').rename(tmp_path / 'demo' / 'bag')
    with open_bag(tmp_path / 'demo') as one:
        assert one.path == tmp_path / 'demo' / 'bag'


def test_an_empty_folder_is_told_as_what_it_is(tmp_path, capsys):
    said = fails(capsys, 'replay', tmp_path)
    assert 'neither metadata.yaml nor an MCAP file' in said and 'does not exist' not in said


def test_a_page_does_not_write_over_a_picture_that_is_not_its_own(tmp_path, capsys):
    (tmp_path / 'two.png').write_text('unrelated')
    said = fails(capsys, 'report', tmp_path, '--out', tmp_path / 'two.html')
    assert 'two.png' in said
    assert (tmp_path / 'two.png').read_text() == 'unrelated'


# ---------------------------------------------------------------------- arguments
@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (['robot', 'init', '--from-topics', '--domain-id', '-1'], 'from 0 to 232'),
        (['watch', '--domain-id', '999'], 'from 0 to 232'),
        (['up', '--domain-id', 'abc'], 'from 0 to 232'),
        (['record', '--robot', 'quad', '--out', 'x', '--domain-id', '-1'], 'from 0 to 232'),
        (['watch', '--namespace', 'bad ns'], 'is no ROS namespace'),
        (['record', '--robot', 'quad', '--out', 'x', '--namespace', '1'], 'is no ROS namespace'),
        (['robot', 'check', 'quad', '--namespace', 'bad ns'], 'is no ROS namespace'),
        (['pretrain', '--seed', '-1'], 'whole number from 0'),
        (['demo', '--seed', '-1'], 'whole number from 0'),
        (['demo', '--seed', '2147483648'], 'whole number from 0 to 2147483647'),
        (['demo', '--late-budget', '-1'], 'number from 0 to 1'),
        (['demo', '--late-budget', 'nan'], 'number from 0 to 1'),
        (['demo', '--late-budget', '0.1'], '--late-budget 0.1: is for --realtime only; leave it'),
        (
            ['demo', '--robot', ROBOTS / 'quad.yaml'],
            "quad.yaml': give one of arm, base, cartpole, diffdrive, quad, six_axis",
        ),
        (['replay', 'bag', '--out', 'x', '--method', 'all'], '--out x: is not for --method'),
        (['watch', '--seconds', 'nan'], 'number from 0'),
        (['watch', '--seconds', '-1'], 'number from 0'),
        (['life', '--methods', 'nope'], '--methods: '),
        (['life', '--robots', 'quad', '--ray', ''], '--ray is empty'),
        (['bench', 'stream', '--hz', '3'], '--hz is for `bench realtime` only'),
    ],
)
def test_an_argument_that_is_no_value_is_refused(command, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *command)
    assert not list(tmp_path.iterdir())


def test_a_life_that_is_no_text_is_told_as_one(tmp_path, capsys):
    path = tmp_path / 'latin.yaml'
    path.write_bytes('robot: quad  # für später'.encode('latin-1'))
    assert f'{path}: cannot be read as text: ' in fails(capsys, 'life', '--life', path)


def test_the_domain_of_the_environment_is_checked_as_well(monkeypatch, capsys):
    pytest.importorskip('rclpy')
    monkeypatch.setenv('ROS_DOMAIN_ID', 'abc')
    for words in (
        ['watch', '--seconds', '1'],
        ['up', '--sim'],
        ['robot', 'init', '--from-topics'],
    ):
        assert "ROS_DOMAIN_ID='abc': give" in fails(capsys, *words)
    assert cli.main(['robot', 'check', 'quad', '--json']) == 0  # it needs no domain


@pytest.mark.parametrize('name', ['bad name', '../../x', ''])
def test_a_name_that_is_none_is_refused(name, tmp_path, monkeypatch, capsys):
    (tmp_path / 'a/b').mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'a/b')
    said = fails(capsys, 'robot', 'init', '--from-bag', 'bag', '--name', name)
    assert f'--name {name!r}: give a name' in said
    assert not list(tmp_path.glob('*.yaml'))


# ---------------------------------------------------------------------- robot files
def test_the_period_is_that_of_the_stamps_however_fast_it_was_recorded():
    odom = vehicle()  # 50 Hz by its stamps
    odom.times = [k / 10 for k in range(100)]
    command = seen('/commands', ARRAY, [array([0.1 * k, 0.2]) for k in range(50)], 5.0)
    in_robot_time([odom, command])
    assert odom.rate == pytest.approx(50) and command.rate == pytest.approx(25)
    assert parse_robot(draft([odom, command], 'rover')).period == pytest.approx(0.04)


def test_a_model_that_cannot_be_read_is_told_with_its_line(tmp_path, capsys):
    text = (ROBOTS / 'arm.yaml').read_text()
    line = text[: text.index('view:')].count('\n') + 1
    file = tmp_path / 'arm.yaml'
    (tmp_path / 'broken.xml').write_text('<mujoco')
    (tmp_path / 'data.xml').write_bytes(b'\xff\xfe\xfa')
    for model, words in (
        ('nope.xml', 'view.model: nope.xml: no such file'),
        (str(tmp_path / 'broken.xml'), 'not valid XML'),
        (str(tmp_path / 'data.xml'), 'cannot be read as text'),
    ):
        file.write_text(text.replace('model: arm.xml', f'model: {model}'))
        said = fails(capsys, 'robot', 'check', file).replace(' ', '')
        assert f'{file}:{line}:view.model:' in said
        assert words.replace(' ', '') in said
        load_robot(file)  # a machine that only learns has no use for it
    file.write_text(text.replace('tip: tip', 'tip: nose'))
    assert f'{file}:{line}:view.tip:' in fails(capsys, 'robot', 'check', file).replace(' ', '')


@pytest.mark.parametrize(('key', 'value'), [('horizon', 10**9), ('candidates', 10**8)])
def test_a_plan_has_a_sane_size(key, value):
    text = (ROBOTS / 'template.yaml').read_text()
    with pytest.raises(UserError, match=rf'planner\.{key}: .*less than or equal to'):
        parse_robot(text.replace(f'  {key}: ', f'  {key}: {value} # '), 'my.yaml')


def test_units_in_brackets_are_shown(tmp_path, capsys):
    file = tmp_path / 'my.yaml'
    text = load_robot('quad').dump()
    file.write_text(
        text.replace('unit: m\n', "unit: '[m]'\n", 1).replace('unit: rad\n', "unit: '[/m]'\n", 1)
    )
    assert cli.main(['robot', 'check', str(file)]) == 0
    shown = capsys.readouterr().out
    assert '[m]' in shown and '[/m]' in shown


def test_a_command_that_is_interrupted_while_it_loads_ends_without_a_word():
    start = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
class Interrupt:
    def find_spec(self, name, *_):
        if name == 'rich':
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from lifelong_bayes_ros.__main__ import main
sys.exit(main())
"""
    words = [sys.executable, '-c', start, 'robot', 'check', 'quad']
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == done.stdout == ''
    words = [sys.executable, '-m', 'lifelong_bayes_ros', 'robot', 'check', 'quad']
    assert subprocess.run(words, capture_output=True).returncode == 0
