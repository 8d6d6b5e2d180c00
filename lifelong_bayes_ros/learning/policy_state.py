"""The policy posterior as bytes: for whoever acts by it, and what its learning goes on from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..blr import DiagonalGaussian
from ..control.policy_posterior import LAYERS, PolicyPosterior, Senses
from ..errors import UserError
from .codec import pack, unpack
from .policy_learner import PolicyConfig, PolicyLearner, Shelf
from .store import write_atomically

POLICY = 'policy.safetensors'
KIND = 'policy posterior'
LEARNER = 'policy learner'
SHELF = ('inputs', 'own', 'plans')


def encode_policy(posterior: PolicyPosterior, fingerprint: str) -> bytes:
    """A policy posterior over inputs of that fingerprint."""
    arrays = {f'mean.{n}': posterior.mean[n] for n in LAYERS}
    arrays |= {f'sd.{n}': posterior.sd[n] for n in LAYERS}
    meta = {'stamp_ns': posterior.stamp_ns, 'version': posterior.version, 'inputs': fingerprint}
    return pack(KIND, {**arrays, 'noise': posterior.noise}, meta)


def decode_policy(data: bytes, fingerprint: str, where: str = 'belief/policy') -> PolicyPosterior:
    """The policy posterior of `encode_policy`.

    Raises:
        UserError: damaged, of another version, or over other inputs.
    """
    arrays, meta = unpack(KIND, data, where)
    _check_inputs(meta['inputs'], fingerprint, where)
    mean, sd = ({n: arrays[f'{part}.{n}'] for n in LAYERS} for part in ('mean', 'sd'))
    return PolicyPosterior(mean, sd, arrays['noise'], meta['stamp_ns'], meta['version'])


def save_policy(learner: PolicyLearner, folder: Path) -> None:
    """Write all that decides what a policy learner does next to a state directory."""
    arrays: dict[str, np.ndarray] = {'noise': learner.noise}
    arrays |= {n: getattr(learner.network, n).detach().numpy() for n in LAYERS}
    arrays |= {f'mean.{n}': getattr(learner.mean, n).numpy() for n in LAYERS}
    arrays |= {f'prior.{n}': t.numpy() for n, t in learner.prior.state().items()}
    saved = learner.optimizer.state_dict()
    for index, buffers in saved['state'].items():
        arrays |= {f'optimizer.{index}.{n}': t.numpy() for n, t in buffers.items()}
    arrays['random'] = saved['random'].pop('generator').numpy()
    arrays['picker'] = learner.picker.get_state().numpy()
    shelves = list(learner.shelves.items())
    for number, (_, shelf) in enumerate(shelves):
        arrays |= {f'shelf.{number}.{part}': getattr(shelf, part) for part in SHELF}
    meta: dict[str, Any] = {
        'inputs': learner.fingerprint,
        'config': asdict(learner.config),
        'seed': learner.seed,
        'version': learner.version,
        'stamp_ns': learner.stamp_ns,
        'stay': learner.stay,
        'regime': learner.regime,
        'shelves': [[name, shelf.seen] for name, shelf in shelves],
        'optimizer': {k: saved[k] for k in ('param_groups', 'random', 'counters')},
        'rng': learner.rng.bit_generator.state,
    }
    for group in meta['optimizer']['param_groups']:
        group['clip'] = str(group['clip'])  # JSON knows no infinity
    write_atomically(folder / POLICY, pack(LEARNER, arrays, meta))


def load_policy(folder: Path, senses: Senses) -> PolicyLearner:
    """A policy learner that goes on, bit for bit, where `save_policy` left off.

    Raises:
        UserError: no such file, damaged, of another version, or over other inputs.
    """
    path = folder / POLICY
    if not path.is_file():
        raise UserError(f'{folder}: no {POLICY} there; let a policy posterior learn first')
    arrays, meta = unpack(LEARNER, path.read_bytes(), str(path))
    _check_inputs(meta['inputs'], senses.fingerprint, str(path))
    try:
        return _load(arrays, meta, senses)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f'{path} does not hold what this version expects ({error!r}); it was made by another '
            'version or changed by hand'
        ) from None


def _load(arrays: dict[str, np.ndarray], meta: dict[str, Any], senses: Senses) -> PolicyLearner:
    learner = PolicyLearner(senses, PolicyConfig(**meta['config']), meta['seed'])
    with torch.no_grad():
        for name in LAYERS:
            getattr(learner.network, name).copy_(torch.tensor(arrays[name]))
            getattr(learner.mean, name).copy_(torch.tensor(arrays[f'mean.{name}']))
    prior = (torch.tensor(arrays[f'prior.{n}']) for n in ('mean', 'precision'))
    learner.restart(DiagonalGaussian(*prior))
    saved = meta['optimizer']
    for group in saved['param_groups']:
        group['clip'] = float(group['clip'])
    saved['random']['generator'] = torch.tensor(arrays['random'])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition('.')
        if first == 'optimizer':
            index, _, buffer = rest.partition('.')
            state.setdefault(int(index), {})[buffer] = torch.tensor(array)
    learner.optimizer.load_state_dict({**saved, 'state': state})
    learner.picker.set_state(torch.tensor(arrays['picker']))
    learner.rng.bit_generator.state = meta['rng']
    learner.noise = arrays['noise'].copy()
    learner.version, learner.stamp_ns = meta['version'], meta['stamp_ns']
    learner.stay = meta['stay']
    for number, (name, seen) in enumerate(meta['shelves']):
        shelf = Shelf(learner.config.capacity, *learner.shape)
        shelf.restore(*(arrays[f'shelf.{number}.{part}'] for part in SHELF), seen)
        learner.shelves[name] = shelf
    learner.resume(meta['regime'])
    return learner


def _check_inputs(found: str, expected: str, where: str) -> None:
    if found != expected:
        raise UserError(
            f'{where}: a policy posterior over inputs {found}, this robot file has {expected}; '
            'use the robot file that it was learned with, or learn it again'
        )
