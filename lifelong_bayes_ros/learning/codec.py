"""Prior, Belief and learner state as safetensors bytes: versioned, hashed, safe to load."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..dynamics.belief import Belief
from ..dynamics.curves import Curves
from ..dynamics.model import Dynamics, Hypotheses, Prior
from ..dynamics.outcome_head import OutcomeHead
from ..dynamics.trunk import Encoder, Trunk
from ..errors import UserError
from ..robot.spec import parse_robot
from .pieces import raw

VERSION = 3
TRUNK = ('mean', 'scale', 'w1', 'b1', 'w2', 'b2', 'whiten')
HYPOTHESES = ('changed', 'basis')
CURVES = ('straight', 'bent', 'low', 'high')


def pack(kind: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> bytes:
    """Arrays and JSON metadata as safetensors bytes, with kind, version and a content hash.

    The same content gives the same bytes.
    """
    text = json.dumps(meta, sort_keys=True)
    header = {
        'kind': kind,
        'version': str(VERSION),
        'meta': text,
        'sha256': _digest(arrays, text),
    }
    contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    data = save(contiguous, metadata=header)
    # The library orders metadata by chance.
    at = 8 + int.from_bytes(data[:8], 'little')
    ordered = json.dumps(json.loads(data[8:at]), sort_keys=True, separators=(',', ':')).encode()
    ordered += b' ' * (-len(ordered) % 8)
    return b''.join((len(ordered).to_bytes(8, 'little'), ordered, memoryview(data)[at:]))


def unpack(kind: str, data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of `pack`.

    Raises:
        UserError: not such a file, another version, or damaged.
    """
    try:
        arrays = load(data)
        size = int.from_bytes(data[:8], 'little')
        header = json.loads(data[8 : 8 + size]).get('__metadata__', {})
    except (SafetensorError, ValueError) as error:
        raise UserError(f'{where}: truncated or not a {kind} of this package ({error})') from None
    if header.get('kind') != kind:
        raise UserError(f'{where}: holds a {header.get("kind")!r}, expected a {kind!r}')
    version = header.get('version')
    if version != str(VERSION):
        mend = (
            'read it with the version that wrote it; a prior can be made again with '
            '`lifelong-bayes pretrain`'
        )
        if version and version.isdecimal() and int(version[:9]) > VERSION:
            mend = 'written by a newer version of this package; update it here'
        raise UserError(
            f'{where}: format version {version!r}, this package reads {VERSION}; {mend}'
        )
    if header.get('sha256') != _digest(arrays, header.get('meta', '')):
        raise UserError(f'{where}: its content does not match its hash; it is damaged')
    return arrays, json.loads(header['meta'])


def _digest(arrays: dict[str, np.ndarray], meta: str) -> str:
    sha = hashlib.sha256(meta.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f'{name} {array.dtype} {array.shape}'.encode())
        sha.update(raw(array))
    return sha.hexdigest()


def encode_prior(prior: Prior, **meta: Any) -> bytes:
    """A prior and the robot file it belongs to; `meta` is kept beside them."""
    dynamics = prior.dynamics
    arrays = {f'trunk.{n}': getattr(dynamics.trunk, n) for n in TRUNK}
    arrays |= {f'precision.{n}': a for n, a in prior.trunk_precision.items()}
    arrays |= {
        'nominal': dynamics.nominal,
        'scale': dynamics.scale,
        'covariance': prior.covariance,
        'floor': prior.floor,
        'noise': prior.noise,
    }
    if prior.hypotheses is not None:
        arrays |= {n: getattr(prior.hypotheses, n) for n in HYPOTHESES}
        arrays |= {f'curves.{n}': getattr(prior.hypotheses.curves, n) for n in CURVES}
        meta['kinds'] = list(prior.hypotheses.kinds)
    return pack('prior', arrays, {'robot': dynamics.spec.dump(), **meta})


def decode_prior(data: bytes, where: str) -> tuple[Prior, dict[str, Any]]:
    """The prior of `encode_prior` and its metadata.

    Raises:
        UserError: damaged, or of another kind or version.
    """
    arrays, meta = unpack('prior', data, where)
    spec = parse_robot(meta.pop('robot'), where)
    trunk = Trunk(Encoder.of(spec), *(arrays[f'trunk.{n}'] for n in TRUNK))
    precision = {
        n.removeprefix('precision.'): a for n, a in arrays.items() if n.startswith('precision.')
    }
    dynamics = Dynamics(spec, trunk, arrays['nominal'], arrays['scale'])
    kinds = meta.pop('kinds', None)
    hypotheses = None
    if kinds is not None:
        curves = Curves(*(arrays[f'curves.{n}'] for n in CURVES))
        hypotheses = Hypotheses(tuple(kinds), *(arrays[n] for n in HYPOTHESES), curves)
    parts = (arrays[n] for n in ('covariance', 'floor', 'noise'))
    return Prior(dynamics, *parts, precision, hypotheses), meta


def fingerprint(prior: Prior) -> str:
    """Hash of a prior: a Belief is only good with the trunk it was made for."""
    dynamics = prior.dynamics
    arrays = {n: getattr(dynamics.trunk, n) for n in TRUNK} | {'nominal': dynamics.nominal}
    return _digest(arrays, dynamics.spec.fingerprint)[:16]


def encode_belief(belief: Belief, prior_fingerprint: str) -> bytes:
    """A Belief for the prior of that fingerprint."""
    meta = dict(vars(belief))
    arrays = {name: meta.pop(name) for name in ('theta', 'factor', 'offset', 'noise')}
    heads = meta.pop('outcomes')
    parts = ('mean', 'factor')
    arrays |= {f'outcomes.{n}.{k}': getattr(h, k) for n, h in heads.items() for k in parts}
    meta['outcomes'] = {name: head.kind for name, head in heads.items()}
    return pack('belief', arrays, {'prior': prior_fingerprint, **meta})


def decode_belief(data: bytes, prior_fingerprint: str, where: str = 'belief') -> Belief:
    """The Belief of `encode_belief`.

    Raises:
        UserError: damaged, of another version, or made for another robot or prior.
    """
    arrays, meta = unpack('belief', data, where)
    made_for = meta.pop('prior')
    if made_for != prior_fingerprint:
        raise UserError(
            f'{where}: made for prior {made_for}, this robot uses {prior_fingerprint}; '
            'start learner and policy with the same robot file and state'
        )
    outcomes = {}
    for name, kind in meta.pop('outcomes', {}).items():
        mean, factor = (arrays.pop(f'outcomes.{name}.{part}') for part in ('mean', 'factor'))
        kind = tuple(kind) if isinstance(kind, list) else kind
        outcomes[name] = OutcomeHead(kind, mean, factor)
    # Earlier versions had none: what is recorded of them is read as it was meant.
    arrays.setdefault('offset', np.zeros_like(arrays['noise']))
    return Belief(**arrays, **meta, outcomes=outcomes)
