"""Errors that a user can act on."""

from __future__ import annotations

import errno
import os
import re


class UserError(Exception):
    """What was wrong, with which value, and the mend. The CLI prints it without a traceback."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MENDS = {
    **dict.fromkeys(FULL, 'make room there, or give another path'),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), 'give a path that you may read and write'
    ),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), 'a folder is needed there; give another path'),
    errno.EISDIR: 'a file is needed there; give another path',
}
TEMPORARY = re.compile(
    r'\.(.+)\.(?:\d+|partial(\.\w+)?)'
)  # what a file is called while it is written


def of_a_path(error: OSError) -> UserError | None:
    """What the system says of a path, with a mend; None if it is not about a path or a full disk.

    A full disk is told without the path, as the system does.
    """
    path = error.filename2 or error.filename
    said = error.strerror or str(error)
    mend = MENDS.get(error.errno or 0, 'give another path')
    if isinstance(path, str | os.PathLike):
        folder, name = os.path.split(path)
        written = TEMPORARY.fullmatch(name)
        if written:
            path = os.path.join(folder, written[1] + (written[2] or ''))
        return UserError(f'{path}: {said}; {mend}')
    return UserError(f'{said}; {mend}') if error.errno in FULL else None
