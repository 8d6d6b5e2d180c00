"""The stream bench: paired data, held-out errors that mean what they say, kept results."""

import json
from dataclasses import replace

import numpy as np
import pytest

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros import cli
from lifelong_bayes_ros.dynamics.belief import Belief, predict
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import bench_stream, streams, units
from lifelong_bayes_ros.experiments.agents import METHODS
from lifelong_bayes_ros.experiments.bench_stream import stream_command, stream_rows
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.experiments.streams import (
    CHECKPOINTS,
    GRID,
    HeldOut,
    Unit,
    apply,
    cut,
    run_stream,
    transitions,
)
from lifelong_bayes_ros.experiments.sweep import Failure
from lifelong_bayes_ros.robot.spec import load_robot

QUAD = plants.QUAD


def life(steps: int) -> Life:
    return Life(
        robot='quad',
        regimes={'shifted': plants.LOSS, 'nominal': []},
        phases=[('shifted', steps), ('nominal', steps)],
    )


def take(count: int, seed: int = 0) -> list:
    stream = transitions(QUAD, life(150), seed)
    return [next(stream) for _ in range(count)]


def belief_of(dynamics, seed=0, **changes) -> Belief:
    """A belief with something in every column."""
    rng = np.random.default_rng(seed)
    theta = dynamics.nominal_theta + 0.05 * rng.standard_normal(dynamics.size)
    factor = 0.05 * rng.standard_normal((dynamics.size, 4))
    offset, noise = np.zeros(6), rng.uniform(0.01, 0.1, 6)
    return replace(Belief(0, 0, theta, factor, offset, noise, 30.0, {}, '', 'learned'), **changes)


# ---------------------------------------------------------------------- the data
def test_everybody_gets_the_same_data():
    for one, two in zip(take(130, seed=3), take(130, seed=3)):
        np.testing.assert_array_equal(one.next_state, two.next_state)
        np.testing.assert_array_equal(one.action, two.action)
    assert np.any(take(2, seed=3)[1].action != take(2, seed=4)[1].action)


def test_the_plant_shifts_after_as_many_steps_as_the_life_says():
    usable = [t for t in take(400) if t.usable][:300]
    plant = sim.make('quad')
    x, u, x_next = (
        np.array([getattr(t, k) for t in usable], dtype=float)
        for k in ('state', 'action', 'next_state')
    )
    wrong = {}
    for name, shifts in (('shifted', plants.LOSS), ('nominal', [])):
        plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        error = QUAD.wrap(x_next - plant.one_step(x, u, np.repeat(u[:, None], 2, axis=1)))
        wrong[name] = np.abs(error / plant.sensor_noise).max(axis=1) > 8
    assert not wrong['shifted'][:150].any() and not wrong['nominal'][150:].any()
    assert wrong['nominal'][:150].mean() > 0.5 and wrong['shifted'][150:].mean() > 0.5


def test_resets_come_at_the_latest_after_100_steps_and_are_no_steps():
    arm = load_robot('arm')
    stream = transitions(arm, Life(robot='arm', regimes={'A': []}, phases=[('A', 1500)]), seed=0)
    data = [next(stream) for _ in range(1500)]
    gaps = [i for i, t in enumerate(data) if not t.usable]
    assert gaps[0] == 0 and np.diff(gaps).max() == 101
    jumps = [np.linalg.norm(data[i].next_state - data[i].state) for i in gaps[1:]]
    assert np.median(jumps) > 1.0
    commands = (np.array([t.action for t in data]) - arm.neutral) / arm.action_half_range
    assert 0.4 < commands.std() < 0.7  # clipped at the limits
    assert np.corrcoef(commands[1:-1, 0], commands[2:, 0])[0, 1] > 0.8


# ---------------------------------------------------------------------- the test
def test_a_change_is_what_the_belief_predicts(tiny_prior):
    dynamics = tiny_prior.dynamics
    belief, rng = belief_of(dynamics), np.random.default_rng(1)
    steps = [plants.random_step(dynamics, rng) for _ in range(5)]
    x, u, past = (np.array(column) for column in zip(*steps))
    changes = apply(dynamics, belief.theta, x, u, past)
    for step, change in zip(steps, changes):
        spread = predict(dynamics, belief, *step)
        np.testing.assert_allclose(QUAD.wrap(step[0] + change), spread.mean, atol=1e-6)


