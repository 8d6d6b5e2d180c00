"""Networks that baselines train before life, cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ...dynamics.model import Prior
from ...learning.codec import fingerprint
from ...learning.pretrain import PretrainConfig
from ...learning.store import cached_prior

CODE = ('cache', 'family', 'history', 'history_training', 'network', 'randomised')


def cached(
    name: str, prior: Prior, config: PretrainConfig, seed: int, make: Callable[[], Prior]
) -> Prior:
    """The result of `make` for the robot of a prior.

    The prior's fingerprint stands for the simulator and the code that pre-trains, for both decide
    its weights; the code of the baselines is hashed beside it.
    """
    code = hashlib.sha256()
    for file in CODE:
        code.update(Path(__file__).with_name(f'{file}.py').read_bytes())
    key = {
        'robot': prior.dynamics.spec.name,
        'baseline': name,
        'prior': fingerprint(prior),
        'config': asdict(config),
        'seed': seed,
        'code': code.hexdigest(),
    }
    return cached_prior(key, make)[0]
