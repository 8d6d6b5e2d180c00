"""What a Belief says of an outcome: enough to predict it anywhere, small enough for every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .likelihoods import Bernoulli, Categorical, Discrete


@dataclass(frozen=True)
class OutcomeHead:
    """Posterior over the head of one outcome on the trunk's features, float32.

    As in a Belief, `factor` holds E posterior draws as deviations from the mean over √E.
    """

    classes: tuple[str, ...] | None  # None: it happens or it does not
    mean: np.ndarray  # [k · nf]
    factor: np.ndarray  # [k · nf, E]

    def predict(self, phi: np.ndarray) -> Discrete:
        """Predictive at features φ [nf]."""
        likelihood = Bernoulli() if self.classes is None else Categorical(self.classes)
        k = likelihood.outputs
        mean = self.mean.reshape(k, -1).astype(float) @ phi
        draws = np.einsum('kne,n->ke', self.factor.reshape(k, len(phi), -1).astype(float), phi)
        return likelihood.predict(mean, draws @ draws.T)


def channels(seen: Mapping[str, Discrete], classes: Mapping[str, tuple[str, ...] | None]) -> dict:
    """Named channels of predicted outcomes.

    `<outcome>.probability`, or `<outcome>.<class>.probability` for each class, and
    `<outcome>.epistemic`: what is not known of the probability itself, nats.
    """
    values: dict[str, float] = {}
    for name, predicted in seen.items():
        if classes[name] is None:
            values[f'{name}.probability'] = float(predicted.probabilities[1])
        else:
            shares = zip(classes[name], predicted.probabilities.tolist(), strict=True)
            values |= {f'{name}.{c}.probability': p for c, p in shares}
        values[f'{name}.epistemic'] = float(predicted.epistemic)
    return values
