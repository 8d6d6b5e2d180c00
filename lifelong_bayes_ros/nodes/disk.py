"""How much room is left where nodes write to."""

from __future__ import annotations

import shutil
from pathlib import Path

LOW = 500e6  # bytes free from which on to warn


def room(folder: Path, least: float = LOW) -> tuple[str, str]:
    """Free room in MB as a figure, and what to say about it; empty: `least` bytes are left."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return 'unknown', f'{folder}: {error.strerror}'
    low = f'only {free / 1e6:.0f} MB are left on the disk of {folder}; make room'
    return f'{free / 1e6:.0f}', low if free < least else ''
