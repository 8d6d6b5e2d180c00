"""Hypotheses of what has changed: exact posteriors, right names, nothing moved without cause."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.dynamics import hypotheses as module
from lifelong_bayes_ros.dynamics.curves import LEADS, MONOMIALS, Curves
from lifelong_bayes_ros.dynamics.hypotheses import RARE, HypothesisFilter
from lifelong_bayes_ros.dynamics.model import Dynamics, Hypotheses
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.learning.codec import decode_prior, encode_prior
from lifelong_bayes_ros.learning.hypotheses import _family, _sets
from lifelong_bayes_ros.learning.intervals import student_quantile
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.store import load_state, save_state
from plants import HOME, LOSS, random_dynamics, random_step, stream, tiny_prior


class Steady(Noise):
    """Noise that is known."""

    def update(self, square: np.ndarray) -> Noise:
        return self


def random_hypotheses(dynamics: Dynamics, rng: np.random.Generator, rank: int = 3) -> Hypotheses:
    changed = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool)
    basis = 0.1 * rng.normal(size=(4, dynamics.size, rank)).astype(np.float32)
    basis[0] = 0
    return Hypotheses(('this', 'that'), changed, basis, Curves.flat(4, rank))


def steps_of(
    dynamics: Dynamics, theta: np.ndarray, noise: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    designs = [dynamics.design(*random_step(dynamics, rng)) for _ in range(count)]
    return designs, [h @ theta + np.sqrt(noise) * rng.normal(size=len(noise)) for h in designs]


def steady(noise: np.ndarray) -> Steady:
    return Steady(noise * 40.0, 40.0, noise)


def test_each_hypothesis_is_bayesian_linear_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'WALK', 0.0)
    monkeypatch.setattr(module, 'HOPELESS', np.inf)
    rng = np.random.default_rng(0)
    dynamics = random_dynamics()
    hypotheses = random_hypotheses(dynamics, rng)
    noise = rng.uniform(0.5, 2.0, len(dynamics.scale))
    theta = dynamics.nominal_theta + hypotheses.basis[1] @ rng.normal(size=3)
    designs, targets = steps_of(dynamics, theta, noise, 12, rng)
    one_by_one = HypothesisFilter(hypotheses, dynamics, steady(noise))
    for h, y in zip(designs, targets, strict=True):
        one_by_one.update(h, y)
    at_once = HypothesisFilter(hypotheses, dynamics, steady(noise))
    at_once.remember(designs, targets)
    for s in range(4):
        rows = np.vstack([h @ hypotheses.basis[s] / np.sqrt(noise)[:, None] for h in designs])
        errors = np.concatenate(
            [(y - h @ dynamics.nominal_theta) / np.sqrt(noise) for h, y in zip(designs, targets)]
        )
        precision = np.eye(3) + rows.T @ rows
        expected = np.linalg.solve(precision, rows.T @ errors)
        for found in (one_by_one, at_once):
            np.testing.assert_allclose(found.z[s], expected, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                found.covariance[s], np.linalg.inv(precision), rtol=1e-3, atol=1e-5
            )


def test_memory_weighs_hypotheses_by_their_marginal_likelihood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, 'HOPELESS', np.inf)
    monkeypatch.setattr(module, 'WORTH', 0.0)
    rng = np.random.default_rng(1)
    dynamics = random_dynamics()
    hypotheses = random_hypotheses(dynamics, rng)
    noise = rng.uniform(0.5, 2.0, len(dynamics.scale))
    designs, targets = steps_of(dynamics, dynamics.nominal_theta, noise, 4, rng)
    memory = HypothesisFilter(hypotheses, dynamics, steady(noise))
    memory.restart(memory.noise, module.RARE)
    memory.remember(designs, targets)
    error = np.concatenate(
        [y - h @ dynamics.nominal_theta for h, y in zip(designs, targets, strict=True)]
    )
    log = []
    for s in range(4):
        rows = np.vstack([h @ hypotheses.basis[s] for h in designs])
        covariance = rows @ rows.T + np.diag(np.tile(noise, len(designs)))
        fit = error @ np.linalg.solve(covariance, error)
        evidence = -0.5 * (fit + np.linalg.slogdet(covariance)[1])
        prior = hypotheses.changed[s].sum() * np.log(module.RARE)
        log.append(prior + module.EVIDENCE_TEMPER * evidence)
    expected = np.exp(np.array(log) - max(log))
    np.testing.assert_allclose(memory.weights, expected / expected.sum(), rtol=1e-3)


@pytest.mark.parametrize('compiled', [True, False])
def test_a_small_misfit_is_no_change_however_long_it_lasts(compiled: bool) -> None:
    rng = np.random.default_rng(4)
    dynamics = random_dynamics()
    hypotheses = random_hypotheses(dynamics, rng)
    noise = np.ones(len(dynamics.scale))
    moved = hypotheses.basis[1] @ rng.normal(size=3)
    designs, _ = steps_of(dynamics, dynamics.nominal_theta, noise, 600, rng)
    told = np.mean([np.square(h @ moved).sum() for h in designs])  # variances of the noise
    for nats, named in ((0.03, 'nothing'), (0.3, 'this')):
        theta = dynamics.nominal_theta + moved * np.sqrt(
            nats / (0.5 * module.EVIDENCE_TEMPER * told)
        )
        found, remembered = (HypothesisFilter(hypotheses, dynamics, steady(noise)) for _ in '12')
        targets = [h @ theta + rng.normal(size=len(noise)) for h in designs]
        for h, y in zip(designs, targets, strict=True):
            if not compiled:
                found._native = None
            found.update(h, y)
        remembered.remember(designs, targets)
        for filter_ in (found, remembered):
            name, chance = filter_.likeliest
            assert name == named and chance > 0.9


def test_a_robot_that_rests_forgets_no_change() -> None:
    rng = np.random.default_rng(5)
    dynamics = random_dynamics()
    hypotheses = random_hypotheses(dynamics, rng)
    noise = np.ones(len(dynamics.scale))
    theta = dynamics.nominal_theta + 10 * hypotheses.basis[1] @ rng.normal(size=3)
    found = HypothesisFilter(hypotheses, dynamics, steady(noise))
    for h, y in zip(*steps_of(dynamics, theta, noise, 60, rng), strict=True):
        found.update(h, y)
        if found.likeliest[0] == 'this' and found.likeliest[1] > 0.95:
            break
    before = found.likeliest
    assert before[0] == 'this' and before[1] > 0.95
    assert 0 in found.alive  # that nothing has changed is not yet out of the question
    rest = np.zeros_like(dynamics.design(*random_step(dynamics, rng)))
    for _ in range(1000):
        found.update(rest, rng.normal(size=len(noise)))
    assert found.likeliest == pytest.approx(before)


def some_curves(rng: np.random.Generator, count: int, latents: int, rank: int) -> Curves:
    reach = np.full((count, LEADS), 2.0)
    straight = rng.normal(size=(count, latents, rank))
    bent = 0.2 * rng.normal(size=(count, MONOMIALS, rank))
    return Curves(straight, bent, -reach, reach)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(LEADS, 5), st.floats(0.1, 3.0))
def test_slopes_are_those_of_the_coefficients(seed: int, latents: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    curves = some_curves(rng, 3, latents, 4)
    z, h = size * rng.normal(size=(3, latents)), 1e-6
    z[np.abs(np.abs(z) - 2.0) < 1e-3] = 0.5  # at the end of its reach a curve has two slopes
    there, slopes = curves.touch(z)
    np.testing.assert_array_equal(there, curves.coefficients(z))
    for k in range(latents):
        step = h * np.eye(latents)[k]
        change = (curves.coefficients(z + step) - curves.coefficients(z - step)) / (2 * h)
        np.testing.assert_allclose(slopes[:, k], change, rtol=1e-5, atol=1e-5)


def test_a_bent_family_is_learned_as_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'WALK', 0.0)
    monkeypatch.setattr(module, 'HOPELESS', np.inf)
    rng = np.random.default_rng(4)
    dynamics = random_dynamics()
    noise = np.full(len(dynamics.scale), 1e-3)
    hypotheses = replace(random_hypotheses(dynamics, rng), curves=some_curves(rng, 4, 3, 3))
    true = np.array([0.9, -0.7, 0.4])
    theta = dynamics.nominal_theta
    theta = theta + hypotheses.basis[1] @ hypotheses.curves.coefficients(np.tile(true, (4, 1)))[1]
    designs, targets = steps_of(dynamics, theta, noise, 200, rng)
    one_by_one = HypothesisFilter(hypotheses, dynamics, steady(noise))
    for h, y in zip(designs, targets, strict=True):
        one_by_one.update(h, y)
    at_once = HypothesisFilter(hypotheses, dynamics, steady(noise))
    at_once.remember(designs, targets)

    def left(z: np.ndarray) -> np.ndarray:
        at = hypotheses.curves.coefficients(np.tile(z, (4, 1)))[1]
        moved = dynamics.nominal_theta + hypotheses.basis[1] @ at
        errors = [(y - h @ moved) / noise**0.5 for h, y in zip(designs, targets, strict=True)]
        return np.concatenate([*errors, z])

    z = scipy.optimize.least_squares(left, true, xtol=1e-12).x
    np.testing.assert_allclose(z, true, atol=0.1)
    np.testing.assert_allclose(at_once.z[1], z, atol=1e-3)
    # One by one, the first tangents touch the curve elsewhere, and what they said stays.
    np.testing.assert_allclose(one_by_one.z[1], z, atol=0.02)


def test_a_curve_through_plants_is_told_by_one_latent() -> None:
    rng = np.random.default_rng(5)
    axes = rng.normal(size=(3, 2, 4))
    mass = rng.uniform(0.1, 2.0, 33)
    heads = np.einsum('nk,kif->nif', np.stack([mass, 0.2 * mass**2, 0.03 * mass**3], 1), axes)
    noise = np.array([0.02, 0.01])
    basis, curve = _family(heads[1:], noise, 8, 12)
    assert (np.abs(curve.straight[0]).max(axis=1) > 0).tolist() == [True, False, False]
    # A plant that it was not fitted on lies on it.
    grid = np.linspace(-2, 2, 2001)[:, None] * np.eye(1, LEADS)
    coefficients = curve.pick(np.zeros(len(grid), int)).coefficients(grid)
    moved = (coefficients @ basis[:8].T).reshape(-1, 2, 4)
    apart = np.abs((moved - heads[0]) / np.sqrt(noise)[:, None]).max(axis=(1, 2))
    assert apart.min() < 0.05 * np.abs(heads[0] / np.sqrt(noise)[:, None]).max()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e4))
def test_whatever_comes_the_posterior_stays_proper(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    dynamics = random_dynamics()
    noise = rng.uniform(0.5, 2.0, len(dynamics.scale))
    belief = HypothesisFilter(
        random_hypotheses(dynamics, rng), dynamics, Noise.start(noise, noise)
    )
    for _ in range(20):
        design = dynamics.design(*random_step(dynamics, rng))
        seen = belief.update(design, size * rng.normal(size=len(noise)))
        assert np.isfinite(seen.evidence) and (seen.epistemic >= 0).all()
    assert belief.weights.sum() == pytest.approx(1)
    assert np.linalg.eigvalsh(belief.covariance).min() > 0
    theta, draws = belief.posterior(rng.normal(size=(3, 16)))
    assert np.isfinite(theta).all() and np.isfinite(draws).all()


def test_draws_have_the_moments_of_the_mixture() -> None:
    rng = np.random.default_rng(2)
    dynamics = random_dynamics()
    noise = np.full(len(dynamics.scale), 100.0)
    belief = HypothesisFilter(random_hypotheses(dynamics, rng), dynamics, steady(noise))
    belief.restart(belief.noise, 0.8)
    designs, targets = steps_of(dynamics, dynamics.nominal_theta, noise, 3, rng)
    for h, y in zip(designs, targets, strict=True):
        belief.update(h, y)
    design = designs[0]
    theta, draws = belief.posterior(rng.normal(size=(3, 40_000)))
    basis = belief.hypotheses.basis[belief.alive].astype(float)
    means = np.array([design @ (dynamics.nominal_theta + b @ z) for b, z in zip(basis, belief.z)])
    mean = belief.weights @ means
    inner = [np.diag(design @ b @ p @ b.T @ design.T) for b, p in zip(basis, belief.covariance)]
    variance = belief.weights @ (np.array(inner) + np.square(means - mean))
    np.testing.assert_allclose(design @ theta, mean, rtol=1e-4)
    np.testing.assert_allclose(np.mean(np.square(design @ draws), axis=1), variance, rtol=0.05)


@pytest.mark.parametrize('compiled', [True, False])
def test_a_small_doubt_does_not_move_the_mean_but_shows_in_the_draws(compiled: bool) -> None:
    rng = np.random.default_rng(3)
    dynamics = random_dynamics()
    belief = HypothesisFilter(random_hypotheses(dynamics, rng), dynamics, steady(np.ones(4)))
    if not compiled:
        belief._native = None
    belief.z = rng.normal(size=belief.z.shape)
    belief._touched = belief._touch(belief.z)
    normal = rng.normal(size=(3, 500))
    for doubt, moved in ((0.009, False), (0.02, True)):
        belief.log_weight = np.log([1.0, doubt, 1e-9, 1e-9])
        theta, draws = belief.posterior(normal)
        assert np.any(theta != dynamics.nominal_theta) == moved
        there = draws + (theta - dynamics.nominal_theta)[:, None]
        shown = np.abs(there).max(axis=0) > 1e-9
        assert shown.sum() == pytest.approx(500 * doubt / (1 + doubt), abs=1)


def learned(shifts: list[dict], steps: int = 80) -> Learner:
    learner = Learner(tiny_prior(), seed=3)
    for transition in stream(HOME, 30, seed=5) + stream(shifts, steps, seed=6, first=30):
        learner.observe(transition)
    return learner


def test_it_names_what_has_changed() -> None:
    learner = learned(LOSS)
    assert learner.sparse is not None and not learner.dense
    chances = learner.changed
    assert chances['actuator gain left'] > 0.9
    assert max(p for kind, p in chances.items() if kind != 'actuator gain left') < 0.5


def test_at_home_it_stays_the_nominal_model() -> None:
    learner = learned(HOME)
    assert learner.sparse is not None
    name, chance = learner.sparse.likeliest
    assert name == 'nothing' and chance > 0.9
    np.testing.assert_allclose(
        learner.belief().theta, learner.dynamics.nominal_theta, atol=2e-3, rtol=0
    )


def test_back_home_it_is_the_nominal_model_again() -> None:
    learner = learned(HOME)
    for transition in stream(LOSS, 80, seed=11, first=110) + stream(HOME, 60, seed=12, first=190):
        learner.observe(transition)
    assert 'recall' in [e.event for e in learner.take_events()]
    name, chance = learner.sparse.likeliest
    assert name == 'nothing' and chance > 0.99  # as at the start of life
    np.testing.assert_allclose(
        learner.belief().theta, learner.dynamics.nominal_theta, atol=2e-3, rtol=0
    )


def test_the_right_hypothesis_is_found_again_after_it_was_given_up() -> None:
    """As when steps from before a shift are taken for some that came after it."""
    learner = learned(LOSS, steps=10)
    sparse, config = learner.sparse, learner.config
    assert sparse is not None and sparse.likeliest[0] == 'actuator gain left'
    sparse.restart(sparse.noise, RARE)
    kept = ~sparse.hypotheses.changed[:, 0]
    sparse.alive, sparse.z = sparse.alive[kept], sparse.z[kept]
    sparse.covariance, sparse.log_weight = sparse.covariance[kept], sparse.log_weight[kept]
    sparse._select()
    found = []
    for transition in stream(LOSS, config.watch + config.purge, seed=10, first=40):
        learner.observe(transition)
        found.append(sparse.likeliest[0] == 'actuator gain left')
    assert not found[0] and found[-1]
    assert sparse.changed['actuator gain left'] > 0.95


def test_a_recalled_regime_comes_with_its_noise() -> None:
    learner = learned(LOSS, steps=60)
    for transition in stream(LOSS, 60, seed=10, first=90):
        learner.observe(transition)
    assert learner.sparse is not None
    learner.sparse.noise = replace(learner.sparse.noise, beta=25 * learner.sparse.noise.beta)
    learner.take_events()
    for transition in stream(HOME, 20, seed=12, first=150):
        learner.observe(transition)
        if [e.detail['regime'] for e in learner.take_events() if e.event == 'recall'] == [
            'nominal'
        ]:
            break
    assert learner.regime == 'nominal'
    np.testing.assert_allclose(
        learner.sparse.noise.variance, learner.nominal.noise.variance, rtol=0.5
    )


def test_what_no_hypothesis_explains_is_left_to_the_live_head() -> None:
    prior = tiny_prior()
    nothing = np.zeros((1, prior.dynamics.size, 1), np.float32)
    none = Hypotheses((), np.zeros((1, 0), bool), nothing, Curves.flat(1, 1))
    learner = Learner(replace(prior, hypotheses=none), seed=3)
    for transition in stream(HOME, 30, seed=5) + stream(LOSS, 80, seed=6, first=30):
        learner.observe(transition)
    assert learner.dense and not learner.guarded and learner.changed == {}
    posterior = learner.live.posterior
    np.testing.assert_array_equal(
        learner.belief().theta, posterior.mean.numpy().astype(np.float32)
    )
    # Draws were not kept up before; now they spread as the posterior does.
    white = torch.linalg.solve_triangular(posterior.factor(), learner.draws, upper=False)
    assert white.square().mean() == pytest.approx(1, abs=0.1)


def test_after_a_resume_it_acts_on_what_it_acted_on(tmp_path: Path) -> None:
    learner = learned(HOME)
    learner.dense = True  # as after steps that a resume no longer knows
    save_state(learner, tmp_path)
    resumed = load_state(tmp_path)
    window = resumed.config.dense_window
    chosen = []
    for transition in stream(HOME, window, seed=7, first=110):
        resumed.observe(transition)
        chosen.append(resumed.dense)
    assert chosen == [True] * (window - 1) + [False]  # until it can judge again


@pytest.mark.parametrize('guarded', [False, True])
def test_the_figures_are_those_of_the_model_that_is_acted_on(guarded: bool) -> None:
    learner = learned(LOSS if guarded else HOME)
    learner.guarded = guarded
    assert learner.belief().mode == ('nominal' if guarded else 'learned')
    probe = stream(HOME, 1, seed=9, first=110)[0]
    theta, past = learner.belief().theta.astype(float), learner.past
    x, u, after = (a.astype(float) for a in (probe.state, probe.action, probe.next_state))
    design = learner.dynamics.design(x, u, past)
    factor = learner.belief().factor.astype(float)
    epistemic = np.square(design @ factor).sum(axis=1)
    error = learner.dynamics.target(x, after) - design @ theta
    noise = learner.belief().noise
    sd = np.sqrt(epistemic + noise)
    inside = np.mean(np.abs(error) <= student_quantile(learner.belief().noise_dof) * sd)
    learner.observe(probe)
    assert learner.report.inside == pytest.approx(inside)


def test_a_new_regime_says_what_has_changed() -> None:
    found = [e for e in learned(LOSS, 160).take_events() if e.event == 'new_regime']
    assert [e.detail['changed'] for e in found] == ['actuator gain left']


def test_a_prior_file_keeps_them() -> None:
    prior = tiny_prior()
    again = decode_prior(encode_prior(prior), 'here')[0].hypotheses
    assert again is not None and prior.hypotheses is not None
    assert again.names == prior.hypotheses.names
    np.testing.assert_array_equal(again.basis, prior.hypotheses.basis)
    for name in ('straight', 'bent', 'low', 'high'):
        kept, had = getattr(again.curves, name), getattr(prior.hypotheses.curves, name)
        np.testing.assert_array_equal(kept, had)


def test_a_change_leaves_alone_what_it_does_not_touch() -> None:
    hypotheses = tiny_prior().hypotheses
    assert hypotheses is not None
    wind = hypotheses.names.index('wind')
    heads = hypotheses.basis[wind, : tiny_prior().dynamics.nominal.size]
    per_output = np.abs(heads).reshape(len(tiny_prior().noise), -1).max(axis=1)
    pitch = [sim.make('quad').STATE.index(name) for name in ('pitch', 'q')]
    assert per_output[pitch].max() < 1e-6 < per_output.max()


def test_sets_are_all_up_to_a_size() -> None:
    assert _sets(3, 64) == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert len(_sets(10, 64)) == 1 + 10 + 45
    assert len(_sets(100, 64)) == 1 + 100


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-2, 1.0, 30.0]))
def test_compiled_filters_do_as_numpy_does(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    dynamics = random_dynamics()
    noise = rng.uniform(0.5, 2.0, len(dynamics.scale))
    hypotheses = random_hypotheses(dynamics, rng)
    reach = rng.uniform(0.1, 2.0, (4, LEADS))
    bent = Curves(
        hypotheses.curves.straight,
        0.3 * rng.normal(size=(4, MONOMIALS, 3)),
        -reach,
        reach,
    )
    # One feature for every output and column: sums in float32 then have no order.
    outputs, features = dynamics.nominal.shape
    heads = hypotheses.basis[:, : outputs * features].reshape(4, outputs, features, 3)
    kept = rng.integers(features, size=(4, outputs, 1, 3))
    heads *= np.arange(features)[:, None] == kept
    hypotheses = replace(hypotheses, curves=bent)
    pair = [HypothesisFilter(hypotheses, dynamics, Noise.start(noise, noise)) for _ in range(2)]
    native, plain = pair
    assert native._native is not None
    for _ in range(12):
        plain._native = None
        design = dynamics.design(*random_step(dynamics, rng))
        target = size * rng.normal(size=len(noise))
        a, b = (f.update(design, target) for f in pair)
        np.testing.assert_array_equal(native.alive, plain.alive)
        np.testing.assert_allclose(a.evidence, b.evidence, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(a.residual, b.residual, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(a.epistemic, b.epistemic, rtol=1e-8, atol=1e-12)
        for name, value in native.state().items():
            np.testing.assert_allclose(value, plain.state()[name], rtol=1e-7, atol=1e-9)
        normal = rng.standard_normal((3, 8))
        plain.restore(native.state())
        theta, draws = native.posterior(normal)
        plain._native = None
        expected, others = plain.posterior(normal)
        np.testing.assert_allclose(theta, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(draws, others, rtol=1e-5, atol=1e-6)
