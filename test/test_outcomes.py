"""Named outcomes: from readings to labels, learned, kept, forgotten, published; a real contact."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.blr import ImproperPosteriorError
from lifelong_bayes_ros.dynamics.belief import predict_outcomes
from lifelong_bayes_ros.dynamics.outcomes import OutcomeModel
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import decode_belief, encode_belief, encode_prior
from lifelong_bayes_ros.learning.forgetting import forget
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.merging import merge_states
from lifelong_bayes_ros.learning.outcomes import Outcomes
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.memory.reservoir import Sample
from lifelong_bayes_ros.robot import wire
from lifelong_bayes_ros.robot.outcomes import UNKNOWN, Labels
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot
from lifelong_bayes_ros.robot.transitions import State, TransitionBuilder
from plants import HOME, stream

GROUND = ('sand', 'grass', 'rock')
OUTCOMES = {
    'contact': {'topic': 'contact', 'type': 'std_msgs/msg/Bool'},
    'ground': {'topic': 'ground', 'type': 'std_msgs/msg/String', 'classes': list(GROUND)},
}


def robot(name='quad', **outcomes):
    """A shipped robot with outcomes."""
    text = load_robot(name).model_dump(mode='json') | {'outcomes': outcomes}
    return parse_robot(yaml.safe_dump(text), 'mine.yaml')


QUAD = robot(**OUTCOMES)


@pytest.fixture(scope='module')
def prior(tiny_prior):
    return replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=QUAD))


def labelled(steps, seed, first=0, episode=0):
    """Steps on the plant as built; contact goes with the pitch, ground with the speed."""
    rng = np.random.default_rng(seed)
    out = []
    for t in stream(HOME, steps, seed, first):
        contact = int(rng.random() < 1 / (1 + np.exp(-8 * t.state[2])))
        ground = int(np.digitize(t.state[3], [-0.7, 0.7]))
        labels = (contact, ground if rng.random() < 0.5 else UNKNOWN)
        out.append(replace(t, outcomes=labels, episode=episode))
    return out


def learner(prior, transitions=(), **config):
    made = Learner(prior, LearnerConfig(background=False, **config), seed=0)
    for t in transitions:
        made.observe(t)
    return made


def told(prior, steps):
    """Outcomes that have learned steps and nothing else."""
    outcomes = Outcomes(prior.dynamics.spec, prior.dynamics.trunk, 4000)
    for t in steps:
        outcomes.learn(t, t.episode)
    return outcomes


def heads_equal(one, two, **tolerance):
    for a, b in zip(one.parts(), two.parts(), strict=True):
        np.testing.assert_allclose(a, b, **({'rtol': 0, 'atol': 0} | tolerance))


# ---------------------------------------------------------------------- the robot file
@pytest.mark.parametrize(
    ('outcome', 'words'),
    [
        ({'topic': 't', 'type': 'std_msgs/msg/Byte'}, ['outcomes.touch.type', 'Byte']),
        ({'topic': 't', 'type': 'std_msgs/msg/String'}, ['outcomes.touch', 'list of classes']),
        ({'topic': 't', 'type': 'std_msgs/msg/Int32', 'classes': ['a', 'a']}, ['twice']),
        (
            {'topic': 't', 'type': 'std_msgs/msg/Int32', 'classes': ['a']},
            ['classes', 'at least 2'],
        ),
        ({'topic': 't', 'type': 'std_msgs/msg/Float64'}, ['above', 'threshold']),
        ({'topic': 't', 'type': 'std_msgs/msg/Float64', 'above': float('nan')}, ['above', 'nan']),
        ({'topic': 't', 'type': 'std_msgs/msg/Bool', 'above': 1.0}, ['above', 'none']),
        ({'topic': 't', 'type': 'sensor_msgs/msg/JointState', 'above': 1.0}, ['joint']),
    ],
)
def test_faults_of_the_section_are_named(outcome, words):
    with pytest.raises(UserError) as caught:
        robot(touch=outcome)
    for word in ['mine.yaml', *words]:
        assert word in str(caught.value)


def test_an_outcome_may_not_have_the_name_of_a_channel():
    with pytest.raises(UserError, match=r"outcomes: \['pitch'\] are names of channels"):
        robot(pitch=OUTCOMES['contact'])


def test_a_belief_made_without_outcomes_is_good_with_them():
    assert QUAD.fingerprint == load_robot('quad').fingerprint


# ---------------------------------------------------------------------- labels
@pytest.mark.parametrize(
    ('source', 'value', 'label'),
    [
        ({'type': 'std_msgs/msg/Bool'}, True, 1),
        ({'type': 'std_msgs/msg/Float64', 'above': 2.0}, 2.0, 0),
        ({'type': 'std_msgs/msg/Float64', 'above': 2.0}, 2.5, 1),
        ({'type': 'std_msgs/msg/Int32', 'classes': GROUND}, 2, 2),
        ({'type': 'std_msgs/msg/String', 'classes': GROUND}, 'grass', 1),
    ],
)
def test_a_reading_is_a_label(source, value, label):
    assert robot(touch={'topic': 't', **source}).outcomes['touch'].label(value) == label


@pytest.mark.parametrize(
    ('source', 'value'),
    [
        ({'type': 'std_msgs/msg/String', 'classes': GROUND}, 'ice'),
        ({'type': 'std_msgs/msg/Int32', 'classes': GROUND}, 3),
        ({'type': 'std_msgs/msg/Int32', 'classes': GROUND}, -1),
        ({'type': 'std_msgs/msg/Float64', 'above': 2.0}, float('inf')),
    ],
)
def test_a_reading_that_is_no_label_is_refused_and_leaves_the_last_one(source, value):
    labels = Labels(robot(touch={'topic': 't', **source}))
    labels.put('touch', None, 1)
    with pytest.raises(UserError, match='on t is'):
        labels.add('touch', None, value)
    assert labels.take(0, 10) == (1,)


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 1)), max_size=20, unique_by=lambda r: r[0]
    )
)
def test_stamped_readings_label_the_step_that_they_fall_into(readings):
    labels = Labels(robot(contact=OUTCOMES['contact']))
    for stamp, label in sorted(readings):
        labels.put('contact', stamp, label)
    for before in range(0, 100, 10):
        inside = [label for stamp, label in sorted(readings) if before < stamp <= before + 10]
        assert labels.take(before, before + 10) == ((inside[-1],) if inside else (UNKNOWN,))
    assert labels.take(100, 110) == (UNKNOWN,) and not labels.skipped


def test_readings_that_come_late_are_counted():
    labels = Labels(robot(contact=OUTCOMES['contact']))
    labels.put('contact', 5, 1)
    assert labels.take(10, 20) == (UNKNOWN,)
    assert labels.skipped == {'late reading of contact': 1}


def test_a_reading_without_a_stamp_labels_one_step():
    builder = TransitionBuilder(QUAD)
    u = np.zeros(2, np.float32)
    sent, label = [], {1: 1, 2: 0, 4: 1}
    for step in range(6):
        stamp = (step + 1) * QUAD.period_ns
        if step in label:
            builder.labels.add('contact', None, not label[step])
            builder.labels.add('contact', None, label[step])
        sent += builder.add_state(State(stamp, np.full(6, step, np.float32)))
        sent += builder.add_command(stamp, u)
    got = [t.outcomes for t in sent]
    assert got == [(label.get(step, UNKNOWN), UNKNOWN) for step in range(6)]


@given(st.integers(-1, 1), st.integers(-1, 2))
def test_labels_survive_the_topic(contact, ground):
    t = replace(stream(HOME, 1, 0)[0], outcomes=(contact, ground))
    data = wire.encode(t)

    class Message:
        layout = type(
            'L',
            (),
            {'dim': [type('D', (), {'label': k, 'size': n}) for k, n in wire.sizes(QUAD).items()]},
        )

    Message.data = data.tolist()
    assert wire.decode(QUAD, Message).outcomes == (contact, ground)
    with pytest.raises(UserError, match='numbers'):
        wire.decode(load_robot('quad'), Message)


# ---------------------------------------------------------------------- the learner
def test_the_learner_learns_what_the_model_alone_would(prior):
    steps = labelled(120, 1)
    made = learner(prior, steps)
    classes = {'contact': None, 'ground': GROUND}
    model = OutcomeModel.start(prior.dynamics.trunk, classes)
    for t in steps:
        names = {'contact': bool(t.outcomes[0])}
        if t.outcomes[1] != UNKNOWN:
            names['ground'] = GROUND[t.outcomes[1]]
        model = model.update(t.state, t.action, names)
    for name, head in model.heads.items():
        mine = made.outcomes.model.heads[name].posterior
        np.testing.assert_array_equal(mine.mean, head.posterior.mean)
        np.testing.assert_array_equal(mine.covariance, head.posterior.covariance)


def test_labels_do_not_touch_the_dynamics(prior, tiny_prior):
    steps = labelled(60, 2)
    with_labels, without = learner(prior, steps), learner(tiny_prior, steps)
    np.testing.assert_array_equal(with_labels.belief().theta, without.belief().theta)
    assert without.outcomes.channels() == {} and without.belief().outcomes == {}
    assert with_labels.digest() != without.digest()


def test_what_is_predicted_is_calibrated_and_better_than_the_base_rate(prior):
    made, p, y = learner(prior), [], []
    for t in labelled(600, 3):
        made.observe(t)
        p.append(made.outcomes.channels()['contact.probability'])
        y.append(t.outcomes[0])
    p, y = np.clip(p, 1e-9, 1 - 1e-9)[100:], np.array(y)[100:]
    rate = y.mean()
    score = np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert score > 0.8 * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    for low in (0.0, 1 / 3, 2 / 3):
        rows = (p >= low) & (p < low + 1 / 3)
        assert abs(y[rows].mean() - p[rows].mean()) < 3 * np.sqrt(0.25 / rows.sum())


def test_ignorance_is_told_apart_from_chance(prior):
    made = learner(prior)
    seen = []
    for t in labelled(300, 4):
        made.observe(t)
        seen.append(made.outcomes.channels()['contact.epistemic'])
    assert np.mean(seen[:5]) > 4 * np.mean(seen[-50:])


def test_a_belief_predicts_as_the_heads_do_and_travels_whole(prior):
    made = learner(prior, labelled(150, 5))
    belief = made.belief()
    again = decode_belief(encode_belief(belief, 'x'), 'x')
    errors = []
    for t in stream(HOME, 40, 6):
        exact = made.outcomes.model.predict(t.state, t.action)
        near, far = (
            predict_outcomes(prior.dynamics, b, t.state, t.action) for b in (belief, again)
        )
        for name, seen in exact.items():
            np.testing.assert_array_equal(near[name].probabilities, far[name].probabilities)
            errors.append(np.abs(near[name].probabilities - seen.probabilities).max())
    assert np.mean(errors) < 0.03 and max(errors) < 0.15
    assert again.outcomes['ground'].kind == GROUND


def test_a_resumed_learner_goes_on_bit_for_bit(prior, tmp_path):
    steps = labelled(260, 7)
    whole = learner(prior, steps[:130], journal=100)
    save_state(whole, tmp_path)
    resumed = load_state(tmp_path)
    assert resumed.digest() == whole.digest()
    for t in steps[130:]:
        whole.outcomes.learn(t, 0)
        resumed.outcomes.learn(t, 0)
    heads_equal(resumed.outcomes, whole.outcomes)
    assert resumed.outcomes.folded == whole.outcomes.folded
    heads_equal(resumed.outcomes.without(9), whole.outcomes.without(9))


def test_outcomes_keep_the_order_of_the_robot_file_through_a_restart(tiny_prior, tmp_path):
    text = load_robot('quad').model_dump(mode='json')
    text['outcomes'] = dict.fromkeys(('slip', 'contact'), OUTCOMES['contact'])
    spec = parse_robot(yaml.safe_dump(text, sort_keys=False), 'mine.yaml')
    prior = replace(tiny_prior, dynamics=replace(tiny_prior.dynamics, spec=spec))
    made = learner(prior, [replace(t, outcomes=(0, 1)) for t in stream(HOME, 20, 1)])
    save_state(made, tmp_path)
    resumed = load_state(tmp_path)
    assert list(resumed.outcomes.heads()) == ['slip', 'contact']
    heads_equal(resumed.outcomes, made.outcomes)


# ---------------------------------------------------------------------- memory
def test_a_forgotten_episode_was_never_seen(prior):
    first, second = labelled(60, 8), labelled(50, 9, first=60, episode=1)
    third = labelled(40, 10, first=110, episode=2)
    made = learner(prior, first + second + third)
    forget(made, 1)
    heads_equal(made.outcomes, told(prior, first + third), rtol=1e-9, atol=1e-12)
    assert made.outcomes.episodes == {0, 2}


def test_an_episode_that_is_folded_cannot_be_forgotten_and_nothing_is(prior):
    made = learner(prior, labelled(60, 8) + labelled(150, 9, first=60, episode=1))
    made.outcomes.journal = 60
    for t in labelled(100, 11, first=210, episode=2):
        made.outcomes.learn(t, 2)
    before = made.digest()
    with pytest.raises(UserError, match=r'--episode 0: .*outcomes contact, ground.*journal'):
        forget(made, 0)
    assert made.digest() == before


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 120))
def test_what_is_kept_is_never_more_than_the_journal_and_makes_the_heads(journal, count):
    import plants

    prior = plants.tiny_prior()
    made = Outcomes(QUAD, prior.dynamics.trunk, journal)
    steps = labelled(count, 12)
    for number, t in enumerate(steps):
        made.learn(t, number)
    assert len(made.steps) <= max(journal, 2)
    assert made.folded == set(range(count)) - made.episodes
    again = made._told(made.start, made.steps, made.folded)
    heads_equal(again, made)


def test_heads_follow_to_another_trunk(prior):
    made = learner(prior, labelled(300, 13)).outcomes
    trunk, rng = prior.dynamics.trunk, np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((trunk.size, trunk.size)))
    other = replace(trunk, whiten=trunk.whiten @ turn, w2=trunk.w2 + 1e-3)
    samples = [
        Sample(t.state, t.action, np.zeros((2, 2)), t.next_state, 0, 0)
        for t in stream(HOME, 400, 14)
    ]
    moved = made.carried(other, samples)
    for t in stream(HOME, 30, 15):
        before, after = (o.model.predict(t.state, t.action) for o in (made, moved))
        for name in before:
            np.testing.assert_allclose(
                after[name].probabilities, before[name].probabilities, atol=0.06
            )
    assert moved.episodes == set() and moved.folded == {0}
    assert made.carried(trunk, samples) is made


def test_merged_states_know_the_labels_of_both(prior):
    one, two = (learner(prior, labelled(80, seed, first=100 * seed)) for seed in (16, 17))
    expected = told(prior, labelled(80, 16) + labelled(80, 17))
    merged = merge_states(one, two)
    heads_equal(merged.learner.outcomes, expected)
    assert merged.learner.outcomes.episodes == {0, merged.offset}


def probabilities(made):
    """Of every outcome and class at some steps on the plant as built."""
    seen = [made.outcomes.model.predict(t.state, t.action) for t in stream(HOME, 20, 18)]
    return np.array([np.concatenate([p.probabilities for p in s.values()]) for s in seen])


def test_what_either_robot_has_folded_is_merged_too(prior):
    def lived(seed, journal):
        return learner(prior, labelled(150, seed, first=200 * seed), journal=journal)

    whole = merge_states(lived(16, 4000), lived(17, 4000)).learner
    merged = merge_states(lived(16, 4000), lived(17, 20))
    swapped = merge_states(lived(17, 20), lived(16, 4000))
    for made in (merged, swapped):
        wrong = np.abs(probabilities(made.learner) - probabilities(whole))
        assert wrong.mean() < 0.03 and wrong.max() < 0.15
    assert merged.learner.outcomes.folded == {merged.offset}
    assert not any('labels' in line for line in merged.left_out)


def test_what_is_folded_and_does_not_add_up_is_told(prior, monkeypatch):
    def improper(*_):
        raise ImproperPosteriorError('no density')

    monkeypatch.setattr(OutcomeModel, 'joined', improper)
    one, two = (
        learner(prior, labelled(60, s, first=100 * s), journal=j) for s, j in ((16, 400), (17, 20))
    )
    merged = merge_states(one, two)
    assert any('labels of outcomes' in line for line in merged.left_out)
    assert merged.offset in merged.learner.outcomes.episodes  # those that are kept are learned


def test_merged_models_add_up_on_another_trunk_as_well(prior):
    whole, part = (learner(prior, labelled(120, 19), journal=j).outcomes for j in (4000, 20))
    trunk = prior.dynamics.trunk
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((trunk.size, trunk.size)))
    other = replace(trunk, whiten=trunk.whiten @ turn)
    samples = [
        Sample(t.state, t.action, np.zeros((2, 2)), t.next_state, 0, 0)
        for t in stream(HOME, 400, 14)
    ]
    fresh = Outcomes(QUAD, other, 4000)
    expected, _ = fresh.merged(whole, other, samples, 0)
    merged, all_of_it = Outcomes(QUAD, other, 4000).merged(part, other, samples, 0)
    assert all_of_it and merged.folded == {0}
    for t in stream(HOME, 20, 18):
        seen, other = (o.model.predict(t.state, t.action) for o in (merged, expected))
        for name in seen:
            np.testing.assert_allclose(
                seen[name].probabilities, other[name].probabilities, atol=0.1
            )


SLIP = {'ground': OUTCOMES['ground'], 'slip': OUTCOMES['contact']}
TURNED = {**OUTCOMES, 'ground': {**OUTCOMES['ground'], 'classes': list(GROUND[::-1])}}


@pytest.mark.parametrize(
    ('others', 'named'),
    [
        ({}, 'none'),
        ({'contact': OUTCOMES['contact']}, 'contact;'),
        (SLIP, r"ground \['sand', 'grass', 'rock'\], slip;"),
        (TURNED, r"contact, ground \['rock', 'grass', 'sand'\];"),
    ],
)
def test_states_with_other_outcomes_are_not_merged(prior, others, named):
    spec = robot(**others)
    other = replace(prior, dynamics=replace(prior.dynamics, spec=spec))
    labels = (0,) * len(others)
    mine = learner(prior, labelled(5, 16, first=100))
    theirs = learner(other, [replace(t, outcomes=labels) for t in stream(HOME, 5, 17)])
    for pair in ((mine, theirs), (theirs, mine)):
        with pytest.raises(UserError, match='with outcomes') as caught:
            merge_states(*pair)
        assert "contact, ground ['sand', 'grass', 'rock']" in str(caught.value)
    with pytest.raises(UserError, match=f'and {named}'):
        merge_states(mine, theirs)


# ---------------------------------------------------------------------- a real contact
def test_a_simulated_robot_feels_what_it_touches():
    spec = robot('arm', contact=OUTCOMES['contact'])
    env = sim.make('arm', spec=spec)
    for wall, felt in ((0.3, 1), (2.0, 0)):
        env.reset(seed=0, options={'shifts': [sim.shift_from_dict({'wall': {'x': wall}})]})
        touched = [env.labels['contact'] for _ in range(50) if env.step(np.zeros(2)) is not None]
        assert max(touched) == felt
    with pytest.raises(UserError, match=r"does not sense outcomes \['ground'\]"):
        sim.make('quad', spec=QUAD)


LIFE = """
robot: arm
regimes:
  A: []
  W: [{wall: {x: 0.7}}]
