"""Likelihoods of the belief against brute-force integration; outcomes of a simulated arm."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.dynamics.likelihoods import (
    Bernoulli,
    Categorical,
    Glm,
    HeteroscedasticGaussian,
    KnownNoise,
    LearnedNoise,
    Likelihood,
)
from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.dynamics.outcomes import OutcomeModel
from lifelong_bayes_ros.dynamics.trunk import Trunk
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.codec import pack, unpack

NOISE = np.array([0.3, 0.05])
TERRAIN = Categorical(('grass', 'sand', 'rock'))
CASES: dict[str, tuple[Likelihood, list]] = {
    'known noise': (KnownNoise(NOISE), [[0.4, -1.0], [1.0, 0.2]]),
    'learned noise': (LearnedNoise(Noise.start(NOISE, NOISE)), [[0.4, -1.0], [1.0, 0.2]]),
    'heteroscedastic': (HeteroscedasticGaussian(), [0.4, -5.0]),
    'bernoulli': (Bernoulli(), [True, False]),
    'categorical': (TERRAIN, ['grass', 'rock']),
}
every_likelihood = pytest.mark.parametrize(
    ('likelihood', 'labels'), CASES.values(), ids=CASES.keys()
)


def latent(k: int, seed: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A mean [k] and a covariance [k, k] of f."""
    rng = np.random.default_rng(seed)
    half = size * (np.eye(k) + 0.4 * rng.normal(size=(k, k)))
    return rng.normal(size=k), half @ half.T


def head(likelihood: Likelihood, n: int, variance: float = 1.0) -> Glm:
    """A head on n weights, N(0, variance I) before it has seen anything."""
    mean = torch.zeros(n, dtype=torch.float64)
    return Glm(Gaussian(mean, variance * torch.eye(n, dtype=torch.float64)), likelihood)


def learn(glm: Glm, phi: np.ndarray, labels: list) -> Glm:
    """The head after labels at features [m, nf]."""
    for row, y in zip(phi, labels, strict=True):
        glm = glm.update(glm.likelihood.design(row), y)
    return glm


def sd(glm: Glm) -> np.ndarray:
    """Posterior standard deviations [n]."""
    return torch.diagonal(glm.posterior.covariance).sqrt().numpy()


def sigmoid(f: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-f))


# ---------------------------------------------------------------------- one contract for all
@every_likelihood
def test_residual_is_the_gradient_of_the_loss(likelihood, labels):
    f, step = latent(likelihood.outputs, 1)[0], 1e-6 * np.eye(likelihood.outputs)
    for y in labels:
        label = likelihood.label(y)
        slope = (likelihood.loss(f + step, label) - likelihood.loss(f - step, label)) / 2e-6
        np.testing.assert_allclose(likelihood.residual(f, label), slope, rtol=1e-6, atol=1e-7)


@every_likelihood
def test_curvature_is_the_slope_of_the_residual_at_the_soft_label(likelihood, labels):
    f, step = latent(likelihood.outputs, 2)[0], 1e-6 * np.eye(likelihood.outputs)
    soft = likelihood.soft_label(f)
    np.testing.assert_allclose(likelihood.residual(f, soft), 0.0, atol=1e-12)
    slope = (likelihood.residual(f + step, soft) - likelihood.residual(f - step, soft)) / 2e-6
    curvature = likelihood.curvature(f)
    np.testing.assert_allclose(curvature, slope, rtol=1e-6, atol=1e-7)
    assert np.linalg.eigvalsh(curvature).min() > -1e-12


@every_likelihood
@pytest.mark.parametrize('size', [0.3, 1.5])
def test_moments_given_one_label_equal_importance_sampling(likelihood, labels, size):
    mean, covariance = latent(likelihood.outputs, 3, size)
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance, 400_000)
    for y in labels:
        label = likelihood.label(y)
        weights = np.exp(-likelihood.loss(draws, label))
        weights /= weights.sum()
        moved = weights @ draws
        spread = (weights * (draws - moved).T) @ (draws - moved)
        m, c = likelihood.match(label, mean, covariance)
        deviation = np.sqrt(np.diag(spread))
        error = 1 / np.sqrt(1 / np.square(weights).sum())  # of the reference, in deviations
        assert (np.abs(m - moved) < (0.02 + 4 * error) * deviation).all()
        scale = np.outer(deviation, deviation)
        np.testing.assert_allclose(c / scale, spread / scale, atol=0.04 + 8 * error)


