"""Domain randomisation without identification: one network, one head, all plants."""

from __future__ import annotations

from typing import ClassVar

from ...dynamics.model import Prior
from .base import Baseline


class Randomised(Baseline):
    """A network trained on the task family as if it were one plant, never changed in life."""

    name: ClassVar[str] = 'randomised'

    def __init__(self, network: Prior, seed: int) -> None:
        """`network`: of `offline.randomised_network`."""
        super().__init__(network, seed)
