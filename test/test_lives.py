"""Sweeps as their user meets them: the same result however they are run, and nothing lost."""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import plants
from lifelong_bayes_ros import cli
from lifelong_bayes_ros.dynamics.belief import predict
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import sweep
from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.lives import life_command
from lifelong_bayes_ros.experiments.priors import cached_file
from lifelong_bayes_ros.experiments.probes import HORIZONS, ModelErrors, footprint
from lifelong_bayes_ros.experiments.record import Run, from_json, to_json
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.store import write_atomically

SHIFT = [{'actuator_gain': {'actuator': 'left', 'factor': 0.6}}]
LIFE = """
robot: quad
regimes: {A: [], B: [{actuator_gain: {actuator: left, factor: 0.6}}]}
phases: [[A, 30], [B, 40], [A, 30]]
"""
TIMES = ('plan_seconds', 'learn_seconds', 'learn_cpu', 'background_cpu')


@pytest.fixture(scope='module')
def cache(tmp_path_factory, tiny_prior):
    """A cache in which the small prior stands for the quadrotor's, and for its oracles."""
    folder = tmp_path_factory.mktemp('cache')
    patch = pytest.MonkeyPatch()
    patch.setenv('LIFELONG_BAYES_CACHE', str(folder))
    for shifts in (None, [], SHIFT):
        write_atomically(cached_file(plants.QUAD, shifts), encode_prior(tiny_prior))
    yield folder
    patch.undo()


@pytest.fixture
def life_file(tmp_path):
    path = tmp_path / 'short.yaml'
    path.write_text(LIFE)
    return path


def quietly(what: str, share: float) -> None:
    assert 0 <= share <= 1


def sweep_of(path: Path, out: Path | None = None, **options) -> tuple[dict, list[str]]:
    said: list[str] = []
    report = life_command([str(path)], [100, 101], out, quietly, notify=said.append, **options)
    return report, said


def timeless(report: dict) -> list[dict]:
    """Figures that do not depend on how busy the machine was."""
    lives = []
    for one in report['lives']:
        phases = [{k: v for k, v in p.items() if k != 'compute'} for p in one['phases']]
        dropped = ('learn_ms', 'learn_wall_ms', 'plan_ms', 'phases')
        lives.append({k: v for k, v in one.items() if k not in dropped} | {'phases': phases})
    return lives


def units_in(out: Path) -> dict[str, float]:
    return {p.name: p.stat().st_mtime_ns for p in sorted((out / 'units').rglob('*.json'))}


# ---------------------------------------------------------------------- resuming
def test_a_sweep_is_kept_resumed_and_run_again_where_the_life_changed(cache, life_file, tmp_path):
    out = tmp_path / 'out'
    first, said = sweep_of(life_file, out, jobs=2)
    kept = units_in(out)
    assert not said
    assert len(kept) == 6
    assert first['failed'] == []
    assert [(f['method'], f['seed']) for f in first['lives']] == [
        (method, seed) for seed in (100, 101) for method in ('frozen', 'oracle', 'ours')
    ]
    for name in ('report.json', 'tables.txt', 'summary.png', 'pictures/short-100.png'):
        assert (out / name).stat().st_size > 1000
    assert json.loads((out / 'report.json').read_text())['rows'] == first['rows']

    # One file lost, one damaged: these two are run again, the others are not touched.
    (out / 'units' / 'short' / 'ours-101.json').unlink()
    (out / 'units' / 'short' / 'frozen-100.json').write_text('{"key": {}, "run": [')
    again, said = sweep_of(life_file, out)
    assert timeless(again) == timeless(first)
    assert any('frozen-100.json is damaged' in line for line in said)
    assert any('4 of 6 runs were found' in line for line in said)
    same = {n for n, stamp in units_in(out).items() if kept[n] == stamp}
    assert same == set(kept) - {'ours-101.json', 'frozen-100.json'}

    life_file.write_text(LIFE.replace('[A, 30]]', '[A, 20]]'))
    other, said = sweep_of(life_file, out)
    assert said == ['6 kept of 6 runs cannot be used, life changed since: run again']
    assert other['lives'][0]['phases'][-1]['last'] == 90


def test_the_same_sweep_in_one_process_in_two_and_on_ray_gives_the_same(cache, life_file):
    one, _ = sweep_of(life_file)
    two, _ = sweep_of(life_file, jobs=2)
    assert timeless(one) == timeless(two)
    if importlib.util.find_spec('ray') is None:
        pytest.skip('Ray is not installed')
    cluster, _ = sweep_of(life_file, ray='local')
    assert timeless(one) == timeless(cluster)


