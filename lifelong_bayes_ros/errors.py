"""Errors that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """What was wrong, with which value, and the mend. The CLI prints it without a traceback."""
