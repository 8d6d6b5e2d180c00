"""The source tree as git sees it, for the tests that look at the tree itself."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def source_files() -> list[Path]:
    """Every file that is tracked, or new and not ignored, relative to ROOT."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # A file that was deleted but not yet committed is listed still.
    return sorted({Path(name) for name in listing.split('\0') if name and (ROOT / name).is_file()})
