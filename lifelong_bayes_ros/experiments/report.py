"""Picture of a life: what a person understands without reading the text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image  # with matplotlib
from rich.console import Console
from rich.table import Table

from ..learning.store import write_atomically
from ..memory.regimes import NEW, NOMINAL
from .life import Trace
from .metrics import SMOOTH, Figures, Summary
from .record import Run
from .schedule import Life

OURS = 'ours'
SOURCE = 'Source'  # key in a picture's file
COLOURS = {OURS: '#0b6e4f', 'frozen': '#b0413e', 'oracle': '#22304f'}
LABELS = {OURS: 'learning online', 'frozen': 'frozen model', 'oracle': 'oracle'}
OTHERS = plt.get_cmap('tab20').colors[1::2]  # pale
MARKS = {
    'shift': ('v', '#b0413e', 'change noticed'),
    'soft_shift': ('v', '#d98f89', 'weak change noticed'),
    'recall': ('o', '#2c6fbb', 'regime recalled'),
    'new_regime': ('D', '#0b6e4f', 'new regime stored'),
    'consolidated': ('s', '#6a4c93', 'memory consolidated'),
    'adopted': ('P', '#6a4c93', 'trunk adopted'),
    'rolled_back': ('X', '#6a4c93', 'rolled back'),
}


def colours(methods: Sequence[str]) -> dict[str, Any]:
    """A colour for each method: strong for the three that matter most, pale for the others."""
    others = [m for m in methods if m not in COLOURS]
    return COLOURS | {m: OTHERS[i % len(OTHERS)] for i, m in enumerate(others)}


def save_picture(figure: plt.Figure, path: Path, source: str = '') -> None:
    """Write a figure as PNG, wholly or not at all, with the hash of what it shows; close it."""
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=110, metadata={SOURCE: source})
    plt.close(figure)
    write_atomically(path, data.getvalue())


def source_of(path: Path) -> str:
    """The hash that `save_picture` wrote; empty: there is no such picture, or it is damaged."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.info.get(SOURCE, '')
    except (OSError, SyntaxError, ValueError):  # what Pillow makes of damage
        return ''


def _legend(axis: plt.Axes) -> None:
    if axis.get_legend_handles_labels()[0]:  # without any, matplotlib warns
        axis.legend(loc='upper left', bbox_to_anchor=(1.005, 1.0), fontsize=9, frameon=False)


