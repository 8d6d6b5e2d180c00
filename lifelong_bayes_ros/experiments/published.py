"""A published figure beside the bar that it has to meet, and the report that holds some."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def row(
    name: str,
    value: float,
    unit: str,
    better: str,
    bar: float | None,
    aim: float | None = None,
    interval: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """One published figure; a value that is no number is null and meets no bar."""
    known = math.isfinite(value)
    ok = None
    if bar is not None:
        ok = known and bool(value >= bar if better == 'higher' else value <= bar)
    return {
        'name': name,
        'value': value if known else None,
        'unit': unit,
        'better': better,
        'bar': bar,
        'aim': aim,
        'ok': ok,
        'interval': list(interval) if interval and all(map(math.isfinite, interval)) else None,
    }


def report_object(command: str, seeds: list[int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The object that every `--json` command prints."""
    packages = ('torch', 'numpy', 'mujoco', 'lifelong_bayes_ros')
    return {
        'command': command,
        'machine': machine(),
        'versions': dict(zip(packages, map(_version, packages), strict=True)),
        'seeds': seeds,
        'rows': rows,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'not installed'


def machine() -> str:
    """What the figures were measured on: times differ several times between processors."""
    name, simd = platform.processor() or platform.machine(), ''
    with suppress(OSError):
        facts = dict(
            (part.strip() for part in line.split(':', 1))
            for line in Path('/proc/cpuinfo').read_text().splitlines()
            if ':' in line
        )
        name = facts.get('model name', name)
        flags = facts.get('flags', '').split()
        simd = next((f', {s}' for s in ('avx512f', 'avx2') if s in flags), '')
    cores = f'{os.cpu_count()} cores'
    system = f'{platform.machine()} {platform.system()}'
    return f'{name}{simd}, {cores}, {system}, Python {platform.python_version()}'
