"""Time of one label per likelihood: `python -m lifelong_bayes_ros.experiments.bench_likelihood`.

Prints one JSON object: milliseconds per update of a head on 73 features, median and 99th
percentile, once the window of labels is full.
"""

from __future__ import annotations

from .. import threads  # noqa: F401  (before numpy)

# isort: split
import json
import time
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.likelihoods import (
    Bernoulli,
    Categorical,
    Glm,
    HeteroscedasticGaussian,
    KnownNoise,
    Likelihood,
)

FEATURES = 73
CASES: dict[str, tuple[Likelihood, list[Any]]] = {
    'gaussian': (KnownNoise(np.array([0.1])), [0.3, -0.2]),
    'heteroscedastic': (HeteroscedasticGaussian(), [0.3, -0.2]),
    'bernoulli': (Bernoulli(), [True, False]),
    'categorical_4': (Categorical(('a', 'b', 'c', 'd')), ['a', 'b', 'c', 'd']),
}


def milliseconds(likelihood: Likelihood, labels: list[Any], count: int) -> dict[str, float]:
    """Median and 99th percentile of `count` updates, after a warm-up of 100."""
    rng = np.random.default_rng(0)
    size = likelihood.outputs * FEATURES
    covariance = torch.eye(size, dtype=torch.float64) / FEATURES
    head = Glm(Gaussian(torch.zeros(size, dtype=torch.float64), covariance), likelihood)
    times = []
    for _ in range(100 + count):
        design = likelihood.design(rng.standard_normal(FEATURES))
        y = labels[rng.integers(len(labels))]
        start = time.perf_counter()
        head = head.update(design, y)
        times.append(1e3 * (time.perf_counter() - start))
    median, p99 = np.quantile(times[100:], [0.5, 0.99])
    return {'median_ms': round(float(median), 4), 'p99_ms': round(float(p99), 4)}


if __name__ == '__main__':
    torch.set_num_threads(1)
    print(json.dumps({name: milliseconds(*case, 1000) for name, case in CASES.items()}, indent=1))
