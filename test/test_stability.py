"""The exact head after very many updates, against extended precision; the long run is a bench."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.blr import Gaussian
from lifelong_bayes_ros.experiments.bench_stability import (
    Data,
    by_recursion,
    deviation,
    from_statistics,
    inverse,
    run,
)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 2500))
def test_conditioning_equals_the_sufficient_statistics_of_all_data(seed, outputs, features, count):
    data = Data.drawn(seed, outputs, features)
    found = deviation(run(data, count), from_statistics(data, count))
    assert found.mean < 1e-6
    assert found.covariance < 1e-6
    assert found.asymmetry < 1e-9
    assert found.least > 0


@settings(max_examples=6)
@given(st.integers(0, 1000), st.floats(1e-4, 0.1))
def test_with_a_random_walk_it_equals_the_recursion(seed, share):
    data = Data.drawn(seed, 2, 4)
    found = deviation(run(data, 600, share), by_recursion(data, 600, share))
    assert found.mean < 1e-6
    assert found.covariance < 1e-6
    assert found.least > 0


def test_both_references_agree_where_nothing_is_forgotten():
    data = Data.drawn(3, 2, 3)
    for one, two in zip(from_statistics(data, 500), by_recursion(data, 500, 0.0), strict=True):
        np.testing.assert_allclose(one.astype(float), two.astype(float), rtol=1e-9)


def test_a_posterior_that_is_off_is_seen():
    data = Data.drawn(4, 1, 3)
    reference = from_statistics(data, 200)
    good = run(data, 200)
    wrong = Gaussian(good.mean, 1.01 * good.covariance)
    assert deviation(wrong, reference).covariance == pytest.approx(0.01, rel=1e-3)
    shifted = Gaussian(good.mean + good.covariance.diag().sqrt(), good.covariance)
    assert deviation(shifted, reference).mean > 0.5


def test_the_inverse_is_one():
    matrix = np.array([[4, 1, 0], [1, 3, 1], [0, 1, 2]], np.longdouble)
    np.testing.assert_allclose((inverse(matrix) @ matrix).astype(float), np.eye(3), atol=1e-17)
