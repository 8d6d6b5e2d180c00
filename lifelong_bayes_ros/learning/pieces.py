"""Heads and samples as named arrays, for the files of a state directory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Prior
from ..dynamics.noise import Noise
from ..memory.reservoir import Sample

Arrays = dict[str, np.ndarray]


def head_arrays(prefix: str, head: Head) -> Arrays:
    """Mean, covariance and noise of a head, but for the noise's degrees of freedom."""
    return {
        f'{prefix}.mean': head.posterior.mean.numpy(),
        f'{prefix}.covariance': head.posterior.covariance.numpy(),
        f'{prefix}.beta': head.noise.beta,
    }


def head_from(arrays: Mapping[str, np.ndarray], prefix: str, dof: float, prior: Prior) -> Head:
    """The head of `head_arrays`."""
    mean, covariance = (arrays[f'{prefix}.{part}'] for part in ('mean', 'covariance'))
    posterior = Gaussian(torch.tensor(mean), torch.tensor(covariance))
    return Head(posterior, Noise(arrays[f'{prefix}.beta'], dof, prior.noise))


def sample_arrays(prefix: str, samples: Sequence[Sample]) -> Arrays:
    """One array for each field of samples."""
    columns = Sample.__dataclass_fields__
    return {f'{prefix}.{c}': np.array([getattr(s, c) for s in samples]) for c in columns}


def samples_from(arrays: Mapping[str, np.ndarray], prefix: str) -> list[Sample]:
    """The samples of `sample_arrays`."""
    columns = [arrays[f'{prefix}.{c}'] for c in Sample.__dataclass_fields__]
    return [Sample(*row[:4], int(row[4]), int(row[5])) for row in zip(*columns, strict=True)]


def digest(heads: Sequence[Head], more: Sequence[np.ndarray] = ()) -> str:
    """SHA-256 over heads and other arrays, bit for bit."""
    sha = hashlib.sha256()
    for head in heads:
        for part in (head.posterior.mean, head.posterior.covariance):
            sha.update(raw(part.numpy()))
        sha.update(raw(head.noise.beta))
    for part in more:
        sha.update(raw(part))
    return sha.hexdigest()


def raw(array: np.ndarray) -> np.ndarray:
    """An array in C order, as something to hash: copies of megabytes hold other threads up."""
    return np.ascontiguousarray(array).reshape(-1)
