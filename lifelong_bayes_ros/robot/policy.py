"""The policy posterior's part of a robot file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .section import Positive, Section


class PolicySettings(Section):
    """What a network that learns the planner's choices may do; nothing, unless it is set here.

    `seed`: the planner also tries its plans. `alone`: it acts by itself where a plan is late and
    the epistemic spread of its command, in half ranges, is at most `spread`. `learn`: it learns,
    even if it may do neither. `proposals` are tried per plan: its mean and draws of it.
    """

    seed: bool = False
    alone: bool = False
    learn: bool = False
    spread: Positive = 0.15
    proposals: Annotated[int, Field(ge=1, le=1000)] = 9

    @property
    def used(self) -> bool:
        """Whether there is anything to learn for."""
        return self.seed or self.alone or self.learn
