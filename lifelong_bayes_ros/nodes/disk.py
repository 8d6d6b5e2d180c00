"""Folders that nodes write to: whether they can, and how much room is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..errors import UserError

LOW = 500e6  # bytes free from which on to warn


def check_writable(folder: Path, parameter: str) -> None:
    """Make a folder and write to it once.

    Raises:
        UserError: not possible, and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'x')
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f'parameter {parameter}: cannot write to {folder} ({error.strerror}); give a folder '
            'that this user may write to, or make room there'
        ) from None


def room(folder: Path) -> tuple[str, str]:
    """Free room in MB as a figure, and what to say about it; empty: enough is left."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return 'unknown', f'{folder}: {error.strerror}'
    low = f'only {free / 1e6:.0f} MB are left on the disk of {folder}; make room'
    return f'{free / 1e6:.0f}', low if free < LOW else ''
