"""Domain randomisation without identification: one network, one head, all plants."""

from __future__ import annotations

from typing import ClassVar

import lifelong_bayes_ros_sim as sim

from ...dynamics.model import Prior
from ...learning.pretrain import PretrainConfig, Progress, specialist
from ...robot.spec import RobotSpec
from .base import Baseline
from .cache import cached
from .family import AnyOfTheFamily


class Randomised(Baseline):
    """A network trained on the task family as if it were one plant, never changed in life."""

    name: ClassVar[str] = 'randomised'

    def __init__(self, network: Prior, seed: int) -> None:
        """`network`: of `randomised_network`."""
        super().__init__(network, seed)


def randomised_network(
    spec: RobotSpec,
    prior: Prior,
    progress: Progress = lambda share, what: None,
    seed: int = 0,
    config: PretrainConfig | None = None,
) -> Prior:
    """The network of an oracle, with one head, trained on the whole family at once."""
    config = config or PretrainConfig()

    def make() -> Prior:
        plant = AnyOfTheFamily(sim.make(spec.name, spec=spec, seed=seed), seed)
        return specialist(plant, spec, config, seed, progress)

    return cached('randomised', prior, config, seed, make)
