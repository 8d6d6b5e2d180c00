"""The model as it left pre-training: what doing nothing costs."""

from __future__ import annotations

from typing import ClassVar

from .base import Baseline


class Frozen(Baseline):
    """Nominal parameters and the noise of pre-training, for ever."""

    name: ClassVar[str] = 'frozen'
