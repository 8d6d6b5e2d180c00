"""Starts the `lifelong-bayes` command, which may be interrupted before it is there."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Entry point: until the command has been loaded, Ctrl-C just ends the process."""
    waiting = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if waiting:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as run

    if waiting:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == '__main__':
    sys.exit(main())
