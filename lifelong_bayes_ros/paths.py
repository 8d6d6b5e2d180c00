"""Where the package keeps its files, whichever way it was installed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UserError

PACKAGE = 'lifelong_bayes_ros'


def share_dir() -> Path:
    """Folder that holds `config/` and `launch/`.

    It is the source tree for `pip install -e` and `colcon build --symlink-install`, and
    `<prefix>/share/lifelong_bayes_ros` for `pip install` and `colcon build`. No ament index is
    needed: pip's ROS wheels do not set AMENT_PREFIX_PATH.
    """
    here = Path(__file__).resolve()
    for parent in here.parents:
        if (parent / 'package.xml').is_file() and (parent / 'config').is_dir():
            return parent
        share = parent / 'share' / PACKAGE
        if (share / 'config').is_dir():
            return share
    raise FileNotFoundError(
        f'the config folder of {PACKAGE} was not found above {here}: reinstall the package'
    )


def cache_dir() -> Path:
    """Folder for pre-trained priors; `LIFELONG_BAYES_CACHE` overrides the XDG default."""
    override = os.environ.get('LIFELONG_BAYES_CACHE')
    if override:
        return Path(override)
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / PACKAGE


def check_writable(folder: Path, what: str) -> None:
    """Make a folder and write to it once, before anything takes long.

    Raises:
        UserError: not possible, and why; begins with `what`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'x')
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f'{what}: cannot write to {folder} ({error.strerror}); give a folder that this user '
            'may write to, or make room there'
        ) from None


def check_writable_file(path: Path, what: str) -> None:
    """Check that a file can be written, and make its folder, before anything takes long.

    Raises:
        UserError: not possible, and why; begins with `what`.
    """
    if path.is_dir():
        raise UserError(f'{what}: {path} is a folder; give a file')
    check_writable(path.parent, what)
