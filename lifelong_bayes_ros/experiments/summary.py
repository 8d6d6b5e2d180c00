"""Pictures of a whole sweep: every method in every life, a dot for each seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from .aggregate import estimate, grouped, steps_to_90
from .metrics import Figures
from .report import LABELS, OURS, colours, save_picture

Values = Callable[[Figures], Sequence[float]]


def draw_summary(found: Sequence[Figures], path: Path) -> None:
    """Robots' own lives into `path`; lives in folders into `<path>-<folder>`.

    Args:
        found: figures of all units.
        path: PNG file to write.
    """
    groups: dict[str, list[Figures]] = {}
    for one in found:
        groups.setdefault(one.name.rpartition('/')[0], []).append(one)
    for folder, mine in groups.items():
        target = path.with_stem(f'{path.stem}-{folder.replace("/", "-")}') if folder else path
        draw = _own if not folder else _special
        save_picture(draw(mine, folder), target)


def _own(found: list[Figures], _: str) -> plt.Figure:
    """Gap closed, recovery and coverage: a column for each life, a line for each method."""
    groups = grouped(found)
    methods = _ranked(found)
    figure, axes = plt.subplots(
        3,
        len(groups),
        figsize=(4.2 + 3.3 * len(groups), 2.2 + 0.75 * len(methods)),
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    seeds = len({f.seed for f in found})
    figure.suptitle(
        'The robot changes and nobody tells it. 0: never learns; 1: is told at once\n'
        f'dots: single lives, {seeds} for each robot; diamonds and bars: mean and 95 % interval',
        fontsize=15 if len(groups) > 1 else 10,
    )
    for column, (name, by_method) in zip(axes.T, groups.items(), strict=True):
        _dots(column[0], by_method, methods, lambda f: [f.gap_closed], (-0.6, 1.6))
        for at, text in ((0, 'frozen'), (1, 'oracle')):
            column[0].axvline(at, color=colours([])[text], lw=1.2, ls='--', zorder=1)
            column[0].annotate(
                text, (at, 1), xycoords=('data', 'axes fraction'), ha='center', va='bottom'
            )
        column[0].set_title(f'{name}\n', fontsize=14, weight='bold')
        column[0].set_xlabel('lost performance won back  (right is better)')
        _dots(
            column[1],
            by_method,
            methods,
            lambda f: [float(np.mean(_first_visits(f)))] if _first_visits(f) else [],
            (0, None),
        )
        column[1].set_xlabel('steps until it performs again  (left is better)')
        _dots(column[2], by_method, methods, lambda f: [p.coverage for p in f.phases], (0.3, 1))
        column[2].axvspan(0.88, 0.92, color='#0b6e4f', alpha=0.18, zorder=0)
        column[2].set_xlabel('how often “90 % sure” holds  (in the band is honest)')
    axes[0, 0].set_yticks(range(len(methods)), [LABELS.get(m, m) for m in methods])
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    _embolden(axes[:, 0], methods)
    return figure


def _special(found: list[Figures], folder: str) -> plt.Figure:
    """Score less the frozen model's while the shift lasts: a line for each life."""
    groups = grouped(found)
    names = list(groups)
    methods = [m for m in _ranked(found) if m != 'frozen']
    figure, axis = plt.subplots(
        figsize=(11, 2.0 + (0.3 + 0.13 * len(methods)) * len(names)), layout='constrained'
    )
    colour = colours(methods)
    height = 0.8 / len(methods)
    for line, name in enumerate(names):
        if line % 2:
            axis.axhspan(line - 0.5, line + 0.5, color='#f5f5f5', zorder=0)
        for index, method in enumerate(methods):
            values = [
                p.score - p.frozen
                for f in groups[name].get(method, [])
                for p in f.phases
                if p.regime != f.phases[0].regime
            ]
            at = line - 0.4 + height * (index + 0.5)
            label = LABELS.get(method, method) if line == 0 else None
            _row(axis, at, values, colour[method], method == OURS, label)
    axis.axvline(0, color=colours([])['frozen'], lw=1.4, ls='--')
    left = min(axis.get_xlim()[0], -0.1)
    axis.axvspan(left, 0, color=colours([])['frozen'], alpha=0.07, zorder=0)
    axis.set_xlim(left=left)
    axis.set_yticks(range(len(names)), [n.rpartition('/')[2].replace('_', ' ') for n in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel('score while the shift lasts, less the frozen model’s  (left of 0: harm)')
    axis.set_title(
        f'{folder.replace("_", " ")}: does learning help, and does it ever harm?\n'
        'a dot for each life; bars: mean and its 95 % interval',
        fontsize=13,
    )
    axis.legend(loc='upper left', bbox_to_anchor=(1.005, 1.0), frameon=False)
    return figure


def _ranked(found: list[Figures]) -> list[str]:
    """Methods, the best first, by their mean score."""
    scores: dict[str, list[float]] = {}
    for one in found:
        scores.setdefault(one.method, []).append(one.score)
    return sorted(scores, key=lambda m: -float(np.mean(scores[m])))


def _first_visits(f: Figures) -> list[int]:
    return [steps_to_90(p) for p in f.shifts if p.visit == 1]


def _dots(
    axis: plt.Axes,
    by_method: dict[str, list[Figures]],
    methods: list[str],
    values: Values,
    limits: tuple[float | None, float | None],
) -> None:
    colour = colours(methods)
    for line, method in enumerate(methods):
        if method == OURS:
            axis.axhspan(line - 0.5, line + 0.5, color=colour[OURS], alpha=0.08, zorder=0)
        seeds = [v for f in by_method.get(method, []) for v in values(f)]
        low, high = (-np.inf if limits[0] is None else limits[0]), limits[1] or np.inf
        _row(axis, line, np.clip(seeds, low, high), colour[method], method == OURS)
    axis.set_xlim(*limits)
    axis.grid(axis='x', color='#e5e5e5', lw=0.7)
    axis.set_axisbelow(True)


def _row(
    axis: plt.Axes,
    line: float,
    values: Sequence[float],
    colour: object,
    strong: bool,
    label: str | None = None,
) -> None:
    values = [v for v in values if np.isfinite(v)]
    if not values:
        return
    axis.plot(values, [line] * len(values), 'o', color=colour, alpha=0.45, ms=5, mew=0)
    mean, low, high = estimate(values)
    width = 4 if strong else 2.5
    axis.plot([low, high], [line, line], color=colour, lw=width, solid_capstyle='butt')
    axis.plot(mean, line, 'D', color=colour, ms=9 if strong else 6, mec='white', label=label)


def _embolden(axes: Sequence[plt.Axes], methods: list[str]) -> None:
    for axis in axes:
        for text, method in zip(axis.get_yticklabels(), methods, strict=True):
            if method == OURS:
                text.set_weight('bold')
