"""Bags with damaged bytes, and what is left of one whose recorder was killed at once."""

import json

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import plants
from lifelong_bayes_ros.control import choice_wire
from lifelong_bayes_ros.control.policy_posterior import Choice, Senses
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import draw, page, priors, replay, replay_policy
from lifelong_bayes_ros.experiments.bag import TYPES, open_bag
from lifelong_bayes_ros.experiments.observed import observe_bag
from lifelong_bayes_ros.experiments.recordings import read_segments, recorded_spec
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.policy_learner import PolicyLearner
from lifelong_bayes_ros.learning.policy_state import encode_policy
from lifelong_bayes_ros.robot import wire
from lifelong_bayes_ros.robot.transitions import Flag, Transition
from test_cli_faults import fails

STORE = get_typestore(Stores.ROS2_JAZZY)
QUAD = plants.QUAD
STEPS = 12
SEEDS = 100
MESSAGES = {n: STORE.types[f'std_msgs/msg/{n}'] for n in ('MultiArrayLayout', 'String')}


def quiet(*_):
    """No progress."""


def tape():
    """A few transitions of a robot that moves by chance."""
    rng = np.random.default_rng(0)
    ds, da = len(QUAD.state), len(QUAD.action)
    state = np.zeros(ds, np.float32)
    for n in range(STEPS):
        after = state + rng.normal(0, 0.01, ds).astype(np.float32)
        action = rng.uniform(-0.5, 0.5, da).astype(np.float32)
        stamp = (n + 1) * round(QUAD.period * 1e9)
        yield Transition(state, action, after, QUAD.period, stamp, Flag(0), n, 0, ())
        state = after


def array(kind, data, dims=()):
    """A multi-array message with labels."""
    dimension = STORE.types['std_msgs/msg/MultiArrayDimension']
    dims = [dimension(label=label, size=n, stride=n) for label, n in dict(dims).items()]
    layout = MESSAGES['MultiArrayLayout'](dim=dims, data_offset=0)
    return STORE.types[kind](layout=layout, data=data)


def joints(stamp_ns, values):
    """Named numbers."""
    types = STORE.types
    stamp = types['builtin_interfaces/msg/Time'](sec=0, nanosec=stamp_ns)
    header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='')
    none = np.zeros(0)
    return types['sensor_msgs/msg/JointState'](
        header, list(values), np.array([*values.values()], float), none, none
    )


