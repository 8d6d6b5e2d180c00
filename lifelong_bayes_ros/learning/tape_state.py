"""Tapes in a state directory: operations as columns, heads that are held elsewhere by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Prior
from ..dynamics.noise import Noise
from ..memory.reservoir import Sample
from ..memory.tape import Hold, Join, Operation, Tape, Widen
from .pieces import Arrays, head_arrays, head_from, sample_arrays, samples_from

CONDITION, WIDEN, HOLD, SET, JOIN = range(5)
Known = Mapping[str, Gaussian]  # posteriors that are kept anyway


def tape_state(prefix: str, tape: Tape, known: Known) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, whose names begin with `prefix`, and JSON metadata of a tape."""
    kinds, shares, variances, joined = [], [], [], []
    arrays: Arrays = {}
    for operation in tape:
        if isinstance(operation, Sample):
            kinds.append(CONDITION)
        elif isinstance(operation, Widen):
            kinds.append(WIDEN)
            shares.append(operation.share)
        elif isinstance(operation, Hold):
            kinds.append(HOLD if operation.variance is None else SET)
            if operation.variance is not None:
                variances.append(operation.variance)
        else:
            kinds.append(JOIN)
            more, meta = tape_state(f'{prefix}.join{len(joined)}', operation.other, known)
            arrays |= more
            joined.append(meta)
    samples = [o for o in tape if isinstance(o, Sample)]
    arrays |= sample_arrays(prefix, samples) if samples else {}
    arrays[f'{prefix}.kind'] = np.array(kinds, np.uint8)
    arrays[f'{prefix}.share'] = np.array(shares, float)
    arrays[f'{prefix}.variance'] = np.array(variances, float)
    meta: dict[str, Any] = {'folded': sorted(tape.folded), 'joined': joined, 'worn': tape.worn}
    meta |= {'middle': None, 'root': None}
    more, meta['start'] = _head_state(f'{prefix}.start', tape.start, known)
    arrays |= more
    if tape.root is not None:
        root = tape.start.replace(posterior=tape.root)
        more, meta['root'] = _head_state(f'{prefix}.root', root, known)
        arrays |= more
    if tape.middle is not None:
        at, head = tape.middle
        more, kept = _head_state(f'{prefix}.middle', head, known)
        arrays |= more
        meta['middle'] = [at, kept]
    return arrays, meta


def tape_from(
    arrays: Mapping[str, np.ndarray],
    prefix: str,
    meta: Mapping[str, Any],
    known: Known,
    prior: Prior,
) -> Tape:
    """The tape of `tape_state`."""
    present = f'{prefix}.stamp_ns' in arrays
    samples = iter(samples_from(arrays, prefix) if present else ())
    shares = iter(arrays[f'{prefix}.share'].tolist())
    variances = iter(arrays[f'{prefix}.variance'])
    joined = iter(enumerate(meta['joined']))
    operations: list[Operation] = []
    for kind in arrays[f'{prefix}.kind'].tolist():
        if kind == CONDITION:
            operations.append(next(samples))
        elif kind == WIDEN:
            operations.append(Widen(next(shares)))
        elif kind == JOIN:
            index, more = next(joined)
            other = tape_from(arrays, f'{prefix}.join{index}', more, known, prior)
            operations.append(Join(other))
        else:
            operations.append(Hold(next(variances) if kind == SET else None))

    def head(name: str, kept: Mapping[str, Any]) -> Head:
        if kept['as'] is None:
            return head_from(arrays, f'{prefix}.{name}', kept['dof'], prior)
        noise = Noise(arrays[f'{prefix}.{name}.beta'], kept['dof'], prior.noise)
        return Head(known[kept['as']], noise)

    middle = meta['middle']
    return Tape(
        head('start', meta['start']),
        operations,
        len(operations),
        None if middle is None else (middle[0], head('middle', middle[1])),
        frozenset(meta['folded']),
        None if meta['root'] is None else head('root', meta['root']).posterior,
        meta['worn'],
    )


def _head_state(prefix: str, head: Head, known: Known) -> tuple[Arrays, dict[str, Any]]:
    for name, posterior in known.items():
        if _equal(posterior, head.posterior):
            meta = {'as': name, 'dof': head.noise.dof}
            return {f'{prefix}.beta': head.noise.beta}, meta
    return head_arrays(prefix, head), {'as': None, 'dof': head.noise.dof}


def _equal(first: Gaussian, second: Gaussian) -> bool:
    pairs = (first.mean, second.mean), (first.covariance, second.covariance)
    return all(a is b or torch.equal(a, b) for a, b in pairs)
