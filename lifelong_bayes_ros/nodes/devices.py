"""Where a node computes, by parameter."""

from __future__ import annotations

import torch

from ..control.arrays import torch_device
from ..errors import UserError
from .table import check_device


def usable_device(parameter: str, name: str) -> str:
    """The device of torch that a parameter names: cpu, cuda, cuda:1, ..., or auto.

    Raises:
        UserError: it is not there, or torch cannot use it.
    """
    if name == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    check_device(f'parameter {parameter}', name)
    try:
        torch_device(name)
    except UserError as error:
        raise UserError(f'parameter {parameter}: {error}') from None
    return name
