"""Priors of simulated robots: pre-trained on first use, then cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning import pretrain as pretraining
from ..learning.pretrain import PretrainConfig, Progress, pretrain, specialist
from ..learning.store import cached_path, cached_prior
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


def cached_file(
    spec: RobotSpec,
    shifts: Sequence[dict[str, Any]] | None = None,
    seed: int = 0,
    config: PretrainConfig | None = None,
) -> Path:
    """Where the cache keeps a robot's prior, or the oracle of `shifts`."""
    shifts = None if shifts is None else list(shifts)
    return cached_path(_key(spec, shifts, seed, config or PretrainConfig()))


def _key(
    spec: RobotSpec, shifts: list[dict[str, Any]] | None, seed: int, config: PretrainConfig
) -> dict[str, Any]:
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
    return {
        'robot': spec.name,
        'fingerprint': spec.fingerprint,
        'shifts': shifts,
        'seed': seed,
        'config': asdict(config),
        'code': _code_hash(Path(sim.__file__).parent),
    }


def _cached(
    spec: RobotSpec,
    shifts: list[dict[str, Any]] | None,
    seed: int,
    config: PretrainConfig,
    progress: Progress,
) -> Prior:
    key = _key(spec, shifts, seed, config)
    import lifelong_bayes_ros_sim as sim

    def make() -> Prior:
        plant = sim.make(spec.name, spec=spec, seed=seed)
        if shifts is None:
            return pretrain(plant, spec, config, seed, progress)
        plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        return specialist(plant, spec, config, seed, progress)

    prior = cached_prior(key, make)[0]
    # Goal, cost and planner of the robot file as it is now; the prior does not depend on them.
    return replace(prior, dynamics=replace(prior.dynamics, spec=spec))


def _code_hash(simulator: Path) -> str:
    """Hash of the code that decides the result: simulator, pre-training, BLR, trunk."""
    package = Path(pretraining.__file__).parents[1]
    files = [Path(pretraining.__file__), package / 'dynamics' / 'trunk.py']
    folders = (package / 'blr', simulator)
    files += [f for d in folders for f in sorted(d.iterdir()) if f.suffix in ('.py', '.c', '.xml')]
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()
