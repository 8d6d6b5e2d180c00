"""The `bench stream` command: who is right again first, on the same random transitions.

A cart-pole is shifted for 2000 transitions and nominal for 2000 more. Every method sees the same
data; what it predicts is judged on held-out states all over, in `streams`, beside the Cramér-Rao
bound.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..errors import UserError
from ..learning.store import write_atomically
from ..paths import check_writable
from ..robot.spec import load_robot
from . import streams
from .agents import METHODS, Status
from .cramer_rao import error_bound
from .metrics import bootstrap
from .priors import prior_for
from .published import report_object, row
from .schedule import Life
from .streams import CHECKPOINTS, FACTOR, HORIZONS, NOMINAL, SHIFTED, Unit, cut
from .sweep import Failure, Job, run_here
from .units import Shelf, trainings

ROBOT = 'cartpole'
STREAMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    'actuator': ('actuator × 0.5', [{'actuator_gain': {'actuator': 'force', 'factor': 0.5}}]),
    'pole': ('pole mass × 5', [{'payload': {'mass': 0.8}}]),
    'drag': ('quadratic drag', [{'quadratic_drag': {'coefficient': 0.1}}]),
}
OUTSIDE = ('drag',)  # of the task family
STEPS = 2000  # transitions of each half
REFERENCES = ('frozen', 'oracle')
GRADIENTS = ('adam', 'ivon')
MEASURES = {
    'error': 'one-step nRMSE, off-policy and clean',
    'coverage': 'coverage of 90 % intervals, off-policy',
    **{f'open_loop_{h}': f'nRMSE after {h} steps open loop' for h in HORIZONS},
}
HALVES = {SHIFTED: 'shifted', NOMINAL: 'back to nominal'}
BOUND = 'Cramér-Rao bound'  # of the error while shifted
Runs = dict[tuple[str, str, int], dict[str, Any]]  # by stream, method, seed
Bounds = dict[tuple[str, int], np.ndarray]  # least error after k transitions, by stream, seed


def stream_command(
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path | None,
    status: Status,
    jobs: int = 1,
) -> dict[str, Any]:
    """Run methods on the streams.

    Args:
        methods: names in `METHODS`; the frozen model and the oracle are run beside them anyway.
        seeds: of every random stream.
        out: folder that keeps the result of every method, seed and stream; what it holds from the
            same code is not run again. None: nothing is kept.
        status: told what is going on and the share done of all.
        jobs: processes, each on one thread.

    Returns:
        The object of `--json`, with `tables`: stream, half, measure and method to a list of
        [transitions, mean, low, high].

    Raises:
        UserError: `out` cannot be written, or a unit failed.
    """
    if out:
        check_writable(out, '--out')
    chosen = [name for name in METHODS if name in methods or name in REFERENCES]
    units = [
        Unit(name, life_of(shifts), method, seed)
        for name, (_, shifts) in STREAMS.items()
        for seed in seeds
        for method in chosen
    ]
    for _ in _run([t for t in trainings(units) if not t.file.is_file()], jobs, status):
        pass  # kept in the cache
    shelf = Shelf(out) if out else None
    runs = {_key(u): run for u in units if shelf and (run := _find(shelf, u))}
    todo = [u for u in units if _key(u) not in runs]
    for unit, result in _run(todo, jobs, status):
        # As JSON gives it back: keys become text.
        runs[_key(unit)] = json.loads(json.dumps(result))
        if shelf:
            data = {'key': _made_from(shelf, unit), 'run': result}
            write_atomically(shelf.path(unit), json.dumps(data, allow_nan=False).encode())
    bounds = _bounds(seeds)
    report = report_object('bench stream', list(seeds), stream_rows(runs, seeds, bounds))
    report['tables'] = stream_figures(runs, chosen, seeds, bounds)
    if out:
        write_atomically(out / 'report.json', json.dumps(report, allow_nan=False).encode())
    return report


def life_of(shifts: list[dict[str, Any]]) -> Life:
    """Shifted first, nominal then."""
    return Life(
        robot=ROBOT,
        regimes={SHIFTED: shifts, NOMINAL: []},
        phases=[(SHIFTED, STEPS), (NOMINAL, STEPS)],
    )


def _bounds(seeds: Sequence[int]) -> Bounds:
    spec = load_robot(ROBOT)
    prior = prior_for(spec)
    return {
        (name, seed): error_bound(spec, prior, life_of(shifts), seed)
        for name, (_, shifts) in STREAMS.items()
        for seed in seeds
    }


def _run(todo: Sequence[Job], jobs: int, status: Status) -> Iterator[tuple[Any, Any]]:
    done = 0

    def watch(shares: dict[int, float]) -> None:
        running = ', '.join(str(todo[number]) for number in shares)
        share = (done + sum(shares.values())) / len(todo)
        status(f'{done} of {len(todo)} done; now {running}', share)

    for number, outcome in run_here(todo, jobs, watch) if todo else ():
        if isinstance(outcome, Failure):
            raise UserError(f'{todo[number]} failed: {outcome}')
        done += 1
        yield todo[number], outcome


def _key(unit: Unit) -> tuple[str, str, int]:
    return unit.name, unit.method, unit.seed


def _made_from(shelf: Shelf, unit: Unit) -> dict[str, str]:
    own = hashlib.sha256(Path(streams.__file__).read_bytes()).hexdigest()[:16]
    return shelf.key(unit) | {'streams': own}


def _find(shelf: Shelf, unit: Unit) -> dict[str, Any] | None:
    try:
        data = json.loads(shelf.path(unit).read_text())
        return data['run'] if data['key'] == _made_from(shelf, unit) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged


# ---------------------------------------------------------------------- figures
def _value(run: dict[str, Any], half: str, measure: str, k: int) -> float:
    if measure.startswith('open_loop_'):
        return run[half]['open_loop'][str(k)][measure.removeprefix('open_loop_')]
    return run[half][measure][str(k)]


def stream_figures(
    runs: Runs, methods: Sequence[str], seeds: Sequence[int], bounds: Bounds
) -> dict[str, dict[str, dict[str, dict[str, list]]]]:
    """Mean over seeds and bootstrap interval of everything measured, and of the bound."""

    def estimates(k: int, values: Sequence[float]) -> list[float]:
        return [k, float(np.mean(values)), *bootstrap(values)]

    def series(stream: str, half: str, measure: str, method: str) -> list[list[float]]:
        return [
            estimates(k, [_value(runs[stream, method, s], half, measure, k) for s in seeds])
            for k in (0, *CHECKPOINTS)
        ]

    figures = {
        stream: {
            half: {
                measure: {method: series(stream, half, measure, method) for method in methods}
                for measure in MEASURES
            }
            for half in HALVES
        }
        for stream in STREAMS
    }
    for stream in STREAMS:
        figures[stream][SHIFTED]['error'][BOUND] = [
            estimates(k, [bounds[stream, s][k] for s in seeds]) for k in CHECKPOINTS
        ]
    return figures


def stream_rows(runs: Runs, seeds: Sequence[int], bounds: Bounds) -> list[dict[str, Any]]:
    """The figures that have a bar, of the methods that were run."""
    methods = {method for _, method, _ in runs}
    rows = []
    if 'ours' not in methods:
        return rows
    for stream, (label, _) in STREAMS.items():
        judged = stream == 'actuator'
        cuts = {m: _cuts(runs, stream, m, seeds) for m in sorted(methods)}
        what = f'{label}: transitions that cut the one-step error 7 × ({STEPS}: more)'
        mean = float(np.mean(cuts['ours']))
        bars = (12.0, 5.0) if judged else (None, None)
        interval = bootstrap(cuts['ours'])
        rows.append(row(what, mean, 'transitions', 'lower', *bars, interval))
        at_best = [_allowed(runs, stream, s, bounds[stream, s]) for s in seeds]
        what = f'{label}: transitions that the {BOUND} asks for ({STEPS}: more)'
        interval = bootstrap(at_best)
        rows.append(
            row(what, float(np.mean(at_best)), 'transitions', 'lower', None, None, interval)
        )
        if stream not in OUTSIDE:  # there it need not be cut at all
            rows += _lead_rows(runs, stream, label, cuts, seeds)
        rows += _off_policy_rows(runs, stream, label, seeds)
        rows += _coverage_rows(runs, stream, label, seeds)
    seconds = np.concatenate([r['seconds'] for (_, m, _), r in runs.items() if m == 'ours'])
    for name, share, bar, aim in (('median', 50, 1.5, 0.3), ('p99', 99, 3.0, 0.6)):
        value = 1e3 * float(np.percentile(seconds, share))
        rows.append(
            row(f'learner per transition, one thread, {name}', value, 'ms', 'lower', bar, aim)
        )
    return rows


def _lead_rows(
    runs: Runs, stream: str, label: str, cuts: dict[str, np.ndarray], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """What others need until their error is cut; too little where they were not given enough.

    No numbers, and so no bar is met, if the learner's was not cut with every seed.
    """
    rows, judged = [], stream == 'actuator'
    always = 1.0 if cuts['ours'].max() < STEPS else float('nan')
    peers = [m for m in GRADIENTS if m in cuts]
    if peers:
        best = min(peers, key=lambda m: np.mean(cuts[m]))
        what = f'{label}: times fewer than {best}, the best of {" and ".join(peers)}'
        value, interval = _ratio(cuts[best], cuts['ours'])
        rows.append(
            row(what, always * value, '', 'higher', 10.0 if judged else None, None, interval)
        )
    if 'retrain' in cuts:
        mine = _spent(runs, stream, 'ours', cuts['ours'], seeds)
        theirs = _spent(runs, stream, 'retrain', cuts['retrain'], seeds)
        once = _dearest(runs, stream, 'retrain', cuts['retrain'], seeds)
        bars = (1e-2, 1e-3) if judged else (None, None)
        what = f'{label}: compute until then, learner / retraining from scratch'
        for name, spent, limits in (
            (what, theirs, bars),
            (f'{what}, its dearest training alone', once, (None, None)),
        ):
            value, interval = _ratio(mine, spent)
            rows.append(row(name, always * value, '', 'lower', *limits, interval))
    return rows


def _cuts(runs: Runs, stream: str, method: str, seeds: Sequence[int]) -> np.ndarray:
    """Transitions to cut the error, per seed; `STEPS` where they were too few."""
    found = []
    for seed in seeds:
        errors = {int(k): e for k, e in runs[stream, method, seed][SHIFTED]['error'].items()}
        found.append(min(cut(errors, _frozen(runs, stream, seed)), STEPS))
    return np.array(found, dtype=float)


def _frozen(runs: Runs, stream: str, seed: int) -> float:
    return runs[stream, 'frozen', seed][SHIFTED]['error']['0']


def _allowed(runs: Runs, stream: str, seed: int, bound: np.ndarray) -> float:
    """Transitions after which the bound is as low as the cut asks; `STEPS` if it never is."""
    low = np.flatnonzero(bound <= _frozen(runs, stream, seed) / FACTOR)
    return float(low[0]) if len(low) else float(STEPS)


def _spent(
    runs: Runs, stream: str, method: str, cuts: np.ndarray, seeds: Sequence[int]
) -> np.ndarray:
    """CPU seconds of learning from the shift until the error was cut, per seed.

    In all threads: what the background spends counts as well. A method whose error is never cut is
    charged what it spent on all `STEPS` transitions, which flatters it.
    """
    found = []
    for seed, k in zip(seeds, cuts, strict=True):
        run = runs[stream, method, seed]
        found.append(sum(run['seconds'][: int(k)]) + sum(run['background'][: int(k)]))
    return np.array(found)


def _dearest(
    runs: Runs, stream: str, method: str, cuts: np.ndarray, seeds: Sequence[int]
) -> np.ndarray:
    """CPU seconds of the dearest single transition until then, per seed.

    That is what retraining would cost had it known when to train, and trained once.
    """
    pairs = zip(seeds, cuts, strict=True)
    return np.array([max(runs[stream, method, s]['seconds'][: max(int(k), 1)]) for s, k in pairs])


def _off_policy_rows(
    runs: Runs, stream: str, label: str, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The worst output of the learner beside the frozen model and a specialist."""

    def errors(method: str, half: str, k: int) -> np.ndarray:
        """[seeds, ds]"""
        found = [runs[stream, method, s][half]['per_output'] for s in seeds]
        return np.array([f[str(k if str(k) in f else 0)] for f in found])

    rows = []
    for half, base, looks, bars in (
        (SHIFTED, 'frozen', CHECKPOINTS, (1.0, None)),
        (SHIFTED, 'oracle', CHECKPOINTS[-1:], (2.0, 1.2)),
        (NOMINAL, 'oracle', CHECKPOINTS[-1:], (2.0, 1.2)),
    ):
        worst = max(
            (
                _ratio(ours, theirs)
                for k in looks
                for ours, theirs in zip(errors('ours', half, k).T, errors(base, half, k).T)
            ),
            key=lambda pair: pair[0],
        )
        name = 'a specialist' if base == 'oracle' else base
        when = f'after {looks[0]}' if len(looks) == 1 else f'at worst from {looks[0]} on'
        what = f'{label}, {HALVES[half]}: off-policy error of the worst output / {name}, {when}'
        rows.append(row(what, worst[0], '', 'lower', *bars, worst[1]))
    return rows


