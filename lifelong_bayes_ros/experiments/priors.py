"""Priors of simulated robots: pre-trained on first use, then cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import blr
from ..dynamics.model import Prior
from ..errors import UserError
from ..learning import pretrain as pretraining
from ..learning.pretrain import PretrainConfig, Progress, pretrain, specialist
from ..learning.store import cached_prior
from ..robot.spec import RobotSpec


def prior_for(
    spec: RobotSpec,
    seed: int = 0,
    config: PretrainConfig | None = None,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """The task-family prior of a simulated robot.

    Raises:
        UserError: there is no simulator for this robot.
    """
    return _cached(spec, None, seed, config or PretrainConfig(), progress)


def oracle_for(
    spec: RobotSpec,
    shifts: Sequence[dict[str, Any]],
    seed: int = 0,
    config: PretrainConfig | None = None,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """The same network, trained on the plant with these shifts alone."""
    return _cached(spec, list(shifts), seed, config or PretrainConfig(), progress)


def _cached(
    spec: RobotSpec,
    shifts: list[dict[str, Any]] | None,
    seed: int,
    config: PretrainConfig,
    progress: Progress,
) -> Prior:
    try:
        import lifelong_bayes_ros_sim as sim
    except ImportError as error:
        raise UserError(
            f'pre-training in simulation needs MuJoCo ({error}); '
            "install the extra: pip install 'lifelong_bayes_ros[sim]'"
        ) from None
    if spec.name not in sim.robot_names():
        raise UserError(
            f'there is no simulator for robot {spec.name!r}; give its prior as a file '
            f'(simulated robots: {", ".join(sim.robot_names())})'
        )
    key = {
        'robot': spec.name,
        'fingerprint': spec.fingerprint,
        'shifts': shifts,
        'seed': seed,
        'config': asdict(config),
        'code': _code_hash([Path(pretraining.__file__).parent, Path(sim.__file__).parent]),
    }

    def make() -> Prior:
        plant = sim.make(spec.name, spec=spec, seed=seed)
        if shifts is None:
            return pretrain(plant, spec, config, seed, progress)
        plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        return specialist(plant, spec, config, seed, progress)

    return cached_prior(key, make)[0]


def _code_hash(folders: list[Path]) -> str:
    """Hash of what decides the result besides the settings: simulator, pre-training, optimizer."""
    sha = hashlib.sha256()
    files = [
        Path(pretraining.__file__),
        *(Path(blr.__file__).with_name(f) for f in ('rule.py', 'optimizer.py', 'kernel.c')),
        Path(pretraining.__file__).parents[1] / 'dynamics' / 'trunk.py',
    ]
    files += [f for f in sorted(folders[1].iterdir()) if f.suffix in ('.py', '.xml')]
    for file in files:
        sha.update(file.name.encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()
