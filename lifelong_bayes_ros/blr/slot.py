"""What the optimizer keeps of one parameter, and the settings that its group shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .rule import Rule

State = dict[str, Any]  # `optimizer.state[p]`


@dataclass(frozen=True, eq=False)
class Slot:
    """A parameter, its state and its group.

    State: `h` and `momentum`; `sample`, the leaf that a draw is in; `mean` in float32 and
    `moved_by` = θ − m, where the parameter is in half precision; `prior_mean` and
    `prior_precision` [p.shape], where the group has no scalar prior; `sum_gradient` and
    `sum_curvature` over the draws of a step.
    """

    p: Tensor
    state: State
    group: dict[str, Any]

    @property
    def mean(self) -> Tensor:
        """m in full precision."""
        return self.state.get('mean', self.p)

    def precision(self) -> Tensor:
        """Posterior precision N (h + δ)."""
        n, h = examples(self.group), self.state['h']
        if 'prior_precision' in self.state:
            return n * h + self.state['prior_precision']
        return n * (h + self.group['prior_precision'])


def examples(group: dict[str, Any]) -> float:
    """N = ess / temperature, the examples that the posterior stands for."""
    return group['ess'] / group['temperature']


def rates(group: dict[str, Any], rule: Rule) -> tuple[float, float, float]:
    """(α, 1 − β₁, ρ)."""
    beta1, beta2 = group['betas']
    lr = group['lr']
    if rule.rescale:
        lr = lr * (group['init_curvature'] + group['prior_precision'])
    return lr, 1 - beta1, 1 - beta2
