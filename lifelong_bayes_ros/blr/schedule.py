"""Schedules of the curvature's learning rate ρ = 1 − β₂ by torch's own schedulers."""

from __future__ import annotations

from typing import Any

import torch


class _Group(dict):
    """A group's settings in which `lr` is ρ; what a scheduler notes besides is kept here."""

    def __init__(self, group: dict[str, Any]) -> None:
        super().__init__(lr=1 - group['betas'][1])
        self._group = group

    def __getitem__(self, key: str) -> Any:
        return 1 - self._group['betas'][1] if key == 'lr' else super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == 'lr':
            if not 0 < value <= 1:
                raise ValueError(f'rho={value} must be in (0, 1]')
            self._group['betas'] = (self._group['betas'][0], 1 - value)
        super().__setitem__(key, value)


class RhoOf(torch.optim.Optimizer):
    """Stands for an optimizer before a scheduler, with ρ in the place of the learning rate::

        schedule = torch.optim.lr_scheduler.ExponentialLR(RhoOf(optimizer), 0.999)

    Step the scheduler as usual, after the optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the groups that `optimizer` has now.

        Raises:
            ValueError: a group has no `betas`.
        """
        for number, group in enumerate(optimizer.param_groups):
            if 'betas' not in group:
                raise ValueError(f'group {number} of {type(optimizer).__name__} has no betas')
        super().__init__([torch.zeros(0)], {})  # it owns no parameters
        self._optimizer = optimizer
        self.param_groups = [_Group(g) for g in optimizer.param_groups]
        optimizer.register_step_post_hook(self._stepped)

    def step(self, closure: Any = None) -> None:
        """The optimizer steps, not this."""
        raise RuntimeError('step the optimizer itself')

    def _stepped(self, *_: Any) -> None:
        self._opt_called = True  # else a scheduler warns that it comes before the first step
