"""The published figures of lives, each beside the bar that it has to meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .aggregate import estimate, grouped, steps_to_90
from .metrics import CLAIMS, TAIL, Figures, PhaseFigures
from .published import row

OURS = 'ours'
# Gap closed on a robot's own life: bar and aim.
GAP = {
    'quad': (0.94, 1.0),
    'arm': (1.20, 1.0),
    'diffdrive': (0.92, 1.0),
    'cartpole': (0.94, 1.0),
}
LEAD = 0.1  # what the oracle must be ahead of the frozen model for a regime to matter
QUICK = ('quad', 'arm')  # robots whose recovery is not bound by the body's motion
FOREIGN = ('outside', 'held_out')  # folders of lives with shifts outside the task family


def life_rows(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """All rows that the figures of some lives can fill."""
    groups = grouped(found)
    plain = {n: m[OURS] for n, m in groups.items() if OURS in m and '/' not in n}
    rows: list[dict[str, Any]] = []
    for name, seeds in plain.items():
        rows += _own_rows(name, seeds)
    # A user's lives are judged together only where they are alone.
    own = {n: seeds for n, seeds in plain.items() if n in GAP} or plain
    pooled = [f for seeds in own.values() for f in seeds]
    if pooled:
        rows += _recovery_rows(pooled) + _event_rows(pooled)
        retrained = [f for n in own for f in groups[n].get('retrain', [])]
        rows += _compute_rows(pooled, retrained)
    for folder in FOREIGN:
        lives = {n: m[OURS] for n, m in groups.items() if n.startswith(f'{folder}/') and OURS in m}
        rows += _foreign_rows(folder, lives)
    for name, methods in groups.items():
        if name.startswith('long/') and OURS in methods:
            rows += _long_rows(name, methods[OURS])
    for name, methods in groups.items():
        rows += _lead_rows(name, next(iter(methods.values())))
    return rows


def _own_rows(name: str, seeds: list[Figures]) -> list[dict[str, Any]]:
    bar, aim = GAP.get(name, (None, None))
    judged = name in GAP
    gaps = [f.gap_closed for f in seeds]
    mean, home = estimate(gaps), estimate([f.home for f in seeds])
    coverage = _coverage(seeds, lambda p: True)
    off_frozen, off_specialist = _off_policy(seeds)
    n = len(seeds)

    def barred(*values: float) -> tuple[float | None, ...]:
        return values if judged else (None, None)

    at_home = row(
        f'{name}: score at home, learning on / frozen',
        home.mean,
        '',
        'higher',
        *barred(0.99, 1.0),
        home[1:],
    )
    return [
        row(f'{name}: gap closed, mean of {n} seeds', mean.mean, '', 'higher', bar, aim, mean[1:]),
        row(f'{name}: gap closed, worst seed', _min(gaps), '', 'higher', *barred(0.75, 0.9)),
        *([at_home] if math.isfinite(home.mean) else []),  # else the life begins with a shift
        row(
            f'{name}: 90 % intervals cover, lowest phase',
            _min(coverage),
            '',
            'higher',
            *barred(0.86, 0.88),
        ),
        row(
            f'{name}: 90 % intervals cover, highest phase',
            _max(coverage),
            '',
            'lower',
            *barred(0.94, 0.92),
        ),
        row(
            f'{name}: one-step error off policy / frozen, worst output, phase and seed',
            off_frozen,
            '',
            'lower',
            *barred(1.0, 1.0),
        ),
        row(
            f'{name}: one-step error off policy / specialist, worst output, phase and seed',
            off_specialist,
            '',
            'lower',
            *barred(2.0, 1.2),
        ),
        row(
            f'{name}: learner CPU per transition, median',
            float(np.median([f.learn_ms[0] for f in seeds])),
            'ms',
            'lower',
            *barred(1.5, 0.3),
        ),
        row(
            f'{name}: learner CPU per transition, p99',
            float(np.median([f.learn_ms[1] for f in seeds])),
            'ms',
            'lower',
            *barred(3.0, 0.6),
        ),
    ]


def _recovery_rows(pooled: list[Figures]) -> list[dict[str, Any]]:
    rows = []
    quick = [f for f in pooled if f.robot in QUICK]
    steps = [steps_to_90(p) for f in quick for p in f.shifts if p.visit == 1]
    if steps:
        robots = ' and '.join(dict.fromkeys(f.robot for f in quick))
        name = f'steps to 90 % of the oracle, first visits, {robots}, median of {len(steps)}'
        rows.append(row(name, float(np.median(steps)), 'steps', 'lower', 30, 15))
    visits = [_visits(f) for f in pooled]
    pairs = [(v[n, 1], v[n, 2]) for v in visits for n, visit in v if visit == 2 and (n, 1) in v]
    if pairs:
        first, second = np.sum(pairs, axis=0)
        ratio = float(second / first) if first else math.nan
        name = f'steps to 90 % of the oracle, second visit / first, {len(pairs)} regimes'
        rows.append(row(name, ratio, '', 'lower', 0.5, 0.2))
        # Scores scatter: a robot that has nothing to learn takes steps, too.
        calm = [steps_to_90(p) for f in pooled for p in f.phases if not p.shift]
        ratio = _mean(calm) / (first / len(pairs)) if first else math.nan
        name = 'steps to 90 % of the oracle, phases without a shift / first visits'
        rows.append(row(name, ratio, '', 'lower', None))
    return rows


def _visits(f: Figures) -> dict[tuple[str, int], int]:
    """Steps to 90 % of the oracle at each visit of a regime that begins with a shift."""
    return {(p.regime, p.visit): steps_to_90(p) for p in f.shifts}


def _event_rows(pooled: list[Figures]) -> list[dict[str, Any]]:
    shifts = [p for f in pooled for p in f.shifts]
    if not shifts:
        return []
    delays = [p.detected for p in shifts if p.detected is not None]
    missed = (len(shifts) - len(delays)) / len(shifts)
    spans = sum(f.seconds for f in pooled) / 1000  # of 1000 s
    far = {kind: sum(f.far[kind] for f in pooled) / spans for kind in CLAIMS}
    returns = [p for p in shifts if p.visit > 1]
    right = [p.recalled for p in returns if p.right]
    rises = _known(p.rise_epistemic for p in shifts)
    wrong = sum(f.wrong_recalls for f in pooled) / spans
    rate = 'per 1000 s'
    return [
        row(
            f'delay until a shift is detected, median of {len(shifts)}',
            _percentile(delays, 50),
            'steps',
            'lower',
            2,
            1,
        ),
        row(
            'delay until a shift is detected, p90', _percentile(delays, 90), 'steps', 'lower', 5, 3
        ),
        row('shifts not detected within 25 steps', 100 * missed, '%', 'lower', 1, 0),
        row('events far from any shift', sum(far.values()), rate, 'lower', 6, 1),
        *(row(f'of these: {kind}', value, rate, 'lower', None) for kind, value in far.items()),
        row(
            f'returns to a known regime recalled rightly, of {len(returns)}',
            100 * len(right) / len(returns) if returns else math.nan,
            '%',
            'higher',
            None,
        ),
        row('delay of a right recall, median', _percentile(right, 50), 'steps', 'lower', None),
        row('wrong recalls', wrong, rate, 'lower', None),
        row('false or wrong recalls', wrong + far['recall'], rate, 'lower', 3, 1),
        row(
            'shifts at which the epistemic spread doubles within 6 steps',
            100 * float(np.mean([r >= 2 for r in rises])) if rises else math.nan,
            '%',
            'higher',
            None,
        ),
    ]


def _compute_rows(ours: list[Figures], retrained: list[Figures]) -> list[dict[str, Any]]:
    """CPU seconds in all threads after first-visit shifts, for each time that the score recovered.

    Recovered is 90 % of the oracle's for both. Shifts from which a method did not recover cost it
    what it spent until the phase ended.
    """
    mine, shifts, recovered = _spent(ours)
    rows = [row('learner CPU per recovery', _per(mine, recovered), 's', 'lower', None)]
    if retrained:
        theirs, others, again = _spent(retrained)
        share = _per(mine, recovered) / _per(theirs, again)
        name = 'learner CPU per recovery / retraining from scratch'
        rows.append(row(name, share, '', 'lower', 0.01, 0.001))
        name = 'the same per shift, recovered or not'
        rows.append(row(name, _per(mine, shifts) / _per(theirs, others), '', 'lower', None))
        for who, some, of in (('learner', recovered, shifts), ('retraining', again, others)):
            name = f'first-visit shifts from which {who} recovered, of {of}'
            rows.append(row(name, some, '', 'higher', None))
    return rows


def _spent(figures: list[Figures]) -> tuple[float, int, int]:
    """CPU seconds after first-visit shifts, how many there were, and recoveries among them."""
    shifts = [p for f in figures for p in f.shifts if p.visit == 1]
    return sum(p.compute for p in shifts), len(shifts), sum(p.t90 is not None for p in shifts)


def _per(total: float, count: int) -> float:
    return total / count if count else math.inf


def _foreign_rows(folder: str, lives: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    if not lives:
        return []
    rows, worst, windows, coverage = [], [], [], []
    for name, seeds in lives.items():
        harm = [p.score - p.frozen for f in seeds for p in _foreign(f)]
        back = [p.score - p.frozen for f in seeds for p in f.shifts if p.visit > 1]
        window = _min([f.worst_window for f in seeds])
        covers = _coverage(seeds, lambda p: p.shift and p.visit == 1)
        mean = estimate(harm)
        what = f'{name}: score − frozen'
        rows += [
            row(f'{what}, mean', mean.mean, '', 'higher', None, None, mean[1:]),
            row(f'{what}, worst seed', _min(harm), '', 'higher', None),
            row(f'{what}, worst 50 steps', window, '', 'higher', None),
            row(f'{what}, back home, worst seed', _min(back), '', 'higher', None),
            row(f'{name}: 90 % intervals cover', _mean(covers), '', 'higher', None),
        ]
        worst += harm
        windows.append(window)
        coverage += covers
    what = f'{folder}, {len(lives)} shifts'
    return [
        row(
            f'{what}: phase mean − frozen, worst of {len(worst)} runs',
            _min(worst),
            '',
            'higher',
            0.0,
            0.05,
        ),
        row(f'{what}: worst 50 steps − frozen', _min(windows), '', 'higher', -0.1, -0.03),
        row(f'{what}: 90 % intervals cover, lowest', _min(coverage), '', 'higher', 0.84, 0.87),
        row(f'{what}: 90 % intervals cover, highest', _max(coverage), '', 'lower', 0.95, 0.93),
        *rows,
    ]


def _long_rows(name: str, seeds: list[Figures]) -> list[dict[str, Any]]:
    gaps = estimate([f.gap_closed_end for f in seeds])
    what = f'{name}: gap closed in the last {TAIL:.0f} s, mean of {len(seeds)} seeds'
    return [row(what, gaps.mean, '', 'higher', 0.5, 0.9, gaps[1:])]


def _lead_rows(name: str, seeds: list[Figures]) -> list[dict[str, Any]]:
    """Whether every regime matters: no row is to be won on a shift that does not."""
    leads: dict[str, list[float]] = {}
    for phase in (p for f in seeds for p in _foreign(f)):
        leads.setdefault(phase.regime, []).append(phase.oracle - phase.frozen)
    means = {regime: float(np.mean(v)) for regime, v in leads.items()}
    if not means:
        return []
    least = min(means, key=means.get)
    below = [f'{regime} {lead:.2f}' for regime, lead in means.items() if lead < LEAD]
    where = f'fails in {", ".join(below)}' if below else f'least in {least}'
    return [row(f'{name}: oracle − frozen, {where}', means[least], '', 'higher', LEAD)]


def _foreign(f: Figures) -> list[PhaseFigures]:
    """The phases of a life away from home."""
    home = f.phases[0].regime
    return [p for p in f.phases if p.regime != home]


def _coverage(seeds: list[Figures], which: Callable[[PhaseFigures], bool]) -> list[float]:
    """Coverage of each phase of a life, mean over seeds."""
    rows = zip(*(f.phases for f in seeds), strict=True)
    return [_mean([p.coverage for p in phases]) for phases in rows if which(phases[0])]


def _off_policy(seeds: list[Figures]) -> tuple[float, float]:
    """Largest ratio of off-policy errors to the frozen model's and to the specialist's."""
    phases = [p for f in seeds for p in f.phases]

    def worst(theirs: Callable[[PhaseFigures], list[float]]) -> float:
        pairs = (zip(p.off_policy, theirs(p), strict=True) for p in phases)
        return _max([a / b for pair in pairs for a, b in pair if b > 0])

    return worst(lambda p: p.off_policy_frozen), worst(lambda p: p.off_policy_oracle)


def _known(values: Iterable[float]) -> list[float]:
    return [v for v in values if math.isfinite(v)]


def _min(values: Iterable[float]) -> float:
    return min(_known(values), default=math.nan)


def _max(values: Iterable[float]) -> float:
    return max(_known(values), default=math.nan)


def _mean(values: Iterable[float]) -> float:
    known = _known(values)
    return float(np.mean(known)) if known else math.nan


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else math.nan