def test_errors_and_coverage_are_those_of_a_plant_that_is_known(tiny_prior):
    """The plant is the model itself, but for a constant in one output."""
    dynamics = tiny_prior.dynamics
    held = HeldOut.of(QUAD, tiny_prior, [], seed=0, phase=0)
    truth = belief_of(dynamics)
    # Nothing of the noise before the step: the model is not linear in it.
    noise = np.stack([0 * held.noise[0], held.noise[1]])
    theta, scale = truth.theta, dynamics.scale
    x_next = held.x + apply(dynamics, theta, held.x, held.u, held.past)
    runs = [held.runs[:, 0]]
    for u, past in held.commands:
        runs.append(runs[-1] + apply(dynamics, theta, runs[-1], u, past))
    offset = np.array([0, 0, 0, 0.1, 0, 0]) * scale
    exact = replace(held, x_next=x_next, noise=noise, runs=np.stack(runs, axis=1))
    np.testing.assert_allclose(exact.one_step(dynamics, truth), 0, atol=1e-9)
    np.testing.assert_allclose(list(exact.open_loop(dynamics, truth).values()), 0, atol=1e-6)
    shifted = replace(exact, x_next=x_next + offset)
    np.testing.assert_allclose(shifted.one_step(dynamics, truth), offset / scale, atol=1e-9)
    nothing = np.zeros((dynamics.size, 1))
    variance = (sim.make('quad').sensor_noise / scale) ** 2
    for width, share in ((1.0, 0.9), (0.5, 0.589), (10.0, 1.0)):
        sure = replace(truth, factor=nothing, noise=width**2 * variance, noise_dof=1e6)
        assert exact.coverage(dynamics, sure) == pytest.approx(share, abs=0.01)
    unsure = replace(truth, noise=variance, noise_dof=1e6)
    assert exact.coverage(dynamics, unsure) > 0.95


def test_an_open_loop_prediction_that_diverges_counts_as_very_wrong(tiny_prior):
    held = HeldOut.of(QUAD, tiny_prior, [], seed=0, phase=0)
    dynamics = tiny_prior.dynamics
    wild = belief_of(dynamics, theta=1e200 * np.ones(dynamics.size))
    assert all(100 < e <= streams.DIVERGED for e in held.open_loop(dynamics, wild).values())


def test_an_error_is_cut_when_it_stays_so_for_another_look():
    assert cut({0: 1.0, 1: 0.1, 2: 0.5, 3: 0.14, 4: 0.1, 5: 0.3}, 1.0) == 3
    assert cut({0: 1.0, 1: 0.5, 2: 0.1}, 1.0) == 2
    assert cut({0: 1.0, 1: 0.15}, 1.0) == float('inf')


def test_a_run_is_looked_at_where_it_should_be(tiny_prior, monkeypatch):
    steps = []
    frozen = METHODS['frozen'].make

    def make(setting):
        agent = frozen(setting)
        belief = agent.belief
        monkeypatch.setattr(agent, 'belief', lambda step: steps.append(step) or belief(step))
        return agent

    monkeypatch.setitem(METHODS, 'frozen', replace(METHODS['frozen'], make=make))
    result = run_stream(QUAD, tiny_prior, Unit('x', life(60), 'frozen', 0), lambda share: None)
    for kind in ('seconds', 'background'):
        assert len(result[kind]) == 120 and min(result[kind]) >= 0
    for half in ('shifted', 'nominal'):
        assert set(result[half]['error']) == {k for k in GRID if k <= 60}
        assert set(result[half]['per_output']) == {0, 10, 20, 50}
    assert steps[:3] == [0, 0, 1]
    assert 60 in steps and max(steps) == max(k for k in GRID if k <= 60) + 59
    assert result['shifted']['error'][0] > 1.5 * result['nominal']['error'][0]


