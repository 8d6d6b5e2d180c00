"""Keeps torch.compile out of what it must not trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function that torch.compile calls as it is.

    torch's own decorator imports the compiler on the first call, which takes seconds: a learner on
    board would stand still for them. This one does so only where the compiler is in use.
    """
    guarded = torch._disable_dynamo(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (guarded if 'torch._dynamo' in sys.modules else function)(*args, **kwargs)

    return call
