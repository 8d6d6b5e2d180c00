"""What both halves of a first robot file are written with."""

from __future__ import annotations

import re

import numpy as np
import yaml

EDIT = '# EDIT:'


def plain(value: str | float) -> str:
    """A name or a number as YAML text, a name quoted where it would mean something else."""
    if not isinstance(value, str):
        return np.format_float_positional(float(f'{value:.3g}'), trim='0')
    if re.fullmatch(r'[A-Za-z_/][A-Za-z0-9_/. ]*', value) and yaml.safe_load(value) == value:
        return value
    return yaml.dump(value, default_style='"', width=float('inf')).strip()


def name_of(text: str) -> str:
    """A name that a robot file takes, as like the text as may be."""
    name = re.sub(r'[^A-Za-z0-9_]', '_', text)
    return name if re.match('[A-Za-z]', name) else f'n{name}'


def unique(name: str, taken: set[str]) -> str:
    """A name that is not taken yet; it is from now on."""
    found, count = name, 2
    while found in taken:
        found, count = f'{name}_{count}', count + 1
    taken.add(found)
    return found