@every_likelihood
def test_predictive_integrates_over_the_weights(likelihood, labels):
    mean, covariance = latent(likelihood.outputs, 4)
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal(mean, covariance, 400_000)
    predictive = likelihood.predict(mean, covariance)
    if not isinstance(likelihood, LearnedNoise):  # heavier tails than any one value of its noise
        for y in labels:
            label = likelihood.label(y)
            reference = np.log(np.mean(np.exp(-likelihood.loss(draws, label))))
            assert predictive.log_prob(label) == pytest.approx(reference, abs=0.03)
    assert predictive.epistemic > 0.01
    assert predictive.epistemic + predictive.aleatoric == pytest.approx(predictive.entropy)
    if not isinstance(likelihood, LearnedNoise):
        certain = likelihood.predict(mean, 1e-14 * covariance)
        assert certain.epistemic == pytest.approx(0, abs=1e-6)


@every_likelihood
def test_many_predictions_at_once_equal_one_by_one(likelihood, labels):
    k, label = likelihood.outputs, likelihood.label(labels[0])
    pairs = [latent(k, seed) for seed in range(4)]
    means, covariances = (np.array(a).reshape(2, 2, *a[0].shape) for a in zip(*pairs, strict=True))
    many = likelihood.predict(means, covariances)
    one = [likelihood.predict(*pair) for pair in pairs]
    for values, pick in (
        (many.log_prob(label), lambda p: p.log_prob(label)),
        (many.entropy, lambda p: p.entropy),
        (many.aleatoric, lambda p: p.aleatoric),
    ):
        np.testing.assert_allclose(values.ravel(), [pick(p) for p in one], rtol=1e-12)


@every_likelihood
def test_a_label_lowers_its_own_loss_and_its_residual(likelihood, labels):
    design = likelihood.design(np.array([1.0, -0.5]))
    start = head(likelihood, 2 * likelihood.outputs)
    label = likelihood.label(labels[0])
    learned = start.update(design, labels[0])
    assert learned.predict(design).log_prob(label) > start.predict(design).log_prob(label)
    (before, _), (after, _) = start.latent(design), learned.latent(design)
    assert (
        np.abs(likelihood.residual(after, label)).sum()
        < np.abs(likelihood.residual(before, label)).sum()
    )


@every_likelihood
@pytest.mark.parametrize(
    'y', [float('nan'), float('inf'), 'lava', 0.5 + 1j, [1.0, 2.0, 3.0], None]
)
def test_what_is_no_label_is_refused_and_nothing_is_learned(likelihood, labels, y):
    glm = head(likelihood, likelihood.outputs).update(likelihood.design(np.ones(1)), labels[0])
    mean, covariance = glm.posterior.mean.clone(), glm.posterior.covariance.clone()
    with pytest.raises(UserError, match='label'):
        glm.update(likelihood.design(np.ones(1)), y)
    with pytest.raises(UserError, match='not finite'):
        glm.update(likelihood.design(np.array([np.nan])), labels[0])
    assert torch.equal(glm.posterior.mean, mean)
    assert torch.equal(glm.posterior.covariance, covariance)


@every_likelihood
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), log_size=st.floats(-3, 3), log_variance=st.floats(-4, 4))
def test_the_posterior_stays_a_density_whatever_comes(
    likelihood, labels, seed, log_size, log_variance
):
    rng = np.random.default_rng(seed)
    nf = int(rng.integers(1, 5))
    glm = head(likelihood, nf * likelihood.outputs, 10**log_variance)
    prior = glm.posterior.covariance
    for step in range(12):
        phi = 10**log_size * rng.standard_normal(nf) * (rng.random(nf) < 0.8)
        glm = glm.update(likelihood.design(phi), labels[rng.integers(len(labels))])
        glm = glm.widen(prior, 1e-3) if step == 7 else glm
        assert torch.isfinite(glm.posterior.mean).all()
        torch.linalg.cholesky(glm.posterior.covariance)  # raises where it is indefinite
        if not isinstance(likelihood, HeteroscedasticGaussian):  # there, surprise adds doubt
            left = torch.linalg.eigvalsh(prior - glm.posterior.covariance)[0]
            assert left > -1e-6 * prior[0, 0]