def _coverage_rows(
    runs: Runs, stream: str, label: str, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    outside = stream in OUTSIDE
    bounds = ((0.84, 0.87), (0.95, 0.93)) if outside else ((0.86, 0.88), (0.94, 0.92))
    found = []
    for half in HALVES:
        for k in CHECKPOINTS:
            values = [_value(runs[stream, 'ours', s], half, 'coverage', k) for s in seeds]
            found.append((float(np.mean(values)), bootstrap(values)))
    rows = []
    for what, pick, better, bars in (
        ('least', min, 'higher', bounds[0]),
        ('most', max, 'lower', bounds[1]),
    ):
        value, interval = pick(found)
        name = f'{label}: coverage of 90 % intervals, {what} from 10 transitions on'
        rows.append(row(name, value, '', better, *bars, interval))
    return rows


def _ratio(
    above: np.ndarray, below: np.ndarray, draws: int = 10_000
) -> tuple[float, tuple[float, float]]:
    """Ratio of the means of two paired samples, and its 95 % bootstrap interval over seeds."""
    pick = np.random.default_rng(0).integers(len(above), size=(draws, len(above)))
    low, high = np.percentile(above[pick].mean(axis=1) / below[pick].mean(axis=1), [2.5, 97.5])
    return float(above.mean() / below.mean()), (float(low), float(high))


# ---------------------------------------------------------------------- for people
def stream_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """One table per stream, half and measure: methods by transitions, mean [interval]."""
    for stream, halves in figures.items():
        for half, measures in halves.items():
            for measure, methods in measures.items():
                title = f'{STREAMS[stream][0]}, {HALVES[half]}: {MEASURES[measure]}'
                table = Table(title=title, title_justify='left')
                table.add_column('after')
                for k in (0, *CHECKPOINTS):
                    table.add_column(str(k), justify='right')
                for method, line in methods.items():
                    cells = [_cell(*values) for _, *values in line]
                    before = [''] * (1 + len(CHECKPOINTS) - len(cells))  # the bound has no start
                    table.add_row(method, *before, *cells)
                yield table


def _cell(mean: float, low: float, high: float) -> str:
    return f'{mean:.3g}\n\\[{low:.2g}, {high:.2g}]'
