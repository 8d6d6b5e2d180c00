"""Priors without a simulator: from recordings of a robot, and from its robot file alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros import cli
from lifelong_bayes_ros.blr import BLR
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import priors, streams
from lifelong_bayes_ros.experiments.recordings import read_segments
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.experiments.streams import HeldOut
from lifelong_bayes_ros.learning import pretrain as pretraining
from lifelong_bayes_ros.learning import recorded
from lifelong_bayes_ros.learning.broad import SCRATCH, broad_prior
from lifelong_bayes_ros.learning.codec import decode_prior
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.pretrain import Data
from lifelong_bayes_ros.learning.recorded import pretrain_recorded, segmented
from lifelong_bayes_ros.robot.spec import RobotSpec, load_robot
from lifelong_bayes_ros.robot.transitions import Flag, Transition
from test_cli import write_bag

QUAD = plants.QUAD
FAMILY_SEED = 100
PER_REGIME = 400


def family(count: int) -> dict[str, list[dict]]:
    """Regimes of the task family by name; the first is nominal."""
    plant, rng = sim.make('quad'), np.random.default_rng(FAMILY_SEED)
    regimes: dict[str, list[dict]] = {'R0': []}
    for k in range(1, count):
        gains = rng.uniform(*plant.GAIN_FAMILY, 2)
        regimes[f'R{k}'] = [
            {'actuator_gain': {'actuator': name, 'factor': float(g)}}
            for name, g in zip(QUAD.action_names, gains)
        ]
        regimes[f'R{k}'].append({'payload': {'mass': float(rng.uniform(0, 0.5))}})
    return regimes


REGIMES = family(8)


def drive(regimes: dict[str, list[dict]], steps: int, seed: int) -> list[Transition]:
    """What a transition streamer sends while the robot goes through regimes, with all flags."""
    life = Life(robot='quad', regimes=regimes, phases=[(name, steps) for name in regimes])
    tape, usable = [], 0
    for transition in streams.transitions(QUAD, life, seed):
        tape.append(transition)
        usable += transition.usable
        if usable == steps * len(regimes):
            return tape
    raise AssertionError


def adapted(prior, config, tape: list[Transition], test: HeldOut) -> float:
    """Mean over outputs of the one-step error after a tape, over that of predicting no change."""
    learner = Learner(prior, config, seed=0)
    for transition in tape:
        learner.observe(transition)
    own = replace(test, scale=prior.dynamics.scale)
    error = own.one_step(prior.dynamics, learner.belief())
    change = QUAD.wrap(test.x_next - test.x) / prior.dynamics.scale
    return float(np.mean(error / np.sqrt(np.mean(np.square(change), axis=0))))


@pytest.fixture(scope='module')
def tape():
    return drive(REGIMES, PER_REGIME, seed=101)


@pytest.fixture(scope='module')
def bag(tape, tmp_path_factory) -> Path:
    """The robot's recorded life, without a trunk: nobody had a prior."""
    path = tmp_path_factory.mktemp('recording') / 'bag'
    write_bag(path, None, tape, None)
    return path


@pytest.fixture(scope='module')
def segments(bag):
    return read_segments([bag], QUAD, 200)


@pytest.fixture(scope='module')
def bag_prior(segments):
    return pretrain_recorded(segments, QUAD, plants.SMALL)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LIFELONG_BAYES_CACHE', str(tmp_path / 'cache'))


# ---------------------------------------------------------------------- reading
def test_segments_hold_every_usable_transition_once_and_in_order(segments, tape):
    good = [t for t in tape if t.usable]
    assert all(len(s.x) >= 200 for s in segments)
    for name, column in (('state', 'x'), ('action', 'u'), ('next_state', 'x_next')):
        read = np.concatenate([getattr(s, column) for s in segments])
        np.testing.assert_array_equal(read, [getattr(t, name) for t in good])


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 40))
def test_segments_are_long_enough_and_lose_nothing(lengths, least):
    numbers = np.arange(float(sum(lengths)))[:, None]
    parts = np.split(numbers, np.cumsum(lengths)[:-1]) if lengths else []
    segments = segmented([Data(p, p, p) for p in parts], least)
    if sum(lengths) < least:
        assert segments == []
    else:
        assert min(len(s.x) for s in segments) >= least
        np.testing.assert_array_equal(np.concatenate([s.x for s in segments]), numbers)


