"""What has changed? A sparse prior over plants: of all that may change, few things do at once.

Every hypothesis names the things that have changed and gives the heads that they lead to as
θ = θ₀ + B c(z), z ~ N(0, I), with a few columns B and curves c fitted on simulated plants. All are
filtered side by side, each by an extended Kalman filter over z, and what nobody says has changed
stays exactly as it was. One Gaussian over all heads cannot say that: under it the noise of every
sensor moves every output a little.

A trunk that is a little wrong looks as if something had changed a little, and many steps would
make that certain. So a hypothesis pays for every thing that it says has changed, at each step, but
no more than what it predicts differs from what nothing changed predicts: small changes do not
count, and a robot at rest, where all hypotheses predict the same, forgets nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .head import EVIDENCE_DOF, EVIDENCE_TEMPER, student_t
from .model import Dynamics, Hypotheses
from .native_filter import NativeFilter, Rules, load
from .noise import Noise

RARE = 0.1  # prior odds that one more thing has changed, at an event
SETTLED = 1e-3  # and at the start of a life
WALK = 3e-5  # covariance of z moved towards the prior per transition
WORTH = 0.05  # nats per step and thing: what is explained beyond that tells for a change
NEGLIGIBLE = 1e-2  # of the likeliest's probability, below which one does not show in the mean
NEAR = 0.3  # move of z, in prior deviations, beyond which the curve is looked at anew
ROUNDS = 8  # such looks, at most
ARRIVED = 1e-3  # move beyond which memory is fitted once more
HOPELESS = 20.0  # nats behind the best at which a hypothesis is dropped until the next event


@dataclass(frozen=True)
class Seen:
    """What the mixture of hypotheses predicted of one step, before it learned from it."""

    evidence: float  # log evidence of the mixture, tempered as that of a Head, nats
    residual: np.ndarray  # y − E[H θ] [ds]
    epistemic: np.ndarray  # variance of H θ [ds]


class HypothesisFilter:
    """Posterior over hypotheses and the z of each: a bank of small filters, in numpy."""

    def __init__(self, hypotheses: Hypotheses, dynamics: Dynamics, noise: Noise) -> None:
        """Start a life: most likely nothing has changed.

        Args:
            hypotheses: what may have changed.
            dynamics: the model that they belong to.
            noise: of its outputs.
        """
        self._lay_out(hypotheses, dynamics)
        self.restart(noise, SETTLED)

    def restart(self, noise: Noise, rare: float) -> None:
        """Back to the prior: anything may have changed, each further thing with odds `rare`."""
        count, latents = len(self.hypotheses.basis), self.hypotheses.curves.latents
        self.alive = np.arange(count)
        self.z = np.zeros((count, latents))
        self.covariance = np.tile(np.eye(latents), (count, 1, 1))
        self.log_weight = np.log(rare) * self.hypotheses.changed.sum(axis=1)
        self.noise = noise
        self._select()

    def carry(self, hypotheses: Hypotheses, dynamics: Dynamics) -> None:
        """Go over to another trunk, on which these are the same hypotheses."""
        self._lay_out(hypotheses, dynamics)
        self._select()

    # ------------------------------------------------------------------ learning
    def update(self, design: np.ndarray, target: np.ndarray) -> Seen:
        """Predict and learn from one step, y = target [ds] at design H [ds, n]."""
        whole = target - design @ self.nominal
        learn = self._learn if self._native is None else self._learn_natively
        seen, square = learn(design, whole)
        self.noise = self.noise.update(square)
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
        scale = 1 / np.sqrt(self.noise.variance)
        rows = np.stack(designs)
        basis = self._columns(rows) * scale[:, None]  # [steps, s, ds, r]
        basis = basis.transpose(1, 0, 2, 3).reshape(len(self.z), -1, basis.shape[-1])
        base = ((np.stack(targets) - rows @ self.nominal) * scale).ravel()
        # What the steps say of coefficients c: |y − H θ|² = |y|² − 2 c·meet + c·gram c.
        turned = basis.transpose(0, 2, 1)
        gram, meet = turned @ basis, turned @ base
        prior, start = np.linalg.inv(self.covariance), self.z
        for _ in range(1 + ROUNDS):
            coefficients, slopes = self._touched
            precision = prior + slopes @ gram @ slopes.transpose(0, 2, 1)
            missed = meet - _times(gram, coefficients)
            pull = _times(slopes, missed) + _times(prior, start - self.z)
            step = np.linalg.solve(precision, pull[:, :, None])[:, :, 0]
            self.z = self.z + step
            self._touched = self._touch(self.z)
            if np.abs(step).max() < ARRIVED:
                break
        self.covariance = np.linalg.inv(precision)
        c = self._touched[0]
        fit = base @ base - (c * (2 * meet - _times(gram, c))).sum(axis=1)
        fit += np.einsum('sk,skq,sq->s', self.z - start, prior, self.z - start)
        log_det = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1]
        self.log_weight = self.log_weight - EVIDENCE_TEMPER * 0.5 * (fit + log_det)
        told = (c * _times(gram, c)).sum(axis=1)
        self.log_weight -= np.minimum(self._price * len(designs), EVIDENCE_TEMPER * 0.5 * told)
        self.log_weight -= self.log_weight.max()
        self._drop()

    # ------------------------------------------------------------------ what is believed
    @property
    def weights(self) -> np.ndarray:
        """Probability of every hypothesis that is alive."""
        return _weights(self.log_weight)[0]

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

        Small weights show in the draws only: a small doubt does not move the mean.

        Args:
            noise: standard normal numbers [k, E]. Hypotheses are drawn systematically, so that
                one set of numbers gives draws that move smoothly.
        """
        weights = self.weights
        negligible = NEGLIGIBLE * weights.max()
        if self._native is None:
            shift, deviations = self._draw(noise, weights, negligible)
        else:
            state = (self.z, self.covariance, self._touched[0])
            columns = (self._numbers, self._rows)
            shift, deviations = self._native.draw(weights, state, columns, noise, negligible)
        return self.nominal + shift, deviations

    # ------------------------------------------------------------------ state
    def state(self) -> dict[str, np.ndarray]:
        """All that it has learned, copied."""
        return {
            'alive': self.alive.copy(),
            'z': self.z.copy(),
            'covariance': self.covariance.copy(),
            'log_weight': self.log_weight.copy(),
            'beta': self.noise.beta,
            'dof': np.array([self.noise.dof]),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.alive = state['alive'].copy()
        self.z, self.covariance = state['z'].copy(), state['covariance'].copy()
        self.log_weight = state['log_weight'].copy()
        self.noise = Noise(state['beta'], float(state['dof'][0]), self.noise.prior)
        self._select()

    # ------------------------------------------------------------------ helpers
    def _learn_natively(self, design: np.ndarray, whole: np.ndarray) -> tuple[Seen, np.ndarray]:
        """`_learn` in C."""
        phi, tangent = design[0, : self._features], design[:, self.outputs * self._features :]
        state = (self.z, self.covariance, *self._touched, self.log_weight)
        found = self._native.learn(phi, tangent, whole, self.noise.variance, state)
        evidence, residual, epistemic, square = found
        return Seen(evidence, residual, epistemic), square

    def _learn(self, design: np.ndarray, whole: np.ndarray) -> tuple[Seen, np.ndarray]:
        """What was predicted of y − H θ₀ [ds], and the expected square of the error left."""
        self.covariance = self.covariance + WALK * (self._unit - self.covariance)
        learned = self._move(self._columns(design), whole)
        error, epistemic, square, log_det, left, variance = learned
        evidence = EVIDENCE_TEMPER * student_t(square, log_det, self.outputs, EVIDENCE_DOF)
        before, was = _weights(self.log_weight)
        self.log_weight = self.log_weight + evidence
        weights, now = _weights(self.log_weight)
        told = np.square(whole - error) @ (1 / self.noise.variance)
        self.log_weight -= np.minimum(self._price, EVIDENCE_TEMPER * 0.5 * told)
        self.log_weight -= self.log_weight.max()
        mean = weights @ left
        seen = Seen(now - was, before @ error, _mixed(before, error, epistemic))
        return seen, mean**2 + _mixed(weights, left, variance)

    def _move(self, basis: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, ...]:
        """Move z by a step with H B [s, ds, r] and y − H θ₀ [ds].

        Returns:
            Errors and variances of H θ before [s, ds], squared distances and log determinants
            [s], errors that are left and their variances [s, ds].
        """
        error, half, inverse, epistemic = self._innovate(basis, whole, self.z, *self._touched)
        white = _times(inverse, error)
        log_det = -2 * np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(axis=1)
        square = (white * white).sum(axis=1)
        z = self.z + (white[:, None] @ half)[:, 0]
        near = np.abs(z - self.z).max() < NEAR
        for _ in range(ROUNDS):  # the iterated filter (Bell & Cathey 1993): Gauss–Newton steps
            if near:
                break
            at = z
            seen, half, inverse, _ = self._innovate(basis, whole, at, *self.curves.touch(at))
            white = _times(inverse, seen)
            z = self.z + (white[:, None] @ half)[:, 0]
            near = np.abs(z - at).max() < NEAR
        self.z, self._touched = z, self.curves.touch(z)
        self.covariance -= half.transpose(0, 2, 1) @ half
        # What is left of the error: R S⁻¹ e, with variance R − R S⁻¹ R.
        noise = self.noise.variance
        left = noise * (white[:, None] @ inverse)[:, 0]
        variance = noise - noise**2 * (inverse * inverse).sum(axis=1)
        spread = np.diagonal(epistemic, axis1=1, axis2=2)
        return error, spread, square, log_det, left, variance

    def _draw(
        self, noise: np.ndarray, weights: np.ndarray, negligible: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """`posterior` in numpy, less the reference of all hypotheses."""
        count = noise.shape[1]
        edges = np.cumsum(weights)
        chosen = np.searchsorted(edges, (np.arange(count) + 0.5) / count).clip(0, len(edges) - 1)
        spread = np.zeros_like(self.covariance)
        spread[chosen] = np.linalg.cholesky(self.covariance[chosen])
        drawn = self.z[chosen] + (spread[chosen] @ noise.T[:, :, None])[:, :, 0]
        # Coefficients: the mean's, of all that matter, in the first column, the draws' beside it.
        used = self._numbers >= 0
        c = np.zeros((*used.shape, 1 + count), np.float32)
        c[:, :, 0] = (weights * (weights > negligible))[:, None] * self._touched[0]
        c[chosen, :, 1 + np.arange(count)] = self.curves.coefficients(drawn, chosen)
        moved = (c[used].T @ self._rows[self._numbers[used]]).astype(float)
        shift, result = moved[0], moved[1:]
        return shift, np.ascontiguousarray((result - shift).T)

    def _innovate(
        self,
        basis: np.ndarray,
        whole: np.ndarray,
        at: np.ndarray,
        coefficients: np.ndarray,
        slopes: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """What a step y says, by the tangents of the curves at latents [s, k].

        Args:
            basis: H B [s, ds, r].
            whole: y − H θ₀ [ds].
            at: where the tangents touch.
            coefficients: of the columns there [s, r].
            slopes: their derivatives there [s, k, r].

        Returns:
            The error [s, ds], L⁻¹ H P [s, ds, k], L⁻¹ and H P Hᵀ [s, ds, ds]; S = L Lᵀ.
        """
        columns = basis @ slopes.transpose(0, 2, 1)
        error = whole - _times(basis, coefficients)
        if at is not self.z:
            error = error - _times(columns, self.z - at)
        spread = columns @ self.covariance
        epistemic = spread @ columns.transpose(0, 2, 1)
        inverse = np.linalg.inv(np.linalg.cholesky(epistemic + np.diag(self.noise.variance)))
        return error, inverse @ spread, inverse, epistemic

    def _columns(self, design: np.ndarray) -> np.ndarray:
        """H B of every hypothesis [..., s, ds, r] at designs [..., ds, n]."""
        phi = design[..., 0, : self._features].astype(np.float32)  # meets the block of each output
        heads = (phi @ self._heads).reshape(*phi.shape[:-1], len(self.alive), self.outputs, -1)
        tangent = design[..., None, :, self.outputs * self._features :]
        return heads + tangent @ self._tails

    def _lay_out(self, hypotheses: Hypotheses, dynamics: Dynamics) -> None:
        """Keep the columns of all hypotheses in the layouts that steps and draws need."""
        self.hypotheses, self.nominal = hypotheses, dynamics.nominal_theta
        self.outputs, self._features = dynamics.nominal.shape
        count, _, rank = hypotheses.basis.shape
        rows = np.ascontiguousarray(hypotheses.basis.transpose(0, 2, 1))
        heads = hypotheses.basis[:, : self.outputs * self._features]
        blocks = heads.reshape(count, self.outputs, self._features, rank).transpose(2, 0, 1, 3)
        blocks = np.ascontiguousarray(blocks).reshape(self._features, count, -1)
        tails = hypotheses.basis[:, self.outputs * self._features :].astype(float)
        used = rows.any(axis=2)
        self._rows = rows[used]  # columns that are not empty, and the number of each, or −1
        numbers = np.cumsum(used.ravel(), dtype=np.int32).reshape(used.shape) - 1
        self._layouts = np.where(used, numbers, np.int32(-1)), blocks, tails

    def _select(self) -> None:
        """Go on with the hypotheses that are alive."""
        numbers, blocks, tails = self._layouts
        self.curves = self.hypotheses.curves.pick(self.alive)
        self._price = WORTH * self.hypotheses.changed[self.alive].sum(axis=1)
        self._unit = np.eye(self.curves.latents)
        self._numbers = numbers[self.alive]  # [s, r]
        if len(self.alive) < len(numbers):
            blocks = blocks[:, self.alive]
        self._heads = blocks.reshape(self._features, -1)
        self._tails = tails[self.alive]
        self._native = None
        if load() is not None:
            rules = Rules(ROUNDS, NEAR, WALK, EVIDENCE_DOF, EVIDENCE_TEMPER)
            columns = (self._heads, self._tails)
            self._native = NativeFilter(self.curves, self.outputs, *columns, self._price, rules)
        self._touched = self._touch(self.z)

    def _touch(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients [s, r] and their slopes [s, k, r] at latents [s, k]."""
        return (self.curves if self._native is None else self._native).touch(z)

    def _drop(self) -> None:
        keep = self.log_weight > self.log_weight.max() - HOPELESS
        if keep.all():
            return
        self.alive, self.z = self.alive[keep], self.z[keep]
        self.covariance, self.log_weight = self.covariance[keep], self.log_weight[keep]
        self._select()


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Products [s, a] of matrices [s, a, b] and vectors [s, b]."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _weights(log: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities from log weights, and the log of their sum."""
    top = log.max()
    weight = np.exp(log - top)
    total = weight.sum()
    return weight / total, float(top + np.log(total))


def _mixed(weights: np.ndarray, error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Variance of a mixture [ds] from errors and variances [s, ds]."""
    return weights @ (variance + np.square(error - weights @ error))