def test_without_ray_the_user_learns_how_to_get_it(cache, life_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert cli.main(['life', '--life', str(life_file), '--ray', 'auto']) == 2
    assert "pip install 'lifelong_bayes_ros[ray]'" in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_an_end_by_force_loses_only_what_was_running(how, cache, life_file, tmp_path):
    life_file.write_text(LIFE.replace('[A, 30]]', '[A, 150]]'))
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'lifelong_bayes_ros.cli', 'life', '--life', str(life_file)]
    command += ['--seeds', '100:103', '--jobs', '2', '--out', str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: out.is_dir() and len(units_in(out)) >= 2)
    workers = children(process.pid)
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    kept = units_in(out)
    assert 2 <= len(kept) < 9
    assert not list(out.rglob('.*'))  # nothing half-written
    wait_until(lambda: not any(Path(f'/proc/{pid}').exists() for pid in workers))
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f'{len(kept)} of 9 runs are kept' in ' '.join(errors.split())
    for path in (out / 'units').rglob('*.json'):
        from_json(json.loads(path.read_text())['run'])
    report = life_command([str(life_file)], [100, 101, 102], out, quietly)
    assert len(report['lives']) == 9
    assert kept.items() <= units_in(out).items()


def children(pid: int) -> list[int]:
    found = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [int(p) for p in found]


