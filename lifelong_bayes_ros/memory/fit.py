"""Minimise an objective over the weights of a network."""

from __future__ import annotations

import torch

from ..blr import BLR
from .examples import Network
from .objective import Objective, Term


def fit(
    network: Network,
    objective: Term,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    per: float = 1.0,
    batch: int | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Take steps on the objective.

    With BLR every step is at a draw of the posterior, and the prior that the optimizer has stands
    beside the objective: leave the term for it out. With `torch.optim.LBFGS` all is deterministic.

    Args:
        network: its parameters are what the optimizer holds.
        objective: nats.
        optimizer: BLR, or any of torch.
        steps: how many.
        per: examples that the objective is divided by; BLR expects a mean over its `ess`.
        batch: examples of every term that a step looks at; None: all.
        generator: of the batches.
    """
    whole = Objective(((1 / per, objective),))
    seen = optimizer.twin(network) if isinstance(optimizer, BLR) else network
    for _ in range(steps):
        part = whole if batch is None else whole.batch(batch, generator)
        if isinstance(optimizer, BLR):
            with optimizer.sampled():
                part(seen).backward()
            optimizer.step()
            continue

        def closure(part: Objective = part) -> torch.Tensor:
            optimizer.zero_grad()
            value = part(network)
            value.backward()
            return value

        optimizer.step(closure)
