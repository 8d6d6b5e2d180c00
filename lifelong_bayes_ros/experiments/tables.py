"""Tables of figures over seeds, for a terminal or a text file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..learning.store import write_atomically

# Heading, figure of `aggregate`, format, whether its interval is shown.
SHORT = (
    ('score', 'score', '.3f', False),
    ('gap closed', 'gap_closed', '.2f', True),
    ('home', 'home', '.3f', False),
    ('t90', 't90', '.0f', False),
    ('coverage', 'coverage', '.3f', False),
    ('worst 50 steps', 'worst_window', '+.2f', False),
    ('learner ms', 'learn_ms', '.2f', False),
)
FULL = (
    ('score', 'score', '.3f', True),
    ('gap closed', 'gap_closed', '.2f', True),
    ('end gap', 'gap_closed_end', '.2f', False),
    ('home', 'home', '.3f', True),
    ('t90', 't90', '.0f', True),
    ('t90 return', 't90_return', '.0f', False),
    ('drop', 'drop', '.2f', False),
    ('coverage', 'coverage', '.3f', False),
    ('0-25', 'coverage_early', '.3f', False),
    ('nRMSE 0-5', 'nrmse_0_5', '.3f', False),
    ('5-10', 'nrmse_5_10', '.3f', False),
    ('10-25', 'nrmse_10_25', '.3f', False),
    ('25-100', 'nrmse_25_100', '.3f', False),
    ('off policy', 'off_policy', '.3f', False),
    ('15 steps', 'open_loop_15', '.3f', False),
    ('worst phase', 'worst_phase', '+.3f', False),
    ('worst 50', 'worst_window', '+.2f', False),
    ('ms', 'learn_ms', '.2f', False),
    ('p99', 'learn_ms_p99', '.2f', False),
    ('CPU s/rec.', 'compute', '.3f', False),
    ('bytes', 'memory', '.0f', False),
    ('crashes', 'crashes', '.1f', False),
)
PHASES = (
    ('frozen', 'frozen', '.3f', False),
    ('score', 'score', '.3f', True),
    ('oracle', 'oracle', '.3f', False),
    ('t90', 't90', '.0f', True),
    ('drop', 'drop', '.2f', False),
    ('coverage', 'coverage', '.3f', False),
    ('0-25', 'coverage_early', '.3f', False),
    ('nRMSE 0-5', 'nrmse_0_5', '.3f', False),
    ('5-10', 'nrmse_5_10', '.3f', False),
    ('10-25', 'nrmse_10_25', '.3f', False),
    ('25-100', 'nrmse_25_100', '.3f', False),
    ('noticed', 'detected', '.1f', False),
    ('recalled', 'recalled', '.1f', False),
    ('rise', 'rise', '.1f', False),
    ('epist.', 'rise_epistemic', '.1f', False),
    ('off policy', 'off_policy', '.3f', False),
    ('frozen', 'off_policy_frozen', '.3f', False),
    ('special.', 'off_policy_oracle', '.3f', False),
    ('5 steps', 'open_loop_5', '.3f', False),
    ('15 steps', 'open_loop_15', '.3f', False),
    ('nominal', 'open_loop_15_nominal', '.3f', False),
)


def method_tables(summaries: Sequence[dict[str, Any]], columns: tuple = SHORT) -> Iterator[Table]:
    """One table per life: a row for each method, means over seeds."""
    for name in dict.fromkeys(s['life'] for s in summaries):
        methods = [s for s in summaries if s['life'] == name]
        table = _table(f'{name}: means of {len(methods[0]["seeds"])} seeds', columns)
        for one in methods:
            figures = one['life_mean']
            table.add_row(one['method'], *(_text(figures[k], f, i) for _, k, f, i in columns))
        yield table


def phase_tables(summaries: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One table per life and method: a row for each phase, means over seeds."""
    for one in summaries:
        table = _table(f'{one["life"]}, {one["method"]}, by phase', PHASES)
        for phase in one['phases']:
            label = f'{phase["regime"]}{phase["visit"]}'
            table.add_row(label, *(_text(phase[k], f, i) for _, k, f, i in PHASES))
        yield table


def write_tables(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """All tables as text."""
    text = io.StringIO()
    console = Console(file=text, width=250)
    for table in (*method_tables(summaries, FULL), *phase_tables(summaries)):
        console.print(table)
    write_atomically(path, text.getvalue().encode())


def _table(title: str, columns: tuple) -> Table:
    table = Table(title=title, title_justify='left')
    table.add_column('')
    for heading, *_ in columns:
        table.add_column(heading, justify='right')
    return table


def _text(value: dict[str, float | None], form: str, with_interval: bool) -> str:
    mean, low, high = value['mean'], value['low'], value['high']
    if mean is None:
        return '–'
    text = format(mean, form)
    if with_interval and low < high:
        text += f' [{format(low, form)}, {format(high, form)}]'
    return text