# ---------------------------------------------------------------------- Gaussian
def test_known_noise_is_the_exact_conjugate_update():
    rng = np.random.default_rng(0)
    phi, noise = rng.standard_normal((30, 4)), np.array([0.3, 0.05])
    y = rng.standard_normal((30, 2))
    glm = learn(head(KnownNoise(noise), 8), phi, list(y))
    for j in range(2):
        precision = np.eye(4) + phi.T @ phi / noise[j]
        mean = np.linalg.solve(precision, phi.T @ y[:, j] / noise[j])
        block = slice(4 * j, 4 * j + 4)
        np.testing.assert_allclose(glm.posterior.mean[block], mean, atol=1e-10)
        np.testing.assert_allclose(
            glm.posterior.covariance[block, block], np.linalg.inv(precision), atol=1e-10
        )


def test_noise_is_learned():
    rng = np.random.default_rng(1)
    phi, w = rng.standard_normal((600, 3)), rng.standard_normal(3)
    y = phi @ w + 0.2 * rng.standard_normal(600)
    start = LearnedNoise(Noise.start(np.array([1.0]), np.array([1.0])))
    glm = learn(head(start, 3), phi, list(y))
    assert 0.02 < float(glm.likelihood.variance[0]) < 0.08  # 0.04 and the prior's pull
    np.testing.assert_allclose(glm.posterior.mean, w, atol=0.05)


@pytest.mark.parametrize('bad', [0.0, -1.0, np.nan, np.inf])
def test_a_noise_variance_must_be_positive(bad):
    with pytest.raises(UserError, match='noise variance'):
        KnownNoise(np.array([bad]))


def test_a_known_variance_function_is_recovered():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, 1500)
    phi = np.stack([np.ones_like(x), x], axis=1)
    truth = np.array([0.5, -1.0, -2.0, 1.5])  # weights of mean and of log variance
    f = phi @ truth.reshape(2, 2).T
    y = f[:, 0] + np.exp(0.5 * f[:, 1]) * rng.standard_normal(len(x))
    glm = learn(head(HeteroscedasticGaussian(), 4, 4.0), phi, list(y))
    error = (glm.posterior.mean.numpy() - truth) / sd(glm)
    assert np.abs(error).max() < 3.5
    # The posterior knows the log variance as well as 1500 labels of Fisher information ½ allow.
    fisher = np.linalg.inv(0.5 * phi.T @ phi + np.eye(2) / 4)
    np.testing.assert_allclose(sd(glm)[2:], np.sqrt(np.diag(fisher)), rtol=0.1)
    # 90 % intervals cover 90 % of new observations where noise is low and where it is high.
    for at in (-0.8, 0.0, 0.8):
        mean, s = np.array([1, at]) @ truth.reshape(2, 2).T
        fresh = mean + np.exp(0.5 * s) * rng.standard_normal(4000)
        predictive = glm.predict(glm.likelihood.design(np.array([1.0, at])))
        half = 1.645 * np.sqrt(predictive.variance)
        assert np.mean(np.abs(fresh - predictive.mean) < half) == pytest.approx(0.9, abs=0.02)


# ---------------------------------------------------------------------- classes
@pytest.mark.parametrize('seed', range(100, 104))
def test_bernoulli_equals_integration_over_two_weights(seed):
    rng = np.random.default_rng(seed)
    phi = np.stack([np.ones(40), 1.5 * rng.normal(size=40)], axis=1)
    labels = rng.random(40) < sigmoid(phi @ (1.2 * rng.normal(size=2)))
    glm = learn(head(Bernoulli(), 2), phi, labels.tolist())
    axis = np.linspace(-6, 6, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing='ij'), axis=-1).reshape(-1, 2)
    signed = (grid @ phi.T) * np.where(labels, 1, -1)
    height = -0.5 * np.square(grid).sum(axis=1) - np.logaddexp(0, -signed).sum(axis=1)
    weights = np.exp(height - height.max())
    weights /= weights.sum()
    mean = weights @ grid
    variance = weights @ np.square(grid - mean)
    for learned, in_mean, in_variance in ((glm, 0.08, 0.2), (glm.settle(), 0.02, 0.1)):
        error = (learned.posterior.mean.numpy() - mean) / np.sqrt(variance)
        np.testing.assert_allclose(error, 0, atol=in_mean)
        np.testing.assert_allclose(sd(learned) ** 2, variance, rtol=in_variance)
    # And so do the probabilities, far from the data too.
    for at in (-3.0, 0.0, 1.0, 6.0):
        row = np.array([1.0, at])
        reference = weights @ sigmoid(grid @ row)
        seen = glm.settle().predict(glm.likelihood.design(row))
        assert seen.probabilities[1] == pytest.approx(reference, abs=0.02)