def test_several_bags_are_read_as_one_recording(bag, segments, tape, tmp_path):
    write_bag(tmp_path / 'second', None, tape[:500], None)
    both = read_segments([bag, tmp_path / 'second'], QUAD, 200)
    assert len(both) > len(segments)
    np.testing.assert_array_equal(both[0].x, segments[0].x)


def spoil(tape: list[Transition], **changes) -> list[Transition]:
    return [replace(t, **changes) for t in tape]


def moved(tape: list[Transition], position) -> list[Transition]:
    """The same with channel x at `position(k)` before the k-th transition."""
    made = []
    for k, t in enumerate(tape):
        state, after = t.state.copy(), t.next_state.copy()
        state[0], after[0] = position(k), position(k + 1)
        made.append(replace(t, state=state, next_state=after))
    return made


def still(tape: list[Transition], position: float) -> list[Transition]:
    return moved(tape, lambda k: position)


@pytest.mark.parametrize(
    ('tape_of', 'words'),
    [
        (lambda tape: [], 'no topic `transition`'),
        (lambda tape: tape[:150], 'needs at least 200'),
        (lambda tape: spoil(tape[:900], next_state=np.full(6, np.nan, np.float32)), '0 of 900'),
        (lambda tape: spoil(tape[:900], action=np.zeros(2, np.float32)), 'left, right never'),
        (lambda tape: spoil(tape[:900], action=np.full(2, 99.0, np.float32)), 'beyond the limits'),
        (
            lambda tape: [t for k in range(3) for t in still(tape[300 * k : 300 * k + 300], k)],
            'channel x changes by the same amount, or not at all',
        ),
        (lambda tape: moved(tape[:900], lambda k: 0.1 * k), 'channel x changes by the same'),
        (lambda tape: moved(tape[:900], lambda k: 1 + 1.2e-7 * (k % 2)), 'channel x never'),
    ],
    ids=[
        'empty',
        'short',
        'not finite',
        'constant commands',
        'commands beyond the limits',
        'constant within episodes',
        'constant rate',
        'rounding alone',
    ],
)
def test_a_bag_without_enough_to_learn_from_is_refused(tape_of, words, tape, tmp_path, capsys):
    write_bag(tmp_path / 'bag', None, tape_of(tape), 'a digest, so that it is a bag')
    out = tmp_path / 'prior.safetensors'
    command = ['pretrain', '--robot', 'quad', '--bag', str(tmp_path / 'bag'), '--out', str(out)]
    assert cli.main(command) == 2
    said = ' '.join(capsys.readouterr().err.split())
    assert words in said
    assert 'Traceback' not in said
    assert not out.exists()


def test_what_no_learner_would_learn_from_is_left_out_and_counted(tape, tmp_path):
    good = [t for t in tape if t.usable][:900]
    good = [replace(t, sequence=k) for k, t in enumerate(good)]
    bad, outliers = list(good), {100: 1e30, 200: -1e3, 300: 300.0}
    for k, value in outliers.items():
        state = good[k].state.copy()
        state[3] = value
        bad[k] = replace(good[k], state=state)
    bad[400] = replace(good[400], action=QUAD.action_high.astype(np.float32) * 3)
    bad[500] = replace(good[500], next_state=np.full(6, np.nan, np.float32))
    bad[600] = replace(good[600], stamp_ns=good[599].stamp_ns)
    bad[700] = replace(good[700], dt=3 * QUAD.period)
    write_bag(tmp_path / 'bag', None, bad, None)
    said: list[str] = []
    segments = read_segments([tmp_path / 'bag'], QUAD, 200, notify=said.append)
    sound = [t.state for k, t in enumerate(good) if k not in {*outliers, 400, 500, 600, 700}]
    np.testing.assert_array_equal(np.concatenate([s.x for s in segments]), sound)
    assert len(said) == 1 and said[0].startswith(
        '7 of 900 transitions are left out: 1 command beyond the limits, 1 not finite, '
        '1 repeated stamp, 1 dt far from the period, 3 out of range; correct the limits in the '
        'robot file'
    )


