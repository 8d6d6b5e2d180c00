"""The trunk that learns in the background: carried over exactly, adopted all or nothing."""

import threading
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.dynamics.head import Head
from lifelong_bayes_ros.dynamics.model import Dynamics
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning import candidate as candidates
from lifelong_bayes_ros.learning import store, surprise
from lifelong_bayes_ros.learning.broad import SCRATCH, broad_prior
from lifelong_bayes_ros.learning.candidate import Job
from lifelong_bayes_ros.learning.codec import fingerprint, pack, unpack
from lifelong_bayes_ros.learning.forgetting import forget
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.refine import Steps, imagined
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.learning.transport import Transport, carry_prior, fit, rewhiten
from lifelong_bayes_ros.memory.reservoir import Sample
from lifelong_bayes_ros.robot.spec import load_robot
from lifelong_bayes_ros.robot.transitions import Flag, Transition
from plants import (
    DELAYS,
    HOME,
    LOSS,
    QUAD,
    gaussian,
    linear_samples,
    observe,
    random_dynamics,
    stream,
)

ARM = load_robot('arm')
DRAG = [{'quadratic_drag': {'coefficient': 2.4}}]
FAST = LearnerConfig(trunk_every=200, trunk_window=400, trunk_steps=5)
LIFE = stream(HOME, 100, 0) + stream(DRAG, 1500, 1, 100)[:700]


def lived(prior, transitions=LIFE, config=FAST, wait=True):
    learner = Learner(prior, config, seed=3, wait=wait)
    for transition in transitions:
        learner.observe(transition)
    return learner


def trunk_events(learner, kind=None):
    return [
        e for e in learner.events if e.detail.get('what') == 'trunk' and kind in (None, e.event)
    ]


@pytest.fixture(scope='module')
def whole_life(tiny_prior):
    """A life in which a trunk is adopted, and errors on memory before and after each time."""
    learner, adoptions = Learner(tiny_prior, FAST, seed=3), []
    for transition in LIFE:
        running, due = learner.background.running, learner.background.due
        if running is not None and len(running.held_out) == due - 1:
            before = memory_errors(learner)
        adopted = len(trunk_events(learner, 'adopted'))
        learner.observe(transition)
        if len(trunk_events(learner, 'adopted')) > adopted:
            adoptions.append((before, memory_errors(learner)))
    return learner, adoptions


@pytest.fixture(scope='module')
def adopter(whole_life):
    return whole_life[0]


@pytest.fixture(scope='module')
def adoptions(whole_life):
    return whole_life[1]


@pytest.fixture(scope='module')
def head_only(tiny_prior):
    return lived(tiny_prior, config=replace(FAST, background=False))


def samples(transitions):
    past = np.tile(QUAD.neutral, (2, 1)).astype(np.float32)
    return [Sample(t.state, t.action, past, t.next_state, t.stamp_ns, 0) for t in transitions]


# ---------------------------------------------------------------------- the linear algebra
@pytest.mark.parametrize('robot', ['quad', 'arm'])
def test_the_columns_of_many_rows_are_those_of_the_design(robot):
    dynamics = random_dynamics(robot)
    noise = np.full(len(dynamics.scale), 0.1)
    some = list(islice(linear_samples(dynamics, dynamics.nominal_theta, noise, 0), 9))
    phi, columns = Steps.of(some).columns(dynamics)
    ds, nf = dynamics.nominal.shape
    for row, (x, u, past) in enumerate((s.x, s.u, s.past) for s in some):
        design = dynamics.design(x, u, past)
        np.testing.assert_allclose(phi[row], design[0, :nf], atol=1e-12)
        np.testing.assert_allclose(columns[row], design[:, ds * nf :], atol=1e-12)