def write(path, prior, spoil=bytes):
    """A small bag with what all readers read, without metadata.yaml; `spoil` changes beliefs."""
    senses = Senses(prior.dynamics)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}

        def send(ending, message, at):
            kind = TYPES[ending]
            if ending not in connections:
                topic = f'/lifelong/{ending}'
                connections[ending] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[ending], at, STORE.serialize_cdr(message, kind))

        def belief(ending, data):
            data = np.frombuffer(spoil(data), np.uint8)
            send(ending, array('std_msgs/msg/UInt8MultiArray', data), 0)

        def event(name, at, **told):
            told = {'event': name, 'stamp_ns': at, 'step': at, **told}
            send('event', MESSAGES['String'](data=json.dumps(told)), at)

        belief('belief/trunk', encode_prior(prior, seed=0, config={}))
        posterior = PolicyLearner(senses, seed=0).posterior()
        belief('belief/policy', encode_policy(posterior, senses.fingerprint))
        floats = 'std_msgs/msg/Float32MultiArray'
        rng = np.random.default_rng(0)
        for number, transition in enumerate(tape(), start=1):
            send('transition', array(floats, wire.encode(transition), wire.sizes(QUAD)), number)
            plan = rng.uniform(-0.5, 0.5, (senses.outputs // len(QUAD.action), len(QUAD.action)))
            inputs = rng.normal(0, 1, senses.size).astype(np.float32)
            choice = Choice(transition.stamp_ns, 'A', inputs, plan.astype(np.float32))
            send(
                'choice',
                array(floats, choice_wire.encode(choice), choice_wire.sizes(choice)),
                number,
            )
            told = {'nis': 1.0, 'inside90': 0.9, 'regime.A': 1.0, 'trusted': 1.0}
            send('learner_state', joints(transition.stamp_ns, told), number)
            shares = {
                f'{n}.{p}': 0.1 for n in QUAD.state_names for p in ('aleatoric', 'epistemic')
            }
            send('uncertainty', joints(transition.stamp_ns, shares), number)
            event(
                ('shift', 'saved', 'learning')[number % 3], number, digest='', on=True, late=False
            )
    (path / 'metadata.yaml').unlink()


@pytest.fixture(scope='module')
def whole(tiny_prior, tmp_path_factory):
    """Bytes of the one file of a bag, and where what follows the beliefs begins."""
    path = tmp_path_factory.mktemp('whole') / 'bag'
    write(path, tiny_prior)
    data = (path / 'bag.mcap').read_bytes()
    return data, data.index(b's_next')


def folder_with(path, data):
    """A bag of one file."""
    path.mkdir(exist_ok=True)
    (path / 'bag_0.mcap').write_bytes(data)
    return path


READERS = {
    'report': lambda bag, out: page.write_page(bag, out / 'r.html', None, quiet),
    'draw': lambda bag, out: draw.draw_bag(bag, out / 'd.png', None),
    'replay': lambda bag, out: replay.replay_bag(bag, None, quiet),
    'pretrain': lambda bag, out: read_segments([bag], recorded_spec(bag), 3),
    'learn-policy': lambda bag, out: replay_policy.replay_policy(bag, out, None, None, quiet),
    'robot init': lambda bag, out: observe_bag(bag),
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.filterwarnings('ignore')  # of numbers that are none any more
def test_damage_anywhere_is_told_without_a_traceback(reader, whole, tmp_path):
    data, small = whole
    bag = folder_with(tmp_path / 'bag', data)
    READERS[reader](bag, tmp_path / 'whole')
    said = []
    for seed in range(SEEDS if reader not in ('report', 'draw') else SEEDS // 2):
        rng = np.random.default_rng(seed)
        spoilt = np.frombuffer(data, np.uint8).copy()
        # Every other time not in the beliefs, which are most of it and have a hash.
        at = rng.integers(small * (seed % 2), len(data), rng.choice([2, 5, 40]))
        spoilt[at] = rng.integers(0, 256, len(at))
        folder_with(bag, spoilt.tobytes())
        try:
            READERS[reader](bag, tmp_path / str(seed))
        except UserError as error:
            said.append(str(error))
    assert any(f'{bag}: not readable to its end (' in text for text in said)
    if reader != 'draw':
        assert all(text.startswith(str(bag)) for text in said)


@pytest.mark.parametrize(
    'damage',
    [
        lambda data: data.replace(b'inside90', b'insi\xff\xfe90'),
        lambda data: data.replace(b'nis\0', b'nit\0'),
        lambda data: data.replace(b'"event"', b'"evenu"'),
        lambda data: data.replace(b'"stamp_ns": ', b'"stamp_ns":}'),
    ],
    ids=['no text', 'another figure', 'another event', 'no JSON'],
)
def test_a_report_on_a_damaged_bag_names_it(damage, whole, tmp_path, capsys):
    bag = folder_with(tmp_path / 'bag', damage(whole[0]))
    said = fails(capsys, 'report', bag, '--out', tmp_path / 'r.html')
    assert said.startswith(f'lifelong-bayes report: {bag}: ')
    assert 'not readable to its end' in said or 'where our nodes write JSON' in said
    assert not (tmp_path / 'r.html').exists()


@pytest.mark.parametrize('command', ['replay', 'learn-policy'])
def test_a_damaged_belief_is_named(command, whole, tiny_prior, tmp_path, capsys):
    last = {'replay': 'belief/trunk', 'learn-policy': 'belief/policy'}[command]
    kind = {'replay': b'"prior"', 'learn-policy': b'"policy posterior"'}[command]

    def spoil(data):
        return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:] if kind in data[:9000] else data

    write(tmp_path / 'bag', tiny_prior, spoil)
    state = ['--state', tmp_path / 'state'] if command == 'learn-policy' else []
    said = fails(capsys, command, tmp_path / 'bag', *state)
    assert f'{tmp_path}/bag: {last}: its content does not match its hash' in said


COMMANDS = {
    'replay': ('replay', 'BAG'),
    'report': ('report', 'BAG'),
    'draw': ('draw', 'BAG', '--out', 'OUT.png'),
    'pretrain': ('pretrain', '--bag', 'BAG'),
    'robot init': ('robot', 'init', '--from-bag', 'BAG', '--out', 'OUT.yaml'),
}


@pytest.mark.parametrize('name', ['bag_0.mcap', 'unfinished/unfinished.mcap'])
@pytest.mark.parametrize('command', COMMANDS)
def test_a_recorder_that_was_killed_at_once_left_an_empty_file(command, name, tmp_path, capsys):
    file = tmp_path / 'bz' / name
    file.parent.mkdir(parents=True)
    file.touch()
    there = {
        'BAG': tmp_path / 'bz',
        'OUT.png': tmp_path / 'a.png',
        'OUT.yaml': tmp_path / 'a.yaml',
    }
    said = fails(capsys, *(there.get(word, word) for word in COMMANDS[command]))
    assert f'{file} is empty; nothing had reached the disk' in said
    assert 'metadata' not in said


def test_files_that_are_no_bag_are_not_taken_for_such(tmp_path):
    bag = folder_with(tmp_path / 'bag', b'nonsense' * 20)
    with pytest.raises(UserError, match='magic is invalid'), open_bag(bag):
        pass


@pytest.mark.parametrize('path', ['file/prior.safetensors', 'folder'])
@pytest.mark.parametrize('source', ['robot', 'bag'])
def test_where_a_prior_cannot_be_written_is_told_before_the_work(
    source, path, whole, tmp_path, monkeypatch, capsys
):
    for name in ('prior_or_broad', 'recorded_prior'):
        monkeypatch.setattr(priors, name, lambda *_, **__: pytest.fail('it has begun'))
    (tmp_path / 'file').touch()
    (tmp_path / 'folder').mkdir()
    bag = folder_with(tmp_path / 'bag', whole[0])
    given = {'robot': ('--robot', 'quad'), 'bag': ('--bag', bag)}[source]
    said = fails(capsys, 'pretrain', *given, '--out', tmp_path / path)
    assert '--out: ' in said and str((tmp_path / path).parent) in said
    assert list((tmp_path / 'folder').iterdir()) == []


@pytest.mark.parametrize(
    'words',
    [
        ('replay', 'BAG', '--method', ''),
        ('report', 'BAG', '--out', 'OUT.html', '--method', ' '),
        ('life', '--methods', ''),
        ('bench', 'stream', '--methods', ''),
    ],
    ids=lambda words: words[0],
)
def test_methods_that_are_given_as_nothing_are_not_left_out(words, whole, tmp_path, capsys):
    bag = folder_with(tmp_path / 'bag', whole[0])
    there = {'BAG': bag, 'OUT.html': tmp_path / 'r.html'}
    said = fails(capsys, *(there.get(word, word) for word in words))
    assert ': none given; ' in said and '`all`, or some of' in said


@pytest.mark.parametrize('option', ['--robots', '--life'])
def test_a_life_that_is_given_as_nothing_is_not_all_of_them(option, capsys):
    assert "unknown life ''; shipped lives are " in fails(capsys, 'life', option, '')


def test_a_picture_of_a_damaged_transition_names_the_bag(whole, tmp_path, capsys):
    bag = folder_with(tmp_path / 'bag', whole[0].replace(b's_next', b's_mext'))
    said = fails(capsys, 'draw', bag, '--out', tmp_path / 'view.png')
    assert said.startswith(f'lifelong-bayes draw: {bag}: ')
    assert not (tmp_path / 'view.png').exists()