def running_mean(values: np.ndarray, window: int = SMOOTH) -> np.ndarray:
    """Centred running mean of the same length."""
    kernel = np.ones(min(window, len(values)))  # or numpy would give as many as the window
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
        traces: by method; `ours`, if there, is the one whose thoughts are shown, else the first.
        summary: comparison of ours with the frozen model and the oracle.
        path: PNG file to write.
        title: first line of the picture.
    """
    subtitle = (
        f'{summary.gap_closed:.0%} of the gap between the frozen model and the oracle closed'
        + (f'; score at home {summary.home:.2f} × frozen' if np.isfinite(summary.home) else '')
    )
    _draw(life, period, traces, path, title, subtitle)


def draw_run(
    runs: Mapping[str, Run], found: Mapping[str, Figures], path: Path, source: str = ''
) -> None:
    """The picture of all methods through one life with one seed; `source`: see `save_picture`."""
    shown = found[OURS] if OURS in found else next(iter(found.values()))
    run = runs[shown.method]
    title = f'One life of {run.life.robot}: {run.name}, seed {run.seed}'
    subtitle = f'the robot is told neither what changes nor when; crashes: {shown.crashes}'
    if np.isfinite(shown.gap_closed):
        subtitle = f'{shown.gap_closed:.0%} of the gap to the oracle closed; ' + subtitle
    traces = {m: r.trace for m, r in runs.items()}
    _draw(run.life, run.period, traces, path, title, subtitle, source)


def _draw(
    life: Life,
    period: float,
    traces: Mapping[str, Trace],
    path: Path,
    title: str,
    subtitle: str,
    source: str = '',
) -> None:
    shown = traces.get(OURS) or next(iter(traces.values()))
    figure, axes = plt.subplots(
        4,
        1,
        figsize=(14, 10.5),
        sharex=True,
        height_ratios=[3.4, 1.5, 1.5, 1.5],
        layout='constrained',
    )
    seconds = np.arange(life.steps) * period
    figure.suptitle(f'{title}\n{subtitle}', fontsize=13)
    _scores(axes[0], seconds, traces)
    _uncertainty(axes[1], seconds, shown)
    _surprise(axes[2], period, seconds, shown)
    _regimes(axes[3], seconds, shown)
    _phases(axes, life, period)
    axes[3].set_xlabel('robot time [s]')
    axes[3].set_xlim(0, life.steps * period)
    save_picture(figure, path, source)


def _scores(axis: plt.Axes, seconds: np.ndarray, traces: Mapping[str, Trace]) -> None:
    colour = colours(list(traces))
    # The three that matter most come first in the legend and lie on top.
    first = [m for m in (OURS, 'oracle', 'frozen') if m in traces]
    for method in first + [m for m in traces if m not in first]:
        score = np.array(traces[method].score)
        strong = method in first
        axis.plot(
            seconds[: len(score)],
            running_mean(score, max(SMOOTH, len(score) // 60)),
            color=colour[method],
            label=f'{LABELS.get(method, method)}: {score.mean():.2f}',
            lw=2.8 if method == OURS else 1.8 if strong else 1.0,
            alpha=1.0 if strong else 0.8,
            ls='--' if method == 'oracle' else '-',
            zorder=4 if method == OURS else 3 if strong else 2,
        )
    crashed = traces[first[0]].crashed if first else []
    at = seconds[np.flatnonzero(crashed)]
    if len(at):
        axis.plot(at, np.zeros(len(at)), 'kx', label='crash')
    axis.set_ylabel('score\n(1 = on the reference)')
    axis.set_ylim(0, 1.02)
    _legend(axis)


def _uncertainty(axis: plt.Axes, seconds: np.ndarray, trace: Trace) -> None:
    n = min(len(trace.epistemic), len(seconds))
    axis.semilogy(seconds[:n], trace.epistemic[:n], color='#d17b0f', label='ignorance (epistemic)')
    axis.semilogy(seconds[:n], trace.aleatoric[:n], color='#8d99ae', label='noise (aleatoric)')
    axis.set_ylabel('uncertainty\n(share of a step)')
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
    palette = plt.get_cmap('tab10')(np.arange(len(names)) % 10)
    palette[-1] = matplotlib.colors.to_rgba('#d9d9d9')
    labels = {NOMINAL: 'as built', NEW: 'something new'}
    if n:
        texts = [labels.get(name, f'remembered: {name}') for name in names]
        axis.stackplot(seconds[:n], rows, labels=texts, colors=palette)
        _legend(axis)
    axis.set_ylim(0, 1)
    axis.set_ylabel('what the robot\nbelieves it is in')


def _phases(axes: np.ndarray, life: Life, period: float) -> None:
    home = life.phases[0][0]
    bounds = life.boundaries
    for (regime, _), first, last in zip(life.phases, bounds[:-1], bounds[1:], strict=True):
        start, end = first * period, last * period
        for axis in axes:
            axis.axvline(start, color='#bbbbbb', lw=0.8)
            if regime != home:
                axis.axvspan(start, end, color='#f4efe6', zorder=0)
        middle = (start + end) / 2
        text = describe(life.regimes[regime])
        axes[0].text(middle, 1.03, text, ha='center', va='bottom', fontsize=8, color='#555555')
        axes[0].annotate(
            regime,
            (middle, 1.03),
            xytext=(0, 4 + 11 * (text.count('\n') + 1)),
            textcoords='offset points',
            annotation_clip=False,
            ha='center',
            fontsize=13,
            weight='bold',
        )
    if life.episode:
        for step in range(life.episode, life.steps, life.episode):
            axes[3].axvline(step * period, color='black', ls=':', lw=1.2)


def describe(shifts: Sequence[Mapping[str, Any]]) -> str:
    """Shifts in a few words, a line for each."""
    lines = [
        ' '.join([kind.replace('_', ' '), *_words(values)])
        for shift in shifts
        for kind, values in shift.items()
    ]
    return '\n'.join(lines) or 'as built'


def _words(values: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in values.items():
        if isinstance(value, Mapping):  # a shift on its way from one to another
            words.append(('→ ' if key == 'end' else '') + describe([value]))
        elif isinstance(value, list | tuple):
            words.append(f'({", ".join(f"{v:g}" for v in value)})')
        else:
            words.append(str(value))
    return words


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
        f'gap closed {summary.gap_closed:.2f}'
        + (f'   score at home {summary.home:.3f} × frozen' if np.isfinite(summary.home) else '')
    )