def test_rare_motion_of_a_robot_at_rest_is_no_wild_reading():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1e-4, (1000, 6))
    x[:50] = 2 * np.sin(np.linspace(0, 2 * np.pi, 50))[:, None]
    kept = recorded.without_wild([Data(x[:-1], np.zeros((999, 2)), x[1:])], QUAD)
    assert len(kept[0].x) == 999


def test_a_bag_of_a_robot_of_other_dimensions_is_refused(bag, capsys):
    assert cli.main(['pretrain', '--robot', 'arm', '--bag', str(bag)]) == 2
    said = ' '.join(capsys.readouterr().err.split())
    assert 's has size 6, expected 4' in said


def test_a_bag_of_another_robot_of_the_same_dimensions_is_refused(tape, tiny_prior, tmp_path):
    write_bag(tmp_path / 'bag', tiny_prior, tape[:300], None)
    with pytest.raises(UserError, match='recorded of robot quad'):
        read_segments([tmp_path / 'bag'], load_robot('diffdrive'), 200)


def test_a_bag_that_does_not_name_its_robot_needs_a_robot_file(bag, capsys):
    assert cli.main(['pretrain', '--bag', str(bag)]) == 2
    assert '--robot' in capsys.readouterr().err


def test_a_robot_file_with_another_period_is_refused(tape, tmp_path):
    write_bag(tmp_path / 'bag', None, spoil(tape[:900], flags=Flag.GAP), None)
    with pytest.raises(UserError, match='period'):
        read_segments([tmp_path / 'bag'], QUAD, 200)


# ---------------------------------------------------------------------- from recordings
def test_a_recording_predicts_what_it_was_not_trained_on_like_a_simulator(bag_prior, tiny_prior):
    for regime in ('R0', 'R3'):
        test = HeldOut.of(QUAD, tiny_prior, REGIMES[regime], 102, 0)
        tape = drive({'R': REGIMES[regime]}, 50, seed=103)
        mine = adapted(bag_prior, SCRATCH, tape, test)
        theirs = adapted(tiny_prior, None, tape, test)
        assert mine < 1.4 * theirs


def test_the_family_of_a_recording_spans_a_regime_that_it_did_not_go_through(bag_prior):
    test = HeldOut.of(QUAD, bag_prior, plants.LOSS, 104, 0)
    tape = drive({'lost': plants.LOSS}, 30, seed=105)
    unlearned = adapted(bag_prior, SCRATCH, [], test)
    learned = adapted(bag_prior, SCRATCH, tape, test)
    scratch = adapted(broad_prior(QUAD, plants.SMALL), SCRATCH, tape, test)
    assert learned < 0.75 * unlearned
    assert learned < 0.6 * scratch


def test_the_noise_of_a_recording_is_that_of_its_sensors(bag_prior, tiny_prior):
    mine, theirs = (np.sqrt(p.noise) * p.dynamics.scale for p in (bag_prior, tiny_prior))
    np.testing.assert_array_less(mine, 4 * theirs)  # some segments straddle two regimes
    np.testing.assert_array_less(theirs, 4 * mine)


def test_what_a_recording_did_not_show_stays_open(segments, bag_prior):
    """A robot that never pitched in the recording may do anything when it does."""
    level = [recorded._rows(s, np.flatnonzero(np.abs(s.x[:, 2]) < 0.1)) for s in segments]
    timid = pretrain_recorded(level, QUAD, plants.SMALL)

    def doubt(prior, pitch: float) -> float:
        x = np.array([0, 1.5, pitch, 0, 0, 0])
        dynamics = prior.dynamics
        design = dynamics.design(x, QUAD.neutral, dynamics.history())
        n = dynamics.nominal.size
        variance = design[:, :n] @ prior.covariance[:n, :n] @ design[:, :n].T
        return float(np.trace(variance))

    assert doubt(timid, 1.0) > 3 * doubt(bag_prior, 1.0)
    assert doubt(timid, 1.0) > 1.5 * doubt(timid, 0.0)


def test_features_that_were_seen_are_known_and_others_as_open_as_before():
    seen, unseen, other = np.diag(recorded._unseen(np.array([[1.0, 0, 0]] * 50), np.array([0.1])))
    assert seen == pytest.approx(1 / (50 / 0.1 + 3 / recorded.VARIANCE))
    assert unseen == pytest.approx(recorded.VARIANCE / 3)
    assert other == pytest.approx(recorded.VARIANCE / 3)