def test_fitting_at_once_is_conditioning_on_one_after_the_other():
    dynamics, rng = random_dynamics(), np.random.default_rng(1)
    n, ds = dynamics.size, len(dynamics.scale)
    root = rng.normal(size=(n, n)) / np.sqrt(n)
    prior = gaussian(dynamics.nominal_theta, root @ root.T + 0.1 * np.eye(n))
    variance = rng.uniform(0.05, 0.2, ds)
    noise = Noise.start(variance, variance)
    truth = dynamics.nominal_theta + 0.3 * rng.normal(size=n)
    some = list(islice(linear_samples(dynamics, truth, variance, 2), 40))
    head = Head(prior, noise)
    for sample in some:
        head = observe(dynamics, head, sample, fixed=noise)
    mean, covariance = fit(
        dynamics, Steps.of(some), prior.mean.numpy(), prior.covariance.numpy(), variance
    )
    np.testing.assert_allclose(mean, head.posterior.mean, atol=1e-8)
    np.testing.assert_allclose(covariance, head.posterior.covariance, atol=1e-8)


def test_a_trunk_whose_units_change_places_carries_every_function_over(tiny_prior):
    """It spans the same functions, so that nothing may be lost."""
    old, rng = tiny_prior.dynamics, np.random.default_rng(0)
    order = rng.permutation(len(old.trunk.b2))
    moved = replace(
        old.trunk,
        w2=-old.trunk.w2[:, order],
        b2=-old.trunk.b2[order],
        whiten=np.eye(old.trunk.size),
    )
    inputs = imagined(old.trunk, rng, 2000)
    trunk = rewhiten(old.trunk, moved, inputs)
    by = Transport.between(old.trunk, trunk, inputs, np.ones(len(inputs)))
    prior = carry_prior(tiny_prior, trunk, tiny_prior.trunk_precision, by)
    new: Dynamics = prior.dynamics
    rows = Steps.of(samples(stream(HOME, 50, 4)))
    np.testing.assert_allclose(
        trunk.features(rows.x, rows.u), old.trunk.features(rows.x, rows.u), atol=0.02
    )
    theta = rng.multivariate_normal(old.nominal_theta, tiny_prior.covariance)
    after = by.theta(theta, len(old.scale))
    ds = len(old.scale)
    sd = np.sqrt(tiny_prior.noise)
    head = Head(gaussian(theta, tiny_prior.covariance), Noise.start(sd**2, sd**2))
    carried = by.head(head, ds, gaussian(new.nominal_theta, prior.covariance), 0.0).posterior
    np.testing.assert_allclose(carried.mean, after, atol=1e-9)
    for x, u, past in zip(rows.x, rows.u, rows.past):
        before, now = old.design(x, u, past), new.design(x, u, past)
        assert np.max(np.abs(now @ after - before @ theta) / sd) < 0.05
        spread = np.diag(before @ tiny_prior.covariance @ before.T)
        for covariance in (prior.covariance, carried.covariance.numpy()):
            np.testing.assert_allclose(np.diag(now @ covariance @ now.T), spread, rtol=0.1)


@pytest.mark.parametrize('robot', ['quad', 'arm'])
def test_imagined_inputs_are_like_those_of_pretraining(robot):
    """Zero mean, unit variance, and angles on the circle."""
    trunk, rng = random_dynamics(robot).trunk, np.random.default_rng(0)
    encoder = trunk.encoder
    angles, values = len(encoder.angles), len(encoder.values)
    a = 0.4 + 0.3 * rng.standard_normal((20_000, angles))
    raw = rng.standard_normal((20_000, len(trunk.mean)))
    raw[:, values : values + angles] = np.cos(a)
    raw[:, values + angles : values + 2 * angles] = np.sin(a)
    trunk = replace(trunk, mean=raw.mean(axis=0), scale=raw.std(axis=0))
    inputs = imagined(trunk, rng, 20_000)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(inputs.std(axis=0), 1, atol=0.1)
    back = inputs * trunk.scale + trunk.mean
    radius = back[:, values : values + angles] ** 2
    radius = radius + back[:, values + angles : values + 2 * angles] ** 2
    np.testing.assert_allclose(radius, 1, atol=1e-9)


# ---------------------------------------------------------------------- adoption
def clean_error(learner, shifts):
    """Error of the live head where no data need have been, in y, all outputs."""
    rows = Steps.of(samples(stream(shifts, 400, 77)))
    phi, columns = rows.columns(learner.dynamics)
    w, *rest = learner.dynamics.split(learner.live.posterior.mean.numpy())
    predicted = phi @ w.T + columns @ np.concatenate(rest)
    return np.sqrt(np.mean(np.square(rows.target(learner.dynamics) - predicted)))


