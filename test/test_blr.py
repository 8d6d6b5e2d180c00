"""The conjugate Gaussian and the diagonal optimizer against independent computations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import BLR, Gaussian, ImproperPosteriorError


def polynomial_problem(seed: int, n: int = 60, degree: int = 6):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    design = np.vander(x, degree + 1, increasing=True)
    y = np.sin(3 * x) + 0.1 * rng.standard_normal(n)
    return torch.tensor(design), torch.tensor(y)


def prior(n: int) -> Gaussian:
    return Gaussian(torch.zeros(n, dtype=torch.float64), torch.eye(n, dtype=torch.float64))


def learn(belief: Gaussian, design: torch.Tensor, y: torch.Tensor, noise: float) -> Gaussian:
    for h, target in zip(design, y, strict=True):
        innovation = belief.predict(h[None], torch.tensor([noise], dtype=torch.float64))
        belief = belief.condition(innovation, target[None] - innovation.mean)
    return belief


@pytest.mark.parametrize('seed', range(3))
def test_sequential_conditioning_equals_batch_bayesian_regression(seed):
    design, y = polynomial_problem(seed)
    noise = 0.01
    sequential = learn(prior(design.shape[1]), design, y, noise)
    # Batch solution in numpy, from the normal equations.
    a = design.numpy()
    precision = np.eye(a.shape[1]) + a.T @ a / noise
    mean = np.linalg.solve(precision, a.T @ y.numpy() / noise)
    np.testing.assert_allclose(sequential.mean.numpy(), mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(sequential.covariance.numpy(), np.linalg.inv(precision), atol=1e-10)


def test_order_of_observations_does_not_matter():
    design, y = polynomial_problem(7)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    one = learn(prior(design.shape[1]), design, y, 0.05)
    two = learn(prior(design.shape[1]), design[order], y[order], 0.05)
    torch.testing.assert_close(one.mean, two.mean, rtol=1e-9, atol=1e-10)


def test_divide_takes_experience_out_again():
    design, y = polynomial_problem(3)
    start = prior(design.shape[1])
    half = len(y) // 2
    first = learn(start, design[:half], y[:half], 0.05)
    second = learn(start, design[half:], y[half:], 0.05)
    both = learn(first, design[half:], y[half:], 0.05)
    merged = first.multiply(second, divide=start)
    torch.testing.assert_close(merged.mean, both.mean, rtol=1e-8, atol=1e-8)
    without = both.multiply(start, divide=second)
    torch.testing.assert_close(without.mean, first.mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(without.covariance, first.covariance, rtol=1e-7, atol=1e-7)


def test_improper_division_is_an_error_not_a_nan():
    design, y = polynomial_problem(4)
    start = prior(design.shape[1])
    informed = learn(start, design, y, 0.05)
    with pytest.raises(ImproperPosteriorError, match='positive definite'):
        start.multiply(start, divide=informed)


@given(st.integers(0, 10_000))
def test_natural_parameters_round_trip(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    root = rng.standard_normal((n, n))
    belief = Gaussian(
        torch.tensor(rng.standard_normal(n)), torch.tensor(root @ root.T + np.eye(n))
    )
    back = Gaussian.from_natural(*belief.natural())
    torch.testing.assert_close(back.mean, belief.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back.covariance, belief.covariance, rtol=1e-8, atol=1e-8)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r'mean \(3,\) and covariance \(2, 2\)'):
        Gaussian(torch.zeros(3), torch.eye(2))


def test_log_prob_equals_torch_distributions():
    root = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    belief = Gaussian(torch.tensor([1.0, -1.0], dtype=torch.float64), root @ root.T)
    theta = torch.tensor([0.3, 0.7], dtype=torch.float64)
    reference = torch.distributions.MultivariateNormal(belief.mean, belief.covariance)
    assert float(belief.log_prob(theta)) == pytest.approx(float(reference.log_prob(theta)))


def quadratic_steps(optimizer: BLR, w: torch.Tensor, curvature: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        with optimizer.sampled():
            optimizer.zero_grad()
            (0.5 * (curvature * (w - 2.0) ** 2).sum()).backward()
        optimizer.step()


def test_price_curvature_finds_the_precision_of_a_quadratic():
    w = torch.zeros(3, requires_grad=True)
    curvature = torch.tensor([0.5, 2.0, 8.0])
    generator = torch.Generator().manual_seed(0)
    optimizer = BLR(
        [w], lr=0.05, ess=100.0, betas=(0.9, 0.999), curvature='price', generator=generator
    )
    quadratic_steps(optimizer, w, curvature, 8000)
    torch.testing.assert_close(optimizer.precision(w) / 100, curvature, rtol=0.15, atol=0)
    torch.testing.assert_close(w.detach(), torch.full((3,), 2.0), rtol=0.02, atol=0.02)


def test_vadam_without_posterior_noise_is_adam_without_bias_correction_of_the_scale():
    """Mean step against a hand-written loop in numpy."""
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = BLR([w], lr=0.1, ess=1e20, prior_precision=1e-30, init_curvature=1.0)
    quadratic_steps(optimizer, w, torch.tensor([1.0, 3.0]), 5)
    m, v, x = np.zeros(2), np.ones(2), np.array([1.0, -2.0])
    for t in range(1, 6):
        g = np.array([1.0, 3.0]) * (x - 2)
        m = 0.9 * m + 0.1 * g
        gap = 0.001 * (g**2 - v)
        v = v + gap + gap**2 / (2 * v)
        x = x - 0.1 * m / (1 - 0.9**t) / np.sqrt(v)
    np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-5)


@given(st.floats(-1e4, 1e4), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_precision_stays_positive_and_at_least_halves(gradient, rho, seed):
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(seed)
    optimizer = BLR(
        [w], lr=0.1, ess=10.0, betas=(0.9, 1 - rho), curvature='price', generator=generator
    )
    for _ in range(5):
        before = optimizer.precision(w).detach().clone()
        with optimizer.sampled():
            w.grad = torch.full_like(w, gradient)
        optimizer.step()
        assert (optimizer.precision(w) >= before / 2 * (1 - 1e-9)).all()


def test_an_exception_inside_sampling_restores_the_mean():
    w = torch.ones(5, requires_grad=True)
    optimizer = BLR([w], lr=0.1, ess=1.0)
    seen = []

    def fail() -> None:
        with optimizer.sampled():
            seen.append(w.detach().clone())
            raise RuntimeError('boom')

    with pytest.raises(RuntimeError, match='boom'):
        fail()
    assert not torch.equal(seen[0], torch.ones(5))
    assert torch.equal(w.detach(), torch.ones(5))


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    w = torch.ones(2, requires_grad=True)
    optimizer = BLR([w], lr=0.1, ess=1.0)
    before = optimizer.precision(w).clone()
    with optimizer.sampled():
        w.grad = torch.tensor([1.0, float('nan')])
    optimizer.step()
    assert optimizer.skipped == 1
    assert torch.equal(w.detach(), torch.ones(2))
    assert torch.equal(optimizer.precision(w), before)


def test_step_without_a_sample_and_bad_settings_are_named():
    w = torch.ones(2, requires_grad=True)
    optimizer = BLR([w], lr=0.1, ess=1.0)
    w.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match='sampled'):
        optimizer.step()
    for name in ('lr', 'ess', 'prior_precision', 'init_curvature'):
        settings = {'lr': 0.1, 'ess': 1.0} | {name: -1.0}
        with pytest.raises(ValueError, match=f'{name}=-1.0'):
            BLR([w], **settings)
    with pytest.raises(ValueError, match='curvature'):
        BLR([w], lr=0.1, ess=1.0, curvature='hessian')