# ---------------------------------------------------------------------- the command
@pytest.fixture
def small(monkeypatch, tiny_prior):
    """Two short streams of the quadrotor, run in this process; the oracle is the frozen model."""
    monkeypatch.setattr(bench_stream, 'ROBOT', 'quad')
    monkeypatch.setattr(bench_stream, 'STEPS', 10)
    monkeypatch.setattr(bench_stream, 'CHECKPOINTS', (5, 10))
    monkeypatch.setattr(streams, 'CHECKPOINTS', (5, 10))
    monkeypatch.setattr(streams, 'SAMPLES', 50)
    monkeypatch.setattr(streams, 'RUNS', 5)
    names = {'actuator': ('rotor', plants.LOSS), 'drag': ('load', [{'payload': {'mass': 0.3}}])}
    monkeypatch.setattr(bench_stream, 'STREAMS', names)
    monkeypatch.setattr(bench_stream, 'trainings', lambda units: [])
    for module in (bench_stream, streams, units):
        monkeypatch.setattr(module, 'prior_for', lambda spec: tiny_prior)
    monkeypatch.setitem(METHODS, 'oracle', METHODS['frozen'])
    ran = []

    def run_here(todo, jobs, watch):
        for number, unit in enumerate(todo):
            watch({number: 0.5})
            ran.append(str(unit))
            yield number, unit.run(lambda share: None)

    monkeypatch.setattr(bench_stream, 'run_here', run_here)
    return ran


def status(what, share):
    assert 0 <= share <= 1