def test_what_no_head_can_express_is_learned_and_adopted(tiny_prior, adopter, head_only):
    events = trunk_events(adopter)
    assert 'adopted' in [e.event for e in events]
    assert not trunk_events(head_only)
    assert fingerprint(adopter.prior) != fingerprint(tiny_prior)
    learned, alone = clean_error(adopter, DRAG), clean_error(head_only, DRAG)
    noise = np.sqrt(np.mean(tiny_prior.noise))
    assert learned < alone
    assert learned**2 - noise**2 < 0.8 * (alone**2 - noise**2)


@pytest.mark.parametrize('before', [30, 8])
def test_a_job_does_not_undo_what_changed_while_it_ran(tiny_prior, adopter, before):
    """A shift after the job was judged, or late among what it was judged on."""
    due = trunk_events(adopter, 'adopted')[0].step
    shift = HOME if before == 30 else [*DRAG, *LOSS]
    learner = Learner(tiny_prior, FAST, seed=3)
    plain = Learner(tiny_prior, replace(FAST, background=False), seed=3)
    found = {learner: [], plain: []}
    for transition in [*LIFE[: due - before], *stream(shift, before + 12, 7, due - before)]:
        ends = (transition.state, transition.action, transition.next_state)
        x, u, after = (a.astype(float) for a in ends)
        for each, errors in found.items():
            theta = each.belief().theta.astype(float)
            left = each.dynamics.target(x, after) - each.dynamics.design(x, u, each.past) @ theta
            errors.append(np.mean(left**2 / tiny_prior.noise))
            each.observe(transition)
    ours, theirs = (np.sqrt(np.mean(errors[due : due + 12])) for errors in found.values())
    assert ours < 1.2 * theirs


def test_old_regimes_are_predicted_as_before_after_adoption(adoptions):
    assert adoptions
    for before, after in adoptions:
        assert after.keys() == before.keys()
        for name in before:
            assert after[name] <= 1.11 * before[name]


def memory_errors(learner):
    return {r.name: memory_error(learner, r) for r in learner.library.regimes}


def memory_error(learner, regime):
    square = []
    for s in regime.reservoir.samples:
        x, u, past, x_next = (np.array(a, float) for a in (s.x, s.u, s.past, s.x_next))
        predicted = learner.dynamics.design(x, u, past) @ regime.head.posterior.mean.numpy()
        left = learner.dynamics.target(x, x_next) - predicted
        square.append(np.mean(left**2 / learner.prior.noise))
    return np.sqrt(np.mean(square)) if square else 1.0


def test_the_posterior_of_the_trunk_is_the_next_prior(tiny_prior, adopter):
    for name, before in tiny_prior.trunk_precision.items():
        after = adopter.prior.trunk_precision[name]
        assert (after >= before).all()
        assert after.sum() > before.sum()


def ruin(job, *_):
    """A trunk of noise."""
    trunk, rng = job.prior.dynamics.trunk, np.random.default_rng(0)
    wrong = {n: rng.normal(size=getattr(trunk, n).shape) for n in ('w1', 'b1', 'w2', 'b2')}
    return SimpleNamespace(
        trunk=replace(trunk, **wrong),
        precision=job.prior.trunk_precision,
        head=job.prior.dynamics.nominal,
        noise=job.noise,
    )


def fails(fault):
    def fail(job, *_):
        raise fault

    return fail


