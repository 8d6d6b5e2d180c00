"""Priors of robots: pre-trained in simulation or from recordings, cached by content; or broad."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..dynamics.model import Prior
from ..errors import UserError
from ..learning import pretrain as pretraining
from ..learning.broad import broad_prior
from ..learning.pretrain import Data, PretrainConfig, Progress, pretrain, specialist
from ..learning.recorded import pretrain_recorded
from ..learning.store import cached_path, cached_prior
from ..robot.spec import RobotSpec

LEARNING = ('pretrain', 'disturbances', 'hypotheses', 'recorded', 'broad')


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


def prior_or_broad(
    spec: RobotSpec, seed: int = 0, progress: Progress = lambda share, what: None
) -> tuple[Prior, str]:
    """The prior of a simulated robot, or the broad one of any other.

    Returns:
        The prior and, if it is the broad one, what to tell the user about it; otherwise ''.
    """
    try:
        import lifelong_bayes_ros_sim as sim

        if spec.name in sim.robot_names():
            return prior_for(spec, seed, progress=progress), ''
        why = f'there is no simulator for robot {spec.name!r}'
    except ImportError as error:
        why = f'there is no simulator here ({error})'
    return broad_prior(spec, seed=seed), (
        f'{why} and no prior was given: it learns from scratch; record it and run '
        '`lifelong-bayes pretrain --bag BAG` for a prior'
    )


def recorded_prior(
    segments: Sequence[Data],
    spec: RobotSpec,
    seed: int = 0,
    config: PretrainConfig | None = None,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """The prior from recorded segments of a robot.

    Raises:
        UserError: a channel never changes in them.
    """
    config = config or PretrainConfig()
    content = hashlib.sha256()
    for segment in segments:
        for array in (segment.x, segment.u, segment.x_next):
            content.update(f'{array.shape}'.encode() + array.tobytes())
    key = {
        'robot': spec.name,
        'fingerprint': spec.fingerprint,
        'recording': content.hexdigest(),
        'seed': seed,
        'config': asdict(config),
        'code': _code_hash(),
    }
    prior = cached_prior(key, lambda: pretrain_recorded(segments, spec, config, seed, progress))[0]
    return replace(prior, dynamics=replace(prior.dynamics, spec=spec))


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
        'code': _code_hash(*sim.sources(spec.name)),
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


def _code_hash(*simulator: Path) -> str:
    """Hash of the code that decides the result: pre-training, BLR, trunk, simulator."""
    package = Path(pretraining.__file__).parents[1]
    files = [package / 'dynamics' / f'{n}.py' for n in ('trunk', 'curves')]
    files += [package / 'learning' / f'{n}.py' for n in LEARNING]
    files += [f for f in sorted((package / 'blr').iterdir()) if f.suffix in ('.py', '.c')]
    files += simulator
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()
