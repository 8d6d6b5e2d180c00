"""Lives and their figures of merit, against what is plain by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.life import Trace
from lifelong_bayes_ros.experiments.metrics import (
    Figures,
    bootstrap,
    figures,
    summarise,
    t90,
)
from lifelong_bayes_ros.experiments.published import row
from lifelong_bayes_ros.experiments.record import Run
from lifelong_bayes_ros.experiments.report import describe
from lifelong_bayes_ros.experiments.rows import life_rows
from lifelong_bayes_ros.experiments.schedule import Life, life_names, load_life, load_lives
from lifelong_bayes_ros.learning.report import Event

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


# ---------------------------------------------------------------------- a run in full
PLAN = life(('A', 100), ('B', 100), ('A', 100), ('B', 60))
BOUNDS = [0, 100, 200, 300, 360]


def run(method: str = 'ours', score: float | np.ndarray = 0.5, **columns) -> Run:
    """A run of `PLAN` in which nothing happens but what is given."""
    n, phases = PLAN.steps, len(PLAN.phases)
    plain = {
        'score': np.full(n, score),
        'crashed': np.zeros(n, bool),
        'epistemic': np.full(n, 0.1),
        'aleatoric': np.full(n, 0.2),
        'error': np.full(n, 0.04),
        'nis': np.ones(n),
        'inside': np.full(n, 0.9),
        'regimes': [{'nominal': 1.0, 'r1': 0.0}] * n,
        'events': [],
        'plan_seconds': np.full(n, 2e-3),
        'learn_seconds': np.full(n, 2e-3),
        'learn_cpu': np.full(n, 1e-3),
        'background_cpu': np.full(n, 3e-3),
    }
    off = columns.pop('off_policy', [[0.1, 0.2]] * phases)
    trace = Trace(**{k: v if isinstance(v, list) else v.tolist() for k, v in plain.items()})
    for name, value in columns.items():
        setattr(trace, name, value if isinstance(value, list) else value.tolist())
    flat = {5: [0.1] * phases, 15: [0.3] * phases}
    return Run('quad', PLAN, method, 7, 0.1, ['x', 'v'], trace, off, flat, flat, 1000)


def judged(frozen: float = 0.2, oracle: float = 0.8, **columns) -> Figures:
    return figures(run(**columns), run('frozen', frozen), run('oracle', oracle))


def happen(*events: tuple) -> list[Event]:
    return [Event(kind, 0, step, detail) for kind, step, detail in events]


def test_scores_of_a_run_are_compared_with_the_frozen_model_and_the_oracle():
    score = scores((0.3, 100), (0.5, 100), (0.2, 100), (0.8, 60))
    f = judged(score=score)
    assert f.gap_closed == pytest.approx((score.mean() - 0.2) / 0.6)
    assert f.home == pytest.approx(1.5)
    assert [p.score for p in f.phases] == pytest.approx([0.3, 0.5, 0.2, 0.8])
    assert [p.shift for p in f.phases] == [False, True, True, True]
    assert [p.visit for p in f.phases] == [1, 1, 2, 2]
    assert f.worst_phase == pytest.approx(0.0)
    # A step is 0.1 s: the last 30 s are 300 steps.
    assert f.gap_closed_end == pytest.approx((score[60:].mean() - 0.2) / 0.6)
    assert [p.t90 for p in f.phases] == [None, None, None, 0]


def test_the_worst_window_and_the_drop_are_running_means():
    score = np.full(360, 0.6)
    score[150:190] = 0.0
    score[20:70] = 0.0  # before the first shift: harm is counted after it
    f = judged(score=score)
    assert f.worst_window == pytest.approx(10 / 50 * 0.6 - 0.2)
    assert [p.drop for p in f.phases] == pytest.approx([0.0, 0.0, 0.6, 0.6])


def test_coverage_and_errors_count_steps_from_the_shift():
    inside, error = np.full(360, 0.9), np.full(360, 0.04)
    inside[100:110], inside[110:125] = 0.2, 0.6
    error[100:105], error[105:110], error[110:125] = 1.0, 0.25, 0.09
    inside[150] = error[130] = np.nan  # a crash tells nothing
    phase = judged(inside=inside, error=error).phases[1]
    assert phase.coverage == pytest.approx((15 * 0.6 + 74 * 0.9) / 89)
    assert phase.coverage_early == pytest.approx((10 * 0.2 + 15 * 0.6) / 25)
    assert phase.nrmse == pytest.approx([1.0, 0.5, 0.3, 0.2])


def test_a_shift_is_detected_in_time_or_missed_and_late_events_are_false():
    f = judged(
        events=happen(
            ('soft_shift', 100, {}),  # says little: neither detects nor, this near, is false
            ('shift', 101, {}),
            ('shift', 103, {}),
            ('guard', 160, {}),  # claims nothing
            ('shift', 225, {}),  # 26th transition of the third phase: too late
            ('soft_shift', 299, {}),
            ('recall', 324, {'regime': 'r1'}),  # 25th of the last
            ('recall', 50, {'regime': 'r1'}),
        )
    )
    assert [p.detected for p in f.phases] == [None, 2, None, 25]
    assert f.far == {'shift': 1, 'recall': 1, 'soft_shift': 1}


def test_a_recall_is_right_if_the_robot_lived_there_under_that_name():
    nominal, new, first = {'nominal': 1.0}, {'new': 1.0}, {'r1': 0.9, 'nominal': 0.1}
    regimes = [nominal] * 100 + [new] * 45 + [first] * 55 + [nominal] * 100 + [first] * 60
    here = happen(('recall', 203, {'regime': 'nominal'}), ('recall', 301, {'regime': 'r1'}))
    f = judged(regimes=regimes, events=here)
    assert [(p.recalled, p.right) for p in f.phases[2:]] == [(4, True), (2, True)]
    wrong = happen(('recall', 203, {'regime': 'r1'}), ('recall', 301, {'regime': 'r9'}))
    f = judged(regimes=regimes, events=wrong)
    assert [(p.recalled, p.right) for p in f.phases[2:]] == [(4, False), (2, False)]
    assert f.wrong_recalls == 2
    # r1 was merged into r9 in between: now r9 is right.
    merge = happen(('consolidated', 250, {'merged': [['r9', 'r1']]}))
    f = judged(regimes=regimes, events=merge + wrong)
    assert [p.right for p in f.phases[2:]] == [False, True]
    # At home the nominal model is right, whatever the robot lived in; elsewhere it is not.
    elsewhere = [first] * 100 + regimes[100:]
    named = happen(('recall', 203, {'regime': 'nominal'}), ('recall', 301, {'regime': 'nominal'}))
    f = judged(regimes=elsewhere, events=named)
    assert [p.right for p in f.phases[2:]] == [True, False]
    # The first visit has nothing to recall.
    assert [p.recalled for p in judged(regimes=regimes, events=[]).phases] == [None] * 4


def test_the_rise_of_uncertainty_is_the_largest_after_over_the_mean_before():
    epistemic = np.full(360, 0.1)
    epistemic[104], epistemic[107] = 0.5, 9.0  # the 4th and the 7th prediction after it
    phase = judged(epistemic=epistemic).phases[1]
    assert phase.rise_epistemic == pytest.approx(5.0)
    assert phase.rise == pytest.approx(np.hypot(0.5, 0.2) / np.hypot(0.1, 0.2))
    assert np.isnan(judged().phases[0].rise)


def test_compute_is_counted_in_all_threads_until_the_score_has_recovered():
    score = scores((0.8, 100), (0.0, 10), (0.8, 250))
    f = judged(score=score)
    assert f.phases[1].t90 == 8
    assert f.phases[1].compute == pytest.approx((8 + 25) * 4e-3)
    assert judged(score=0.0).phases[3].compute == pytest.approx(60 * 4e-3)  # never
    assert f.learn_ms == pytest.approx((1.0, 1.0))
    assert f.learn_wall_ms == f.plan_ms == pytest.approx((2.0, 2.0))


def test_bootstrap_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = bootstrap(rng.normal(3.0, 1.0, 30), draws=1000)
        held += low <= 3.0 <= high
    assert 0.90 < held / 300 < 0.98
    assert bootstrap([1.0, 2.0, 4.0]) == bootstrap([1.0, float('nan'), 2.0, 4.0])
    assert bootstrap([2.0]) == (2.0, 2.0)
    assert np.isnan(bootstrap([])).all()


# ---------------------------------------------------------------------- rows
def rows_of(*found: Figures) -> dict[str, dict]:
    return {r['name']: r for r in life_rows(found)}


def test_rows_judge_ours_and_say_where_a_shift_does_not_matter():
    good = judged(score=scores((0.2, 100), (0.8, 100), (0.8, 160)), oracle=0.85)
    rows = rows_of(good)
    gap = rows['quad: gap closed, mean of 1 seeds']
    assert (gap['bar'], gap['aim'], gap['ok']) == (0.94, 1.0, False)
    assert gap['value'] == pytest.approx(good.gap_closed)
    assert gap['interval'] == pytest.approx([gap['value']] * 2)
    assert rows['quad: score at home, learning on / frozen']['ok'] is True
    assert rows['quad: 90 % intervals cover, lowest phase']['value'] == pytest.approx(0.9)
    assert rows['shifts not detected within 25 steps']['value'] == 100
    assert rows['delay until a shift is detected, median of 3']['value'] is None
    assert rows['delay until a shift is detected, median of 3']['ok'] is False
    assert rows['quad: oracle − frozen, least in B']['ok'] is True
    weak = rows_of(judged(frozen=0.75, oracle=0.8))
    assert weak['quad: oracle − frozen, fails in B 0.05']['ok'] is False


def test_second_visits_are_judged_by_first_ones_and_beside_what_chance_makes():
    f = judged(score=scores((0.0, 10), (0.8, 90), (0.0, 20), (0.8, 180), (0.0, 30), (0.8, 30)))
    calm, first, second = f.phases[0].t90, f.phases[1].t90, 60  # not within the last phase
    assert [p.visit for p in f.phases if p.regime == 'B'] == [1, 2]
    assert 0 < calm < first
    assert f.phases[3].t90 is None
    rows, name = rows_of(f), 'steps to 90 % of the oracle, {}'
    judged_row = rows[name.format('second visit / first, 1 regimes')]
    assert judged_row['value'] == pytest.approx(second / first)
    assert judged_row['ok'] is False
    chance = rows[name.format('phases without a shift / first visits')]
    assert chance['value'] == pytest.approx(calm / first)


def test_off_policy_rows_are_of_the_worst_output():
    ours = run(off_policy=[[0.1, 0.2], [0.1, 0.4], [0.1, 0.2], [0.1, 0.2]])
    frozen = run('frozen', 0.2, off_policy=[[0.1, 0.2], [0.5, 0.8], [0.1, 0.2], [0.5, 0.8]])
    oracle = run('oracle', 0.8, off_policy=[[0.1, 0.1]] * 4)
    rows = rows_of(figures(ours, frozen, oracle))
    name = 'quad: one-step error off policy / {}, worst output, phase and seed'
    assert rows[name.format('frozen')]['value'] == pytest.approx(1.0)
    assert rows[name.format('specialist')]['value'] == pytest.approx(4.0)


def test_compute_is_judged_beside_retraining():
    good = {'score': np.full(360, 0.8), 'background_cpu': np.zeros(360)}
    ours = judged(learn_cpu=np.full(360, 1e-4), **good)
    theirs = judged(method='retrain', learn_cpu=np.full(360, 0.1), **good)
    row = rows_of(ours, theirs)['learner CPU per recovery / retraining from scratch']
    assert row['value'] == pytest.approx(1e-3)
    assert row['ok'] is True
    assert 'learner CPU per recovery / retraining from scratch' not in rows_of(ours)


def test_what_a_failed_recovery_cost_is_charged_to_those_that_came():
    cheap = {'learn_cpu': np.full(360, 1e-4), 'background_cpu': np.zeros(360)}
    dear = {'learn_cpu': np.full(360, 0.1), 'background_cpu': np.zeros(360)}
    ours = judged(score=np.full(360, 0.8), **cheap)
    once = judged(method='retrain', score=np.full(360, 0.8), **dear)
    never = judged(method='retrain', score=np.zeros(360), **dear)
    rows = rows_of(ours, once, never)
    mine, theirs = 25 * 1e-4, (25 + 100) * 0.1
    name = 'learner CPU per recovery / retraining from scratch'
    assert rows[name]['value'] == pytest.approx(mine / theirs)
    same = rows['the same per shift, recovered or not']
    assert same['value'] == pytest.approx(mine / (theirs / 2))
    assert rows['first-visit shifts from which learner recovered, of 1']['value'] == 1
    assert rows['first-visit shifts from which retraining recovered, of 2']['value'] == 1
    assert rows_of(ours, never)[name]['value'] == 0
    failed = rows_of(judged(score=np.zeros(360), **cheap), once)[name]
    assert failed['value'] is None and failed['ok'] is False


def test_lives_outside_the_family_are_judged_by_their_worst_run():
    worse = scores((0.2, 100), (0.15, 100), (0.2, 100), (0.3, 60))
    found = []
    for name, score in (('outside/drag', 0.5), ('outside/delay', worse)):
        found.append(replace(judged(score=score), name=name))
    rows = rows_of(*found)
    assert rows['outside, 2 shifts: phase mean − frozen, worst of 4 runs']['value'] == (
        pytest.approx(-0.05)
    )
    assert rows['outside, 2 shifts: phase mean − frozen, worst of 4 runs']['ok'] is False
    assert rows['outside, 2 shifts: worst 50 steps − frozen']['ok'] is True
    assert not any('gap closed' in name for name in rows)
    long = rows_of(replace(judged(score=0.5), name='long/drag'))
    assert long['long/drag: gap closed in the last 30 s, mean of 1 seeds']['ok'] is True


def test_a_figure_that_is_no_number_is_null_and_meets_no_bar():
    assert row('x', float('nan'), '', 'higher', 0.5)['value'] is None
    assert row('x', float('inf'), '', 'higher', 0.5)['ok'] is False


# ---------------------------------------------------------------------- words
def test_shifts_are_told_in_a_few_words():
    assert describe([]) == 'as built'
    gain = {'actuator_gain': {'actuator': 'left', 'factor': 0.5}}
    assert describe([gain, {'wind': {'force': [2.5, 0.0]}}]) == (
        'actuator gain left 0.5\nwind (2.5, 0)'
    )
    load = {'start': {'payload': {'mass': 0.0}}, 'end': {'payload': {'mass': 0.5}}, 'seconds': 9}
    assert describe([{'drift': load}]) == 'drift payload 0.0 → payload 0.5 9'


# ---------------------------------------------------------------------- the command line
@pytest.mark.parametrize(
    ('text', 'seeds'), [('3', [0, 1, 2]), ('100:102', [100, 101]), ('0:1', [0])]
)
def test_seeds_are_a_number_or_a_range(text, seeds):
    assert cli.seeds_of(text) == seeds


@pytest.mark.parametrize('text', ['', 'x', '0', '5:5', '7:3', '-3:2', '1.5', '1:2:3'])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(UserError, match='--seeds'):
        cli.seeds_of(text)


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


def test_a_boundary_between_equal_regimes_is_no_shift():
    assert life(('A', 10), ('C', 5), ('B', 5), ('B', 2), ('A', 3)).shift_steps == [15, 22]


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
        UserError, match=r'submarine.*arm, base, cartpole, diffdrive, quad, .*outside/quad_drag'
    ):
        load_life('submarine')


def test_a_folder_of_lives_stands_for_all_in_it(tmp_path):
    folder = tmp_path / 'config' / 'lives' / 'outside'
    folder.mkdir(parents=True)
    text = 'robot: quad\nregimes: {A: []}\nphases: [[A, %d]]\n'
    for number, name in enumerate(('one', 'two'), start=1):
        (folder / f'{name}.yaml').write_text(text % number)
    (folder.parent / 'quad.yaml').write_text(text % 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('lifelong_bayes_ros.experiments.schedule.share_dir', lambda: tmp_path)
        assert life_names() == ['quad', 'outside/one', 'outside/two']
        lives = load_lives(['quad', 'outside'])
        assert {n: life.steps for n, life in lives.items()} == {
            'quad': 9,
            'outside/one': 1,
            'outside/two': 2,
        }
        assert list(load_lives(['outside/two'])) == ['outside/two']
        assert list(load_lives([str(folder / 'two.yaml')])) == ['two']


def test_two_lives_of_one_name_are_refused(tmp_path):
    text = 'robot: quad\nregimes: {A: []}\nphases: [[A, %d]]\n'
    for number, name in enumerate('ab', start=1):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'mine.yaml').write_text(text % number)
    with pytest.raises(UserError, match="two lives are named 'mine'"):
        load_lives([str(tmp_path / name / 'mine.yaml') for name in 'ab'])
