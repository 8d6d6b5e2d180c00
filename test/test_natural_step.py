"""The rule on full Gaussians and mixtures, against exact regression and numerical integration."""

import numpy as np
import pytest
import torch

from lifelong_bayes_ros.blr import (
    Gaussian,
    ImproperPosteriorError,
    Mixture,
    elbo,
    natural_step,
)

F64 = torch.float64
DEGREE, NOISE = 15, 0.04


def standard(n: int) -> Gaussian:
    return Gaussian(torch.zeros(n, dtype=F64), torch.eye(n, dtype=F64))


def polynomial(seed: int, n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    y = np.sin(3 * x) + 0.2 * rng.standard_normal(n)
    return torch.tensor(np.vander(x, DEGREE + 1, increasing=True)), torch.tensor(y)


def learn(q: Gaussian, design: torch.Tensor, y: torch.Tensor) -> Gaussian:
    for h, target in zip(design, y):
        innovation = q.predict(h[None], torch.tensor([NOISE], dtype=F64))
        q = q.condition(innovation, target[None] - innovation.mean)
    return q


def batch(design: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by a QR of prior and data stacked: no normal equations."""
    rows = np.vstack([np.eye(design.shape[1]), design.numpy() / np.sqrt(NOISE)])
    targets = np.concatenate([np.zeros(design.shape[1]), y.numpy() / np.sqrt(NOISE)])
    q, r = np.linalg.qr(rows)
    inverse = np.linalg.inv(r)
    return inverse @ (q.T @ targets), inverse @ inverse.T


@pytest.mark.parametrize('seed', range(3))
def test_sequential_regression_of_degree_15_equals_batch(seed):
    design, y = polynomial(seed)
    q = learn(standard(DEGREE + 1), design, y)
    mean, covariance = batch(design, y)
    np.testing.assert_allclose(q.mean, mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(q.covariance, covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize('seed', range(3))
def test_removed_equals_never_seen(seed):
    design, y = polynomial(seed)
    start = standard(DEGREE + 1)
    both = learn(start, design, y)
    episode = learn(start, design[40:], y[40:])
    without = both.multiply(start, divide=episode)
    mean, covariance = batch(design[:40], y[:40])
    np.testing.assert_allclose(without.mean, mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(without.covariance, covariance, rtol=0, atol=1e-9)


def test_one_step_with_rho_1_is_bayesian_linear_regression():
    design, y = polynomial(3)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return 0.5 * (design @ theta - y).square().sum() / NOISE + 0.5 * theta.square().sum()

    start = Gaussian(torch.full((16,), 0.3, dtype=F64), 0.5 * torch.eye(16, dtype=F64))
    q = natural_step(start, loss, 1.0, positive=False, generator=torch.Generator().manual_seed(0))
    mean, covariance = batch(design, y)
    np.testing.assert_allclose(q.mean, mean, atol=1e-8)
    np.testing.assert_allclose(q.covariance, covariance, atol=1e-9)


def test_logistic_regression_equals_numerical_integration():
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(40, 2)))
    labels = torch.tensor((rng.uniform(size=40) < 1 / (1 + np.exp(-(x.numpy() @ [2, -1])))) * 1.0)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        logits = x @ theta
        likelihood = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction='sum'
        )
        return likelihood + 0.5 * theta.square().sum() / 4

    q, generator = standard(2), torch.Generator().manual_seed(0)
    for step in range(150):
        q = natural_step(q, loss, 0.3 if step < 30 else 0.05, generator=generator)
    axis = torch.linspace(-6, 9, 401, dtype=F64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing='ij'), dim=-1).reshape(-1, 2)
    weight = torch.softmax(-torch.func.vmap(loss)(grid), dim=0)
    mean = weight @ grid
    variance = weight @ (grid - mean).square()
    torch.testing.assert_close(q.mean, mean, rtol=0.05, atol=0)
    torch.testing.assert_close(torch.diagonal(q.covariance), variance, rtol=0.05, atol=0)


def two_hills(theta: torch.Tensor) -> torch.Tensor:
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=F64)
    odds = torch.tensor([0.3, 0.7], dtype=F64).log()
    return -torch.logsumexp(odds - (theta - centres).square().sum(dim=1) / 0.5, dim=0)


def test_a_mixture_beats_one_gaussian_on_two_hills():
    generator = torch.Generator().manual_seed(0)
    single = standard(2)
    parts = [
        Gaussian(torch.tensor([s, 0.0], dtype=F64), torch.eye(2, dtype=F64)) for s in (-1.0, 1.0)
    ]
    mixture = Mixture(torch.ones(2, dtype=F64), parts)
    for _ in range(150):
        single = natural_step(single, two_hills, 0.1, generator=generator)
        mixture = natural_step(mixture, two_hills, 0.1, generator=generator)
    evidence = float(np.log(np.pi * 0.5))
    assert float(elbo(mixture, two_hills)) == pytest.approx(evidence, abs=0.02)
    assert float(elbo(single, two_hills)) < evidence - 0.25
    assert sorted(mixture.weights.tolist()) == pytest.approx([0.3, 0.7], abs=0.03)


def test_negative_curvature_is_an_error_without_the_second_order_term_only():
    def hill(theta: torch.Tensor) -> torch.Tensor:
        return -theta.square().sum()

    with pytest.raises(ImproperPosteriorError):
        natural_step(standard(2), hill, 0.9, positive=False)
    assert bool((torch.diagonal(natural_step(standard(2), hill, 0.9).covariance) > 0).all())
    with pytest.raises(ValueError, match='rho=1'):
        natural_step(standard(2), hill, 1.5)
