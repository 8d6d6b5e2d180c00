"""What a Belief says of an outcome: enough to predict it anywhere, small enough for every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..robot.outcomes import Kind
from .likelihoods import (
    Bernoulli,
    Categorical,
    Discrete,
    HeteroscedasticGaussian,
    Likelihood,
    Predictive,
)


def likelihood_of(kind: Kind) -> Likelihood:
    """The likelihood of an outcome.

    Raises:
        UserError: fewer than two classes, one twice, or a scale that is not positive.
    """
    if kind is None:
        return Bernoulli()
    return HeteroscedasticGaussian(kind) if isinstance(kind, float) else Categorical(tuple(kind))


@dataclass(frozen=True)
class OutcomeHead:
    """Posterior over the head of one outcome on the trunk's features, float32.

    As in a Belief, `factor` holds E posterior draws as deviations from the mean over √E.
    """

    kind: Kind
    mean: np.ndarray  # [k · nf]
    factor: np.ndarray  # [k · nf, E]

    def predict(self, phi: np.ndarray) -> Predictive:
        """Predictive at features φ [nf]."""
        likelihood = likelihood_of(self.kind)
        k = likelihood.outputs
        mean = self.mean.reshape(k, -1).astype(float) @ phi
        draws = np.einsum('kne,n->ke', self.factor.reshape(k, len(phi), -1).astype(float), phi)
        return likelihood.predict(mean, draws @ draws.T)


def channels(seen: Mapping[str, Predictive], kinds: Mapping[str, Kind]) -> dict[str, float]:
    """Named channels of predicted outcomes.

    `<outcome>.probability`, or `<outcome>.<class>.probability` for each class, and
    `<outcome>.epistemic`: what is not known of the probability itself, nats. Of a number
    `<outcome>.mean` and, as standard deviations in its unit, `<outcome>.epistemic`: what is not
    known of the mean, and `<outcome>.aleatoric`: the noise.
    """
    values: dict[str, float] = {}
    for name, predicted in seen.items():
        if isinstance(predicted, Discrete):
            values |= _probabilities(name, predicted, kinds[name])
            values[f'{name}.epistemic'] = float(predicted.epistemic)
        else:
            unsure = max(float(predicted.variance - predicted.noise), 0.0)
            values[f'{name}.mean'] = float(predicted.mean)
            values[f'{name}.epistemic'] = math.sqrt(unsure)
            values[f'{name}.aleatoric'] = math.sqrt(predicted.noise)
    return values


def _probabilities(name: str, predicted: Discrete, kind: Kind) -> dict[str, float]:
    if kind is None:
        return {f'{name}.probability': float(predicted.probabilities[1])}
    shares = zip(kind, predicted.probabilities.tolist(), strict=True)
    return {f'{name}.{c}.probability': p for c, p in shares}
