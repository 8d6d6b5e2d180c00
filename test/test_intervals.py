"""Intervals that hold what they promise: against coverage counted, whatever the noise is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.dynamics.noise import Noise
from lifelong_bayes_ros.learning.intervals import (
    COVER,
    NARROWEST,
    RATE,
    WIDEST,
    Intervals,
    student_quantile,
)

NO_SPREAD = np.zeros(2)


def told(variance: float) -> Noise:
    return Noise.start(np.full(2, variance), np.full(2, variance))


def test_it_starts_as_the_noise_says():
    assert Intervals.start(2).variance(told(0.3)) == pytest.approx(np.full(2, 0.3))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(1.8, 8.0), st.sampled_from(('normal', 'sign', 'waves')))
def test_ninety_of_a_hundred_errors_are_held_though_the_noise_is_told_wrongly(seed, factor, kind):
    rng = np.random.default_rng(seed)
    steps, noise = 4000, told(1.0)
    errors = factor * rng.standard_normal((steps, 2))
    if kind == 'sign':  # as of dry friction: never small
        errors = factor * np.sign(errors) + 0.1 * rng.standard_normal((steps, 2))
    elif kind == 'waves':  # misfit that depends on the state
        errors *= 1 + np.abs(np.sin(0.01 * np.arange(steps)))[:, None]
    intervals, inside = Intervals.start(2), 0.0
    for error in errors:
        inside += intervals.update(error, NO_SPREAD, noise) / steps
    # All moves of the log width add up to what is left of it in the end.
    assert inside == pytest.approx(COVER, abs=np.log(WIDEST) / (RATE * steps) + 1e-9)
    sd = np.sqrt(intervals.variance(noise))
    assert ((sd > NARROWEST * 0.999) & (sd < WIDEST * 1.001)).all()


def test_an_output_that_is_told_rightly_keeps_its_width():
    rng = np.random.default_rng(0)
    intervals, noise, widths = Intervals.start(2), told(1.0), []
    for error in rng.standard_normal((3000, 2)) * (1.0, 4.0):
        intervals.update(error, NO_SPREAD, noise)
        widths.append(np.sqrt(intervals.variance(noise)))
    held = 1.6449 / student_quantile(noise.dof)  # normal errors, and intervals of a Student-t
    assert np.mean(widths[500:], axis=0) == pytest.approx(np.array([held, 4 * held]), rel=0.1)


def test_what_is_not_known_of_the_model_counts_too():
    intervals, noise = Intervals.start(2), told(1.0)
    assert intervals.update(np.array([5.0, 5.0]), np.array([24.0, 0.0]), noise) == 0.5


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
def test_no_error_makes_it_wider_than_it_may_be(errors):
    intervals = Intervals.start(2)
    for error in errors:
        intervals.update(np.full(2, error), NO_SPREAD, told(1e-6))
    assert np.isfinite(intervals.log_width).all()
    assert (intervals.log_width <= np.log(WIDEST)).all()
    assert (intervals.log_width >= np.log(NARROWEST)).all()


@pytest.mark.parametrize(
    ('dof', 'quantile'),
    [(11, 1.7959), (20, 1.7247), (30, 1.6973), (40, 1.6839), (60, 1.6706), (120, 1.6577)],
)
def test_interval_quantiles_are_those_of_the_table(dof, quantile):
    assert student_quantile(dof) == pytest.approx(quantile, abs=1e-3)