def test_an_interrupted_bench_goes_on_where_it_was(small, tmp_path):
    def stop(what, share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_command(['ours'], [0, 1], tmp_path, stop)
    first = list(small)
    assert 0 < len(first) < 12
    report = stream_command(['ours'], [0, 1], tmp_path, status)
    assert len(small) == 12 == len(set(small))
    again = stream_command(['ours'], [0, 1], tmp_path, status)
    assert len(small) == 12 and again == report
    assert json.loads((tmp_path / 'report.json').read_text()) == report
    bound = report['tables']['drag']['shifted']['error'][bench_stream.BOUND]
    assert [k for k, *_ in bound] == [5, 10] and bound[0][1] > bound[1][1] > 0
    # What is damaged or was made from something else is made again.
    file = tmp_path / 'actuator' / 'ours-0.json'
    kept = json.loads(file.read_text())
    for text in (file.read_text()[:100], json.dumps(kept | {'key': {}})):
        file.write_text(text)
        small.clear()
        assert _without_times(stream_command(['ours'], [0, 1], tmp_path, status)) == (
            _without_times(report)
        )
        assert small == ['actuator ours seed 0']


def _without_times(report):
    rows = [r for r in report['rows'] if 'learner per transition' not in r['name']]
    return rows, report['tables']


def test_a_unit_that_fails_is_named(small, monkeypatch, tmp_path):
    monkeypatch.setattr(
        bench_stream, 'run_here', lambda todo, jobs, watch: iter([(0, Failure('out of paper'))])
    )
    with pytest.raises(UserError, match='actuator frozen seed 0 failed: out of paper'):
        stream_command(['frozen'], [0], tmp_path, status)


def synthetic(scale: dict[str, float], cut_at: dict[str, int]) -> dict:
    """Runs of known errors: `scale` of every method and when its error is cut."""

    def half(method: str, start: float) -> dict:
        error = {str(k): start for k in sorted(GRID)}
        error |= {str(k): 0.01 for k in GRID if k >= cut_at.get(method, 10**6)}
        looks = [str(k) for k in (0, *CHECKPOINTS)]
        return {
            'error': error,
            'per_output': {k: [scale[method], 0.5 * scale[method]] for k in looks},
            'coverage': {k: 0.9 if k == '10' else 0.91 for k in looks},
            'open_loop': {k: {'5': 1.0, '15': 2.0} for k in looks},
        }

    run = {m: {h: half(m, 1.0) for h in ('shifted', 'nominal')} for m in scale}
    seconds = {m: [0.001] * 4000 for m in scale} | {'retrain': [0.5] * 4000}
    return {
        (stream, m, seed): run[m] | {'seconds': seconds[m], 'background': [0.0005] * 4000}
        for stream in bench_stream.STREAMS
        for m in scale
        for seed in (0, 1)
    }


def test_rows_judge_what_was_measured():
    scale = {'frozen': 1.0, 'oracle': 0.2, 'ours': 0.3, 'adam': 0.9, 'ivon': 0.9, 'retrain': 0.3}
    runs = synthetic(scale, {'ours': 8, 'adam': 200, 'ivon': 100, 'retrain': 500})
    bound = 1 / np.sqrt(np.maximum(np.arange(2001), 1e-9))
    bounds = {(stream, seed): bound for stream in bench_stream.STREAMS for seed in (0, 1)}
    rows = {r['name']: r for r in stream_rows(runs, [0, 1], bounds)}

    def of(*words: str) -> dict:
        (found,) = [r for name, r in rows.items() if all(w in name for w in words)]
        return found

    first = of('actuator', 'cut the one-step')
    assert (first['value'], first['bar'], first['ok'], first['interval']) == (8, 12, True, [8, 8])
    looks = [k for k in sorted(GRID) if k >= 100]
    assert of('actuator', 'times fewer than ivon')['value'] == looks[0] / 8
    once = of('actuator', 'compute until', 'dearest')
    assert once['value'] == pytest.approx(8 * 0.0015 / 0.5) and once['bar'] is None
    (whole,) = [r for n, r in rows.items() if 'actuator' in n and n.endswith('from scratch')]
    assert whole['value'] == pytest.approx(
        8 * 0.0015 / (0.5005 * min(k for k in GRID if k >= 500))
    )
    assert whole['bar'] == 0.01
    assert of('pole', 'cut the one-step')['bar'] is None
    assert of('pole', 'bound asks')['value'] == 49
    assert of('pole', 'shifted', 'frozen')['value'] == pytest.approx(0.3)
    specialist = of('pole', 'shifted', 'specialist')
    assert specialist['value'] == pytest.approx(1.5) and specialist['ok']
    assert of('drag', 'least')['bar'] == 0.84 and of('pole', 'least')['bar'] == 0.86
    assert of('pole', 'least')['value'] == pytest.approx(0.9)
    assert of('pole', 'most')['value'] == pytest.approx(0.91)
    assert of('median')['value'] == pytest.approx(1.0)
    never = {r['name']: r for r in stream_rows(synthetic(scale, {'adam': 100}), [0, 1], bounds)}
    (first,) = [r for n, r in never.items() if 'actuator' in n and 'cut the one-step' in n]
    assert first['value'] == 2000 and first['ok'] is False
    (lead,) = [r for n, r in never.items() if 'actuator' in n and 'times fewer' in n]
    assert lead['value'] is None and lead['ok'] is False


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['stream', '--methods', 'nosuch'], "'nosuch'"),
        (['stream', '--seeds', 'x'], '--seeds x'),
        (['stream', '--jobs', '0'], '--jobs 0'),
        (['quality', '--jobs', '2'], '--jobs is not for `bench quality`'),
    ],
)
def test_a_mistake_on_the_command_line_is_named(capsys, arguments, message):
    assert cli.main(['bench', *arguments]) == 2
    assert message in ' '.join(capsys.readouterr().err.split())


def test_the_command_prints_rows_and_tables(small, tmp_path, capsys):
    arguments = ['bench', 'stream', '--methods', 'ours', '--seeds', '1', '--out', str(tmp_path)]
    cli.main([*arguments, '--json'])
    report = json.loads(capsys.readouterr().out)
    assert {'command', 'machine', 'versions', 'seeds', 'rows', 'tables'} <= set(report)
    cli.main(arguments)
    out = capsys.readouterr().out
    assert 'rotor, back to nominal: coverage' in out and 'load, shifted: one-step' in out
    k, mean, *_ = report['tables']['actuator']['shifted']['error']['ours'][2]
    assert k == 10 and f'{mean:.3g}' in out
