"""What has changed? A sparse prior over plants: of all that may change, few things do at once.

Every hypothesis names the things that have changed and gives the heads that they lead to as
θ = θ₀ + B z, z ~ N(0, I), with a few columns B fitted on simulated plants. All are filtered side
by side, and what nobody says has changed stays exactly as it was. One Gaussian over all heads
cannot say that: under it the noise of every sensor moves every output a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .head import EVIDENCE_DOF, EVIDENCE_TEMPER, student_t
from .model import Dynamics, Hypotheses
from .noise import Noise

RARE = 0.1  # prior odds that one more thing has changed, at an event
SETTLED = 1e-3  # and at the start of a life
WALK = 3e-5  # covariance of z moved towards the prior per transition
NEGLIGIBLE = 1e-6  # probability below which a hypothesis does not show in the mean
HOPELESS = 20.0  # nats behind the best at which a hypothesis is dropped until the next event


@dataclass(frozen=True)
class Seen:
    """What the mixture of hypotheses predicted of one step, before it learned from it."""

    evidence: float  # log evidence of the mixture, tempered as that of a Head, nats
    residual: np.ndarray  # y − E[H θ] [ds]
    epistemic: np.ndarray  # variance of H θ [ds]


class HypothesisFilter:
    """Posterior over hypotheses and the z of each: a bank of small Kalman filters, in numpy."""

    def __init__(self, hypotheses: Hypotheses, dynamics: Dynamics, noise: Noise) -> None:
        """Start a life: most likely nothing has changed.

        Args:
            hypotheses: what may have changed.
            dynamics: the model that they belong to.
            noise: of its outputs.
        """
        self.hypotheses = hypotheses
        self.nominal = dynamics.nominal_theta
        self.outputs, self._features = dynamics.nominal.shape
        self.noise = noise
        self.restart(noise, SETTLED)

    def restart(self, noise: Noise, rare: float) -> None:
        """Back to the prior: anything may have changed, each further thing with odds `rare`."""
        count, _, rank = self.hypotheses.basis.shape
        self.alive = np.arange(count)
        self.z = np.zeros((count, rank))
        self.covariance = np.tile(np.eye(rank), (count, 1, 1))
        self.log_weight = np.log(rare) * self.hypotheses.changed.sum(axis=1)
        self.noise = noise
        self._select()

    def carry(self, hypotheses: Hypotheses, dynamics: Dynamics) -> None:
        """Go over to another trunk, on which these are the same hypotheses."""
        self.hypotheses, self.nominal = hypotheses, dynamics.nominal_theta
        self._select()

    # ------------------------------------------------------------------ learning
    def update(self, design: np.ndarray, target: np.ndarray) -> Seen:
        """Predict and learn from one step, y = target [ds] at design H [ds, n]."""
        self.covariance += WALK * (self._unit - self.covariance)
        columns = self._columns(design)
        noise = self.noise.variance
        error = target - design @ self.nominal - (columns @ self.z[:, :, None])[:, :, 0]
        spread = columns @ self.covariance  # [s, ds, r]
        epistemic = spread @ columns.transpose(0, 2, 1)
        lower = np.linalg.cholesky(epistemic + np.diag(noise))
        inverse = np.linalg.inv(lower)
        white = (inverse @ error[:, :, None])[:, :, 0]
        log_det = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        square = (white * white).sum(axis=1)
        evidence = EVIDENCE_TEMPER * student_t(square, log_det, self.outputs, EVIDENCE_DOF)

        before = self.weights
        after = self.log_weight + evidence
        seen = Seen(
            _log_sum(after) - _log_sum(self.log_weight),
            before @ error,
            _mixed(before, error, np.diagonal(epistemic, axis1=1, axis2=2)),
        )
        self.log_weight = after - after.max()
        half = inverse @ spread  # L⁻¹ H P
        self.z = self.z + (white[:, None] @ half)[:, 0]
        self.covariance -= half.transpose(0, 2, 1) @ half
        # What is left of the error: R S⁻¹ e, with variance R − R S⁻¹ R.
        left = noise * (white[:, None] @ inverse)[:, 0]
        variance = noise - noise**2 * (inverse * inverse).sum(axis=1)
        weights = self.weights
        mean = weights @ left
        self.noise = self.noise.update(mean**2 + _mixed(weights, left, variance))
        self._drop()
        return seen

    def remember(self, designs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        """Learn from many steps at once, as from the memory of a regime; order does not matter.

        Args:
            designs: H [ds, n] of each.
            targets: y [ds] of each.
        """
        if not len(designs):
            return
        noise = self.noise.variance
        scale = 1 / np.sqrt(noise)
        columns = np.stack([self._columns(h) for h in designs], axis=1) * scale[:, None]
        base = np.stack([(y - h @ self.nominal) * scale for h, y in zip(designs, targets)])
        count, rank = self.z.shape
        rows = columns.reshape(count, -1, rank)
        error = base.ravel() - np.einsum('snr,sr->sn', rows, self.z)
        prior = np.linalg.inv(self.covariance)
        precision = prior + rows.transpose(0, 2, 1) @ rows
        self.covariance = np.linalg.inv(precision)
        eta = np.einsum('snr,sn->sr', rows, error)
        step = np.einsum('sqr,sr->sq', self.covariance, eta)
        self.z = self.z + step
        fit = np.square(error).sum(axis=1) - np.einsum('sr,sr->s', eta, step)
        log_det = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1]
        self.log_weight = self.log_weight - EVIDENCE_TEMPER * 0.5 * (fit + log_det)
        self.log_weight -= self.log_weight.max()
        self._drop()

    # ------------------------------------------------------------------ what is believed
    @property
    def weights(self) -> np.ndarray:
        """Probability of every hypothesis that is alive."""
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.sum()

    @property
    def changed(self) -> dict[str, float]:
        """Probability that each thing has changed."""
        told = self.weights @ self.hypotheses.changed[self.alive]
        return dict(zip(self.hypotheses.kinds, told.tolist(), strict=True))

    @property
    def likeliest(self) -> tuple[str, float]:
        """The likeliest hypothesis and its probability."""
        weights = self.weights
        best = int(np.argmax(weights))
        return self.hypotheses.names[self.alive[best]], float(weights[best])

    def posterior(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean of θ [n], and draws as deviations from it [n, E].

        Args:
            noise: standard normal numbers [r, E]. Hypotheses are drawn systematically, so that
                one set of numbers gives draws that move smoothly.
        """
        weights, count = self.weights, noise.shape[1]
        edges = np.cumsum(weights)
        chosen = np.searchsorted(edges, (np.arange(count) + 0.5) / count).clip(0, len(edges) - 1)
        # Coefficients of all that matter: the mean's in the first column, the draws' beside it.
        z = np.zeros((len(weights), len(noise), 1 + count), np.float32)
        z[:, :, 0] = weights[:, None] * self.z
        for s in set(chosen.tolist()):
            of = chosen == s
            spread = np.linalg.cholesky(self.covariance[s]) @ noise[:, of]
            z[s, :, 1:][:, of] = self.z[s][:, None] + spread
        matter = weights > NEGLIGIBLE
        matter[chosen] = True
        rows = self._rows[np.repeat(matter, len(noise))]
        theta = (rows.T @ z[matter].reshape(len(rows), -1)).astype(float)
        shift, result = theta[:, 0], theta[:, 1:]
        return self.nominal + shift, result - shift[:, None]

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, np.ndarray]:
        """All that it has learned."""
        return {
            'alive': self.alive,
            'z': self.z,
            'covariance': self.covariance,
            'log_weight': self.log_weight,
            'beta': self.noise.beta,
            'dof': np.array([self.noise.dof]),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.alive, self.z = state['alive'], state['z']
        self.covariance, self.log_weight = state['covariance'], state['log_weight']
        self.noise = Noise(state['beta'], float(state['dof'][0]), self.noise.prior)
        self._select()

    # ------------------------------------------------------------------ helpers
    def _columns(self, design: np.ndarray) -> np.ndarray:
        """H B of every hypothesis [s, ds, r]; φ meets the block of each output."""
        phi = design[0, : self._features].astype(np.float32)
        heads = (phi @ self._heads).reshape(len(self.alive), self.outputs, -1)
        return heads + design[:, self.outputs * self._features :] @ self._tails

    def _select(self) -> None:
        basis = self.hypotheses.basis[self.alive]
        count, size, rank = basis.shape
        self._unit = np.eye(rank)
        self._rows = np.ascontiguousarray(basis.transpose(0, 2, 1)).reshape(-1, size)
        heads = basis[:, : self.outputs * self._features]
        blocks = heads.reshape(count, self.outputs, self._features, rank).transpose(2, 0, 1, 3)
        self._heads = np.ascontiguousarray(blocks).reshape(self._features, -1)
        self._tails = basis[:, self.outputs * self._features :].astype(float)

    def _drop(self) -> None:
        keep = self.log_weight > self.log_weight.max() - HOPELESS
        if keep.all():
            return
        self.alive, self.z = self.alive[keep], self.z[keep]
        self.covariance, self.log_weight = self.covariance[keep], self.log_weight[keep]
        self._select()


def _log_sum(log: np.ndarray) -> float:
    top = log.max()
    return float(top + np.log(np.exp(log - top).sum()))


def _mixed(weights: np.ndarray, error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Variance of a mixture [ds] from errors and variances [s, ds]."""
    return weights @ (variance + np.square(error - weights @ error))
