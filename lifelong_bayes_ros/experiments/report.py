"""Picture and tables of a life: what a person understands without reading the text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from ..memory.regimes import NEW, NOMINAL
from .life import Trace
from .metrics import Summary
from .schedule import Life

COLOURS = {'ours': '#0b6e4f', 'frozen': '#b0413e', 'oracle': '#5b6c8f'}
LABELS = {'ours': 'learning online', 'frozen': 'frozen model', 'oracle': 'oracle'}
MARKS = {
    'shift': ('v', '#b0413e', 'shift noticed'),
    'soft_shift': ('v', '#d98f89', 'weak shift noticed'),
    'recall': ('o', '#2c6fbb', 'regime recalled'),
    'new_regime': ('D', '#0b6e4f', 'new regime stored'),
    'consolidated': ('s', '#6a4c93', 'memory consolidated'),
    'rolled_back': ('X', '#6a4c93', 'consolidation rolled back'),
}


def _legend(axis: plt.Axes) -> None:
    axis.legend(loc='upper left', bbox_to_anchor=(1.005, 1.0), fontsize=9, frameon=False)


def running_mean(values: np.ndarray, window: int = 25) -> np.ndarray:
    """Centred running mean of the same length."""
    kernel = np.ones(window)
    weight = np.convolve(np.ones(len(values)), kernel, 'same')
    return np.convolve(values, kernel, 'same') / weight


def draw_life(
    life: Life,
    period: float,
    traces: Mapping[str, Trace],
    summary: Summary,
    path: Path,
    title: str,
) -> None:
    """One picture of a life: score, uncertainty, surprise with events, regime probabilities.

    Args:
        life: regimes and phases.
        period: seconds per control step.
        traces: `ours`, `frozen`, `oracle`.
        summary: their comparison.
        path: PNG file to write.
        title: first line of the picture.
    """
    ours = traces['ours']
    figure, axes = plt.subplots(
        4,
        1,
        figsize=(13, 10.5),
        sharex=True,
        height_ratios=[3, 1.6, 1.6, 1.6],
        layout='constrained',
    )
    seconds = np.arange(life.steps) * period
    figure.suptitle(
        f'{title}\n{summary.gap_closed:.0%} of the gap between the frozen model and the oracle '
        f'closed; score at home {summary.home:.2f} × frozen',
        fontsize=13,
    )
    _scores(axes[0], seconds, traces)
    _uncertainty(axes[1], seconds, ours)
    _surprise(axes[2], period, seconds, ours)
    _regimes(axes[3], seconds, ours)
    _phases(axes, life, period, summary)
    axes[3].set_xlabel('robot time [s]')
    axes[3].set_xlim(0, life.steps * period)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _scores(axis: plt.Axes, seconds: np.ndarray, traces: Mapping[str, Trace]) -> None:
    for name in ('frozen', 'oracle', 'ours'):
        score = np.array(traces[name].score)
        axis.plot(seconds, running_mean(score), color=COLOURS[name], label=LABELS[name], lw=2)
    crashes = np.flatnonzero(traces['ours'].crashed)
    if len(crashes):
        axis.plot(seconds[crashes], np.zeros(len(crashes)), 'kx', label='crash')
    axis.set_ylabel('score\n(1 = on the reference)')
    axis.set_ylim(0, 1.02)
    _legend(axis)


def _uncertainty(axis: plt.Axes, seconds: np.ndarray, trace: Trace) -> None:
    n = min(len(trace.epistemic), len(seconds))
    axis.semilogy(seconds[:n], trace.epistemic[:n], color='#d17b0f', label='epistemic (learnable)')
    axis.semilogy(seconds[:n], trace.aleatoric[:n], color='#8d99ae', label='aleatoric (noise)')
    axis.set_ylabel('predictive sd\n(share of a step)')
    _legend(axis)


def _surprise(axis: plt.Axes, period: float, seconds: np.ndarray, trace: Trace) -> None:
    n = min(len(trace.nis), len(seconds))
    axis.semilogy(seconds[:n], np.maximum(trace.nis[:n], 0.05), color='#444444', lw=0.8)
    axis.axhline(1, color='#8d99ae', lw=0.8)
    for kind, (marker, colour, label) in MARKS.items():
        at = [e.step * period for e in trace.events if e.event == kind]
        if at:
            axis.plot(
                at, np.full(len(at), 60.0), marker, color=colour, label=label, ls='', markersize=8
            )
    axis.set_ylim(0.05, 200)
    axis.set_ylabel('surprise\n(1 = as expected)')
    _legend(axis)


def _regimes(axis: plt.Axes, seconds: np.ndarray, trace: Trace) -> None:
    names = [NOMINAL]
    names += sorted({n for p in trace.regimes for n in p} - {NOMINAL, NEW})
    names.append(NEW)
    n = min(len(trace.regimes), len(seconds))
    rows = np.array([[p.get(name, 0.0) for p in trace.regimes[:n]] for name in names])
    colours = plt.get_cmap('tab10')(np.arange(len(names)) % 10)
    colours[-1] = matplotlib.colors.to_rgba('#d9d9d9')
    axis.stackplot(seconds[:n], rows, labels=names, colors=colours)
    axis.set_ylim(0, 1)
    axis.set_ylabel('belief over\nregimes')
    _legend(axis)


def _phases(axes: np.ndarray, life: Life, period: float, summary: Summary) -> None:
    for phase in summary.phases:
        start, end = phase.first * period, phase.last * period
        for axis in axes:
            axis.axvline(start, color='#bbbbbb', lw=0.8)
            if phase.regime != life.phases[0][0]:
                axis.axvspan(start, end, color='#f4efe6', zorder=0)
        axes[0].text(
            (start + end) / 2, 1.03, phase.regime, ha='center', fontsize=12, weight='bold'
        )
    if life.episode:
        for step in range(life.episode, life.steps, life.episode):
            axes[3].axvline(step * period, color='black', ls=':', lw=1.2)


def print_summary(console: Console, summary: Summary) -> None:
    """A short table of the phases."""
    table = Table(title=None)
    for heading in ('phase', 'frozen', 'online', 'oracle', 'steps to 90 % of the oracle'):
        table.add_column(heading, justify='left' if heading == 'phase' else 'right')
    for p in summary.phases:
        reached = 'not reached' if p.t90 is None else str(p.t90)
        table.add_row(p.regime, f'{p.frozen:.3f}', f'{p.ours:.3f}', f'{p.oracle:.3f}', reached)
    table.add_section()
    table.add_row(
        'life', f'{summary.frozen:.3f}', f'{summary.ours:.3f}', f'{summary.oracle:.3f}', ''
    )
    console.print(table)
    console.print(
        f'gap closed {summary.gap_closed:.2f}   score at home {summary.home:.3f} × frozen'
    )
