"""Networks that baselines train before life, cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import lifelong_bayes_ros_sim as sim

from ...dynamics.model import Prior
from ...learning.codec import fingerprint
from ...learning.pretrain import Plant, PretrainConfig, Progress
from ...learning.store import cached_prior

CODE = ('cache', 'family', 'history', 'history_training', 'network', 'randomised')


@dataclass(frozen=True)
class OfflineNetwork:
    """What a baseline trains before life: called with the prior of a robot, it gives its own."""

    name: str  # of the baseline
    train: Callable[[Plant, Prior, PretrainConfig, int, Progress], Prior]

    def __call__(
        self,
        prior: Prior,
        progress: Progress = lambda share, what: None,
        seed: int = 0,
        config: PretrainConfig | None = None,
    ) -> Prior:
        """The network for the robot of a prior, trained where the cache does not hold it.

        The prior's fingerprint stands for the simulator and the code that pre-trains, for both
        decide its weights; the code of the baselines is hashed beside it.
        """
        config, spec = config or PretrainConfig(), prior.dynamics.spec

        def make() -> Prior:
            plant = sim.make(spec.name, spec=spec, seed=seed)
            return self.train(plant, prior, config, seed, progress)

        code = hashlib.sha256()
        for file in CODE:
            code.update(Path(__file__).with_name(f'{file}.py').read_bytes())
        key = {
            'robot': spec.name,
            'baseline': self.name,
            'prior': fingerprint(prior),
            'config': asdict(config),
            'seed': seed,
            'code': code.hexdigest(),
        }
        return cached_prior(key, make)[0]
