"""What memory is worth: rows of `bench memory`, collected from one module for each question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import (
    bench_memory_adapt,
    bench_memory_contradict,
    bench_memory_digits,
    bench_memory_keeper,
    bench_memory_leave_out,
    bench_memory_regions,
)
from .published import report_object

Status = Callable[[str, float], None]
Rows = list[dict[str, Any]]
SEEDS = tuple(range(5))

#: What each part is about, and its rows for some seeds.
PARTS: dict[str, Callable[[Sequence[int], Callable[[float], None]], Rows]] = {
    'recall': bench_memory_keeper.recall_rows,
    'adding and removing': bench_memory_keeper.head_rows,
    'consolidation': bench_memory_keeper.consolidation_rows,
    'state regions': bench_memory_regions.region_rows,
    'contradicting regimes': bench_memory_contradict.contradict_rows,
    'split digits': bench_memory_digits.digits_rows,
    'leaving transitions out': bench_memory_leave_out.leave_out_rows,
    'adapting by a K-prior': bench_memory_adapt.adapt_rows,
}


def memory_report(status: Status, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """The report object of `bench memory`."""
    torch.set_num_threads(1)
    rows: Rows = []
    for number, (what, part) in enumerate(PARTS.items()):

        def progress(share: float, what: str = what, number: int = number) -> None:
            status(what, (number + share) / len(PARTS))

        progress(0.0)
        rows += part(seeds, progress)
    return report_object('bench memory', list(seeds), rows)
