"""Figures of merit of a life: one run beside the frozen model and the oracle.

All are computed alike for every method, from what its controller acted on. A shift is a boundary
of phases at which the plant changes; steps and delays count from it, so that the first transition
of the changed plant is number 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..memory.regimes import NOMINAL
from .record import Run
from .schedule import Life

SMOOTH = 25  # steps of the running mean of scores
NEAR = 25  # steps from a shift within which an event can be due to it
WARM = 10  # steps after a shift from which intervals have to cover
WINDOW = 50  # steps of the shortest harm that counts
BEFORE, AFTER = 25, 6  # steps around a shift in which its rise of uncertainty is looked for
TAIL = 30.0  # s, the end of a long life
WINDOWS = ((0, 5), (5, 10), (10, 25), (25, 100))  # steps after a shift
ALARMS = ('shift', 'recall')
CLAIMS = (*ALARMS, 'soft_shift')  # all that say that the plant has changed


@dataclass(frozen=True)
class Phase:
    """One phase of a life: mean scores of ours, the frozen model and the oracle."""

    regime: str
    first: int
    last: int
    ours: float
    frozen: float
    oracle: float
    t90: int | None  # steps until ours stays at 90 % of the oracle, None if never


@dataclass(frozen=True)
class Summary:
    """A life in a few numbers."""

    ours: float
    frozen: float
    oracle: float
    gap_closed: float  # (ours − frozen) / (oracle − frozen)
    home: float  # score in the first phase, ours / frozen; NaN: it is shifted
    phases: list[Phase]


def t90(ours: np.ndarray, oracle: np.ndarray, window: int = SMOOTH, hold: int = 50) -> int | None:
    """First step from which ours, smoothed, stays ≥ 90 % of the oracle's for `hold` steps.

    Args:
        ours: scores from a shift on.
        oracle: the oracle's scores at the same steps.
        window: length of the running mean.
        hold: steps that it must stay there, within the phase.
    """
    kernel = np.ones(window) / window
    good = np.convolve(ours, kernel, 'valid') >= 0.9 * np.convolve(oracle, kernel, 'valid')
    for step in range(len(good)):
        stretch = good[step : step + hold]
        if stretch.all() and len(stretch) >= min(hold, len(good)):
            return step
    return None


def summarise(life: Life, ours: np.ndarray, frozen: np.ndarray, oracle: np.ndarray) -> Summary:
    """Compare three runs of the same life, each a score per step [life.steps]."""
    phases = []
    bounds = life.boundaries
    for (regime, _), first, last in zip(life.phases, bounds[:-1], bounds[1:], strict=True):
        part = slice(first, last)
        phases.append(
            Phase(
                regime,
                first,
                last,
                float(ours[part].mean()),
                float(frozen[part].mean()),
                float(oracle[part].mean()),
                t90(ours[part], oracle[part]),
            )
        )
    home = slice(0, life.home_steps())
    span = oracle.mean() - frozen.mean()
    return Summary(
        float(ours.mean()),
        float(frozen.mean()),
        float(oracle.mean()),
        float((ours.mean() - frozen.mean()) / span) if span > 0 else float('nan'),
        _mean(ours[home]) / _mean(frozen[home]),
        phases,
    )


# ---------------------------------------------------------------------- one run in full
@dataclass(frozen=True)
class PhaseFigures:
    """One method in one phase. NaN or None where there is nothing to tell."""

    regime: str
    first: int
    last: int
    shift: bool  # whether the plant changed at its first step
    visit: int  # how often the regime has come, 1 the first time
    score: float
    frozen: float
    oracle: float
    t90: int | None
    drop: float  # worst mean of 25 steps
    coverage: float  # of 90 % intervals, from 10 steps after the shift
    coverage_early: float  # in the first 25 steps
    nrmse: list[float]  # one-step, in the `WINDOWS` after the shift
    detected: int | None  # delay of the first shift or recall event, None if none came in time
    recalled: int | None  # delay of the first recall, at a later visit
    right: bool | None  # whether it recalled what was learned here
    rise: float  # predictive spread after the shift over before
    rise_epistemic: float  # the part of it that is ignorance
    off_policy: list[float]  # per output, at the end
    off_policy_frozen: list[float]
    off_policy_oracle: list[float]
    open_loop: dict[int, float]  # steps ahead: error
    open_loop_nominal: dict[int, float]
    compute: float  # CPU s of the learner, in all threads, until it had recovered


@dataclass(frozen=True)
class Figures:
    """One method through one life with one seed."""

    name: str
    robot: str
    method: str
    seed: int
    seconds: float  # of robot time
    score: float
    frozen: float
    oracle: float
    gap_closed: float
    gap_closed_end: float  # in the last 30 s
    home: float  # score in the first phase over the frozen model's; NaN: it is shifted
    worst_phase: float  # least score of a phase less the frozen model's
    worst_window: float  # least mean of 50 steps after the first shift, less the frozen model's
    far: dict[str, int]  # events farther than 25 steps from a shift, by kind
    wrong_recalls: int
    learn_ms: tuple[float, float]  # CPU of one thread per transition, median and p99
    learn_wall_ms: tuple[float, float]
    plan_ms: tuple[float, float]  # by the clock on the wall
    memory: int  # bytes
    crashes: int
    phases: list[PhaseFigures]

    @property
    def shifts(self) -> list[PhaseFigures]:
        """The phases that begin with a shift."""
        return [p for p in self.phases if p.shift]


def figures(run: Run, frozen: Run, oracle: Run) -> Figures:
    """The figures of a run beside the frozen model and the oracle in the same life and seed."""
    life, trace = run.life, run.trace
    score, off, best = (np.array(r.trace.score) for r in (run, frozen, oracle))
    bounds = life.boundaries
    shifts = life.shift_steps
    recalls = _recalls(run)
    cpu = np.add(trace.learn_cpu, trace.background_cpu)
    seen: dict[str, int] = {}
    phases = []
    for index, (regime, _) in enumerate(life.phases):
        first, last = bounds[index], bounds[index + 1]
        part, shifted = slice(first, last), first in shifts
        seen[regime] = seen.get(regime, 0) + 1
        recovered = t90(score[part], best[part])
        inside, error = np.array(trace.inside[part]), np.array(trace.error[part])
        recall = recalls.get(index)
        done = last - first if recovered is None else min(recovered + SMOOTH, last - first)
        phases.append(
            PhaseFigures(
                regime=regime,
                first=first,
                last=last,
                shift=shifted,
                visit=seen[regime],
                score=_mean(score[part]),
                frozen=_mean(off[part]),
                oracle=_mean(best[part]),
                t90=recovered,
                drop=_worst(score[part], SMOOTH),
                coverage=_mean(inside[WARM:]),
                coverage_early=_mean(inside[:NEAR]),
                nrmse=[math.sqrt(_mean(error[a:b])) for a, b in WINDOWS],
                detected=_first(run, ALARMS, first, min(first + NEAR, last)) if shifted else None,
                recalled=recall[0] if recall else None,
                right=recall[1] if recall else None,
                rise=_rise(np.hypot(trace.epistemic, trace.aleatoric), first, shifted),
                rise_epistemic=_rise(np.array(trace.epistemic), first, shifted),
                off_policy=run.off_policy[index],
                off_policy_frozen=frozen.off_policy[index],
                off_policy_oracle=oracle.off_policy[index],
                open_loop={h: v[index] for h, v in run.open_loop.items()},
                open_loop_nominal={h: v[index] for h, v in run.nominal.items()},
                compute=float(cpu[first : first + done].sum()),
            )
        )
    home = slice(0, life.home_steps())
    tail = slice(max(life.steps - round(TAIL / run.period), 0), life.steps)
    harm = score - off
    far = [e.event for e in trace.events if e.event in CLAIMS and _is_far(e.step, shifts)]
    return Figures(
        name=run.name,
        robot=life.robot,
        method=run.method,
        seed=run.seed,
        seconds=life.steps * run.period,
        score=_mean(score),
        frozen=_mean(off),
        oracle=_mean(best),
        gap_closed=_gap(score, off, best),
        gap_closed_end=_gap(score[tail], off[tail], best[tail]),
        home=_mean(score[home]) / _mean(off[home]) if off[home].any() else math.nan,
        worst_phase=min(p.score - p.frozen for p in phases),
        worst_window=_worst(harm[shifts[0] :], WINDOW) if shifts else math.nan,
        far={kind: far.count(kind) for kind in CLAIMS},
        wrong_recalls=sum(right is False for _, right in recalls.values()),
        learn_ms=_milliseconds(trace.learn_cpu),
        learn_wall_ms=_milliseconds(trace.learn_seconds),
        plan_ms=_milliseconds(trace.plan_seconds),
        memory=run.memory,
        crashes=int(np.sum(trace.crashed)),
        phases=phases,
    )


def bootstrap(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (Efron 1979); the same one every time."""
    known = np.array([v for v in values if math.isfinite(v)])
    if not len(known):
        return math.nan, math.nan
    pick = np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))
    low, high = np.percentile(known[pick].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _gap(score: np.ndarray, frozen: np.ndarray, oracle: np.ndarray) -> float:
    span = oracle.mean() - frozen.mean()
    return float((score.mean() - frozen.mean()) / span) if span > 0 else math.nan


def _worst(values: np.ndarray, window: int) -> float:
    """Least mean of `window` neighbours; of all, where there are fewer."""
    window = min(window, len(values))
    return float(np.convolve(values, np.ones(window) / window, 'valid').min())


def _milliseconds(seconds: Sequence[float]) -> tuple[float, float]:
    return 1e3 * float(np.median(seconds)), 1e3 * float(np.percentile(seconds, 99))


def _first(run: Run, kinds: Sequence[str], first: int, last: int) -> int | None:
    """Delay of the first event of some kinds in steps [first, last)."""
    for event in run.trace.events:
        if event.event in kinds and first <= event.step < last:
            return event.step - first + 1
    return None


def _is_far(step: int, shifts: Sequence[int]) -> bool:
    return all(not 0 <= step - shift < NEAR for shift in shifts)


def _rise(spread: np.ndarray, first: int, shifted: bool) -> float:
    """Largest spread in the first predictions after a shift, over the mean before it."""
    # The prediction of the first step itself was made before anything could be noticed.
    after = spread[first + 1 : first + 1 + AFTER]
    after, before = after[np.isfinite(after)], _mean(spread[max(first - BEFORE, 0) : first])
    return float(after.max() / before) if shifted and len(after) and before > 0 else math.nan


def _recalls(run: Run) -> dict[int, tuple[int, bool]]:
    """First recall in each later visit of a regime, by phase: delay, and whether it was right.

    Right is a regime that the method lived in towards the end of an earlier visit, under the name
    that consolidation may have given it since; where the robot is as built, the nominal one, too.
    """
    life, trace = run.life, run.trace
    bounds = life.boundaries
    if not trace.regimes:
        return {}
    lived: dict[str, set[str]] = {}
    found = {}
    events = iter(sorted(trace.events, key=lambda e: e.step))
    event = next(events, None)
    for index, (regime, _) in enumerate(life.phases):
        first, last = bounds[index], bounds[index + 1]
        while event is not None and event.step < last:
            for kept, absorbed in event.detail.get('merged', ()):
                for names in lived.values():
                    if absorbed in names:
                        names.add(kept)
            is_return = regime in lived and first in life.shift_steps
            if event.event == 'recall' and is_return and index not in found:
                name, as_built = event.detail.get('regime'), not life.regimes[regime]
                right = name in lived[regime] or (as_built and name == NOMINAL)
                found[index] = (event.step - first + 1, right)
            event = next(events, None)
        late = range(max(first, last - WINDOW), last)
        names = {max(trace.regimes[s], key=trace.regimes[s].get) for s in late}
        lived.setdefault(regime, set()).update(names)
    return found
