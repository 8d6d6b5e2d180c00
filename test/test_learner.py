"""The online learner on a small prior: what it learns, notices, recalls, refuses and repeats."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong_bayes_ros.dynamics.belief import predict
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning import surprise
from lifelong_bayes_ros.learning.broad import SCRATCH, broad_prior
from lifelong_bayes_ros.learning.learner import GUARD_APART, Learner
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.learning.window import Recent, Step
from lifelong_bayes_ros.robot.transitions import Flag
from plants import HOME, LOSS, QUAD, SMALL, stream


def live(prior, transitions=(), seed=0, **config):
    learner = Learner(prior, LearnerConfig(**config), seed)
    for transition in transitions:
        learner.observe(transition)
    return learner


def design(learner, transition):
    x, u = transition.state.astype(float), transition.action.astype(float)
    return learner.dynamics.design(x, u, learner.dynamics.history())


def error(learner, theta, transition, past):
    """Squared error of a one-step prediction, in noise variances summed over the outputs."""
    return np.sum(residual(learner, theta, transition, past) ** 2)


def residual(learner, theta, transition, past):
    """Error of a one-step prediction, in standard deviations of the noise."""
    x, u, x_next = (
        a.astype(float) for a in (transition.state, transition.action, transition.next_state)
    )
    y = learner.dynamics.target(x, x_next)
    return (y - learner.dynamics.design(x, u, past) @ theta) / np.sqrt(learner.prior.noise)


def errors(learner, transitions):
    """One-step errors of the learned and the nominal model along a stream, and the events."""
    learned, nominal, events, past = [], [], [], learner.past
    for transition in transitions:
        theta = learner.live.posterior.mean.numpy()
        learned.append(error(learner, theta, transition, past))
        nominal.append(error(learner, learner.dynamics.nominal_theta, transition, past))
        learner.observe(transition)
        events.append(learner.take_events())
        past = np.vstack([transition.action.astype(float), past[:-1]])
    return np.array(learned), np.array(nominal), events


def assert_same_belief(first, second):
    for name in ('theta', 'factor', 'noise'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ('stamp_ns', 'version', 'noise_dof', 'regimes', 'regime', 'mode'):
        assert getattr(first, name) == getattr(second, name)


# ---------------------------------------------------------------------- repeatability
def test_the_same_seed_and_stream_give_the_same_belief_bit_for_bit(tiny_prior):
    steps = stream(HOME, 50, 0) + stream(LOSS, 70, 1, 50)
    first, second = live(tiny_prior, steps), live(tiny_prior, steps)
    assert first.digest() == second.digest()
    assert_same_belief(first.belief(), second.belief())
    assert [e.event for e in first.take_events()] == [e.event for e in second.take_events()]
    assert live(tiny_prior, steps[:-1]).digest() != first.digest()


def test_a_belief_does_not_change_while_the_learner_goes_on(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 10, 0))
    belief = learner.belief()
    theta, factor, regimes = belief.theta.copy(), belief.factor.copy(), dict(belief.regimes)
    for transition in stream(LOSS, 10, 1, 10):
        learner.observe(transition)
    np.testing.assert_array_equal(belief.theta, theta)
    np.testing.assert_array_equal(belief.factor, factor)
    assert belief.regimes == regimes
    assert (belief.stamp_ns, belief.version) == (10 * QUAD.period_ns, 10)


# ---------------------------------------------------------------------- uncertainty
@pytest.mark.parametrize('steps', [0, 24, 40])
def test_the_spread_of_a_belief_is_that_of_the_posterior_at_every_step(tiny_prior, steps):
    # 16 draws are few, so the spread is averaged over learners that differ only in their draws.
    prior = replace(tiny_prior, hypotheses=None)
    transitions = (stream(HOME, 30, 1) + stream(LOSS, 10, 2, 30))[:steps]
    probes, ratios = stream(HOME, 10, 3), []
    for seed in range(16):
        learner = live(prior, transitions, seed)
        learner.guarded = False
        belief, covariance = learner.belief(), learner.live.posterior.covariance.numpy()
        for t in probes:
            h = design(learner, t)
            spread = predict(
                learner.dynamics, belief, t.state, t.action, learner.dynamics.history()
            )
            variance = np.diag(h @ covariance @ h.T) * learner.dynamics.scale**2
            ratios.append(spread.epistemic / variance)
    mean = np.array(ratios).reshape(16, -1).mean(axis=0)
    assert mean.mean() == pytest.approx(1, abs=0.1)
    assert (mean > 0.6).all()
    assert (mean < 1.5).all()


def test_uncertainty_jumps_at_a_shift_and_comes_down_again(tiny_prior):
    learner, probe, seen = live(tiny_prior, stream(HOME, 60, 0)), stream(HOME, 1, 9)[0], []
    for transition in stream(LOSS, 60, 1, 60):
        h = design(learner, probe)
        seen.append(np.trace(h @ learner.live.posterior.covariance.numpy() @ h.T))
        learner.observe(transition)
    assert max(seen[:8]) > 5 * seen[0]
    assert seen[-1] < 0.3 * max(seen)


# ---------------------------------------------------------------------- shift and recall
@pytest.mark.parametrize('seed', range(3))
def test_a_lost_actuator_is_noticed_at_once_and_learned_within_a_second(tiny_prior, seed):
    learner = live(tiny_prior, stream(HOME, 120, seed), seed)
    learner.take_events()
    assert learner.regime != 'new'  # no chance alarm just before has made it ready for anything
    learned, nominal, events = errors(learner, stream(LOSS, 100, seed + 10, 120))
    first = next(i for i, now in enumerate(events) if any(e.event == 'shift' for e in now))
    assert first < 4
    assert learned[:1].mean() > 100
    second = round(1 / QUAD.period)
    assert np.median(learned[second:]) < 0.05 * np.median(nominal)
    assert learned[second:].mean() < 0.1 * nominal.mean()
    assert learner.belief().mode == 'learned'


@pytest.mark.parametrize('seed', range(3))
def test_a_regime_that_returns_is_recalled_and_need_not_be_learned_again(tiny_prior, seed):
    learner = live(tiny_prior, stream(HOME, 120, seed), seed)
    errors(learner, stream(LOSS, 150, seed + 10, 120))
    lost = learner.regime
    assert lost not in ('nominal', 'new')
    errors(learner, stream(HOME, 150, seed + 20, 270))
    assert learner.regime not in (lost, 'new')
    learned, nominal, events = errors(learner, stream(LOSS, 40, seed + 30, 420))
    recalls = [
        (i, e.detail['regime']) for i, now in enumerate(events) for e in now if e.event == 'recall'
    ]
    step, name = recalls[0]
    assert name == lost
    assert step < 6
    assert learned[step + 1 : step + 15].mean() < 0.05 * nominal.mean()
    belief = learner.belief()
    assert belief.regime == lost
    assert max(belief.regimes, key=belief.regimes.get) == lost


def test_regime_probabilities_sum_to_one_along_a_life(tiny_prior):
    learner = live(tiny_prior)
    for transition in stream(HOME, 60, 0) + stream(LOSS, 60, 1, 60):
        learner.observe(transition)
        regimes = learner.belief().regimes
        assert sum(regimes.values()) == pytest.approx(1)
        assert set(learner.library.names) <= {*regimes, learner.regime}


# ---------------------------------------------------------------------- what is not learned from
def spoilt():
    good = stream(HOME, 1, 5)[0]
    nan, large = np.float32([0, np.nan, 0, 0, 0, 0]), np.float32([0, 0, 0, 0, 1e9, 0])
    return {
        'first': (replace(good, flags=Flag.FIRST), 'not usable'),
        'gap': (replace(good, flags=Flag.GAP), 'not usable'),
        'no action': (replace(good, flags=Flag.NO_ACTION), 'not usable'),
        'nan state': (replace(good, state=nan), 'not finite'),
        'nan next state': (replace(good, next_state=nan), 'not finite'),
        'infinite command': (replace(good, action=np.float32([np.inf, 0])), 'not finite'),
        'huge command': (replace(good, action=np.float32([0, 1e9])), 'command beyond the limits'),
        'huge state': (replace(good, state=large), 'out of range'),
        'huge step': (replace(good, next_state=large), 'out of range'),
    }


@pytest.mark.parametrize('name', spoilt())
def test_a_spoilt_transition_is_counted_and_changes_nothing(tiny_prior, name):
    learner = live(tiny_prior, stream(HOME, 30, 0))
    learner.take_events()
    transition, reason = spoilt()[name]
    digest, before = learner.digest(), learner.belief()
    learner.observe(transition)
    assert learner.digest() == digest
    assert_same_belief(replace(learner.belief(), stamp_ns=before.stamp_ns), before)
    assert learner.skipped == {reason: 1}
    assert learner.take_events() == []


def test_commands_before_a_gap_are_not_taken_for_the_last_ones(tiny_prior):
    steps = stream(HOME, 4, 0)
    learner = live(tiny_prior, [*steps[:2], replace(steps[2], flags=Flag.GAP), steps[3]])
    np.testing.assert_array_equal(learner.past, [steps[3].action, QUAD.neutral])
    past = learner._recent.last(1)[0].sample.past
    np.testing.assert_array_equal(past, np.float32(learner.dynamics.history()))


def test_one_wild_reading_does_not_cost_what_was_learned(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 60, 0))
    wild = replace(stream(HOME, 1, 5, 60)[0], next_state=np.float32([5, 5, 1, 9, 9, 9]))
    learner.observe(wild)
    learned, nominal, _ = errors(learner, stream(HOME, 40, 6, 61))
    assert np.median(learned[5:]) < 2 * np.median(nominal)
    assert learned[5:25].mean() < 2 * nominal.mean()


def test_with_learning_off_nothing_is_learned(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 30, 0))
    digest, before = learner.digest(), learner.belief()
    learner.learning = False
    for transition in stream(LOSS, 30, 1, 30):
        learner.observe(transition)
    assert learner.digest() == digest
    after = learner.belief()
    assert after.stamp_ns == 60 * QUAD.period_ns
    assert_same_belief(replace(after, stamp_ns=before.stamp_ns), before)
    learner.learning = True
    learner.observe(stream(HOME, 1, 2, 60)[0])
    assert learner.digest() != digest


# ---------------------------------------------------------------------- guard and consolidation
def test_no_belief_is_handed_out_that_lost_to_the_nominal_model(tiny_prior):
    # Plants that change every few steps cannot be learned, so the learned head must lose.
    steps = []
    for i in range(30):
        shift = [{'wind': {'force': [(-1) ** i * 4.0, 0.0]}}]
        steps += stream(shift, 3, i, len(steps))
    prior = replace(tiny_prior, hypotheses=None)
    learner, config = live(prior), LearnerConfig()
    learned, nominal, modes, quiet = [], [], [], 0
    past = learner.dynamics.history()
    for transition in stream(HOME, 60, 0) + steps:
        theta = learner.live.posterior.mean.numpy()
        learned.append(residual(learner, theta, transition, past))
        nominal.append(residual(learner, learner.dynamics.nominal_theta, transition, past))
        learner.observe(transition)
        past = np.vstack([transition.action.astype(float), past[:-1]])
        events = [e for e in learner.take_events() if e.event != 'guard']
        quiet = 0 if events else quiet + 1  # an event replays the window on another head
        belief = learner.belief()
        modes.append(belief.mode)
        window = config.guard_window
        if belief.mode == 'nominal':
            np.testing.assert_allclose(belief.theta, learner.dynamics.nominal_theta, rtol=1e-6)
        elif quiet >= window:
            ours, theirs = (np.concatenate(e[-window:]) for e in (learned, nominal))
            apart = theirs - ours  # of the predictions: what mixes them is found by least squares
            weight = np.linalg.lstsq(apart[:, None], theirs, rcond=None)[0][0]
            assert weight >= config.guard_weight or apart @ apart < GUARD_APART * len(prior.noise)
    assert 'nominal' in modes
    assert 'learned' in modes


@pytest.mark.parametrize('then', [4, -2])  # a weight above 0, and one below
def test_from_scratch_the_learned_model_is_acted_on_where_the_guard_would_step_in(then):
    """A robot that all of a sudden moves less far than learned, or back."""
    prior = broad_prior(QUAD, SMALL)
    steps = []
    for far, transitions in ((20, stream(HOME, 60, 0)), (then, stream(HOME, 12, 1, 60))):
        for t in transitions:  # further than the quadrotor, so that both models are well apart
            dynamics, y = prior.dynamics, prior.dynamics.target(t.state, t.next_state)
            x, u = t.state.astype(float), t.action.astype(float)
            nominal = dynamics.design(x, u, dynamics.history()) @ dynamics.nominal_theta
            x_next = QUAD.wrap(x + dynamics.scale * (nominal + far * (y - nominal)))
            steps.append(replace(t, next_state=x_next.astype(np.float32)))
    config = replace(SCRATCH, background=False)
    scratch = live(prior, steps, **vars(config))
    race = scratch._recent.race(config.guard_window)
    assert race.weight < 0.5 and race.apart > GUARD_APART * len(prior.noise)
    assert scratch.belief().mode == 'learned'
    assert 'guard' not in {e.event for e in scratch.take_events()}
    usual = live(prior, steps, **vars(replace(config, guard_weight=LearnerConfig().guard_weight)))
    assert usual.belief().mode == 'nominal'


@pytest.mark.parametrize('seed', range(5))
def test_a_race_gives_the_learned_model_its_weight_in_the_best_mixture(seed):
    rng, recent = np.random.default_rng(seed), Recent(12)
    truth, learned, nominal = rng.standard_normal((3, 12, 4))
    for y, p, q in zip(truth, learned, nominal, strict=True):
        recent.append(Step(None, None, None, 0.0, 0.0, {}, y - p, y - q))
    y, p, q = (a[-9:].ravel() for a in (truth, learned, nominal))
    best = np.linalg.lstsq((p - q)[:, None], y - q, rcond=None)[0][0]
    assert recent.race(9).weight == pytest.approx(best)


def test_an_episode_ends_with_a_consolidation_that_keeps_the_present_regime(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 60, 0) + stream(LOSS, 120, 1, 60))
    regime = learner.regime
    learner.take_events()
    last = stream(LOSS, 1, 2, 180)[0]
    learner.observe(replace(last, flags=Flag.EPISODE_END))
    event = learner.take_events()[-1]
    assert event.event == 'consolidated'
    assert learner.regime == regime
    assert regime in event.detail['regimes']
    # What was learned last is what memory now holds.
    stored = learner.library.regimes[learner.library.names.index(regime)].head
    assert stored is learner.live


def test_consolidation_keeps_within_the_budget_and_forgets_nothing_else(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 60, 0) + stream(LOSS, 120, 1, 60))
    assert len(learner.library.regimes) > 1
    learner.bound(capacity=1)
    learner.consolidate()
    assert learner.library.names == ['nominal']
    assert learner.regime == 'new'
    assert sum(learner.filter.probabilities.values()) == pytest.approx(1)
    learned, nominal, _ = errors(learner, stream(LOSS, 30, 2, 180))
    assert learned.mean() < 0.1 * nominal.mean()


# ---------------------------------------------------------------------- intervals
def test_ninety_percent_intervals_hold_nine_tenths_of_the_outcomes(tiny_prior):
    learner, inside = live(tiny_prior, stream(LOSS, 100, 0)), []
    for transition in stream(LOSS, 300, 1, 100):
        learner.observe(transition)
        inside.append(learner.report.inside)
    assert 0.84 < np.mean(inside) < 0.95


def test_intervals_hold_where_no_head_explains_the_robot(tiny_prior):
    """Dry friction in its velocities, which calls for another head again and again."""
    learner, inside = live(tiny_prior, stream(HOME, 60, 0)), []
    for transition in stream(HOME, 300, 1, 60):
        kick = 10 * learner.dynamics.scale * np.sqrt(tiny_prior.noise)
        kick[:3] = 0.0
        after = transition.next_state - kick * np.sign(transition.state)
        learner.observe(replace(transition, next_state=after.astype(np.float32)))
        inside.append(learner.report.inside)
    assert np.mean(inside[25:]) > 0.84


def test_intervals_of_the_learned_model_do_not_widen_for_the_nominal_one(tiny_prior, monkeypatch):
    learner = live(tiny_prior, stream(LOSS, 150, 0))
    monkeypatch.setattr(learner, '_guard', lambda: None)
    learner.guarded = True
    for transition in stream(LOSS, 60, 1, 150):
        learner.observe(transition)
    wide = learner.belief().noise
    learner.guarded = False
    assert (wide > 4 * learner.nominal.noise.variance).any()  # the nominal model is far off
    assert (learner.belief().noise < 3 * learner.live.noise.variance).all()


def test_a_learner_that_left_all_regimes_has_a_memory_of_its_own(tiny_prior):
    learner = live(tiny_prior, stream(HOME, 60, 0) + stream(LOSS, 90, 1, 60))
    assert learner.identity
    held = [r.reservoir for r in learner.library.regimes]
    before = [list(r.samples) for r in held]
    learner.identity = None  # as when memory has no room for its regime
    for sample in before[-1][:3]:
        learner._remember(sample)
    assert [list(r.samples) for r in held] == before
    assert len(learner.waiting.samples) == 3


def test_what_memory_holds_does_not_move_with_the_live_head(tiny_prior):
    """The live head is updated in place, but never in a place that somebody else holds."""
    learner = live(tiny_prior, stream(HOME, 80, 0))
    learner.consolidate()
    for transition in stream(LOSS, 80, 1, first=80):
        learner.observe(transition)
    learner.consolidate()
    held = [r.head.posterior for r in learner.library.regimes]
    held += [head.posterior for _, head, _ in (*learner._snapshots, *learner._certain)]
    held += [learner.family, learner.nominal.posterior]
    before = [(p.mean.clone(), p.covariance.clone()) for p in held]
    assert len(learner.library.regimes) > 1
    for transition in stream(LOSS, 30, 2, first=160) + stream(HOME, 60, 3, first=190):
        learner.observe(transition)
    for posterior, (mean, covariance) in zip(held, before, strict=True):
        assert torch.equal(posterior.mean, mean)
        assert torch.equal(posterior.covariance, covariance)


@pytest.mark.parametrize('way', ['never', 'late', 'weakly'])
def test_a_shift_that_goes_unnoticed_does_not_cost_the_memory_of_a_regime(
    tiny_prior, monkeypatch, way
):
    learner = live(tiny_prior, stream(LOSS, 200, 0), recall_nats_calm=np.inf)
    lost = learner.regime
    assert lost not in ('nominal', 'new')
    fresh = stream(LOSS, 60, 1)

    def known():
        head = learner.library.regimes[learner.library.names.index(lost)].head
        theta, past = head.posterior.mean.numpy(), learner.dynamics.history()
        return np.mean([error(learner, theta, t, past) for t in fresh])

    learner.consolidate()
    before = known()
    learner.take_events()
    with monkeypatch.context() as patch:
        patch.setattr(surprise, 'FAST_LIMIT', np.inf)
        patch.setattr(surprise, 'SLOW_LIMIT', np.inf)
        ratio = 2.2 if way == 'weakly' else np.inf
        learner.config = replace(learner.config, soft_ratio=ratio)
        for transition in stream(HOME, 12 if way == 'late' else 150, 2, first=200):
            learner.observe(transition)
    for transition in stream(HOME, 60 if way == 'late' else 0, 3, first=212):
        learner.observe(transition)
    learner.consolidate()
    assert known() < 1.3 * before
    assert learner.regime != lost
    names = [e.event for e in learner.take_events()]
    assert ('soft_shift' in names) == (way == 'weakly')
    assert 'new_regime' in names


@pytest.mark.parametrize('steps', [0, 2])
def test_a_regime_that_is_stored_after_a_resume_has_a_memory(
    tiny_prior, monkeypatch, tmp_path, steps
):
    """At once, by a consolidation, or when a shift follows."""
    settings = {'background': False, 'recall_nats_calm': np.inf, 'soft_ratio': np.inf}
    learner = live(tiny_prior, stream(LOSS, 200, 0), **settings)
    learner.consolidate()
    lost = learner.regime
    with monkeypatch.context() as patch:  # another shift goes unnoticed
        patch.setattr(surprise, 'FAST_LIMIT', np.inf)
        patch.setattr(surprise, 'SLOW_LIMIT', np.inf)
        for transition in stream(HOME, 150, 2, 200):
            learner.observe(transition)
    save_state(learner, tmp_path)
    resumed = load_state(tmp_path)
    storm = [{'wind': {'force': [20.0, 0.0]}}]
    for transition in stream(HOME, steps, 3, 350) + stream(storm, steps, 4, 350 + steps):
        resumed.observe(transition)
    if not steps:
        resumed.consolidate()
    event = resumed.take_events()[0]
    assert (event.event, event.detail['left']) == ('new_regime', lost)
    stored = resumed.library.regimes[-1].reservoir.samples
    assert len(stored) > learner.config.store_age
    assert {s.key for s in stored} <= {s.key for s in learner.tape.samples()[-60:]}


def test_a_recall_that_proves_wrong_is_undone(tiny_prior, monkeypatch):
    learner = live(tiny_prior, stream(LOSS, 200, 0), recall_nats_calm=np.inf, recall_nis=np.inf)
    known = learner.library.names
    learner.config = replace(learner.config, recall_nats_after=-np.inf)  # any regime will do
    learner.take_events()
    wind = stream([{'wind': {'force': [4.0, 0.0]}}], 120, 1, first=200)
    rest = iter(wind)
    while 'recall' not in {e.event for e in learner.take_events()}:
        learner.observe(next(rest))
    wrong = learner.regime
    assert wrong in known
    learner.config = replace(learner.config, recall_nats_after=np.inf)
    with monkeypatch.context() as patch:  # only the noise tells
        patch.setattr(surprise, 'FAST_LIMIT', np.inf)
        patch.setattr(surprise, 'SLOW_LIMIT', np.inf)
        for transition in rest:
            learner.observe(transition)
    event = learner.take_events()[0]
    assert event.event == 'shift'
    assert event.detail['left'] == wrong
    assert learner.regime not in known
    # What is learned of the wind starts from the task family, not from what was recalled.
    assert min(s.stamp_ns for s in learner.tape.samples()) >= wind[0].stamp_ns


def test_a_learner_says_that_its_device_is_not_there(tiny_prior, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    with pytest.raises(UserError, match=r'cuda:1 is not there, torch .* sees 1 GPUs; use cpu'):
        Learner(tiny_prior, device='cuda:1')
