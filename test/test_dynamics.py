"""The model of the robot: features, structured columns, heads, noise and the Belief."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.belief import Belief, predict, predict_means
from lifelong_bayes_ros.dynamics.head import EVIDENCE_TEMPER, Head, student_t
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.dynamics.noise import Noise
from plants import gaussian, linear_samples, observe, random_dynamics, random_step

ROBOTS = ['quad', 'arm']
EPS = 1e-6


def random_head(ds: int, n: int, rng: np.random.Generator) -> Head:
    root = rng.normal(size=(n, n))
    noise = rng.uniform(0.1, 1.0, ds)
    return Head(gaussian(rng.normal(size=n), root @ root.T / n), Noise.start(noise, noise))


def nominal(dynamics, x, u):
    return dynamics.nominal @ dynamics.trunk.features(x[None], u[None])[0]


def some_belief(theta, factor, **changes):
    facts = {'stamp_ns': 1, 'version': 1, 'theta': theta, 'factor': factor, 'noise': np.ones(6)}
    facts |= {
        'offset': np.zeros(6),
        'noise_dof': 40.0,
        'regimes': {'nominal': 1.0},
        'regime': 'nominal',
    }
    return Belief(**facts | {'mode': 'learned'} | changes)


# ---------------------------------------------------------------------- trunk and design
@pytest.mark.parametrize('robot', ROBOTS)
def test_feature_tangent_is_the_derivative_along_a_change_of_command(robot):
    trunk, rng = random_dynamics(robot).trunk, np.random.default_rng(1)
    dynamics = random_dynamics(robot)
    for _ in range(20):
        x, u, past = random_step(dynamics, rng)
        x, u, along = x[None], u[None], past[:1]
        raw, tangent = trunk.raw_and_tangent(x, u, along)
        numeric = (trunk.raw(x, u + EPS * along) - trunk.raw(x, u - EPS * along)) / (2 * EPS)
        np.testing.assert_array_equal(raw, trunk.raw(x, u))
        np.testing.assert_allclose(tangent, numeric, atol=1e-7)


@pytest.mark.parametrize('robot', ROBOTS)
def test_trunk_gives_the_network_of_its_docstring(robot):
    dynamics = random_dynamics(robot)
    trunk, spec = dynamics.trunk, dynamics.spec
    x, u, _ = random_step(dynamics, np.random.default_rng(2))
    values = [v for v, c in zip(x, spec.state) if c.encode == 'value']
    angles = [v for v, c in zip(x, spec.state) if c.encode == 'angle']
    inputs = np.array([*values, *np.cos(angles), *np.sin(angles), *u])
    inputs = (inputs - trunk.mean) / trunk.scale
    hidden = np.maximum(trunk.w1.T @ inputs + trunk.b1, 0)
    raw = np.array([*np.tanh(trunk.w2.T @ hidden + trunk.b2), *inputs, 1.0])
    np.testing.assert_allclose(trunk.features(x[None], u[None])[0], trunk.whiten.T @ raw)


@pytest.mark.parametrize('robot', ROBOTS)
def test_design_times_nominal_parameters_is_the_nominal_prediction(robot):
    dynamics = random_dynamics(robot)
    rng = np.random.default_rng(3)
    for _ in range(10):
        x, u, past = random_step(dynamics, rng)
        design = dynamics.design(x, u, past)
        assert design.shape == (len(x), dynamics.size)
        np.testing.assert_allclose(design @ dynamics.nominal_theta, nominal(dynamics, x, u))


@pytest.mark.parametrize('robot', ROBOTS)
def test_structured_columns_are_tangents_to_actuator_scale_bias_and_delay(robot):
    dynamics = random_dynamics(robot)
    spec, rng = dynamics.spec, np.random.default_rng(4)
    da = len(spec.action)
    for _ in range(10):
        x, u, past = random_step(dynamics, rng)
        _, scale, bias, delay = np.split(
            dynamics.design(x, u, past), np.cumsum([dynamics.nominal.size, da, da]), axis=1
        )
        for unit, column in zip(np.eye(da), scale.T):
            assert_slope(dynamics, x, lambda t, e=unit, u=u: u * (1 + t * e), column)
        for unit, column in zip(np.eye(da), bias.T):
            half = unit * (spec.action_high - spec.action_low) / 2
            assert_slope(dynamics, x, lambda t, h=half, u=u: u + t * h, column)
        assert delay.shape[1] == DELAYS
        for earlier, column in zip(past, delay.T):
            # A share t of the command arrives k steps late.
            assert_slope(dynamics, x, lambda t, p=earlier, u=u: (1 - t) * u + t * p, column)


def assert_slope(dynamics, x, command, column):
    ahead, behind = (nominal(dynamics, x, command(t)) for t in (EPS, -EPS))
    np.testing.assert_allclose(column, (ahead - behind) / (2 * EPS), atol=1e-6)


def test_split_takes_theta_apart_where_design_puts_it_together():
    dynamics, rng = random_dynamics(), np.random.default_rng(5)
    theta = rng.normal(size=dynamics.size)
    w, g, b, c = dynamics.split(theta)
    np.testing.assert_array_equal(np.concatenate([w.ravel(), g, b, c]), theta)
    x, u, past = random_step(dynamics, rng)
    phi = dynamics.trunk.features(x[None], u[None])[0]
    plain = np.concatenate([w.ravel(), np.zeros(2 * len(u) + DELAYS)])
    np.testing.assert_allclose(dynamics.design(x, u, past) @ plain, w @ phi)


def test_a_turn_through_half_a_circle_is_a_small_step():
    dynamics = random_dynamics()
    x, x_next = np.zeros(6), np.zeros(6)
    x[2], x_next[2] = 3.1, -3.1
    turn = dynamics.target(x, x_next)[2] * dynamics.scale[2]
    assert turn == pytest.approx(2 * np.pi - 6.2)
    x[0], x_next[0] = 3.1, -3.1
    assert dynamics.target(x, x_next)[0] * dynamics.scale[0] == pytest.approx(-6.2)


# ---------------------------------------------------------------------- head
@pytest.mark.parametrize('seed', range(5))
def test_head_is_bayesian_linear_regression_with_its_own_noise(seed):
    rng = np.random.default_rng(seed)
    ds, n = 3, 8
    head = random_head(ds, n, rng)
    eta, precision = (a.numpy() for a in head.posterior.natural())
    for _ in range(30):
        design, y = rng.normal(size=(ds, n)), rng.normal(size=ds)
        noise, mean, cov = head.noise.variance, head.posterior.mean, head.posterior.covariance
        prediction = head.predict(torch.tensor(design), y)
        spread = design @ cov.numpy() @ design.T
        np.testing.assert_allclose(prediction.epistemic, np.diag(spread), rtol=1e-9)
        np.testing.assert_allclose(prediction.residual, y - design @ mean.numpy(), rtol=1e-9)
        s = spread + np.diag(noise)
        white = prediction.residual @ np.linalg.solve(s, prediction.residual)
        assert prediction.nis == pytest.approx(white / ds)
        evidence = student_t(white, np.linalg.slogdet(s)[1], ds, 6.0)
        assert prediction.evidence == pytest.approx(EVIDENCE_TEMPER * evidence)

        new = head.update(prediction)
        eta = eta + design.T @ (y / noise)
        precision = precision + design.T @ np.diag(1 / noise) @ design
        after, left = np.linalg.inv(precision), y - design @ np.linalg.solve(precision, eta)
        np.testing.assert_allclose(new.posterior.mean, after @ eta, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(new.posterior.covariance, after, rtol=1e-7, atol=1e-9)
        # The noise learns from the expected squared residual under the updated posterior.
        expected = head.noise.update(left**2 + np.diag(design @ after @ design.T))
        np.testing.assert_allclose(new.noise.variance, expected.variance, rtol=1e-7)
        head = new


@pytest.mark.parametrize('square', [0.0, 0.3, 4.0, 60.0])
@pytest.mark.parametrize('dof', [3.0, 6.0, 40.0])
def test_student_density_of_one_output_is_that_of_torch(square, dof):
    scale = 0.7
    reference = torch.distributions.StudentT(dof, 0.0, scale)
    x = torch.tensor(scale * np.sqrt(square))
    assert student_t(square, 2 * np.log(scale), 1, dof) == pytest.approx(
        reference.log_prob(x).item(), abs=1e-5
    )


@pytest.mark.parametrize('size', [2, 6])
def test_student_density_of_several_outputs_is_a_gamma_mixture_of_gaussians(size):
    dof, square, log_det = 6.0, 5.0, 0.4
    w = torch.linspace(1e-4, 15, 200_000, dtype=torch.float64)
    log_gamma = torch.distributions.Gamma(dof / 2, dof / 2).log_prob(w)
    log_normal = 0.5 * (size * torch.log(w / (2 * np.pi)) - log_det - w * square)
    density = torch.trapezoid(torch.exp(log_gamma + log_normal), w).log().item()
    assert student_t(square, log_det, size, dof) == pytest.approx(density, abs=1e-5)


# ---------------------------------------------------------------------- noise
@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=60))
def test_noise_stays_positive_and_finite_whatever_the_residuals(squares):
    noise = Noise.start(np.ones(2), np.ones(2))
    for square in squares:
        noise = noise.update(np.array([square, 0.0]))
        assert np.isfinite(noise.variance).all()
        assert (noise.variance > 0).all()


@pytest.mark.parametrize('factor', [0.25, 1.0, 9.0])
def test_noise_finds_the_variance_of_the_sensors(factor):
    rng = np.random.default_rng(6)
    noise, estimates = Noise.start(np.ones(3), np.ones(3)), []
    for step in range(3000):
        noise = noise.update(factor * np.square(rng.standard_normal(3)))
        if step >= 300:
            estimates.append(noise.variance)
    np.testing.assert_allclose(np.mean(estimates, axis=0), factor, rtol=0.1)


def test_after_an_event_one_residual_cannot_move_the_noise_far():
    noise = Noise.start(np.ones(2), np.ones(2))
    for _ in range(500):
        noise = noise.update(np.full(2, 2.0))
    held = noise.hold()
    np.testing.assert_allclose(held.variance, noise.variance)
    after = held.update(np.full(2, 1e12))
    assert (after.variance < 1.15 * held.variance).all()


# ---------------------------------------------------------------------- belief
@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_epistemic_variance_is_that_of_the_posterior(seed):
    dynamics, rng = random_dynamics(), np.random.default_rng(seed)
    root = rng.normal(size=(dynamics.size, dynamics.size))
    belief = some_belief(dynamics.nominal_theta, root, noise=np.full(6, 0.1))
    x, u, past = random_step(dynamics, rng)
    spread = predict(dynamics, belief, x, u, past)
    design = dynamics.scale[:, None] * dynamics.design(x, u, past)
    np.testing.assert_allclose(spread.epistemic, np.diag(design @ root @ root.T @ design.T))
    expected = dynamics.spec.wrap(x + design @ dynamics.nominal_theta)
    np.testing.assert_allclose(spread.mean, expected)
    assert np.abs(spread.mean[2]) <= np.pi


def test_aleatoric_variance_is_that_of_a_student_t_in_units_of_the_state():
    dynamics, rng = random_dynamics(), np.random.default_rng(7)
    noise = rng.uniform(0.1, 1.0, 6)
    factor = np.zeros((dynamics.size, 1))
    belief = some_belief(dynamics.nominal_theta, factor, noise=noise, noise_dof=10.0)
    spread = predict(dynamics, belief, *random_step(dynamics, rng))
    draws = torch.distributions.StudentT(10.0, scale=torch.tensor(np.sqrt(noise)))
    variance = draws.variance.numpy() * dynamics.scale**2
    np.testing.assert_allclose(spread.aleatoric, variance)
    np.testing.assert_array_equal(spread.epistemic, 0)


def test_uncertainty_never_grows_with_data():
    dynamics, noise = random_dynamics(), np.full(6, 0.01)
    fixed = Noise.start(noise, noise)
    head = Head(gaussian(dynamics.nominal_theta, 0.1 * np.eye(dynamics.size)), fixed)
    probe = random_step(dynamics, np.random.default_rng(8))
    history = [np.full(6, np.inf)]
    samples = linear_samples(dynamics, dynamics.nominal_theta, noise, seed=9)
    for sample, _ in zip(samples, range(100)):
        head = observe(dynamics, head, sample, fixed)
        belief = some_belief(head.posterior.mean.numpy(), head.posterior.factor().numpy())
        now = predict(dynamics, belief, *probe).epistemic
        assert (now <= history[-1] * (1 + 1e-9)).all()
        history.append(now)
    assert (history[-1] < 0.2 * history[1]).all()


def test_draws_of_a_belief_are_its_mean_plus_its_factor():
    rng = np.random.default_rng(10)
    theta, factor = rng.normal(size=5).astype(np.float32), rng.normal(size=(5, 16))
    belief = some_belief(theta, factor.astype(np.float32))
    draws = belief.draws(16)
    covariance = (draws - theta).T @ (draws - theta) / 16
    np.testing.assert_allclose(covariance, factor @ factor.T, rtol=1e-4, atol=1e-4)


def test_entropy_tells_a_sure_belief_from_a_doubtful_one():
    none = np.zeros((1, 1))
    sure = some_belief(none[0], none, regimes={'nominal': 1.0, 'new': 0.0})
    torn = some_belief(none[0], none, regimes={'nominal': 0.5, 'r1': 0.5, 'new': 0.0})
    assert sure.entropy == 0
    assert torn.entropy == pytest.approx(np.log(2))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_means_of_several_commands_are_those_of_each(seed):
    rng = np.random.default_rng(seed)
    dynamics = random_dynamics(seed=seed)
    n, ds = dynamics.size, len(dynamics.scale)
    theta = (dynamics.nominal_theta + 0.1 * rng.normal(size=n)).astype(np.float32)
    factor = rng.normal(size=(n, 4)).astype(np.float32)
    offset = rng.normal(size=ds).astype(np.float32)
    noise = np.ones(ds, np.float32)
    belief = Belief(0, 0, theta, factor, offset, noise, 40.0, {}, 'nominal', 'learned')
    x, u, past = random_step(dynamics, rng)
    commands = u + rng.normal(size=(3, len(u)))
    means = predict_means(dynamics, belief, x, commands, past)
    for command, mean in zip(commands, means):
        spread = predict(dynamics, belief, x, command, past)
        np.testing.assert_allclose(mean, spread.mean, rtol=1e-5, atol=1e-6)
        design = dynamics.design(x, command, past)
        expected = dynamics.spec.wrap(x + dynamics.scale * (design @ theta + offset))
        np.testing.assert_allclose(spread.mean, expected, rtol=1e-9, atol=1e-9)
        variance = dynamics.scale**2 * np.square(design @ factor).sum(axis=1)
        np.testing.assert_allclose(spread.epistemic, variance, rtol=1e-9)


def test_compiled_features_are_those_of_numpy() -> None:
    rng = np.random.default_rng(4)
    dynamics = random_dynamics()
    assert dynamics._native is not None
    for _ in range(20):
        step = random_step(dynamics, rng)
        for found, expected in zip(dynamics.parts(*step), dynamics._parts(*step), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
