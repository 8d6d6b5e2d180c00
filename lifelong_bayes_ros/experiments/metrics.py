"""Figures of merit of a life, from the score per step of ours, the frozen model and the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .schedule import Life


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
    home: float  # score in the first phase, ours / frozen
    phases: list[Phase]


def t90(ours: np.ndarray, oracle: np.ndarray, window: int = 25, hold: int = 50) -> int | None:
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
        float(ours[home].mean() / frozen[home].mean()),
        phases,
    )
