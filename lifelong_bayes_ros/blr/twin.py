"""A module's twin with other tensors in place of its parameters.

`torch.func.functional_call` swaps tensors into the module itself for the length of the call, where
another thread can meet them. A twin is a second set of module objects, made in microseconds, that
shares everything but the parameters: buffers, hooks and settings are the module's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor


def twin(module: torch.nn.Module, tensors: Mapping[Tensor, Tensor]) -> torch.nn.Module:
    """The module with `tensors[p]` for each parameter p in it; the module is not touched.

    Raises:
        TypeError: the module was compiled, and so computes with its own parameters for ever.
    """
    if '_orig_mod' in module._modules:
        raise TypeError(
            'a compiled module keeps its parameters: compile the twin of the module instead, '
            'torch.compile(optimizer.twin(model))'
        )
    return _twin(module, tensors, {})


def _twin(
    module: torch.nn.Module, tensors: Mapping[Tensor, Tensor], made: dict[int, torch.nn.Module]
) -> torch.nn.Module:
    if id(module) in made:
        return made[id(module)]
    other = made[id(module)] = copy.copy(module)
    own = other.__dict__
    own['_parameters'] = {n: _swap(p, tensors) for n, p in module._parameters.items()}
    own['_modules'] = {
        n: None if m is None else _twin(m, tensors, made) for n, m in module._modules.items()
    }
    if '_flat_weights' in own:  # recurrent layers keep a second list of their parameters
        own['_flat_weights'] = [_swap(p, tensors) for p in own['_flat_weights']]
    return other


def _swap(p: Tensor | None, tensors: Mapping[Tensor, Tensor]) -> Tensor | None:
    return None if p is None else tensors.get(p, p)
