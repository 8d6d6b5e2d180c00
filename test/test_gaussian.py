"""The conjugate Gaussian against independent computations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import Gaussian, ImproperPosteriorError, conjugate


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


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 60))
def test_compiled_conditioning_does_as_torch_does(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n))
    covariance = torch.tensor(root @ root.T + np.eye(n))
    design = rng.standard_normal((k, n))
    shared = int(rng.integers(n + 1))  # columns before it belong to one output each, or to none
    design[:, :shared] *= np.arange(k)[:, None] == rng.integers(-1, k, size=shared)
    design, residual = torch.tensor(design), torch.tensor(rng.standard_normal(k))
    noise = torch.tensor(rng.uniform(0.5, 2.0, k))
    plain = Gaussian(torch.tensor(rng.standard_normal(n)), covariance)
    compiled = Gaussian(plain.mean, covariance.clone())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conjugate, 'load', lambda: None)
        expected = plain.predict(design, noise)
        after = plain.condition(expected, residual)
    found = compiled.predict(design, noise)
    for name in ('mean', 'gain', 'epistemic', 'inverse'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    for in_place in (False, True):
        learned = compiled.condition(found, residual, in_place)
        again = learned.predict(design, noise)  # reads the upper triangle only
        torch.testing.assert_close(again.epistemic, design @ after.covariance @ design.T)
        wider = learned.widen(torch.eye(n, dtype=torch.float64), 0.1)
        torch.testing.assert_close(
            wider.covariance, after.widen(torch.eye(n, dtype=torch.float64), 0.1).covariance
        )
        torch.testing.assert_close(learned.mean, after.mean)
        torch.testing.assert_close(learned.covariance, after.covariance)
        assert torch.equal(learned.covariance, learned.covariance.T)