@pytest.mark.parametrize('deviation', [0.1, 1.0, 5.0, 20.0])
def test_bernoulli_predictive_equals_a_fine_integral(deviation):
    z = np.linspace(-9, 9, 200_001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    for mean in (0.0, 1.0, -7.0):
        f = mean + deviation * z
        p = sigmoid(f)
        entropy = p * np.logaddexp(0, -f) + (1 - p) * np.logaddexp(0, f)
        seen = Bernoulli().predict(np.array([mean]), np.array([[deviation**2]]))
        assert seen.probabilities[1] == pytest.approx(weights @ p, abs=2e-3)
        assert seen.aleatoric == pytest.approx(weights @ entropy, abs=5e-3)


def test_a_label_that_overturns_conviction_is_learned():
    """From f = −100 ± 10 a success leaves f near 0: integration about the prior would miss it."""
    mean, covariance = Bernoulli().match(np.array([1.0]), np.array([-100.0]), np.array([[100.0]]))
    f = np.linspace(-60, 60, 400_001)
    height = -0.005 * (f + 100) ** 2 - np.logaddexp(0, -f)
    weights = np.exp(height - height.max())
    weights /= weights.sum()
    exact = weights @ f
    assert mean[0] == pytest.approx(exact, abs=0.1)
    assert covariance[0, 0] == pytest.approx(weights @ (f - exact) ** 2, rel=0.05)


def softmax_stream(seed: int, n: int, nf: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, nf], true weights [3, nf] and labels [n]."""
    rng = np.random.default_rng(seed)
    phi, w = rng.standard_normal((n, nf)), rng.standard_normal((3, nf))
    p = TERRAIN.soft_label(phi @ w.T)
    labels = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    return phi, w, labels


def test_categorical_equals_a_laplace_fit_of_all_data():
    phi, _, labels = softmax_stream(100, 500)
    glm = learn(head(TERRAIN, 9), phi, [TERRAIN.classes[i] for i in labels])

    features, target = torch.tensor(phi), torch.tensor(labels)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        logits = features @ theta.reshape(3, 3).T
        fit = torch.nn.functional.cross_entropy(logits, target, reduction='sum')
        return fit + 0.5 * theta.square().sum()

    mode = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([mode], max_iter=500, line_search_fn='strong_wolfe')

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(mode)
        value.backward()
        return value

    optimizer.step(closure)
    covariance = torch.linalg.inv(torch.func.hessian(loss)(mode.detach()))
    deviation = torch.diagonal(covariance).sqrt().numpy()
    error = (glm.posterior.mean - mode.detach()).numpy() / deviation
    assert np.abs(error).max() < 0.25
    scale = np.outer(deviation, deviation)
    np.testing.assert_allclose(
        glm.posterior.covariance.numpy() / scale, covariance.numpy() / scale, atol=0.1
    )


def test_the_order_of_labels_hardly_matters():
    phi, _, labels = softmax_stream(101, 120)
    names = [TERRAIN.classes[i] for i in labels]
    order = np.random.default_rng(0).permutation(len(names))
    one = learn(head(TERRAIN, 9), phi, names)
    two = learn(head(TERRAIN, 9), phi[order], [names[i] for i in order])
    shift = (one.posterior.mean - two.posterior.mean).numpy() / sd(one)
    assert np.abs(shift).max() < 0.25
    np.testing.assert_allclose(sd(two), sd(one), rtol=0.1)


def calibration_error(p: np.ndarray, hit: np.ndarray, bins: int = 10) -> tuple[float, float]:
    """Expected calibration error, and what chance alone makes of it at perfect calibration."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    rng, error = np.random.default_rng(0), []
    for outcome in (hit, *(rng.random(len(p)) < p for _ in range(200))):
        gap = np.bincount(which, outcome - p, bins)
        error.append(np.abs(gap).sum() / len(p))
    return error[0], float(np.quantile(error[1:], 0.99))


def test_probabilities_are_calibrated():
    """Truths from the prior: predictive probabilities, scored before each label, come true."""
    p, hit = [], []
    for seed in range(100, 130):
        phi, w, labels = softmax_stream(seed, 60)
        glm = head(TERRAIN, w.size)
        for row, label in zip(phi, labels, strict=True):
            design = TERRAIN.design(row)
            p.append(glm.predict(design).probabilities)
            hit.append(np.eye(3)[label])
            glm = glm.update(design, TERRAIN.classes[label])
    error, chance = calibration_error(np.ravel(p), np.ravel(hit))
    assert error < chance + 0.01


def test_old_labels_are_fitted_again_but_only_the_last_are_kept():
    phi, _, labels = softmax_stream(102, 90)
    glm = learn(head(TERRAIN, 9), phi, [TERRAIN.classes[i] for i in labels])
    assert len(glm.sites) == 64
    np.testing.assert_array_equal(glm.sites[0].design, TERRAIN.design(phi[26]))
    # Sites of the window are part of the posterior: what they add can be taken out again.
    eta, precision = glm.posterior.natural()
    for site in glm.sites:
        eta = eta - torch.tensor(site.design.T @ site.eta)
        precision = precision - torch.tensor(site.design.T @ site.precision @ site.design)
    rest = Gaussian.from_natural(eta, precision)
    assert (torch.diagonal(rest.covariance) > torch.diagonal(glm.posterior.covariance)).all()
    assert torch.linalg.eigvalsh(torch.eye(9, dtype=torch.float64) - rest.covariance)[0] > -1e-6


# ---------------------------------------------------------------------- outcomes of a robot
TABLE, WALL = 'table', 'screen'


def touching_arm() -> mujoco.MjModel:
    """The simulated arm between a table and a wall, with contacts switched on."""
    text = (Path(sim.__file__).parent / 'arm.xml').read_text()
    planes = (
        f'<geom name="{TABLE}" type="plane" size="2 2 .1" pos="0 0 -0.25"/>'
        f'<geom name="{WALL}" type="plane" size="2 2 .1" pos="0.6 0 0" zaxis="-1 0 0"/>'
    )
    text = text.replace('<flag contact="disable"/>', '')
    return mujoco.MjModel.from_xml_string(text.replace('<worldbody>', f'<worldbody>{planes}'))


def touches(n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, dict]]:
    """States, commands and what the forearm touches one control period later."""
    arm, model = sim.make('arm'), touching_arm()
    model.opt.timestep = arm.robot_spec.period
    data, forearm = mujoco.MjData(model), model.geom('forearm').id
    rng = np.random.default_rng(seed)
    steps = []
    for x, u in zip(arm.sample_states(rng, n), arm.sample_actions(rng, n), strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = x[:2], x[2:], u
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        touched = {
            model.geom(int(other)).name
            for pair in data.contact.geom[: data.ncon]
            for other in pair
            if forearm in pair
        }
        what = WALL if WALL in touched else TABLE if TABLE in touched else 'air'
        steps.append((x, u, {'contact': what != 'air', 'surface': what}))
    return steps


OUTCOMES = {'contact': None, 'surface': ['air', TABLE, WALL]}


@cache
def arm_trunk() -> Trunk:
    """Random features, whitened on where the arm operates."""
    trunk, arm = plants.random_dynamics('arm', 24).trunk, sim.make('arm')
    rng = np.random.default_rng(0)
    raw = trunk.raw(arm.sample_states(rng, 2000), arm.sample_actions(rng, 2000))
    chol = np.linalg.cholesky(raw.T @ raw / len(raw) + 1e-3 * np.eye(trunk.size))
    return replace(trunk, whiten=np.linalg.inv(chol).T)


def arm_outcomes() -> OutcomeModel:
    return OutcomeModel.start(arm_trunk(), OUTCOMES)


def test_a_robot_learns_what_it_will_touch():
    model, nll = arm_outcomes(), []
    steps = touches(900, 100)
    prior = -np.mean([[*model.evidence(*step).values()] for step in steps[-300:]], axis=0)
    for x, u, labels in steps:
        nll.append([-v for v in model.evidence(x, u, labels).values()])
        model = model.update(x, u, labels)
    last = np.mean(nll[-300:], axis=0)
    # Better than the prior, and than knowing only how often each outcome comes.
    share = np.mean([labels['contact'] for _, _, labels in steps])
    assert 0.1 < share < 0.9
    rate = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert (last < 0.35 * prior).all()
    assert last[0] < 0.35 * rate
    x, u = (np.array([step[i] for step in steps[:50]]) for i in (0, 1))
    many = model.predict(x, u)
    assert many['surface'].probabilities.shape == (50, 3)
    np.testing.assert_allclose(
        many['contact'].probabilities[7], model.predict(x[7], u[7])['contact'].probabilities
    )


def test_a_model_is_restored_exactly_and_learns_on_as_if_never_stopped():
    model, steps = arm_outcomes(), touches(90, 101)
    for x, u, labels in steps[:70]:
        model = model.update(x, u, labels)
    arrays, meta = unpack('outcomes', pack('outcomes', *model.state()), 'test')
    back = OutcomeModel.from_state(model.trunk, arrays, json.loads(json.dumps(meta)))
    for x, u, labels in steps[70:]:
        model, back = model.update(x, u, labels), back.update(x, u, labels)
    for name, one in model.heads.items():
        assert torch.equal(one.posterior.mean, back.heads[name].posterior.mean)
        assert torch.equal(one.posterior.covariance, back.heads[name].posterior.covariance)
    empty = arm_outcomes()
    assert OutcomeModel.from_state(empty.trunk, *empty.state()).heads.keys() == OUTCOMES.keys()


def test_missing_labels_are_skipped_and_wrong_ones_refused_as_a_whole():
    model, (x, u, _) = arm_outcomes(), touches(1, 102)[0]
    assert model.update(x, u, {'contact': None}) is model
    one = model.update(x, u, {'contact': True, 'surface': None})
    assert one.heads['surface'] is model.heads['surface']
    assert one.heads['contact'].posterior.mean.any()
    for labels, message in (
        ({'contact': True, 'surface': 'lava'}, r"outcome surface: label 'lava' is not one of"),
        ({'contact': float('nan')}, 'outcome contact: label nan'),
        ({'contact': True, 'slip': True}, "outcome 'slip' is not among"),
    ):
        with pytest.raises(UserError, match=message):
            model.update(x, u, labels)
    with pytest.raises(UserError, match=r'state .* is not finite'):
        model.update(np.full(4, np.nan), u, {'contact': True})
    assert not model.heads['contact'].posterior.mean.any()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'outcomes': {'a.b': None}}, 'a.b'),
        ({'outcomes': {'terrain': ['sand']}}, 'outcome terrain: classes'),
        ({'outcomes': {'terrain': ['sand', 'sand']}}, 'outcome terrain: classes'),
        ({'outcomes': {}, 'log_odds_sd': 0.0}, 'log_odds_sd=0.0'),
        ({'outcomes': {}, 'random_walk': 1.0}, 'random_walk=1.0'),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        OutcomeModel.start(arm_trunk(), **settings)


def test_a_state_on_another_trunk_is_refused():
    arrays, meta = arm_outcomes().state()
    with pytest.raises(UserError, match='features'):
        OutcomeModel.from_state(plants.random_dynamics('arm', width=8).trunk, arrays, meta)


def test_a_changed_world_is_unlearned():
    """The meaning of the labels flips; the random walk lets the new one through."""
    steps = touches(400, 103)

    def after_the_flip(random_walk: float) -> np.ndarray:
        model = OutcomeModel.start(arm_trunk(), {'contact': None}, random_walk=random_walk)
        for x, u, labels in steps[:200]:
            model = model.update(x, u, {'contact': labels['contact']})
        nll = []
        for x, u, labels in steps[200:] * 2:
            flipped = {'contact': not labels['contact']}
            nll.append(-model.evidence(x, u, flipped)['contact'])
            model = model.update(x, u, flipped)
        return np.array(nll)

    walking, standing = after_the_flip(0.02), after_the_flip(0.0)
    assert walking[:20].mean() > 1.0
    assert walking[-100:].mean() < 0.5
    assert walking[-100:].mean() < 0.75 * standing[-100:].mean()
