"""The regime filter is honest: what it holds for p comes true in a share p of worlds."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros.memory.regimes import RegimeFilter

HAZARD, WORLDS, STEPS = 0.03, 250, 60
NAMES = ('nominal', 'r1', 'r2')


@cache
def worlds(apart: float, seed: int = 0, resolution: float = 0.15):
    """Probabilities [worlds, steps, regimes] of regimes whose readings lie `apart`; the truth."""
    rng = np.random.default_rng(seed)
    centres = apart * np.arange(len(NAMES))
    told = np.zeros((WORLDS, STEPS, len(NAMES)))
    truth = np.zeros((WORLDS, STEPS), int)
    for world in range(WORLDS):
        found = RegimeFilter(HAZARD, resolution, {'nominal': 1.0})
        regime = 0
        for step in range(STEPS):
            if rng.random() < HAZARD:
                regime = int(rng.integers(len(NAMES)))
            reading = centres[regime] + rng.standard_normal()
            evidence = -0.5 * (reading - centres) ** 2
            found.update(dict(zip(NAMES, evidence.tolist(), strict=True)))
            told[world, step] = [found.probabilities[n] for n in NAMES]
            truth[world, step] = regime
    return told, truth


def reliability(told, truth, low, high):
    """Mean of the probabilities within bounds, how often they came true, and how many."""
    right = truth[..., None] == np.arange(told.shape[-1])
    chosen = (told >= low) & (told < high)
    return told[chosen].mean(), right[chosen].mean(), chosen.sum()


def test_regimes_that_cannot_be_told_apart_are_as_likely_as_the_hazard_makes_them():
    told, truth = worlds(apart=0.0)
    kept = (1 - HAZARD) ** np.arange(1, STEPS + 1)
    np.testing.assert_allclose(told[0, :, 0], kept + (1 - kept) / 3, atol=1e-12)
    for step in (10, 30, 59):
        came_true = np.mean(truth[:, step] == 0)
        assert told[0, step, 0] == pytest.approx(came_true, abs=4 * np.sqrt(0.25 / WORLDS))


@pytest.mark.parametrize('apart', [1.0, 2.0, 4.0])
@pytest.mark.parametrize('band', [(0.0, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1.01)])
def test_probabilities_come_true_as_often_as_they_say(apart, band):
    told, truth = worlds(apart)
    said, came_true, count = reliability(told, truth, *band)
    assert count > 50
    assert came_true == pytest.approx(said, abs=0.08)


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.floats(-50, 5), min_size=3, max_size=3), min_size=1, max_size=60),
    st.integers(0, 2),
)
def test_small_lasting_differences_do_not_add_up_and_all_stays_a_distribution(steps, start):
    found = RegimeFilter(0.05, probabilities={NAMES[start]: 1.0})
    for evidence in steps:
        found.update(dict(zip(NAMES, evidence, strict=True)))
        p = np.array([found.probabilities[n] for n in NAMES])
        assert (p >= 0).all()
        assert p.sum() == pytest.approx(1.0)
    for _ in range(150):  # heads that are wrong by a little, for a long time
        found.update({'nominal': 2.2, 'r1': 2.1, 'r2': 2.15})
    assert min(found.probabilities.values()) == pytest.approx(1 / 3, abs=1e-3)
    for _ in range(20):  # and it is moved at once by what tells them apart
        found.update({'nominal': -2.0, 'r1': 2.1, 'r2': -3.0})
    assert found.probabilities['r1'] > 0.98
