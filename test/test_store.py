"""What is written and sent: exact round trips, no damage unnoticed, no half-written file."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.belief import Belief
from lifelong_bayes_ros.dynamics.model import Prior
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning import codec, store
from lifelong_bayes_ros.learning.codec import (
    decode_belief,
    decode_prior,
    encode_belief,
    encode_prior,
    fingerprint,
)
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.saver import Saver
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import (
    Snapshot,
    cached_prior,
    load_state,
    save_state,
    write_atomically,
)
from lifelong_bayes_ros.memory.rows import Rows
from lifelong_bayes_ros.robot.transitions import Flag
from plants import HOME, LOSS, random_dynamics, stream


def small_belief() -> Belief:
    rng = np.random.default_rng(0)
    theta, factor = np.float32(rng.normal(size=5)), np.float32(rng.normal(size=(5, 3)))
    offset, noise = np.float32([-0.01, 0.03]), np.float32([0.1, 0.2])
    regimes = {'nominal': 0.1, 'r1': 0.7, 'new': 0.2}
    return Belief(10**18 + 1, 7, theta, factor, offset, noise, 41.3, regimes, 'r1', 'learned')


def small_prior(robot: str = 'quad', seed: int = 0) -> Prior:
    dynamics, rng = random_dynamics(robot, seed=seed), np.random.default_rng(seed)
    n, ds = dynamics.size, len(dynamics.scale)
    floor, precision = rng.uniform(size=n), {'w1': rng.uniform(size=(2, 3))}
    return Prior(dynamics, np.diag(1 + floor), floor, rng.uniform(size=ds), precision)


def assert_equal(first, second):
    """Equal field by field, down to the type of every array."""
    for name, value in vars(first).items():
        other = vars(second)[name]
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other)
            assert value.dtype == other.dtype
        elif hasattr(value, '__dataclass_fields__'):
            assert_equal(value, other)
        elif name == 'trunk_precision':
            assert value.keys() == other.keys()
            assert all(np.array_equal(value[n], other[n]) for n in value)
        elif name not in ('nominal_theta',):
            assert value == other


# ---------------------------------------------------------------------- codec
def test_a_belief_survives_the_wire_exactly():
    belief = small_belief()
    assert_equal(decode_belief(encode_belief(belief, 'abc'), 'abc'), belief)


@pytest.mark.parametrize('robot', ['quad', 'arm'])
def test_a_prior_survives_its_file_exactly(robot):
    prior = small_prior(robot)
    again, meta = decode_prior(encode_prior(prior, seed=3), 'prior file')
    assert meta == {'seed': 3}
    assert again.dynamics.spec == prior.dynamics.spec
    assert_equal(again, prior)
    assert fingerprint(again) == fingerprint(prior)


def test_a_prior_from_its_file_teaches_the_same_bit_for_bit(tiny_prior):
    loaded, _ = decode_prior(encode_prior(tiny_prior), 'prior file')
    fresh, again = Learner(tiny_prior), Learner(loaded)
    for transition in stream(HOME, 20, 0):
        fresh.observe(transition)
        again.observe(transition)
    assert again.digest() == fresh.digest()
    assert_equal(again.belief(), fresh.belief())


def test_a_belief_of_another_robot_or_prior_is_refused_by_name():
    mine, belief = small_prior(), small_belief()
    for other in (small_prior(seed=1), small_prior('arm')):
        with pytest.raises(UserError) as caught:
            decode_belief(encode_belief(belief, fingerprint(other)), fingerprint(mine), 'topic')
        for word in ('topic', fingerprint(mine), fingerprint(other)):
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ('version', 'mend'),
    [
        (99, 'written by a newer version of this package; update it here'),
        (1, 'read it with the version that wrote it; a prior can be made again with `lifelong'),
        ('²', 'read it with the version that wrote it; a prior can be made again with `lifelong'),
    ],
)
def test_a_belief_of_another_format_is_refused_by_version(monkeypatch, version, mend):
    monkeypatch.setattr(codec, 'VERSION', version)
    data = encode_belief(small_belief(), 'abc')
    monkeypatch.undo()
    told = rf"my belief: format version '{version}', this package reads {codec.VERSION}; {mend}"
    with pytest.raises(UserError, match=told):
        decode_belief(data, 'abc', 'my belief')


def test_one_kind_of_file_is_not_taken_for_another():
    with pytest.raises(UserError, match=r"x\.bin: holds a 'belief', expected a 'prior'"):
        decode_prior(encode_belief(small_belief(), 'abc'), 'x.bin')


@pytest.mark.parametrize('flip', [0x01, 0x0F, 0xFF])
def test_a_belief_with_any_byte_damaged_is_refused(flip):
    data = encode_belief(small_belief(), 'abc')
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= flip
        with pytest.raises(UserError, match='my belief'):
            decode_belief(bytes(damaged), 'abc', 'my belief')


def test_a_truncated_belief_is_refused():
    data = encode_belief(small_belief(), 'abc')
    for size in range(len(data)):
        with pytest.raises(UserError, match='my belief'):
            decode_belief(data[:size], 'abc', 'my belief')


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(UserError):
        decode_belief(data, 'abc')


# ---------------------------------------------------------------------- files
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'state'
    write_atomically(path, b'old')

    def crash(*_):
        raise OSError('power lost')

    for step in ('replace', 'fsync'):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, crash)
            with pytest.raises(OSError, match='power lost'):
                write_atomically(path, b'new')
        assert path.read_bytes() == b'old'
        assert os.listdir(path.parent) == ['state']
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'


DYING = """
import os, signal, sys
from pathlib import Path
from lifelong_bayes_ros.learning.store import write_atomically
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b'half')
"""


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    path, writing = tmp_path / 'state', tmp_path / f'.state.{os.getppid()}'
    writing.write_bytes(b'of a process that runs')
    write_atomically(path, b'old')
    run = subprocess.run([sys.executable, '-c', DYING, str(path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'old'
    assert len(os.listdir(tmp_path)) == 3
    others = [tmp_path / name for name in ('.other.99999999', '.state.old', '.state')]
    for other in others:
        other.write_bytes(b'not ours')
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'
    assert set(tmp_path.iterdir()) == {path, writing, *others}


def test_a_prior_is_made_once_and_again_when_its_file_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(store, 'cache_dir', lambda: tmp_path)
    made = []

    def make():
        made.append(small_prior())
        return made[-1]

    first, cached = cached_prior({'robot': 'quad', 'seed': 0}, make)
    assert not cached
    again, cached = cached_prior({'seed': 0, 'robot': 'quad'}, make)
    assert cached
    assert_equal(again, first)
    assert not cached_prior({'robot': 'quad', 'seed': 1}, make)[1]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert not cached_prior({'robot': 'quad', 'seed': 0}, make)[1]
    assert cached_prior({'robot': 'quad', 'seed': 0}, make)[1]
    assert len(made) == 3


# ---------------------------------------------------------------------- state
@pytest.fixture(scope='module')
def lived(tiny_prior):
    """A learner that knows two regimes."""
    learner = Learner(tiny_prior, LearnerConfig(reservoir=20), seed=4)
    for transition in stream(HOME, 60, 0) + stream(LOSS, 90, 1, 60):
        learner.observe(transition)
    assert len(learner.library.regimes) > 1
    return learner


@pytest.fixture
def saved(lived, tmp_path):
    save_state(lived, tmp_path)
    return tmp_path


def test_a_saved_learner_comes_back_bit_for_bit(lived, saved):
    again = load_state(saved)
    assert again.digest() == lived.digest()
    assert_equal(again.belief(), lived.belief())
    assert (again.config, again.recalled) == (lived.config, lived.recalled)
    assert (again.step, again.learned, again.regime) == (lived.step, lived.learned, lived.regime)
    assert again.library.names == lived.library.names
    for mine, theirs in zip(again.library.regimes, lived.library.regimes):
        assert mine.reservoir.seen == theirs.reservoir.seen
        assert len(mine.reservoir.samples) == len(theirs.reservoir.samples)
        for sample, other in zip(mine.reservoir.samples, theirs.reservoir.samples):
            assert_equal(sample, other)


@pytest.mark.parametrize('guarded', [False, True])
def test_a_resumed_learner_acts_on_the_same_model(lived, tmp_path, guarded):
    before, lived.guarded = lived.guarded, guarded
    try:
        save_state(lived, tmp_path)
        assert_equal(load_state(tmp_path).belief(), lived.belief())
    finally:
        lived.guarded = before


def test_two_resumed_learners_go_on_alike_and_from_where_the_first_stopped(saved):
    first, second = load_state(saved), load_state(saved)
    last = stream(LOSS, 1, 3, 200)[0]
    for transition in [*stream(LOSS, 50, 2, 150), replace(last, flags=Flag.EPISODE_END)]:
        first.observe(transition)
        second.observe(transition)
    assert first.digest() == second.digest()
    assert_equal(first.belief(), second.belief())
    assert first.step == 201
    events = [[(e.event, e.step) for e in learner.take_events()] for learner in (first, second)]
    assert events[0] == events[1]
    assert ('consolidated', 201) in events[0]


def test_while_nothing_happens_a_resumed_learner_learns_as_if_never_stopped(tiny_prior, tmp_path):
    # The window that the surprise test looks at is not kept, so only a calm stretch is promised.
    learner = Learner(tiny_prior, LearnerConfig(store_nats=np.inf), seed=0)
    steps = stream(HOME, 50, 1)
    for transition in steps[:30]:
        learner.observe(transition)
    save_state(learner, tmp_path)
    again = load_state(tmp_path)
    learner.take_events()
    for transition in steps[30:]:
        learner.observe(transition)
        again.observe(transition)
    assert {e.event for e in learner.take_events()} <= {'guard'}
    assert again.digest() == learner.digest()
    learner.guarded = again.guarded = False
    assert_equal(again.belief(), learner.belief())


def test_what_a_regime_was_before_the_robot_came_is_known_after_a_restart(tiny_prior, tmp_path):
    """A change too weak to be seen must not replace what was remembered, restart or not."""
    learner = Learner(tiny_prior, LearnerConfig(background=False), seed=0)
    weaker = [{'actuator_gain': {'actuator': 'left', 'factor': 0.55}}]
    for transition in stream(HOME, 60, 1) + stream(LOSS, 200, 2, 60):
        learner.observe(transition)
    learner.consolidate()
    name, clean = learner.regime, list(learner.library.regimes[learner.identity].reservoir.samples)
    learner.take_events()
    for transition in stream(weaker, 300, 3, 260):
        learner.observe(transition)
    assert learner.regime == name
    save_state(learner, tmp_path)
    again = load_state(tmp_path)
    for transition in stream(weaker, 60, 4, 560):
        again.observe(transition)
    again.consolidate()
    (head,) = (r.head for r in again.library.regimes if r.name == name)
    left = Rows.of(again.dynamics, clean).residual(head.posterior)
    assert np.sqrt(np.mean(left**2 / tiny_prior.noise)) < 1.5


@settings(max_examples=40)
@given(st.data())
def test_a_tampered_state_is_refused(saved_bytes, data):
    folder, files = saved_bytes
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    damaged = bytearray(files[name])
    damaged[at] ^= data.draw(st.integers(1, 255))
    for other, content in files.items():
        (folder / other).write_bytes(bytes(damaged) if other == name else content)
    with pytest.raises(UserError, match=name):
        load_state(folder)


@pytest.fixture(scope='module')
def saved_bytes(lived, tmp_path_factory):
    folder = tmp_path_factory.mktemp('state')
    save_state(lived, folder)
    return folder, {p.name: p.read_bytes() for p in folder.iterdir()}


def prior_file(folder):
    (found,) = folder.glob(f'{store.PRIOR}-*.safetensors')
    return found


def test_a_state_beside_another_prior_is_refused(saved):
    prior_file(saved).write_bytes(encode_prior(small_prior()))
    with pytest.raises(UserError, match='belongs to another prior'):
        load_state(saved)


@pytest.mark.parametrize('part', ['covariance', 'floor', 'noise'])
def test_a_state_beside_a_prior_with_another_part_is_refused(lived, saved, part):
    changed = replace(lived.prior, **{part: 2 * getattr(lived.prior, part)})
    prior_file(saved).write_bytes(encode_prior(changed))
    with pytest.raises(UserError, match='belongs to another prior'):
        load_state(saved)


def more_operations(arrays, meta):
    arrays['tape.live.kind'] = np.append(arrays['tape.live.kind'], np.uint8(0))


def nan_in_memory(arrays, meta):
    arrays['reservoir.r1.x'] = np.full_like(arrays['reservoir.r1.x'], np.nan)


TAMPERED = {
    'a tape without an end': (more_operations, 'does not hold what this version expects'),
    'no probabilities': (lambda a, m: m.update(probabilities=None), 'does not hold what'),
    'probabilities': (
        lambda a, m: m.update(probabilities={'nominal': float('nan')}),
        'probabilities in learner.safetensors is damaged',
    ),
    'surprise': (lambda a, m: m.update(surprise=[None, None]), 'surprise in .* is damaged'),
    'a reservoir': (nan_in_memory, 'regime r1 in .* is damaged'),
    'past': (lambda a, m: a.update(past=np.zeros((1, 1))), 'past in .* is damaged'),
    'more evidence than transitions': (
        lambda a, m: a.update({'background.window.evidence': np.zeros(10**4)}),
        r'window\.evidence: of more than 150',
    ),
}
TAMPERED |= {
    f'{name} {value!r}': (
        lambda a, m, name=name, value=value: m['background'].update({name: value}),
        rf'does not hold what .*background\.{name} {value!r}: not a whole number from',
    )
    for name, values in {
        'next': ('a', -5, 0, 10**9, 500.0, None, True),
        'pause': (0, 9, 'a'),
        'abandoned': (-1, 151, None),
    }.items()
    for value in values
}


@pytest.mark.parametrize('what', TAMPERED)
def test_a_state_that_was_changed_by_hand_is_refused(saved, what):
    change, said = TAMPERED[what]
    path = saved / store.STATE
    arrays, meta = codec.unpack('learner', path.read_bytes(), '')
    change(arrays, meta)
    path.write_bytes(codec.pack('learner', arrays, meta))
    with pytest.raises(UserError, match=said):
        load_state(saved)


CLAIMS = """
import sys
from pathlib import Path
from lifelong_bayes_ros.learning.store import claim
claim(Path(sys.argv[1]))
print('claimed', flush=True)
sys.stdin.read()
"""


def test_one_at_a_time_changes_a_state_and_a_killed_one_is_not_in_the_way(lived, saved):
    before = contents(saved)
    with store.revised(saved) as learner:
        with pytest.raises(UserError, match='stop that learner, or let the command end'):
            store.revised(saved).__enter__()
        assert load_state(saved).digest() == lived.digest()
        learner.library.note('r1', 'mine')
    assert contents(saved).keys() == before.keys()
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen([sys.executable, '-c', CLAIMS, str(saved)], **pipes) as child:
        assert child.stdout.readline() == b'claimed\n'
        with pytest.raises(UserError, match='works on this state'):
            store.revised(saved).__enter__()
        child.send_signal(signal.SIGKILL)
    with store.revised(saved) as learner:
        assert learner.library.notes == {'r1': 'mine'}


def test_a_file_system_that_cannot_lock_is_worked_on_all_the_same(saved, monkeypatch):
    def cannot(*_):
        raise OSError(errno.EBADF, 'Bad file descriptor')

    monkeypatch.setattr(store.fcntl, 'flock', cannot)
    with store.revised(saved) as learner:
        learner.library.note('r1', 'mine')
    assert load_state(saved).library.notes == {'r1': 'mine'}


def test_a_folder_without_a_state_is_refused_by_name(saved):
    with pytest.raises(UserError, match='nowhere'):
        load_state(saved / 'nowhere')
    (saved / store.STATE).unlink()
    with pytest.raises(UserError, match=store.STATE):
        load_state(saved)


def test_a_state_without_its_prior_is_refused_by_name(saved):
    name = prior_file(saved).name
    (saved / name).unlink()
    with pytest.raises(UserError, match=name):
        load_state(saved)


def test_a_state_of_an_earlier_version_is_read_and_renamed(lived, saved):
    path = saved / store.STATE
    arrays, meta = codec.unpack('learner', path.read_bytes(), '')
    del meta['prior_file'], meta['recalled'], arrays['offsets']
    path.write_bytes(codec.pack('learner', arrays, meta))
    prior_file(saved).rename(saved / 'prior.safetensors')
    again = load_state(saved)
    assert again.digest() == lived.digest()
    save_state(again, saved)
    assert load_state(saved).digest() == lived.digest()
    assert prior_file(saved).read_bytes() == (saved / 'prior.safetensors').read_bytes()


def test_a_crash_while_saving_leaves_the_old_state(lived, saved, monkeypatch):
    later = load_state(saved)
    for transition in stream(LOSS, 5, 8, 150):
        later.observe(transition)
    real = os.replace

    def crash(source, target):
        if str(target).endswith(store.STATE):
            raise OSError('power lost')
        real(source, target)

    monkeypatch.setattr(os, 'replace', crash)
    with pytest.raises(OSError, match='power lost'):
        save_state(later, saved)
    assert load_state(saved).digest() == lived.digest()


# ---------------------------------------------------------------------- beside learning
def moved_trunk(learner):
    """The learner after it has adopted another trunk: its prior is another one."""
    trunk = learner.dynamics.trunk
    dynamics = replace(learner.dynamics, trunk=replace(trunk, w1=1.01 * trunk.w1))
    learner.prior = replace(learner.prior, dynamics=dynamics)
    return learner


def test_a_snapshot_is_what_was_though_the_learner_goes_on(saved, tmp_path):
    learner = load_state(saved)
    learner.observe(stream(LOSS, 1, 2, 150)[0])  # from here on the live head is updated in place
    snapshot, digest = Snapshot.of(learner), learner.digest()
    save_state(learner, tmp_path / 'then')
    for transition in stream(HOME, 60, 5, 151):
        learner.observe(transition)
    learner.library.rename('r1', 'floor')
    learner.library.note('floor', 'lab')
    learner.consolidate()
    assert learner.digest() != digest
    assert snapshot.write(tmp_path / 'later') == digest
    first, second = contents(tmp_path / 'then'), contents(tmp_path / 'later')
    assert first == second


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


CRASHES = ('before the prior', 'between', 'before the clearing', 'no crash')


@pytest.mark.parametrize('when', CRASHES)
def test_a_crash_around_an_adopted_trunk_leaves_a_pair_that_fits(saved, monkeypatch, when):
    old = load_state(saved).digest()
    later = moved_trunk(load_state(saved))
    real, written = store.write_atomically, []

    def crash(*_):
        raise KeyboardInterrupt(when)

    def write(path, data):
        if len(written) == CRASHES.index(when):
            crash()
        real(path, data)
        written.append(path.name)

    monkeypatch.setattr(store, 'write_atomically', write)
    if when == 'before the clearing':
        monkeypatch.setattr(store, '_tidy', crash)
    if when == 'no crash':
        save_state(later, saved)
    else:
        with pytest.raises(KeyboardInterrupt, match=when):
            save_state(later, saved)
    monkeypatch.undo()
    again = load_state(saved)
    new = codec.fingerprint(again.prior) == codec.fingerprint(later.prior)
    assert new == (when in ('before the clearing', 'no crash'))
    assert again.digest() == (later.digest() if new else old)
    save_state(again, saved)  # and nothing is left over
    assert sorted(contents(saved)) == sorted([store.STATE, prior_file(saved).name])


def test_what_killed_writers_left_is_removed_and_nothing_else(lived, tmp_path):
    gone = subprocess.Popen(['true'])
    gone.wait()
    left = tmp_path / f'.{store.STATE}.{gone.pid}'
    mine = [tmp_path / n for n in (f'.{store.STATE}.{os.getppid()}', 'prior.safetensors', 'notes')]
    for path in (left, *mine):
        path.write_bytes(b'x')
    save_state(lived, tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in mine)


def test_a_saver_writes_what_was_asked_for_and_says_so(saved, tmp_path):
    learner, saver = load_state(saved), Saver(tmp_path / 'kept')
    digests = set()
    for transition in stream(LOSS, 5, 3, 150):
        learner.observe(transition)
        digests.add(learner.digest())
        saver.save(learner)
    last = saver.wait()[-1]
    assert (last.error, last.step, last.digest) == ('', learner.step, learner.digest())
    assert load_state(tmp_path / 'kept').digest() == last.digest
    saver.save(learner)
    assert [s.digest for s in saver.close()] == [last.digest]


def test_a_slow_disk_gets_the_newest_state_only(saved, monkeypatch, tmp_path):
    learner, saver = load_state(saved), Saver(tmp_path / 'kept')
    writes, may, began = [], threading.Event(), threading.Event()
    real = Snapshot.write

    def slow(snapshot, folder):
        began.set()
        may.wait(60)
        writes.append(snapshot.meta['step'])
        return real(snapshot, folder)

    monkeypatch.setattr(Snapshot, 'write', slow)
    first = learner.step
    saver.save(learner)
    began.wait(60)
    for transition in stream(LOSS, 3, 3, 150):
        learner.observe(transition)
        saver.save(learner)
    may.set()
    assert [s.step for s in saver.wait()] == writes == [first, first + 3]


def test_a_state_that_cannot_be_written_is_told_and_the_next_one_is(saved, monkeypatch):
    learner, saver = load_state(saved), Saver(saved)
    before = contents(saved)
    learner.observe(stream(LOSS, 1, 3, 150)[0])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    saver.save(learner)
    (failed,) = saver.wait()
    assert failed.digest == ''
    assert str(saved) in failed.error
    assert 'No space left' in failed.error
    assert contents(saved) == before
    monkeypatch.undo()
    saver.save(learner)
    (done,) = saver.wait()
    assert (done.error, done.digest) == ('', learner.digest())


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from lifelong_bayes_ros.learning.saver import Saver
from lifelong_bayes_ros.learning.store import load_state
from plants import LOSS, stream
from test_store import moved_trunk
folder = Path(sys.argv[1])
learner = load_state(folder)
saver = Saver(folder)
for number, transition in enumerate(stream(LOSS, 2000, 3, 150)):
    learner.observe(transition)
    if number % 3 == 0:
        moved_trunk(learner)
    print(learner.digest(), flush=True)
    saver.save(learner)
    saver.wait()
"""


def test_a_killed_learner_always_resumes(saved):
    old = load_state(saved).digest()
    here = os.path.dirname(__file__)
    rng = np.random.default_rng(0)
    for pause in rng.uniform(0.0, 0.6, 2):
        child = subprocess.Popen(
            [sys.executable, '-c', KILLED, str(saved), here], stdout=subprocess.PIPE, text=True
        )
        known = {old, child.stdout.readline().strip()}
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        known |= set(child.communicate()[0].split())
        old = load_state(saved).digest()
        assert old in known
    assert len(contents(saved)) <= 4  # state, priors before and after, one that was written
