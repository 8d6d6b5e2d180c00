"""One contract over every posterior, and each class against an independent computation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import (
    DiagonalGaussian,
    ExponentialFamily,
    Gaussian,
    ImproperPosteriorError,
    LowRankGaussian,
    Mixture,
    NormalInverseGamma,
)

SIZE = 4


def rng_tensors(seed: int) -> tuple[np.random.Generator, callable]:
    rng = np.random.default_rng(seed)
    return rng, lambda a: torch.tensor(np.asarray(a, dtype=float))


def diagonal(seed: int, strength: float = 1.0) -> DiagonalGaussian:
    rng, t = rng_tensors(seed)
    return DiagonalGaussian(t(rng.normal(size=SIZE)), t(strength * rng.uniform(0.5, 3.0, SIZE)))


def full(seed: int, strength: float = 1.0) -> Gaussian:
    rng, t = rng_tensors(seed)
    root = rng.normal(size=(SIZE, SIZE))
    return Gaussian(t(rng.normal(size=SIZE)), t((root @ root.T + np.eye(SIZE)) / strength))


def low_rank(seed: int, strength: float = 1.0) -> LowRankGaussian:
    rng, t = rng_tensors(seed)
    return LowRankGaussian(
        t(rng.normal(size=SIZE)),
        t(strength * rng.uniform(0.5, 3.0, SIZE)),
        t(math.sqrt(strength) * rng.normal(size=(SIZE, 2))),
        t([1.0, 0.5]),
    )


def regression(seed: int, strength: float = 1.0) -> NormalInverseGamma:
    rng, t = rng_tensors(seed)
    root = rng.normal(size=(SIZE - 1, SIZE - 1))
    precision = strength * (root @ root.T + np.eye(SIZE - 1))
    mean = rng.normal(size=SIZE - 1)
    # Factors share the evidence, as learned ones do: b keeps up with the mean's disagreement.
    return NormalInverseGamma(t(mean), t(precision), t(3.0 * strength), t(20.0 * strength))


def mixture(seed: int, strength: float = 1.0) -> Mixture:
    _, t = rng_tensors(seed)
    return Mixture(t([0.3, 0.7]), [full(seed, strength), full(seed + 100, strength)])


MAKERS = {
    'diagonal': diagonal,
    'full': full,
    'low_rank': low_rank,
    'regression': regression,
    'mixture': mixture,
}


def single(name: str, seed: int, strength: float = 1.0):
    """A posterior that may be divided by: of a mixture, a component."""
    return full(seed, strength) if name == 'mixture' else MAKERS[name](seed, strength)


def points(posterior, seed: int = 0) -> torch.Tensor:
    return posterior.sample(7, torch.Generator().manual_seed(seed))


def assert_equal_densities(one, two, tolerance: float = 1e-8) -> None:
    theta = points(one)
    torch.testing.assert_close(
        one.log_prob(theta), two.log_prob(theta), rtol=tolerance, atol=tolerance
    )


@pytest.fixture(params=MAKERS)
def name(request) -> str:
    return request.param


def test_natural_parameters_round_trip(name):
    q = MAKERS[name](1)
    assert_equal_densities(q, type(q).from_natural(*q.natural()))


def test_state_round_trip_is_exact(name):
    q = MAKERS[name](2)
    back = type(q).from_state({k: v.clone() for k, v in q.state().items()})
    theta = points(q)
    assert torch.equal(q.log_prob(theta), back.log_prob(theta))
    assert torch.equal(points(q), points(back))


def test_multiply_adds_log_densities_up_to_a_constant(name):
    p, q = MAKERS[name](3), single(name, 4)
    theta = points(p)
    ratio = p.multiply(q).log_prob(theta) - p.log_prob(theta) - q.log_prob(theta)
    torch.testing.assert_close(ratio, ratio[:1].expand(7), rtol=0, atol=1e-9)


def test_divide_undoes_multiply(name):
    p, q = MAKERS[name](5), single(name, 6)
    assert_equal_densities(p, p.multiply(q).divide(q))
    assert_equal_densities(p, p.multiply(q, divide=q))


def test_merge_counts_the_prior_once(name):
    prior, first, second = single(name, 7, 0.2), MAKERS[name](8), single(name, 9)
    merged = first.multiply(prior).merge(second.multiply(prior), prior=prior)
    assert_equal_densities(merged, first.multiply(second).multiply(prior))


def test_taking_out_more_than_was_put_in_is_an_error(name):
    with pytest.raises(ImproperPosteriorError, match='positive'):
        MAKERS[name](10).divide(single(name, 11, 50.0))


def test_samples_have_the_mean_parameters(name):
    q = MAKERS[name](12)
    draws = q.sample(200_000, torch.Generator().manual_seed(0))
    mean = draws.mean(dim=0)
    if name == 'regression':
        p = 1 / draws[:, -1]
        torch.testing.assert_close(-p.mean(), q.moments()[3], rtol=0.02, atol=0.02)
        weighted = (p[:, None] * draws[:, :-1]).mean(dim=0)
        torch.testing.assert_close(weighted, q.moments()[0], rtol=0.05, atol=0.02)
    elif name == 'mixture':
        expected = q.moments()[1].sum(dim=0)
        torch.testing.assert_close(mean, expected, rtol=0.03, atol=0.03)
    else:
        torch.testing.assert_close(mean, q.moments()[0], rtol=0.03, atol=0.03)
        second = -0.5 * draws.T @ draws / len(draws)
        expected = q.moments()[1]
        second = second if expected.ndim == 2 else torch.diagonal(second)
        torch.testing.assert_close(second, expected, rtol=0.05, atol=0.05)


def test_antithetic_draws_have_no_error_in_the_mean(name):
    q = MAKERS[name](13)
    draws = q.antithetic(5, torch.Generator().manual_seed(0))
    assert draws.shape == (10, q.size)
    if name == 'mixture':
        centres = torch.stack([c.mean for c in q.components])
        middle = (draws[:5] + draws[5:]) / 2
        assert torch.cdist(middle, centres).min(dim=1).values.max() < 1e-12
    elif name == 'regression':
        torch.testing.assert_close(draws[:, :-1].mean(dim=0), q.mean)
        assert torch.equal(draws[:5, -1], draws[5:, -1])
    else:
        torch.testing.assert_close(draws.mean(dim=0), q.mean)


def test_log_prob_is_the_exponential_family_of_its_parameters(name):
    """KL and entropy against the identities of λ, E[T] and A(λ), which share no code."""
    p, q = MAKERS[name](14), MAKERS[name](15)
    if not isinstance(p, ExponentialFamily):
        pytest.skip('a mixture has no log partition')

    def inner(natural, moments):
        return sum((a * b).sum() for a, b in zip(natural, moments, strict=True))

    entropy = p.log_partition() - inner(p.natural(), p.moments())
    torch.testing.assert_close(p.entropy(), entropy, rtol=1e-9, atol=1e-9)
    if name != 'low_rank':  # there E[T] is seen through one's own directions only
        bregman = (
            q.log_partition()
            - p.log_partition()
            - inner([b - a for a, b in zip(p.natural(), q.natural())], p.moments())
        )
        torch.testing.assert_close(p.kl(q), bregman, rtol=1e-9, atol=1e-9)


def test_entropy_and_kl_equal_monte_carlo(name):
    p, q = MAKERS[name](16), MAKERS[name](17)
    draws = p.sample(200_000, torch.Generator().manual_seed(1))
    log_p, log_q = p.log_prob(draws), q.log_prob(draws)
    assert float(p.entropy()) == pytest.approx(-float(log_p.mean()), abs=0.05)
    assert float(p.kl(q)) == pytest.approx(float((log_p - log_q).mean()), rel=0.05)
    assert float(p.kl(p)) == pytest.approx(0, abs=1e-9)


def test_densities_integrate_to_one(name):
    """Importance sampling under a wider posterior of another seed."""
    q, proposal = MAKERS[name](18), MAKERS[name](18, 0.5)
    draws = proposal.sample(200_000, torch.Generator().manual_seed(2))
    weight = (q.log_prob(draws) - proposal.log_prob(draws)).exp()
    assert float(weight.mean()) == pytest.approx(1, abs=0.05)


def test_sizes_that_differ_are_named():
    with pytest.raises(ValueError, match='of 1 parameters does not combine'):
        diagonal(0).multiply(DiagonalGaussian(torch.zeros(1), torch.ones(1)))
    with pytest.raises(ValueError, match=r'\(4,\) and precision \(3,\)'):
        DiagonalGaussian(torch.zeros(4), torch.ones(3))
    with pytest.raises(ValueError, match=r'factor \(3, 2\)'):
        LowRankGaussian(torch.zeros(4), torch.ones(4), torch.zeros(3, 2), torch.ones(2))
    with pytest.raises(ValueError, match='as many weights'):
        Mixture(torch.ones(3), [diagonal(0)])
    with pytest.raises(ValueError, match='mixture of 2 components'):
        mixture(0).divide(mixture(1))
    with pytest.raises(ImproperPosteriorError, match='precision'):
        DiagonalGaussian(torch.zeros(2), torch.tensor([1.0, float('nan')]))


@given(st.integers(0, 10_000))
def test_low_rank_equals_the_full_gaussian(seed):
    p, q = low_rank(seed), low_rank(seed + 1)
    dense = [Gaussian.from_natural(x.natural()[0], x.precision()) for x in (p, q)]
    assert_equal_densities(p, dense[0])
    assert_equal_densities(p.multiply(q), dense[0].multiply(dense[1]))
    assert p.multiply(q).divide(q).rank == 2
    torch.testing.assert_close(p.kl(q), dense[0].kl(dense[1]), rtol=1e-7, atol=1e-7)


def test_compress_keeps_the_diagonal_and_the_strongest_directions():
    p = low_rank(0).multiply(low_rank(1))
    assert p.rank == 4
    small = p.compress(2)
    assert small.rank == 2
    torch.testing.assert_close(torch.diagonal(small.precision()), torch.diagonal(p.precision()))
    assert_equal_densities(p.compress(4), p)
    assert float(p.kl(small)) < float(p.kl(p.compress(0)))


def test_regression_head_equals_numpy_and_its_predictive_is_a_student_t():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 * rng.standard_normal(50)
    prior = NormalInverseGamma(
        torch.zeros(3, dtype=torch.float64),
        torch.eye(3, dtype=torch.float64),
        *(torch.tensor(v, dtype=torch.float64) for v in (2.0, 0.5)),
    )
    q = prior
    for i in range(50):
        q = q.condition(torch.tensor(x[i : i + 1]), torch.tensor(y[i : i + 1]))
    precision = np.eye(3) + x.T @ x
    mean = np.linalg.solve(precision, x.T @ y)
    np.testing.assert_allclose(q.mean, mean, rtol=1e-10)
    assert float(q.a) == pytest.approx(27)
    b = 0.5 + 0.5 * (y @ y - mean @ precision @ mean)
    assert float(q.b) == pytest.approx(b)
    # Predictive by integrating the posterior over draws.
    at = torch.tensor(rng.normal(size=(1, 3)))
    draws = q.sample(400_000, torch.Generator().manual_seed(0))
    y_at = 0.4
    likelihood = torch.distributions.Normal(draws[:, :-1] @ at[0], draws[:, -1].sqrt())
    mixed = likelihood.log_prob(torch.tensor(y_at)).exp().mean().log()
    exact = q.predict(at).log_prob(torch.tensor(y_at))
    assert float(exact[0]) == pytest.approx(float(mixed), abs=0.01)


def test_responsibilities_are_bayes_rule():
    m = mixture(3)
    theta = points(m)
    joint = torch.stack([w * c.log_prob(theta).exp() for w, c in zip(m.weights, m.components)])
    torch.testing.assert_close(m.responsibilities(theta), joint / joint.sum(dim=0))