phases: [[A, 60], [W, 340]]
episode: 200
"""


def test_contacts_of_a_life_through_ros_are_predicted_better_than_by_their_rate(tmp_path):
    pytest.importorskip('rclpy')
    from lifelong_bayes_ros.experiments.bag import open_bag
    from lifelong_bayes_ros.experiments.replay import replay_bag
    from lifelong_bayes_ros.learning.pretrain import PretrainConfig, pretrain
    from lifelong_bayes_ros.nodes.bringup import Bringup

    spec = robot('arm', contact=OUTCOMES['contact'])
    config = PretrainConfig(
        width=24,
        regimes=8,
        per_regime=200,
        nominal=1500,
        steps=300,
        family=12,
        per_family=150,
        per_hypothesis=100,
    )
    files = {n: tmp_path / n for n in ('arm.yaml', 'life.yaml', 'arm.safetensors')}
    files['arm.yaml'].write_text(spec.dump())
    files['life.yaml'].write_text(LIFE)
    # Of the robot before it had a contact sensor: the file of the robot decides.
    shipped = load_robot('arm')
    files['arm.safetensors'].write_bytes(encode_prior(pretrain(sim.make('arm'), shipped, config)))
    bag = tmp_path / 'bag'
    options = {
        'robot': str(files['arm.yaml']),
        'prior': str(files['arm.safetensors']),
        'life': str(files['life.yaml']),
        'sim': True,
        'shutdown_at_end': True,
        'out': str(bag),
        'state_dir': str(tmp_path / 'state'),
    }
    with Bringup(options, tmp_path / 'log', private=True) as bringup:
        bringup.start()
        ended = []
        while (
            'sim_robot' not in ended
        ):  # a node that dies ends the wait; so does a stalled test run
            ended = bringup.watch()
            assert set(ended) <= {'sim_robot'}
            bringup.spin(0.05)
        bringup.stop()
    with open_bag(bag) as recorded:
        sent = [wire.decode(spec, m) for _, m in recorded.messages('transition')]
        figures = [dict(zip(m.name, m.position)) for _, m in recorded.messages('learner_state')]
        acted = [dict(zip(m.name, m.position)) for _, m in recorded.messages('uncertainty')]
        readings = [m.data for _, m in recorded.messages('contact')]
        events = [json.loads(m.data) for _, m in recorded.messages('event')]
    labels = np.array([t.outcomes[0] for t in sent])
    known = labels != UNKNOWN
    assert known.mean() > 0.95 and len(readings) >= 0.95 * len(sent)
    assert labels[:55].max() == 0 and 0.05 < labels[known][-300:].mean() < 0.95
    assert 'contact.probability' in acted[-1] and 'contact.epistemic' in acted[-1]
    rows = [i for i in range(80, len(sent)) if known[i] and sent[i].usable]
    p = np.clip([figures[i]['contact.probability'] for i in rows], 1e-9, 1 - 1e-9)
    y = labels[rows]
    rate = y.mean()
    base = rate * np.log(rate) + (1 - rate) * np.log(1 - rate)
    assert np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)) > 0.9 * base
    assert np.mean((p - y) ** 2) < 0.9 * rate * (1 - rate)
    assert abs(p.mean() - rate) < 0.1
    # The bag alone gives the same heads, bit for bit.
    replayed = replay_bag(bag, None, lambda what, share: None)
    (saved,) = [e['digest'] for e in events if e['event'] == 'saved'][-1:]
    assert replayed['equal'] and replayed['digest'] == saved, replayed
