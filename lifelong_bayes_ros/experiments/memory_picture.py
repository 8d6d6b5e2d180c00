"""The memory map as a picture: what the robot remembers, and which moments shaped it most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.gridspec import GridSpec

from ..dynamics.model import Dynamics
from ..errors import UserError
from ..learning.store import write_atomically
from ..memory.labels import MemorableLabel
from ..memory.regimes import Library
from ..memory.sensitivity import (
    KINDS,
    Memorable,
    trajectory,
)

COLOURS = dict(zip(KINDS, ('#8d99ae', '#2c6fbb', '#d1495b'), strict=True))
MEANING = dict(
    zip(
        KINDS,
        (
            'regular: what memory already expects',
            'uncertain: the robot was seldom there',
            'unpredictable: it moved otherwise than expected',
        ),
        strict=True,
    )
)
MARKERS = 'os^Dvp*hXP<>'
SHOWN = 6  # most memorable transitions that are shown in full
AROUND = 12  # transitions before and after them
LABELS_HEIGHT = 3.6  # inches of the panels of outcomes
LEAST = 1e-6  # that is drawn, on axes that are logarithmic
MOST_OUTCOMES = 5  # that have room for a panel


def draw(
    dynamics: Dynamics,
    library: Library,
    found: Sequence[Memorable],
    path: Path,
    labels: Sequence[MemorableLabel] = (),
) -> None:
    """Write the picture.

    Args:
        dynamics: the model.
        library: regimes that the transitions are remembered by.
        found: remembered transitions, the most memorable first.
        path: file to write, .png, .svg or .pdf.
        labels: of outcomes, each of which gets a panel of its own.

    Raises:
        UserError: nothing is remembered yet, or no such kind of picture.
    """
    if not found:
        raise UserError('nothing is remembered yet; let the robot learn first')
    kind = path.suffix.lstrip('.').lower()
    if kind not in ('png', 'svg', 'pdf'):
        raise UserError(f'--out {path}: give a picture that ends with .png, .svg or .pdf')
    shown = found[:SHOWN]
    figure = plt.figure(figsize=(15, 9 + LABELS_HEIGHT * bool(labels)), layout='constrained')
    upper = figure
    if labels:
        upper, lower = figure.subfigures(2, 1, height_ratios=(9, LABELS_HEIGHT))
        _labels(lower, labels)
    grid = GridSpec(len(shown), 2, upper, width_ratios=(1.35, 1))
    _scatter(upper.add_subplot(grid[:, 0]), library, found, shown)
    for place, one in enumerate(shown):
        axes = upper.add_subplot(grid[place, 1])
        _moment(axes, dynamics, library, one, place + 1, place == len(shown) - 1)
    robot = dynamics.spec.name
    figure.suptitle(f'What {robot} remembers, and the {len(shown)} moments that shaped it most')
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=110)
    plt.close(figure)
    write_atomically(path, data.getvalue())


def _scatter(
    axes: Axes, library: Library, found: Sequence[Memorable], shown: Sequence[Memorable]
) -> None:
    markers = {n: MARKERS[i % len(MARKERS)] for i, n in enumerate(library.names)}
    for name in library.names:
        for kind in KINDS:
            some = [m for m in found if (m.regime, m.kind) == (name, kind)]
            x, y = [m.leverage for m in some], [m.surprise for m in some]
            axes.scatter(x, y, 34, COLOURS[kind], marker=markers[name], alpha=0.65, linewidths=0)
    axes.set(xscale='log', yscale='log')
    for place, one in enumerate(shown, start=1):
        at = one.leverage, one.surprise
        axes.scatter(*at, 150, facecolors='none', edgecolors='black', linewidths=1.4)
        axes.annotate(
            str(place), at, (9, 7), textcoords='offset points', fontsize=13, fontweight='bold'
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plt.FuncFormatter(lambda value, at: f'{value:g}'))
    axes.set_xlabel('how unsure the robot is there  (variance of its prediction / noise) →')
    axes.set_ylabel('how wrong it would be, had it not seen this  (noise standard deviations) →')
    counts = {kind: sum(m.kind == kind for m in found) for kind in KINDS}
    handles = [
        plt.Line2D([], [], marker='o', linestyle='', color=COLOURS[k], label=f'{n} {MEANING[k]}')
        for k, n in counts.items()
    ]
    for name in library.names:
        label = _title(library, name)
        dot = plt.Line2D([], [], marker=markers[name], linestyle='', color='#333333', label=label)
        handles.append(dot)
    place = {'loc': 'lower center', 'bbox_to_anchor': (0.5, 1.0), 'ncols': 2}
    legend = axes.legend(handles=handles, frameon=False, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _labels(figure: SubFigure, labels: Sequence[MemorableLabel]) -> None:
    """One panel for each of the first outcomes: how unsure and how wrong, label by label."""
    names = sorted({m.outcome for m in labels})
    shown = names[:MOST_OUTCOMES]
    more = '' if shown == names else f', {len(shown)} of {len(names)}'
    figure.suptitle(f'Labels of outcomes{more}', fontsize=10)
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for kind in KINDS:
            some = [m for m in labels if (m.outcome, m.kind) == (name, kind)]
            x, y = ([max(getattr(m, k), LEAST) for m in some] for k in ('leverage', 'surprise'))
            label = f'{len(some)} {kind}'
            axes.scatter(x, y, 16, COLOURS[kind], alpha=0.65, linewidths=0, label=label)
        axes.set(xscale='log', yscale='log')
        axes.set_title(name, fontsize=9, loc='left', parse_math=False)
        axes.legend(fontsize=8, frameon=False)
        axes.set_xlabel('how unsure it is there →', fontsize=9)
    figure.axes[0].set_ylabel('how wrong, left out →', fontsize=9)


def _moment(
    axes: Axes, dynamics: Dynamics, library: Library, one: Memorable, place: int, last: bool
) -> None:
    """States around a memorable transition, each channel in its own spread, and what was wrong."""
    regime = next(r for r in library.regimes if r.name == one.regime)
    around = trajectory(regime, one.sample, AROUND)
    period = dynamics.spec.period
    now = one.sample.stamp_ns
    times = np.array([(s.stamp_ns - now) * 1e-9 for s in around])
    times = np.append(times[0] - period, times)
    states = np.array([around[0].x, *(s.x_next for s in around)], float)
    spread = np.maximum(np.ptp(states, axis=0), 1e-9)
    # The channels that moved most in this step.
    rate = np.abs(dynamics.target(one.sample.x, one.sample.x_next).astype(float))
    channels = np.argsort(-rate)[:3]
    axes.axvspan(-period, 0, color=COLOURS[one.kind], alpha=0.25, linewidth=0)
    for i in np.sort(channels):
        value = (states[:, i] - states[:, i].min()) / spread[i]
        name = dynamics.spec.state_names[i]
        low, high = states[:, i].min(), states[:, i].max()
        label = f'{name}  {low:.2g} to {high:.2g}'
        axes.plot(times, value, marker='.', markersize=4, linewidth=1, label=label)
    axes.set_yticks([])
    axes.set_ylim(-0.15, 1.15)
    axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    about = '' if one.exact else 'about '
    axes.set_title(
        f'{place}  {one.kind}: {_title(library, one.regime)}, episode {one.sample.episode}, '
        f'{now * 1e-9:.2f} s by the robot; moves its prediction by {about}{one.deviation:.2g} '
        'noise sd',
        fontsize=9,
        loc='left',
        parse_math=False,
    )
    if last:
        axes.set_xlabel('seconds from the moment (shaded)')


def _title(library: Library, name: str) -> str:
    note = library.notes.get(name, '')
    return f'{name} ({note})' if note else name
