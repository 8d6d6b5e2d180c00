"""The Belief: what the learner hands to whoever acts. Small, immutable, float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .likelihoods import Predictive
from .model import Dynamics
from .outcome_head import OutcomeHead, channels


@dataclass(frozen=True)
class Belief:
    """Posterior over the dynamics at one moment.

    `factor` F [n, E] holds E posterior draws as deviations from the mean, divided by √E, so that
    F Fᵀ estimates the covariance: the epistemic variance of H θ is the row sum of (H F)².

    The prediction of y is H θ + `offset`. What θ says holds everywhere; the offset is what the
    model is off by on average where the robot is now, and holds near there only.
    """

    stamp_ns: int  # end of the last transition it knows of
    version: int  # transitions learned from
    theta: np.ndarray  # posterior mean [n]
    factor: np.ndarray  # [n, E]
    offset: np.ndarray  # of y, near where the robot is [ds]
    noise: np.ndarray  # variance of e per output [ds]
    noise_dof: float  # degrees of freedom of the noise: intervals are Student-t
    regimes: dict[str, float]  # probability of each known regime and of `new`
    regime: str  # the regime whose head this is
    mode: str  # `learned`, or `nominal` while the guard holds the learned head back
    outcomes: Mapping[str, OutcomeHead] = field(default_factory=dict)  # as the robot file names

    def anywhere(self) -> Belief:
        """What it says of states that the robot is not near."""
        return replace(self, offset=np.zeros_like(self.offset))

    @property
    def entropy(self) -> float:
        """Entropy of the regime probabilities, nats."""
        p = np.array(list(self.regimes.values()))
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    def draws(self, count: int) -> np.ndarray:
        """Up to `count` posterior draws of θ [count, n]."""
        deviations = self.factor[:, :count].T
        return self.theta + np.sqrt(np.float32(self.factor.shape[1])) * deviations


@dataclass(frozen=True)
class Spread:
    """One-step prediction in units of the state, variances per channel [ds]."""

    mean: np.ndarray  # next state
    epistemic: np.ndarray
    aleatoric: np.ndarray
    ood: float  # mean squared whitened feature; 1 on the data of pre-training


def predict(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, u: np.ndarray, past: np.ndarray
) -> Spread:
    """Predict the next state from x [ds] and u [da] after past commands [DELAYS, da]."""
    phi, tangent = dynamics.parts(x, u, past)
    unit = dynamics.scale**2
    dof = belief.noise_dof
    return Spread(
        _mean(dynamics, belief, x, phi, tangent),
        unit * np.square(_product(dynamics, phi, tangent, belief.factor)).sum(axis=1),
        unit * belief.noise * (dof / (dof - 2)),
        float(np.mean(np.square(phi))),
    )


def predict_means(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, commands: np.ndarray, past: np.ndarray
) -> np.ndarray:
    """Mean next states [m, ds] from x [ds] under several commands [m, da], as `predict`."""
    parts = (dynamics.parts(x, u, past) for u in commands)
    return np.stack([_mean(dynamics, belief, x, *found) for found in parts])


def _mean(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, phi: np.ndarray, tangent: np.ndarray
) -> np.ndarray:
    """Mean next state [ds] by the parts of a design."""
    change = _product(dynamics, phi, tangent, belief.theta[:, None])[:, 0] + belief.offset
    return dynamics.spec.wrap(x + dynamics.scale * change)


def _product(
    dynamics: Dynamics, phi: np.ndarray, tangent: np.ndarray, theta: np.ndarray
) -> np.ndarray:
    """H θ [ds, m] of θ [n, m], by the parts of the design H."""
    ds, nf = dynamics.nominal.shape
    at = ds * nf
    return phi @ theta[:at].reshape(ds, nf, -1) + tangent @ theta[at:]


def predict_outcomes(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, u: np.ndarray
) -> dict[str, Predictive]:
    """Predict the outcomes of a step from x [ds] under u [da]."""
    if not belief.outcomes:
        return {}
    phi = dynamics.trunk.features(np.asarray(x, float)[None], np.asarray(u, float)[None])[0]
    return {name: head.predict(phi) for name, head in belief.outcomes.items()}


def outcome_channels(
    dynamics: Dynamics, belief: Belief, x: np.ndarray, u: np.ndarray
) -> dict[str, float]:
    """Named channels of the outcomes of a step, see `outcome_head.channels`."""
    seen = predict_outcomes(dynamics, belief, x, u)
    return channels(seen, {name: head.kind for name, head in belief.outcomes.items()})