def test_episodes_that_the_trunk_has_learned_from_stay(tiny_prior, tmp_path):
    """Also those that no head holds any more; later ones can be taken out."""
    adopted, learner = None, Learner(tiny_prior, FAST, seed=3)
    for n, transition in enumerate(LIFE + LIFE[-50:]):
        transition = replace(transition, episode=n // 50, stamp_ns=(n + 1) * QUAD.period_ns)
        learner.observe(transition)
        if adopted is None and trunk_events(learner, 'adopted'):
            adopted = n
            job = frozenset(range(n // 50 + 1)) - {n // 50}
            learner.background.close()
            learner.background = None
    save_state(learner, tmp_path / 'state')
    for known in (learner, load_state(tmp_path / 'state')):
        assert 0 in known.taught and known.taught <= job
        for episode in sorted(known.taught):
            with pytest.raises(UserError, match=f'{episode}: the trunk has learned from it'):
                forget(known, episode)
        assert forget(known, n // 50).transitions > 0


def test_a_job_goes_on_though_a_regime_is_named(tiny_prior, tmp_path):
    learner = Learner(tiny_prior, FAST, seed=3)
    rest = iter(LIFE)
    while not (learner.background.running and len(learner.library.names) > 1):
        learner.observe(next(rest))
    save_state(learner, tmp_path)
    learner, named = (load_state(tmp_path) for _ in range(2))
    old = named.library.names[-1]
    named.library.rename(old, 'floor')
    named.filter.rename(old, 'floor')
    named.background.rename(old, 'floor')
    for transition in rest:
        learner.observe(transition)
        named.observe(transition)
    assert 'floor' in named.library.names
    assert named.digest() == learner.digest()
    assert [e.step for e in trunk_events(named)] == [e.step for e in trunk_events(learner)]


@pytest.mark.parametrize(
    ('wrong', 'why'),
    [
        (ruin, 'too few'),
        (fails(RuntimeError('out of memory')), 'out of memory'),
        (fails(ValueError('no such curvature')), 'no such curvature'),
        (fails(FloatingPointError('underflow')), 'underflow'),
        (None, 'memory grew'),
    ],
)
def test_what_does_harm_changes_nothing_bit_for_bit(
    tiny_prior, head_only, monkeypatch, wrong, why
):
    if wrong is None:
        monkeypatch.setattr(candidates, 'TOLERANCE', 0.5)
    else:
        monkeypatch.setattr(Job, 'learn', wrong)
    learner = lived(tiny_prior)
    events = trunk_events(learner)
    assert {e.event for e in events} == {'rolled_back'}
    assert any(why in e.detail['reason'] for e in events)
    assert learner.prior is tiny_prior
    same_life(learner, head_only)


def stands(steps, noise, rng):
    """A robot at rest: what its sensors say is all but constant."""
    x = before = np.where([c.derivative_of is None for c in ARM.state], 0.1, 0.0)
    for n in range(steps):
        after = x + noise * rng.integers(-1, 2, len(x))
        yield before, ARM.neutral, after, n
        before = after


def moves_one_joint(steps, rng):
    """A robot whose elbow stands exactly still."""
    plant = sim.make('arm')
    x, u = plant.sample_states(rng, steps), plant.sample_actions(rng, steps)
    after = plant.one_step(x, u, np.repeat(u[:, None], DELAYS, axis=1))
    still = [i for i, name in enumerate(ARM.state_names) if 'elbow' in name]
    for n in range(steps):
        x[n, still] = after[n, still] = 0.0
        yield x[n], u[n], after[n], n


@pytest.mark.parametrize('noise', [0.0, 1e-6, 1e-5, 1e-4, None])
def test_channels_that_stand_still_do_no_harm_from_scratch(noise):
    config, rng = replace(SCRATCH, trunk_every=500), np.random.default_rng(0)
    learner = Learner(broad_prior(ARM), config)
    told = moves_one_joint(940, rng) if noise is None else stands(940, noise, rng)
    for x, u, after, n in told:
        parts = (np.float32(a) for a in (x, u, after))
        learner.observe(Transition(*parts, ARM.period, (n + 1) * ARM.period_ns, Flag(0), n, 0))
    assert learner.learned == 940
    assert trunk_events(learner)
    assert learner.live.posterior.factor().isfinite().all()
    assert np.isfinite(learner.belief().factor).all()
    learner.background.close()


def same_life(learner, other):
    assert learner.digest() == other.digest()
    mine, theirs = learner.belief(), other.belief()
    for name in ('theta', 'factor', 'noise'):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert mine.regimes == theirs.regimes
    told = [(e.step, e.event) for e in learner.events if e.detail.get('what') != 'trunk']
    assert told == [(e.step, e.event) for e in other.events if e.detail.get('what') != 'trunk']


# ---------------------------------------------------------------------- repeating, resuming
def test_a_replay_repeats_it_bit_for_bit(tiny_prior, adopter):
    again = lived(tiny_prior)
    same_life(again, adopter)
    assert fingerprint(again.prior) == fingerprint(adopter.prior)
    assert [e.detail for e in trunk_events(again)] == [e.detail for e in trunk_events(adopter)]


def test_a_resumed_life_goes_on_like_an_uninterrupted_one(tiny_prior, tmp_path, monkeypatch):
    """Saved while a job learns, while it is judged, and after it is adopted."""
    # No events, whose short windows are not kept.
    monkeypatch.setattr(surprise, 'FAST_LIMIT', np.inf)
    monkeypatch.setattr(surprise, 'SLOW_LIMIT', np.inf)
    steady = replace(FAST, store_nats=np.inf, soft_ratio=np.inf, recall_nats_calm=np.inf)
    transitions = stream(DRAG, 620, 5)
    whole = Learner(tiny_prior, steady, seed=1)
    due = 2 * steady.trunk_every + whole.background.due
    stops = (due - 100, due - 5, due + 1)
    for k, transition in enumerate(transitions, start=1):
        whole.observe(transition)
        if k in stops:
            save_state(whole, tmp_path / str(k))
    assert [(e.step, e.event) for e in trunk_events(whole)] == [(due, 'adopted')]
    for stop in stops:
        resumed = load_state(tmp_path / str(stop))
        for transition in transitions[stop:]:
            resumed.observe(transition)
        assert resumed.digest() == whole.digest(), stop


def test_whoever_only_looks_at_a_state_does_not_pay_for_its_job(tiny_prior, tmp_path):
    save_state(lived(tiny_prior, LIFE[:650]), tmp_path)
    looked_at = load_state(tmp_path)
    assert looked_at.background.running.learned is None
    save_state(looked_at, tmp_path)
    resumed = load_state(tmp_path)
    assert resumed.digest() == looked_at.digest()
    resumed.observe(LIFE[650])
    assert resumed.background.running.learned is not None
    resumed.background.close()


def test_a_job_that_began_at_another_time_than_it_has_seen_is_refused(tiny_prior, tmp_path):
    learner = lived(tiny_prior, LIFE[:650])
    held_out = len(learner.background.running.held_out)
    assert held_out
    save_state(learner, tmp_path)
    path = tmp_path / store.STATE
    for wrong in (650 - held_out + 1, -1, None):
        arrays, meta = unpack('learner', path.read_bytes(), '')
        meta['background']['job']['started'] = wrong
        path.write_bytes(pack('learner', arrays, meta))
        with pytest.raises(UserError, match=rf'background\.started {wrong}: not a whole number'):
            load_state(tmp_path)


# ---------------------------------------------------------------------- never in the way
def test_no_transition_ever_waits_for_a_job(tiny_prior, head_only, monkeypatch):
    """It never ends, and yet the learner lives as if there were none, and says so."""
    release = threading.Event()

    def endless(job, *_):
        release.wait(60)  # a learner that waits for it fails below

    monkeypatch.setattr(Job, 'learn', endless)
    try:
        learner = lived(tiny_prior, wait=False)
        events = trunk_events(learner)
        assert events and all(e.detail['late'] for e in events)
        assert learner.background.abandoned == len(events)
        same_life(learner, head_only)
    finally:
        release.set()


def test_a_replay_that_is_told_what_was_late_repeats_that_life(tiny_prior, head_only, adopter):
    replayed = Learner(tiny_prior, FAST, seed=3)
    replayed.background.late = {e.step for e in trunk_events(adopter)} | set(range(1, 2000))
    for transition in LIFE:
        replayed.observe(transition)
    same_life(replayed, head_only)
    assert replayed.background.abandoned == len(trunk_events(replayed)) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_it_learns_on_a_gpu_what_it_learns_on_the_cpu(tiny_prior, adopter, head_only, tmp_path):
    learners = [Learner(tiny_prior, FAST, seed=3, device='cuda') for _ in range(2)]
    for transition in LIFE:
        for learner in learners:
            learner.observe(transition)
    learner = learners[0]
    same_life(*learners)
    assert [e.event for e in trunk_events(learner)] == [e.event for e in trunk_events(adopter)]
    there, here, alone = (clean_error(k, DRAG) for k in (learner, adopter, head_only))
    assert there < alone and abs(there - here) < 0.1 * (alone - here)
    save_state(learner, tmp_path)
    for device in ('cpu', 'cuda'):
        resumed = load_state(tmp_path, device)
        assert clean_error(resumed, DRAG) == clean_error(learner, DRAG)
