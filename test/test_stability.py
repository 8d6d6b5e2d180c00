"""The exact head after very many updates, against extended precision; the long run is a bench."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.experiments.bench_stability import (
    Data,
    Wide,
    by_doubling,
    deviation,
    from_statistics,
    run,
    solve,
)
from lifelong_bayes_ros.learning.background import WALK_EVERY


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 2500))
def test_conditioning_equals_the_sufficient_statistics_of_all_data(seed, outputs, features, count):
    data = Data.drawn(seed, outputs, features)
    found = deviation(run(data, count), from_statistics(data, count))
    assert found.mean < 1e-6
    assert found.covariance < 1e-6
    assert found.asymmetry < 1e-9
    assert found.least > 0


def by_recursion(data, updates, share):
    """The textbook's recursion with a walk, in Joseph's form."""
    eye, noise = np.eye(data.size, dtype=Wide), np.diag(data.noise.astype(Wide))
    mean, covariance = np.zeros(data.size, Wide), eye
    for number in range(updates):
        if (number + 1) % WALK_EVERY == 0:
            covariance = (1 - Wide(share)) * covariance + Wide(share) * eye
        at = number % len(data.design)
        h, y = data.design[at].astype(Wide), data.target[at].astype(Wide)
        cross = covariance @ h.T
        gain = cross @ solve(h @ cross + noise, np.eye(len(h), dtype=Wide))
        mean = mean + gain @ (y - h @ mean)
        rest = eye - gain @ h
        covariance = rest @ covariance @ rest.T + gain @ noise @ gain.T
    return mean, covariance


@settings(max_examples=10)
@given(
    st.integers(0, 1000),
    st.floats(1e-4, 0.1),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 600),
    st.sampled_from((1, 3, 8, 12)),
)
def test_the_reference_with_a_walk_equals_the_recursion(
    seed, share, outputs, features, count, pool
):
    drawn = Data.drawn(seed, outputs, features)  # few of them: many rounds are composed
    data = Data(drawn.design[:pool], drawn.target[:pool], drawn.noise)
    mean, covariance = by_doubling(data, count, share)
    wanted, spread = by_recursion(data, count, share)
    sd = np.sqrt(np.diag(spread))
    np.testing.assert_allclose((mean / sd).astype(float), (wanted / sd).astype(float), atol=1e-9)
    scale = np.outer(sd, sd)
    np.testing.assert_allclose(
        (covariance / scale).astype(float), (spread / scale).astype(float), atol=1e-12
    )


@settings(max_examples=6)
@given(st.integers(0, 1000), st.floats(1e-4, 0.1))
def test_with_a_random_walk_it_equals_the_reference(seed, share):
    data = Data.drawn(seed, 2, 4)
    found = deviation(run(data, 600, share), by_doubling(data, 600, share))
    assert found.mean < 1e-6
    assert found.covariance < 1e-6
    assert found.least > 0


def test_both_references_agree_where_nothing_is_forgotten():
    data = Data.drawn(3, 2, 3)
    for one, two in zip(from_statistics(data, 500), by_doubling(data, 500, 0.0), strict=True):
        np.testing.assert_allclose(one.astype(float), two.astype(float), rtol=1e-9)


def test_a_posterior_that_is_off_is_seen():
    data = Data.drawn(4, 1, 3)
    reference = from_statistics(data, 200)
    good = run(data, 200)
    wrong = Gaussian(good.mean, 1.01 * good.covariance)
    assert deviation(wrong, reference).covariance == pytest.approx(0.01, rel=1e-3)
    shifted = Gaussian(good.mean + good.covariance.diag().sqrt(), good.covariance)
    assert deviation(shifted, reference).mean > 0.5


def test_what_is_solved_is_solved():
    matrix = np.array([[0, 1, 0], [1, 3, 1], [0, 1, 2]], np.longdouble)  # rows must be exchanged
    right = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]], np.longdouble)
    np.testing.assert_allclose((matrix @ solve(matrix, right)).astype(float), right, atol=1e-17)
