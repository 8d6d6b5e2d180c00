"""A candidate for adoption: a new trunk with every head on it, judged on what it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Dynamics, Prior
from ..dynamics.noise import FLOOR, Noise
from ..memory.bank import Bank
from ..memory.consolidation import TOLERANCE
from ..memory.reservoir import Sample
from .refine import Lesson, Refined, Steps, features, imagined, normalised, refine
from .transport import OWN, Transport, carry_prior, error, fit, residuals, rewhiten

DECISIVE = 8.0  # nats on held-out transitions that a new trunk must gain
SIGMA = 2.0  # and standard errors of their sum
WIDEN = 0.02  # share of the family's covariance that carrying a head over costs, as a recall does


@dataclass(frozen=True)
class Job:
    """What the background works on; a pure function of this gives the candidate."""

    prior: Prior
    recent: tuple[Sample, ...]
    memory: dict[str, tuple[Sample, ...]]  # of every stored regime
    heads: dict[str, Head]
    regime: str  # that the robot is in
    theta: np.ndarray  # of the live head [n]
    noise: np.ndarray  # its variances [ds]
    steps: int
    seed: int

    @property
    def episodes(self) -> frozenset[int]:
        """Whose transitions it learns from."""
        samples = chain(self.recent, *self.memory.values())
        return frozenset(sample.episode for sample in samples)

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Normalised inputs [m, di] that functions are kept on, and whose they are [m].

        Of a stored regime: its index; of none: −1.
        """
        trunk = self.prior.dynamics.trunk
        rng = np.random.default_rng([self.seed, 1])
        parts = [imagined(trunk, rng), normalised(trunk, Steps.of(self.recent))]
        owner = [np.full(sum(map(len, parts)), -1)]
        for index, samples in enumerate(self.memory.values()):
            if samples:
                parts.append(normalised(trunk, Steps.of(samples)))
                owner.append(np.full(len(samples), index))
        return np.concatenate(parts), np.concatenate(owner)

    def learn(
        self,
        device: torch.device,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Refined | None:
        """The trunk that the Bayesian learning rule makes of it; None if stopped before."""
        return refine(self._lesson(), device, stopped, progress)

    def still(self) -> Refined:
        """If nothing is learned: the trunk as it is, a head fitted to the recent transitions."""
        lesson, prior = self._lesson(), self.prior
        return Refined(prior.dynamics.trunk, prior.trunk_precision, lesson.start, lesson.noise)

    def _lesson(self) -> Lesson:
        dynamics, rows = self.prior.dynamics, Steps.of(self.recent)
        shape = dynamics.nominal.shape
        # The best head on the features as they are: what is left is for the trunk.
        theta, _ = fit(dynamics, rows, self.theta, self.prior.covariance, self.noise)
        at = dynamics.nominal.size
        structured = np.einsum('nok,k->no', rows.columns(dynamics)[1], theta[at:])
        left = residuals(dynamics, rows, theta)
        heads = [h.posterior.mean.numpy()[:at].reshape(shape) for h in self.heads.values()]
        return Lesson(
            prior=self.prior,
            recent=rows,
            target=rows.target(dynamics) - structured,
            start=theta[:at].reshape(shape),
            noise=_variance(left, self.prior),
            inputs=self.inputs()[0],
            heads=np.stack(heads),
            steps=self.steps,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Candidate:
    """All that changes together, and how it did."""

    prior: Prior
    family: Gaussian
    live: Head  # after the held-out transitions
    heads: dict[str, Head]  # of the stored regimes
    bank: Bank
    evidence: np.ndarray  # log evidence of its live head for each held-out transition, nats
    gain: float  # nats per held-out transition over what was to be beaten
    error: float  # worst error of a regime on its memory, after / before
    reason: str  # why not, or empty


def prepare(
    job: Job,
    refined: Refined,
    held_out: Sequence[Sample],
    evidence: np.ndarray,
    walk: Callable[[Head, int, Gaussian], Head],
    stopped: Callable[[], bool] = lambda: False,
) -> Candidate | None:
    """Fit every head again on a new trunk and judge it.

    Args:
        job: what was learned from.
        refined: what came of it.
        held_out: transitions since then.
        evidence: log evidence to beat, e.g. of the live head of the time, for each of them, nats.
        walk: the random walk of a live head at a held-out transition, by its number, from 0.
        stopped: tells to give up; the answer is None then.
    """
    old = job.prior.dynamics
    ds = len(old.scale)
    inputs, owner = job.inputs()
    trunk = rewhiten(old.trunk, refined.trunk, inputs)

    def transport(index: int) -> Transport:
        return Transport.between(old.trunk, trunk, inputs, np.where(owner == index, OWN, 1.0))

    prior = carry_prior(job.prior, trunk, refined.precision, transport(0))
    dynamics = prior.dynamics
    family = Gaussian(torch.tensor(dynamics.nominal_theta), torch.tensor(prior.covariance))
    heads = {
        name: transport(index).head(head, ds, family, WIDEN)
        for index, (name, head) in enumerate(job.heads.items())
    }

    # The head of now: what was learned with the trunk, and the recent transitions.
    rows = Steps.of(job.recent)
    start = transport(-1).theta(job.theta, ds)
    change = np.linalg.solve(trunk.whiten, old.trunk.whiten)
    start[: dynamics.nominal.size] = (refined.head @ change.T).ravel()
    noise = np.maximum(refined.noise, FLOOR * prior.noise)
    mean, covariance = fit(dynamics, rows, start, prior.covariance, noise)
    variance = _variance(residuals(dynamics, rows, mean), prior)
    posterior = Gaussian(torch.tensor(mean), torch.tensor(covariance))
    live = Head(posterior, Noise.start(variance, prior.noise))
    if job.regime in heads and job.regime != next(iter(heads)):
        heads[job.regime] = live

    # The memory of the nominal plant is pre-training, whose errors were the noise.
    dreamt = imagined(old.trunk, np.random.default_rng([job.seed, 2]))
    worst = float(np.sqrt(1 + np.mean(np.square(_drift(old, dynamics, dreamt)) / prior.noise)))
    for name, samples in job.memory.items():
        if samples:
            memory = Steps.of(samples)
            known = [job.heads[name].posterior.mean.numpy()]
            known += [job.theta] if name == job.regime else []
            before = min(error(old, memory, theta, prior.noise) for theta in known)
            theta = heads[name].posterior.mean.numpy()
            after = error(dynamics, memory, theta, prior.noise)
            worst = max(worst, after / max(before, 1e-12))

    found = np.empty(len(held_out))
    for index, sample in enumerate(held_out):
        if stopped():
            return None
        live = walk(live, index, family)
        live, found[index] = absorb(dynamics, live, sample)
    gains = found - evidence
    bank = Bank(*dynamics.nominal.shape)
    bank.sync([family, *(h.posterior for h in heads.values())])
    total, spread = float(np.sum(gains)), float(np.std(gains) * np.sqrt(len(gains)))
    reason = ''
    if not np.isfinite(total) or total < max(DECISIVE, SIGMA * spread):
        reason = f'it gained {total:.0f} nats on held-out transitions, too few to be sure'
    elif worst > TOLERANCE:
        reason = (
            f'the error of a regime on its memory grew {worst:.2f} times (allowed {TOLERANCE})'
        )
    gain = total / max(len(gains), 1)
    return Candidate(prior, family, live, heads, bank, found, gain, worst, reason)


def _variance(errors: np.ndarray, prior: Prior) -> np.ndarray:
    """Of each output [ds] from errors [n, ds]; those of a channel that stands still are 0."""
    return np.maximum(np.square(errors).mean(axis=0), FLOOR * prior.noise)


def _drift(old: Dynamics, new: Dynamics, inputs: np.ndarray) -> np.ndarray:
    """How far the nominal predictions moved [n, ds] at normalised inputs [n, di]."""
    before, after = (features(d.trunk, inputs) @ d.trunk.whiten @ d.nominal.T for d in (old, new))
    return after - before


def absorb(dynamics: Dynamics, head: Head, sample: Sample) -> tuple[Head, float]:
    """A head after one more sample, and its log evidence for it."""
    x, u = sample.x.astype(float), sample.u.astype(float)
    design = torch.from_numpy(dynamics.design(x, u, sample.past.astype(float)))
    prediction = head.predict(design, dynamics.target(x, sample.x_next.astype(float)))
    return head.update(prediction), prediction.evidence