def wait_until(holds, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, 'it did not come to pass'
        time.sleep(0.02)


# ---------------------------------------------------------------------- jobs
@dataclass(frozen=True)
class Task:
    """A job that does what its name says."""

    what: str

    def run(self, progress):
        progress(0.5)
        if self.what == 'die':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == 'raise':
            raise ZeroDivisionError('no such thing')
        if self.what == 'mistake':
            raise UserError('mend it')
        import torch

        return self.what, torch.get_num_threads(), os.getpid()


def test_a_job_that_dies_or_fails_takes_no_other_with_it():
    names = ['a', 'die', 'b', 'raise', 'c', 'mistake', 'd']
    done = dict(sweep.run_here([Task(n) for n in names], 2, lambda shares: None))
    assert sorted(done) == list(range(7))
    assert 'SIGKILL' in done[1]
    assert 'ZeroDivisionError: no such thing' in done[3]
    assert done[5] == 'mend it'
    assert all(isinstance(done[n], sweep.Failure) for n in (1, 3, 5))
    good = [done[n] for n in (0, 2, 4, 6)]
    assert [g[0] for g in good] == ['a', 'b', 'c', 'd']
    assert all(g[1] == 1 for g in good)
    assert len({g[2] for g in good}) <= 3  # workers are used again
    assert not multiprocessing.active_children()


def test_a_unit_that_fails_is_told_and_the_others_are_reported(cache, life_file, monkeypatch):
    ran = sweep.run_here

    def spoil(jobs, processes, watch):
        for number, outcome in ran(jobs, processes, watch):
            bad = jobs[number].method == 'oracle' and jobs[number].seed == 101
            yield number, sweep.Failure('it diverged') if bad else outcome

    monkeypatch.setattr('lifelong_bayes_ros.experiments.lives.run_here', spoil)
    report, said = sweep_of(life_file, jobs=2)
    assert report['failed'] == [{'unit': 'short oracle seed 101', 'error': 'it diverged'}]
    assert said == ['short oracle seed 101 failed: it diverged']
    assert {f['seed'] for f in report['lives']} == {100}
    assert cli.deliver(report | {'rows': []}, True) == 1


# ---------------------------------------------------------------------- what is measured
@pytest.fixture(scope='module')
def lived(tiny_prior):
    """A short life of the learner with all that is measured on it, and what was seen."""
    life = Life(
        robot='quad', regimes={'A': [], 'B': SHIFT}, phases=[('A', 20), ('B', 60)], episode=0
    )
    agent, moments = LearningAgent(tiny_prior, seed=0), []
    errors = ModelErrors(plants.QUAD, life, tiny_prior, seed=0)

    def observe(moment):
        moments.append(moment)
        errors(moment)

    trace = run_life(plants.QUAD, life, agent, 0, observer=observe)
    return life, agent, trace, errors, moments


def test_intervals_and_errors_are_of_what_was_acted_on_against_what_came(lived, tiny_prior):
    _, _, trace, _, moments = lived
    for moment in moments[::7]:
        spread = predict(
            tiny_prior.dynamics,
            moment.belief,
            moment.state.astype(float),
            moment.command.astype(float),
            moment.past,
        )
        miss = plants.QUAD.wrap(moment.next_state - spread.mean) / tiny_prior.dynamics.scale
        assert trace.error[moment.step] == pytest.approx(np.mean(miss**2), rel=1e-6)
    assert 0.5 < np.mean(trace.inside) < 1
    shares = 6 * np.array(trace.inside)
    np.testing.assert_allclose(shares, np.round(shares), atol=1e-9)


def test_open_loop_errors_are_those_of_chained_one_step_predictions(lived, tiny_prior):
    life, _, _, errors, moments = lived
    dynamics = tiny_prior.dynamics
    squares = {h: [] for h in HORIZONS}
    for start in range(20, 80 - max(HORIZONS) + 1, 5):  # of the second phase
        first = moments[start]
        x, past = first.state.astype(float), first.past
        for ahead in range(1, max(HORIZONS) + 1):
            moment = moments[start + ahead - 1]
            u = moment.command.astype(float)
            x = predict(dynamics, first.belief, x, u, past).mean
            past = np.vstack([u, past[:-1]])
            if ahead in HORIZONS:
                miss = plants.QUAD.wrap(x - moment.next_state) / dynamics.scale
                squares[ahead].append(np.mean(miss**2))
    for h in HORIZONS:
        assert errors.open_loop[h][1] == pytest.approx(np.sqrt(np.mean(squares[h])), rel=1e-3)
        assert len(errors.open_loop[h]) == len(errors.nominal[h]) == len(life.phases)


def test_off_policy_errors_see_what_the_learner_learned(lived):
    _, _, _, errors, _ = lived
    home, shifted = (np.array(e) for e in errors.off_policy)
    assert home.shape == shifted.shape == (6,)
    frozen = frozen_off_policy(lived)
    np.testing.assert_allclose(home, frozen[0], atol=0.1)
    assert np.linalg.norm(shifted) < 0.5 * np.linalg.norm(frozen[1])


def frozen_off_policy(lived) -> list[np.ndarray]:
    life, _, _, learned, _ = lived
    prior = learned.prior
    from lifelong_bayes_ros.experiments.baselines.frozen import Frozen

    errors = ModelErrors(plants.QUAD, life, prior, seed=0)
    run_life(plants.QUAD, life, Frozen(prior, 0), 0, observer=errors)
    # The nominal model beside itself.
    for h in HORIZONS:
        np.testing.assert_allclose(errors.open_loop[h], errors.nominal[h], rtol=1e-5)
    return [np.array(e) for e in errors.off_policy]


def test_watching_a_life_does_not_change_it(lived, tiny_prior):
    life, _, trace, _, _ = lived
    alone = run_life(plants.QUAD, life, LearningAgent(tiny_prior, seed=0), 0)
    assert alone.score == trace.score
    assert alone.events == trace.events


def test_a_footprint_counts_arrays_once_and_what_views_hold():
    class Holder:
        pass

    big = np.zeros(100_000)
    holder = Holder()
    holder.once, holder.again, holder.view = big, [big], big[:10]
    assert 800_000 < footprint(holder) < 805_000
    assert footprint(holder, without=(big,)) < 5_000
    import torch

    holder.tensor = torch.zeros(50_000)
    holder.part = holder.tensor[:5]
    assert 1_000_000 < footprint(holder) < 1_010_000


def test_a_run_survives_its_file(lived):
    life, agent, trace, errors, _ = lived
    trace.error[3] = float('nan')
    names = plants.QUAD.state_names
    models = (errors.off_policy, errors.open_loop, errors.nominal)
    run = Run('x', life, 'ours', 0, 0.03, names, trace, *models, footprint(agent))
    back = from_json(json.loads(json.dumps(to_json(run), allow_nan=False)))
    assert back.memory == run.memory > 100_000
    np.testing.assert_allclose(back.trace.score, trace.score, rtol=1e-5)
    np.testing.assert_allclose(back.trace.error, trace.error, rtol=1e-5)
    assert back.trace.events == trace.events
    assert back.life == life
    assert back.open_loop.keys() == run.open_loop.keys()
