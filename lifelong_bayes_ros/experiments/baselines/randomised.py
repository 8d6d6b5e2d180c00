"""Domain randomisation without identification: one network, one head, all plants."""

from __future__ import annotations

from typing import ClassVar

from ...dynamics.model import Prior
from ...learning.pretrain import Plant, PretrainConfig, Progress, specialist
from .base import Baseline
from .cache import OfflineNetwork
from .family import AnyOfTheFamily


class Randomised(Baseline):
    """A network trained on the task family as if it were one plant, never changed in life."""

    name: ClassVar[str] = 'randomised'

    def __init__(self, network: Prior, seed: int) -> None:
        """`network`: of `randomised_network`."""
        super().__init__(network, seed)


def _train(
    plant: Plant, prior: Prior, config: PretrainConfig, seed: int, progress: Progress
) -> Prior:
    """The network of an oracle, with one head, trained on the whole family at once."""
    everything = AnyOfTheFamily(plant, seed)
    return specialist(everything, prior.dynamics.spec, config, seed, progress)


randomised_network = OfflineNetwork(Randomised.name, _train)
