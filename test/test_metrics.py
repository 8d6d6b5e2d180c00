"""Lives and their figures of merit, against what is plain by hand."""

import numpy as np
import pytest

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.metrics import summarise, t90
from lifelong_bayes_ros.experiments.schedule import Life, load_life

REGIMES = {'A': [], 'B': [{'payload': {'mass': 1.0}}], 'C': []}


def life(*phases) -> Life:
    return Life(robot='quad', regimes=REGIMES, phases=list(phases))


def scores(*parts) -> np.ndarray:
    return np.concatenate([np.full(steps, value) for value, steps in parts])


# ---------------------------------------------------------------------- t90
ORACLE = np.ones(200)


def test_t90_is_zero_for_who_is_as_good_from_the_start():
    assert t90(ORACLE, ORACLE) == 0
    assert t90(0.9 * ORACLE + 1e-9, ORACLE) == 0


def test_t90_is_none_for_who_never_gets_there():
    assert t90(0.89 * ORACLE, ORACLE) is None


def test_t90_is_the_first_step_of_the_first_good_window():
    # A window of 25 from step 38 on has 2 bad and 23 good steps, 92 %; from 37 on, 88 %.
    assert t90(scores((0.0, 40), (1.0, 160)), ORACLE) == 38


def test_t90_does_not_count_a_recovery_that_does_not_last():
    ours = scores((0.0, 40), (1.0, 50), (0.0, 30), (1.0, 80))
    assert t90(ours, ORACLE) == 118


def test_t90_compares_with_the_oracle_of_the_same_steps():
    oracle = scores((0.2, 30), (1.0, 170))
    assert t90(oracle, oracle) == 0
    assert t90(np.full(200, 0.2), oracle) is None


@pytest.mark.parametrize('steps', [1, 10, 24, 25, 40])
def test_t90_of_a_phase_shorter_than_its_windows_is_that_of_the_whole_phase(steps):
    assert t90(np.ones(steps), np.ones(steps)) == 0
    assert t90(np.full(steps, 0.5), np.ones(steps)) is None


# ---------------------------------------------------------------------- summary
def test_a_summary_is_the_means_by_phase_and_their_ratios():
    plan = life(('A', 100), ('B', 300))
    ours = scores((0.9, 100), (0.6, 300))
    frozen = scores((0.8, 100), (0.4, 300))
    oracle = scores((1.0, 100), (0.8, 300))
    summary = summarise(plan, ours, frozen, oracle)
    assert summary.ours == pytest.approx(0.675)
    assert summary.frozen == pytest.approx(0.5)
    assert summary.oracle == pytest.approx(0.85)
    assert summary.gap_closed == pytest.approx(0.5)
    assert summary.home == pytest.approx(1.125)
    assert [(p.regime, p.first, p.last, p.t90) for p in summary.phases] == [
        ('A', 0, 100, 0),
        ('B', 100, 400, None),
    ]
    assert summary.phases[1].ours == pytest.approx(0.6)
    assert summary.phases[1].frozen == pytest.approx(0.4)
    assert summary.phases[1].oracle == pytest.approx(0.8)


def test_frozen_closes_none_of_the_gap_and_the_oracle_all_of_it():
    plan, frozen, oracle = life(('A', 50)), np.full(50, 0.3), np.full(50, 0.7)
    assert summarise(plan, frozen, frozen, oracle).gap_closed == pytest.approx(0)
    assert summarise(plan, oracle, frozen, oracle).gap_closed == pytest.approx(1)
    assert np.isnan(summarise(plan, oracle, frozen, frozen).gap_closed)


# ---------------------------------------------------------------------- schedule
def test_a_phase_begins_at_its_first_step_and_ends_before_the_next():
    plan = life(('A', 10), ('B', 5), ('A', 3))
    assert plan.boundaries == [0, 10, 15, 18]
    assert plan.steps == 18
    assert plan.home_steps() == 10
    steps = [0, 9, 10, 14, 15, 17, 18, 1000]
    assert [plan.phase_at(s) for s in steps] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert [plan.regime_at(s) for s in steps] == list('AABBAAAA')
    assert plan.shift_dicts_at(12) == REGIMES['B']
    assert plan.shift_dicts_at(16) == []


@pytest.mark.parametrize('name', ['quad', 'arm'])
def test_shipped_lives_begin_at_home_and_come_back(name):
    plan = load_life(name)
    assert plan.robot == name
    assert plan.shift_dicts_at(0) == []
    names = [regime for regime, _ in plan.phases]
    assert len(names) > len(set(names))
    load_life(name)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('phases: [[X, 10]]', ['unknown regime', 'X', 'A']),
        ('phases: [[A, 0]]', ['phases.0.1', '0']),
        ('phases: []', ['phases']),
        ('phases: [[A, 10]]\nepisodes: 3', ['episodes', 'unknown key']),
    ],
)
def test_a_life_that_cannot_be_lived_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / 'life.yaml'
    path.write_text(f'robot: quad\nregimes: {{A: []}}\n{text}\n')
    with pytest.raises(UserError) as caught:
        load_life(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_an_unknown_life_lists_those_there_are():
    with pytest.raises(
        UserError, match=r'submarine.*arm, cartpole, diffdrive, quad, .*outside/quad_drag'
    ):
        load_life('submarine')