def test_one_recording_gives_one_prior(segments, monkeypatch):
    first = priors.recorded_prior(segments, QUAD, config=plants.SMALL)
    monkeypatch.setattr(priors, 'pretrain_recorded', None)  # the cache has it
    second = priors.recorded_prior(segments, QUAD, config=plants.SMALL)
    np.testing.assert_array_equal(first.covariance, second.covariance)
    with pytest.raises(TypeError):
        priors.recorded_prior(segments[1:], QUAD, config=plants.SMALL)


def test_too_few_segments_give_the_broad_family_and_say_so(tape, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretraining, 'PretrainConfig', lambda: plants.SMALL)
    write_bag(tmp_path / 'bag', None, tape[:450], None)
    out = tmp_path / 'prior.safetensors'
    command = ['pretrain', '--robot', 'quad', '--bag', str(tmp_path / 'bag'), '--out', str(out)]
    assert cli.main(command) == 0
    assert '2 segments cannot show' in capsys.readouterr().err
    prior, meta = decode_prior(out.read_bytes(), str(out))
    assert meta['config'] == vars(SCRATCH)  # the learner's settings travel with the file
    heads = np.diag(prior.covariance)[: prior.dynamics.nominal.size]
    assert np.ptp(heads) < 1e-12 < heads.min()


@pytest.mark.parametrize('fault', [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_pretraining_leaves_no_file(fault, bag, tmp_path, monkeypatch):
    steps = iter(range(100))
    step = BLR.step

    def interrupted(self, *args, **kwargs):
        if next(steps, None) is None:
            raise fault
        return step(self, *args, **kwargs)

    monkeypatch.setattr(BLR, 'step', interrupted)
    out = tmp_path / 'out' / 'prior.safetensors'
    command = ['pretrain', '--robot', 'quad', '--bag', str(bag), '--out', str(out)]
    if fault is KeyboardInterrupt:
        assert cli.main(command) == 130
    else:
        with pytest.raises(fault):
            cli.main(command)
    assert next(steps, None) is None  # it was in the middle of it
    assert [p for p in tmp_path.rglob('*') if p.is_file()] == []


# ---------------------------------------------------------------------- from nothing
def own_robot() -> RobotSpec:
    """A robot like the quadrotor that no simulator knows."""
    return QUAD.model_copy(update={'name': 'heron'})


def test_from_scratch_a_learner_predicts_after_500_transitions():
    test = HeldOut.of(QUAD, broad_prior(QUAD), [], 106, 0)
    tape = drive({'R0': []}, 500, seed=107)
    assert adapted(broad_prior(QUAD), SCRATCH, tape, test) < 1 / 3


@pytest.mark.parametrize('robot', ['quad', 'arm', 'diffdrive', 'cartpole'])
def test_a_broad_prior_predicts_that_speeds_move_positions_and_no_more(robot):
    spec = load_robot(robot)
    prior = broad_prior(spec)
    rng = np.random.default_rng(0)
    x, u = rng.normal(size=len(spec.state)), rng.normal(size=len(spec.action))
    dynamics = prior.dynamics
    design = dynamics.design(x, u, dynamics.history())
    change = dynamics.scale * (design @ dynamics.nominal_theta)
    expected = np.zeros(len(x))
    for value, channel in zip(x, spec.state):
        if channel.derivative_of:
            expected[spec.state_names.index(channel.derivative_of)] = spec.period * value
    np.testing.assert_allclose(change, expected, atol=1e-12)


def test_a_robot_without_simulator_or_bag_learns_from_scratch_and_says_so(tmp_path, capsys):
    file = tmp_path / 'heron.yaml'
    file.write_text(own_robot().dump())
    out = tmp_path / 'prior.safetensors'
    assert cli.main(['pretrain', '--robot', str(file), '--out', str(out)]) == 0
    assert 'learns from scratch' in ' '.join(capsys.readouterr().err.split())
    prior, meta = decode_prior(out.read_bytes(), str(out))
    assert prior.dynamics.spec.name == 'heron'
    assert meta['config'] == vars(SCRATCH)


def test_a_simulated_robot_does_not_learn_from_scratch(monkeypatch, tiny_prior):
    monkeypatch.setattr(priors, 'prior_for', lambda *args, **kwargs: tiny_prior)
    assert priors.prior_or_broad(QUAD) == (tiny_prior, '')
