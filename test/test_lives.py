"""Sweeps as their user meets them: the same result however they are run, and nothing lost."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.stats  # with scikit-learn
import torch
from matplotlib.figure import Figure

import plants
from lifelong_bayes_ros import cli
from lifelong_bayes_ros.dynamics.belief import predict
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import sweep, units
from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.baselines.frozen import Frozen
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.lives import life_command, without_nan
from lifelong_bayes_ros.experiments.metrics import figures
from lifelong_bayes_ros.experiments.priors import cached_file
from lifelong_bayes_ros.experiments.probes import HORIZONS, ModelErrors, footprint
from lifelong_bayes_ros.experiments.record import Run, from_json, to_json
from lifelong_bayes_ros.experiments.schedule import Life, load_life
from lifelong_bayes_ros.experiments.units import Shelf, Unit
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.store import write_atomically

SHIFT = [{'actuator_gain': {'actuator': 'left', 'factor': 0.6}}]
LIFE = """
robot: quad
regimes: {A: [], B: [{actuator_gain: {actuator: left, factor: 0.6}}]}
phases: [[A, 30], [B, 40], [A, 30]]
"""
PATIENCE = 240.0  # s: only for what never comes, however busy the machine
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


@pytest.fixture(scope='module')
def swept(cache, tmp_path_factory):
    """A finished sweep of two processes: its report and its folder."""
    folder = tmp_path_factory.mktemp('swept')
    (folder / 'short.yaml').write_text(LIFE)
    report, said = sweep_of(folder / 'short.yaml', folder / 'out', jobs=2)
    assert not said
    assert report['failed'] == []
    return report, folder / 'out'


# ---------------------------------------------------------------------- resuming
def test_a_sweep_leaves_a_report_tables_and_pictures(swept):
    report, out = swept
    assert len(units_in(out)) == 6
    assert [(f['method'], f['seed']) for f in report['lives']] == [
        (method, seed) for seed in (100, 101) for method in ('frozen', 'oracle', 'ours')
    ]
    for name in ('tables.txt', 'summary.png', 'pictures/short-100.png', 'pictures/short-101.png'):
        assert (out / name).stat().st_size > 1000
    assert json.loads((out / 'report.json').read_text()) == report
    for row in report['rows']:
        assert {'name', 'value', 'unit', 'better', 'bar', 'aim', 'ok'} <= set(row)


def test_what_is_lost_or_damaged_is_run_again_and_the_rest_is_not(swept, life_file, tmp_path):
    first, done = swept
    out = shutil.copytree(done, tmp_path / 'out')
    kept = units_in(out)
    (out / 'units' / 'short' / 'ours-101.json').unlink()
    (out / 'units' / 'short' / 'frozen-100.json').write_text('{"key": {}, "run": [')
    again, said = sweep_of(life_file, out)
    assert timeless(again) == timeless(first)
    assert any('frozen-100.json is damaged' in line for line in said)
    assert any('4 of 6 runs were found' in line for line in said)
    same = {n for n, stamp in units_in(out).items() if kept[n] == stamp}
    assert same == set(kept) - {'ours-101.json', 'frozen-100.json'}


def _cut(data):
    data['run']['trace']['score'] = data['run']['trace']['score'][:10]


def _other_horizons(data):
    data['run']['open_loop'] = {}


@pytest.mark.parametrize(
    'spoil',
    [
        lambda data: data.update(key=None),
        lambda data: data.update(run=None),
        _cut,
        _other_horizons,
        lambda data: data['run']['trace'].update(error=[]),
        lambda data: data['run']['trace'].update(score=['a'] * 100),
        lambda data: data['run']['trace'].pop('nis'),
        lambda data: data['run'].update(off_policy=[]),
        lambda data: data['run'].update(off_policy=[[0.1]] * 3),
        lambda data: data['run'].update(events=[{'event': 3}]),
        lambda data: data['run'].update(crashes='none'),
        lambda data: data['run'].update(seed=99),
        lambda data: data['run'].update(method='frozen'),
        lambda data: data['run']['life'].update(episode=50),
    ],
)
def test_a_kept_run_that_is_not_whole_or_of_another_unit_is_damaged(spoil, swept, tmp_path):
    _, out = swept
    unit = Unit('short', load_life(out.parent / 'short.yaml'), 'ours', 100)
    source = Shelf(out / 'units')
    shelf = Shelf(tmp_path)
    data = json.loads(source.path(unit).read_text())
    data['key'] = shelf.key(unit)
    write_atomically(shelf.path(unit), json.dumps(data).encode())
    assert shelf.find(unit)[0] is not None
    spoil(data)
    write_atomically(shelf.path(unit), json.dumps(data).encode())
    assert shelf.find(unit) == (None, f'{shelf.path(unit)} is damaged')


def test_pictures_show_the_methods_that_were_asked_for_and_are_whole(
    swept, life_file, tmp_path, monkeypatch
):
    out = shutil.copytree(swept[1], tmp_path / 'out')
    picture = out / 'pictures' / 'short-100.png'
    sweep_of(life_file, out)
    whole, stamp = picture.read_bytes(), picture.stat().st_mtime_ns
    sweep_of(life_file, out)
    assert picture.stat().st_mtime_ns == stamp
    sweep_of(life_file, out, methods=('frozen',))
    assert picture.read_bytes() != whole
    sweep_of(life_file, out)
    assert picture.read_bytes() == whole
    picture.write_bytes(whole[:2000])
    sweep_of(life_file, out)
    assert picture.read_bytes() == whole

    def interrupted(self, target, **_):
        with open(target, 'wb') if isinstance(target, Path) else target as file:
            file.write(b'half')
            raise KeyboardInterrupt

    monkeypatch.setattr(Figure, 'savefig', interrupted)
    pictures = {p: p.read_bytes() for p in out.rglob('*.png')}
    with pytest.raises(KeyboardInterrupt):
        sweep_of(life_file, out)
    with pytest.raises(KeyboardInterrupt):
        sweep_of(life_file, out, methods=('frozen',))
    assert {p: p.read_bytes() for p in out.rglob('*.png')} == pictures


@pytest.mark.parametrize(('phases', 'at_home'), [('[A, 12]', True), ('[B, 4], [A, 8]', False)])
def test_the_shortest_lives_are_drawn_and_judged_by_what_they_have(
    phases, at_home, cache, tmp_path, recwarn
):
    path = tmp_path / 'tiny.yaml'
    regimes = next(line for line in LIFE.splitlines() if line.startswith('regimes'))
    path.write_text(f'robot: quad\n{regimes}\nphases: [{phases}]\n')
    report = life_command([str(path)], [0], tmp_path / 'out', quietly)
    assert (tmp_path / 'out' / 'pictures' / 'tiny-0.png').stat().st_size > 1000
    assert any('score at home' in row['name'] for row in report['rows']) == at_home
    assert all((f['home'] is not None) == at_home for f in report['lives'])
    assert not [w for w in recwarn if 'No artists' in str(w.message)]
    cli.print_summaries(report)


def test_a_run_is_not_used_for_another_life_prior_or_code(swept, cache, monkeypatch):
    _, out = swept
    life = load_life(out.parent / 'short.yaml')
    unit = Unit('short', life, 'ours', 100)
    run, why = Shelf(out / 'units').find(unit)
    assert run is not None and why == ''
    longer = Unit('short', life.model_copy(update={'episode': 50}), 'ours', 100)
    assert Shelf(out / 'units').find(longer) == (None, 'life changed since')
    assert Shelf(out / 'units').find(Unit('short', life, 'ours', 7)) == (None, '')
    monkeypatch.setattr(units, 'code_hash', lambda: 'other')
    assert Shelf(out / 'units').find(unit) == (None, 'code changed since')
    monkeypatch.setattr(units, 'fingerprint', lambda prior: 'other')
    assert Shelf(out / 'units').find(unit) == (None, 'prior and code changed since')


def test_a_unit_gives_the_same_wherever_it_runs(swept):
    report, out = swept
    life = load_life(out.parent / 'short.yaml')
    here = [
        from_json(Unit('short', life, method, 100).run(lambda share: None))
        for method in ('ours', 'frozen', 'oracle')
    ]
    mine = without_nan(asdict(figures(*here)))
    there = next(f for f in report['lives'] if (f['method'], f['seed']) == ('ours', 100))
    assert timeless({'lives': [mine]}) == timeless({'lives': [there]})


def test_a_ray_cluster_gives_the_same(swept, life_file):
    pytest.importorskip('ray')
    report, _ = swept
    try:
        cluster, _ = sweep_of(life_file, ray='local')
    except UserError as error:
        if 'timed out during startup' not in str(error):
            raise
        pytest.skip(str(error))  # Ray gives itself 30 s, too few on a busy machine
    assert timeless(cluster) == timeless(report)


def test_without_ray_the_user_learns_how_to_get_it(cache, life_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert cli.main(['life', '--life', str(life_file), '--ray', 'auto']) == 2
    assert "pip install 'lifelong_bayes_ros[ray]'" in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('address', ['127.0.0.1:1', 'ray://127.0.0.1:1', 'nonsense'])
def test_a_cluster_that_does_not_answer_is_a_mistake_told_at_once(address, capsys):
    pytest.importorskip('ray')
    with pytest.raises(UserError, match=f'--ray {address}: no Ray cluster answers'):
        sweep.connect(address)


def test_a_cluster_that_does_not_start_is_a_mistake_told(monkeypatch):
    ray = pytest.importorskip('ray')

    def too_slow(*_, **__):
        raise Exception('The current node timed out during startup.')

    monkeypatch.setattr(ray, 'init', too_slow)
    with pytest.raises(UserError, match=r'timed out during startup\.\); try again'):
        sweep.connect('local')


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_an_end_by_force_loses_only_what_was_running(how, cache, life_file, tmp_path):
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'lifelong_bayes_ros', 'life', '--life', str(life_file)]
    command += ['--seeds', '100:120', '--jobs', '2', '--out', str(out)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Whatever runs the tests in the background may ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: (out.is_dir() and units_in(out)) or process.poll() is not None)
    workers = children(process.pid)
    process.send_signal(how)
    _, errors = process.communicate(timeout=PATIENCE)
    half = {path.suffix for path in out.rglob('.*')}  # hidden, and removed by the next write
    assert half <= ({f'.{process.pid}'} if how == signal.SIGKILL else set())
    wait_until(lambda: not any(Path(f'/proc/{pid}').exists() for pid in workers))
    kept = units_in(out)
    assert 1 <= len(kept) < 60
    if how == signal.SIGINT:
        assert process.returncode == 130
        said = re.search(r'(\d+) of 60 runs are kept', ' '.join(errors.split()))
        # One more if it was just being told of.
        assert int(said[1]) <= len(kept) <= int(said[1]) + 1
    life = load_life(life_file)
    for name in kept:
        method, seed = name.removesuffix('.json').split('-')
        run, _ = Shelf(out / 'units').find(Unit('short', life, method, int(seed)))
        assert len(run.trace.score) == life.steps


def children(pid: int) -> list[int]:
    found = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [int(p) for p in found]


def wait_until(holds, seconds: float = PATIENCE) -> None:
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


def test_a_unit_that_fails_is_told_and_the_others_are_reported(
    swept, life_file, tmp_path, monkeypatch
):
    out = shutil.copytree(swept[1], tmp_path / 'out')
    (out / 'units' / 'short' / 'oracle-101.json').unlink()

    def diverge(jobs, processes, watch):
        yield from ((number, sweep.Failure('it diverged')) for number, _ in enumerate(jobs))

    monkeypatch.setattr('lifelong_bayes_ros.experiments.lives.run_here', diverge)
    report, said = sweep_of(life_file, out)
    assert report['failed'] == [{'unit': 'short oracle seed 101', 'error': 'it diverged'}]
    assert said[-1] == 'short oracle seed 101 failed: it diverged'
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
    for moment in moments:
        spread = predict(
            tiny_prior.dynamics,
            moment.belief,
            moment.state.astype(float),
            moment.command.astype(float),
            moment.past,
        )
        miss = plants.QUAD.wrap(moment.next_state - spread.mean)
        unit = tiny_prior.dynamics.scale
        assert trace.error[moment.step] == pytest.approx(np.mean((miss / unit) ** 2), rel=1e-6)
        noise = unit**2 * moment.belief.noise
        half = scipy.stats.t.ppf(0.95, moment.belief.noise_dof) * np.sqrt(spread.epistemic + noise)
        assert trace.inside[moment.step] == pytest.approx(np.mean(np.abs(miss) <= half))
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
    errors = ModelErrors(plants.QUAD, life, prior, seed=0)
    run_life(plants.QUAD, life, Frozen(prior, 0), 0, observer=errors)
    # The nominal model beside itself; single precision in C and in numpy, many steps in the open.
    for h in HORIZONS:
        np.testing.assert_allclose(errors.open_loop[h], errors.nominal[h], rtol=1e-4)
    return [np.array(e) for e in errors.off_policy]


def test_watching_a_life_does_not_change_it(lived, tiny_prior):
    life, _, trace, _, _ = lived
    alone = run_life(plants.QUAD, life, LearningAgent(tiny_prior, seed=0), 0)
    assert alone.score == trace.score
    assert alone.events == trace.events


def test_a_footprint_counts_memory_once_and_all_that_a_view_holds():
    class Holder:
        pass

    big = np.zeros(1000)
    holder = Holder()
    holder.once, holder.again, holder.view = big, [big], big[:10]
    assert footprint(holder) == 8000
    assert footprint(holder, without=[big]) == 0
    holder.tensor = torch.zeros(500)
    holder.part = {'of it': holder.tensor[:5]}
    assert footprint(holder) == 10_000


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
