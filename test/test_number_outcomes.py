"""Outcomes that are numbers: from readings to calibrated predictions, kept, forgotten, merged."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.cli import main
from lifelong_bayes_ros.dynamics.belief import outcome_channels
from lifelong_bayes_ros.dynamics.likelihoods import Glm, HeteroscedasticGaussian
from lifelong_bayes_ros.dynamics.outcome_head import channels
from lifelong_bayes_ros.dynamics.outcomes import MEAN_SD, OutcomeModel
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import decode_belief, encode_belief
from lifelong_bayes_ros.learning.forgetting import forget
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.merging import merge_states
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.memory.labels import label_sensitivity
from lifelong_bayes_ros.memory.reservoir import Sample
from lifelong_bayes_ros.robot import wire
from lifelong_bayes_ros.robot.outcomes import FAR, Labels
from plants import HOME, stream
from test_outcomes import OUTCOMES, heads_equal, learner, robot, told

FLOAT, JOINTS = 'std_msgs/msg/Float64', 'sensor_msgs/msg/JointState'
CURRENT = {'topic': 'current', 'type': FLOAT, 'scale': 2.0}
QUAD = robot(contact=OUTCOMES['contact'], current=CURRENT)


@pytest.fixture(scope='module')
def prior(tiny_prior):
    return replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=QUAD))


def truth(t):
    """Mean and noise of the current, A: both depend on the step."""
    speed = math.tanh(t.state[3])
    return 3.0 + 2.0 * np.sin(t.state[2]) + 0.5 * t.action[0], 0.2 * math.exp(1.2 * speed)


def labelled(steps, seed, first=0, episode=0):
    """Steps on the plant as built, a current in most of them."""
    rng, out = np.random.default_rng(seed), []
    for t in stream(HOME, steps, seed, first):
        mean, sd = truth(t)
        current = float(np.float32(mean + sd * rng.standard_normal()))
        labels = (int(t.state[2] > 0), current if rng.random() < 0.8 else math.nan)
        out.append(replace(t, outcomes=labels, episode=episode))
    return out


# ---------------------------------------------------------------------- the robot file
@pytest.mark.parametrize(
    ('outcome', 'words'),
    [
        ({'type': FLOAT}, ['outcomes.touch', 'above or scale', 'a typical size']),
        ({'type': FLOAT, 'above': 1.0, 'scale': 1.0}, ['above and scale', 'either']),
        ({'type': 'std_msgs/msg/Bool', 'scale': 1.0}, ['scale', 'other types take none']),
        ({'type': FLOAT, 'scale': 0.0}, ['outcomes.touch.scale']),
        ({'type': FLOAT, 'scale': float('inf')}, ['outcomes.touch.scale']),
        ({'type': FLOAT, 'scale': True}, ['outcomes.touch.scale', 'a number belongs']),
        ({'type': JOINTS, 'scale': 1.0}, ['joint']),
    ],
)
def test_a_number_must_be_asked_for(outcome, words):
    with pytest.raises(UserError) as caught:
        robot(touch={'topic': 't', **outcome})
    for word in ['mine.yaml', *words]:
        assert word in str(caught.value)


# ---------------------------------------------------------------------- labels
@given(st.floats(width=64), st.sampled_from([1e-6, 2.0, 1e4]))
def test_a_reading_is_the_number_that_the_topic_carries_or_is_refused(value, scale):
    source = robot(touch={**CURRENT, 'scale': scale}).outcomes['touch']
    labels = Labels(robot(touch={**CURRENT, 'scale': scale}))
    labels.put('touch', None, 0.5)
    if math.isfinite(value) and abs(value) <= FAR * scale:
        labels.add('touch', None, value)
        assert labels.take(0, 10) == (float(np.float32(value)),)
        assert source.admits(float(np.float32(value) * (1 - 1e-6)))
    else:
        with pytest.raises(UserError, match=r'reading .* on current is (not finite|over 1000)'):
            labels.add('touch', None, value)
        assert labels.take(0, 10) == (0.5,)
    assert math.isnan(labels.take(10, 20)[0])


def message_of(data, spec=QUAD):
    dim = [SimpleNamespace(label=k, size=n) for k, n in wire.sizes(spec).items()]
    return SimpleNamespace(layout=SimpleNamespace(dim=dim), data=data)


@given(st.integers(-1, 1), st.floats(width=32, allow_infinity=False))
def test_numbers_survive_the_topic_beside_whole_ones(contact, current):
    sent = replace(stream(HOME, 1, 0)[0], outcomes=(contact, current))
    got = wire.decode(QUAD, message_of(wire.encode(sent).tolist())).outcomes
    np.testing.assert_array_equal(got, (contact, current))
    assert [type(label) for label in got] == [int, float]
    spoilt = replace(sent, outcomes=(0.5, current))
    with pytest.raises(UserError, match=r'outcomes is .*whole numbers'):
        wire.decode(QUAD, message_of(wire.encode(spoilt).tolist()))


@pytest.mark.parametrize('current', [math.inf, -math.inf, 1.001 * FAR * 2.0])
def test_a_number_that_cannot_be_is_counted_and_teaches_nothing(prior, current):
    made = learner(prior, labelled(20, 0))
    digest = made.digest()
    made.observe(replace(labelled(21, 0)[-1], outcomes=(0, current)))
    assert made.digest() == digest and made.skipped == {'no label of an outcome': 1}


def test_readings_reach_the_published_channels(prior):
    pytest.importorskip('rclpy')
    from std_msgs.msg import Float64

    from lifelong_bayes_ros.nodes import codecs

    spec = robot(contact=OUTCOMES['contact'], current=CURRENT)
    made, labels = learner(prior), Labels(spec)
    for t in labelled(200, 21):
        if not math.isnan(t.outcomes[1]):
            sent = codecs.outcome_message(spec, 'current', t.outcomes[1], t.stamp_ns)
            assert sent == Float64(data=t.outcomes[1])
            labels.add('current', *codecs.read_outcome(spec, 'current', sent))
        told = replace(t, outcomes=labels.take(t.stamp_ns - 1, t.stamp_ns))
        message = codecs.transition_to_msg(spec, told)
        made.observe(codecs.transition_from_msg(spec, message))
    belief = decode_belief(encode_belief(made.belief(), 'x'), 'x')
    t = stream(HOME, 1, 22)[0]
    seen = outcome_channels(prior.dynamics, belief, t.state, t.action)
    here = channels(made.outcomes.model.predict(t.state, t.action), made.outcomes.kinds)
    assert (
        seen.keys() == here.keys() >= {f'current.{k}' for k in ('mean', 'epistemic', 'aleatoric')}
    )
    mean, sd = truth(t)
    assert abs(seen['current.mean'] - mean) < 3 * seen['current.epistemic'] + 0.1
    assert 0.4 * sd < seen['current.aleatoric'] < 2.5 * sd
    for key in here:
        assert seen[key] == pytest.approx(here[key], rel=0.5, abs=1e-6)


def test_a_joint_state_gives_a_number():
    pytest.importorskip('rclpy')
    from lifelong_bayes_ros.nodes import codecs

    spec = robot(heat={'topic': 'j', 'type': JOINTS, 'joint': 'a', 'field': 'effort', 'scale': 9})
    message = codecs.outcome_message(spec, 'heat', 4.25, 7)
    assert codecs.read_outcome(spec, 'heat', message) == (7, 4.25)


# ---------------------------------------------------------------------- what is predicted
def test_where_the_noise_is_known_it_is_bayesian_regression(prior):
    """A head that is all but sure of the noise against the conjugate posterior, in closed form."""
    trunk, noise = prior.dynamics.trunk, 0.3
    steps, rng = stream(HOME, 300, 1), np.random.default_rng(0)
    x, u = (np.array([getattr(t, k) for t in steps], float) for k in ('state', 'action'))
    phi = trunk.features(x, u)
    y = phi[:, :3] @ [1.0, -2.0, 0.5] + noise * rng.standard_normal(300)
    model = OutcomeModel.start(trunk, {'c': 1.0}, random_walk=0.0)
    for a, b, c in zip(x, u, y, strict=True):
        model = model.update(a, b, {'c': c})
    constant = np.linalg.lstsq(phi, np.ones(300), rcond=None)[0]
    prior_covariance = MEAN_SD**2 * (
        np.eye(trunk.size) / trunk.size + np.outer(constant, constant)
    )
    precision = np.linalg.inv(prior_covariance) + phi.T @ phi / noise**2
    exact = np.linalg.solve(precision, phi.T @ y / noise**2)
    sd = np.sqrt(np.einsum('ij,jk,ik->i', phi, np.linalg.inv(precision), phi))
    seen = model.predict(x, u)['c']
    off = (seen.mean - phi @ exact) / sd
    assert np.sqrt(np.mean(off**2)) < 0.5
    ratio = np.sqrt(seen.variance - seen.noise) / sd
    assert 0.8 < np.median(ratio) < 1.25
    assert np.sqrt(seen.noise).mean() == pytest.approx(noise, rel=0.15)


def test_intervals_hold_nine_tenths_where_it_is_noisy_and_where_it_is_not(prior):
    made, rows = learner(prior), []
    for t in labelled(1500, 3):
        made.observe(t)
        seen = made.outcomes.channels()
        spread = math.hypot(seen['current.epistemic'], seen['current.aleatoric'])
        noise = truth(t)[1]
        if not math.isnan(t.outcomes[1]):
            inside = abs(t.outcomes[1] - seen['current.mean']) < 1.645 * spread
            rows.append((noise, inside, seen['current.aleatoric']))
    noise, inside, aleatoric = np.array(rows[200:], float).T
    for half in (noise > np.median(noise), noise <= np.median(noise)):
        assert 0.86 < inside[half].mean() < 0.97
        assert aleatoric[half].mean() == pytest.approx(noise[half].mean(), rel=0.3)
    assert np.corrcoef(np.log(aleatoric), np.log(noise))[0, 1] > 0.8


@pytest.mark.parametrize('unit', [1e-3, 1e4])
def test_the_unit_does_not_matter(prior, unit):
    trunk = prior.dynamics.trunk
    one = OutcomeModel.start(trunk, {'c': 2.0})
    other = OutcomeModel.start(trunk, {'c': 2.0 * unit})
    for t in labelled(80, 5):
        current = None if math.isnan(t.outcomes[1]) else t.outcomes[1]
        scaled = None if current is None else unit * current
        one = one.update(t.state, t.action, {'c': current})
        other = other.update(t.state, t.action, {'c': scaled})
        a, b = (channels(m.predict(t.state, t.action), {}) for m in (one, other))
        np.testing.assert_allclose(list(b.values()), unit * np.array(list(a.values())), rtol=1e-5)
        if current is not None:
            densities = [
                m.evidence(t.state, t.action, {'c': y})['c']
                for m, y in ((one, current), (other, scaled))
            ]
            assert densities[1] == pytest.approx(densities[0] - math.log(unit), abs=1e-4)


def test_ignorance_falls_and_noise_stays(prior):
    made, seen = learner(prior), []
    for t in labelled(300, 4):
        made.observe(t)
        seen.append(made.outcomes.channels())
    epistemic = [s['current.epistemic'] for s in seen]
    assert epistemic[0] > 1.5 * MEAN_SD and np.mean(epistemic[-50:]) < 0.2
    assert np.mean([s['current.aleatoric'] for s in seen[-50:]]) > 0.1


# ---------------------------------------------------------------------- memory
def test_a_resumed_learner_goes_on_bit_for_bit(prior, tmp_path):
    steps = labelled(200, 7)
    # Nothing happens that the last steps decide on, which are not kept.
    whole = learner(prior, steps[:100], journal=60, store_nats=np.inf)
    save_state(whole, tmp_path)
    resumed = load_state(tmp_path)
    assert resumed.digest() == whole.digest()
    for t in steps[100:]:
        whole.observe(t)
        resumed.observe(t)
    assert resumed.digest() == whole.digest()
    assert 0 in resumed.outcomes.folded
    tails = (o._told(o.start, [], o.folded) for o in (resumed.outcomes, whole.outcomes))
    heads_equal(*tails)
    for mine, theirs in zip(whole.outcomes.steps, resumed.outcomes.steps, strict=True):
        assert whole.outcomes.values(mine) == resumed.outcomes.values(theirs)


def test_a_forgotten_episode_was_never_seen(prior):
    first, second = labelled(60, 8), labelled(50, 9, first=60, episode=1)
    third = labelled(40, 10, first=110, episode=2)
    made = learner(prior, first + second + third)
    forget(made, 1)
    heads_equal(made.outcomes, told(prior, first + third), rtol=1e-9, atol=1e-12)


def test_merged_states_know_the_numbers_of_both_and_only_of_one_scale(prior):
    one, two = (learner(prior, labelled(80, seed, first=100 * seed)) for seed in (16, 17))
    expected = told(prior, labelled(80, 16) + labelled(80, 17))
    spec = robot(contact=OUTCOMES['contact'], current={**CURRENT, 'scale': 3.0})
    other = replace(prior, dynamics=replace(prior.dynamics, spec=spec))
    with pytest.raises(UserError, match=r'contact, current 2\.0 and contact, current 3\.0'):
        merge_states(one, learner(other, labelled(80, 17)))
    heads_equal(merge_states(one, two).learner.outcomes, expected)


def test_a_head_follows_to_another_trunk(prior):
    made = learner(prior, labelled(300, 13)).outcomes
    trunk, rng = prior.dynamics.trunk, np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((trunk.size, trunk.size)))
    samples = [
        Sample(t.state, t.action, np.zeros((2, 2)), t.next_state, 0, 0)
        for t in stream(HOME, 400, 14)
    ]
    moved = made.carried(replace(trunk, whiten=trunk.whiten @ turn), samples)
    for t in stream(HOME, 30, 15):
        before, after = (o.model.predict(t.state, t.action)['current'] for o in (made, moved))
        assert after.mean == pytest.approx(before.mean, abs=0.05)
        assert after.noise == pytest.approx(before.noise, rel=0.5)


# ---------------------------------------------------------------------- bytes
def test_what_outcomes_take_is_within_the_budget(prior):
    empty = learner(prior)
    heads = empty.outcomes.least_bytes()
    least = 2 * empty._regime_bytes() + heads
    with pytest.raises(UserError, match=f'with its outcomes takes {least}'):
        learner(prior, memory_bytes=least - 1)
    limit = least + 10_000
    made = learner(prior, labelled(1000, 31), memory_bytes=limit)
    free = learner(prior, labelled(1000, 31))
    assert free.nbytes() > limit  # there is something to give up
    result = made.consolidate()
    event = made.take_events()[-1]
    assert result.accepted and made.nbytes() <= limit
    assert event.detail['bytes'] == made.nbytes()
    assert made.outcomes.folded == {0} and made.outcomes.steps == []
    heads_equal(made.outcomes, free.outcomes)  # given up to be taken back, not forgotten
    for t in labelled(200, 32, first=1000):
        made.observe(t)
    assert made.nbytes() <= limit + 40_000


def test_bytes_are_those_of_the_arrays(prior):
    made = learner(prior, labelled(50, 33)).outcomes
    arrays, _ = made.state()
    kept = sum(a.nbytes for n, a in arrays.items() if n.startswith('steps.') and 'epis' not in n)
    assert kept == sum(s.nbytes() for s in made.steps)
    for head in made.model.heads.values():
        n = head.posterior.size
        sites = sum(v.nbytes for s in head.sites for v in vars(s).values())
        assert head.nbytes() == 8 * (n + n * n) + sites <= head.nbytes(full=True)


def test_robots_without_outcomes_count_as_before(tiny_prior):
    made = Learner(tiny_prior, LearnerConfig(background=False))
    for t in stream(HOME, 30, 0):
        made.observe(t)
    assert made.nbytes() == made.library.nbytes() and made.outcomes.least_bytes() == 0


# ---------------------------------------------------------------------- the memory map
def test_what_a_label_means_is_what_leaving_it_out_does(prior):
    """Against a refit of the head without each label in turn."""
    made = learner(prior, labelled(120, 40)).outcomes
    found = {m.step: m for m in made.memorable() if m.outcome == 'contact'}
    head = made.model.heads['contact']
    refit, told = [], []
    for i in list(found)[::3]:
        left = made._told(made.start, made.steps[:i] + made.steps[i + 1 :], made.folded)
        step = made.steps[i]
        design = head.likelihood.design(made.model.features(step.x, step.u))
        (f, _), (without, _) = (o.model.heads['contact'].latent(design) for o in (made, left))
        refit.append(float(abs(without - f)[0] * np.sqrt(head.likelihood.curvature(f)[0, 0])))
        told.append(found[i].deviation)
    ranks = [np.argsort(np.argsort(values)) for values in (refit, told)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    assert 0.5 < np.median(np.array(told) / np.array(refit)) < 1.5


@given(st.floats(-9, 9), st.floats(-3, 3), st.floats(0.01, 3.0))
def test_what_a_number_means_is_regression_where_the_noise_is_known(y, m, v):
    noise, scale = 0.5, 2.0
    covariance = torch.tensor(np.diag([v, 1e-10]))
    mean = torch.tensor([m, 2 * math.log(noise)], dtype=torch.float64)
    head = Glm(Gaussian(mean, covariance), HeteroscedasticGaussian(scale))
    seen = label_sensitivity(head, np.ones((1, 1)), np.array([[y, 0.0]]))
    residual = (y / scale - m) / noise
    assert seen.leverage[0, 0] == pytest.approx(v / noise**2, rel=1e-3)
    assert seen.residual[0, 0] == pytest.approx(abs(residual), rel=1e-3, abs=1e-6)
    moved = v / (v + noise**2) * residual
    assert seen.deviation[0, 0] == pytest.approx(abs(moved), rel=1e-3, abs=1e-3)
    assert seen.left_out[0, 0] == pytest.approx(abs(residual + moved), rel=1e-3, abs=1e-3)


def test_labels_are_regular_but_for_the_odd_one(prior):
    steps = labelled(400, 41)
    odd = next(i for i in range(300, 400) if not math.isnan(steps[i].outcomes[1]))
    wrong = float(truth(steps[odd])[0]) + 6.0
    steps[odd] = replace(steps[odd], outcomes=(steps[odd].outcomes[0], wrong))
    made = learner(prior, steps).outcomes
    found = [m for m in made.memorable() if m.outcome == 'current']
    kinds = [m.kind for m in found]
    assert kinds.count('regular') > 0.7 * len(found)
    most = max(found, key=lambda m: m.surprise)
    assert (most.kind, most.value) == ('unpredictable', wrong)
    sure = np.sqrt(np.mean([m.surprise**2 for m in found if m is not most]))
    assert 0.6 < sure < 1.6  # Rao's score is one on average


def test_a_memory_map_lists_labels(prior, tmp_path, capsys):
    made = learner(prior, labelled(150, 42, episode=3))
    save_state(made, tmp_path / 'state')
    picture = tmp_path / 'map.png'
    assert main(['memory-map', str(tmp_path / 'state'), '--json', '--out', str(picture)]) == 0
    report = json.loads(capsys.readouterr().out)
    values = [made.outcomes.values(s) for s in made.outcomes.steps]
    known = {n: sum(v[n] is not None for v in values) for n in made.outcomes.kinds}
    assert known['contact'] == 150 > known['current'] > 100
    for name, count in known.items():
        assert sum(report['kinds_of_labels'][name].values()) == count
        assert sum(m['outcome'] == name for m in report['labels']) == count
    assert {m['episode'] for m in report['labels']} == {3}
    sizes = [m['deviation'] for m in report['labels']]
    assert sizes == sorted(sizes, reverse=True)
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert main(['memory-map', str(tmp_path / 'state'), '--out', str(picture)]) == 0
    assert '\ncurrent: ' in capsys.readouterr().out
    assert main(['regimes', str(tmp_path / 'state'), '--json']) == 0
    outcomes = json.loads(capsys.readouterr().out)['outcomes']
    assert outcomes['bytes'] == made.outcomes.nbytes() and outcomes['episodes'] == [3]
