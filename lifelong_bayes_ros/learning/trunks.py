"""Merging trunks that two robots of one kind kept learning, and refitting all heads on the result.

Weights are merged by uncertainty (Daheim et al. 2024): each counts by the BLR precision that its
robot has of it. With the prior that both started from this is the merge of their posteriors in
natural parameters, S = S_A + S_B − S_0 and S m = S_A m_A + S_B m_B − S_0 m_0; without it, the mean
weighted by precision. Heads are refit on the merged trunk from their tapes; what those no longer
hold is carried over as a function.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..blr import DiagonalGaussian, Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Prior
from ..dynamics.trunk import Trunk
from ..errors import UserError
from ..memory.consolidation import TOLERANCE, score
from ..memory.regimes import Library, Regime
from ..memory.reservoir import Sample
from ..memory.tape import Join, Operation, Tape
from .learner import Learner
from .refine import WEIGHTS, Steps, imagined, normalised
from .transport import OWN, Transport, carry_prior, rewhiten

FIXED = ('mean', 'scale')  # of a trunk: what learning on board never changes


def same_origin(first: Prior, second: Prior) -> bool:
    """Whether two priors can have come from one, by what never changes on board."""
    a, b = first.dynamics, second.dynamics
    pairs = [(getattr(a.trunk, n), getattr(b.trunk, n)) for n in FIXED]
    pairs += [(getattr(a.trunk, n).shape, getattr(b.trunk, n).shape) for n in WEIGHTS]
    pairs += [(a.scale, b.scale), (first.noise, second.noise), (first.floor, second.floor)]
    return all(np.array_equal(x, y) for x, y in pairs)


def merge_trunks(first: Learner, second: Learner, origin: Prior | None) -> list[Learner]:
    """Both learners on the merge of their trunks; the given ones are not changed.

    Args:
        first: and
        second: of one origin, see `same_origin`.
        origin: the prior that both started from, if it is known.

    Raises:
        UserError: a regime predicts its memory worse than consolidation allows on the merged
            trunk: the two have grown too far apart.
    """
    learners = (first, second)
    old = [x.dynamics.trunk for x in learners]
    weights, precision = _merged([x.prior for x in learners], origin)
    memories = [_memories(x) for x in learners]
    rng = np.random.default_rng(first.seed)
    parts = [imagined(old[0], rng)]
    parts += [normalised(old[0], Steps.of(s)) for m in memories for s in m.values() if s]
    inputs = np.concatenate(parts)
    trunk = rewhiten(old[0], replace(old[0], **weights), inputs)
    base = origin or first.prior  # what was carried over before has lost a little each time
    by = Transport.between(base.dynamics.trunk, trunk, inputs, np.ones(len(inputs)))
    prior = carry_prior(base, trunk, precision, by)
    moved = []
    for learner, before, memory in zip(learners, old, memories, strict=True):
        fresh = Learner(prior, learner.config, learner.seed, str(learner.device))
        fresh.library = _carried(learner, fresh, before, trunk, memory, inputs)
        fresh.step, fresh.learned, fresh.taught = learner.step, learner.learned, learner.taught
        fresh.stamp_ns, fresh.first_episode = learner.stamp_ns, learner.first_episode
        moved.append(fresh)
    return moved


def _merged(
    priors: list[Prior], origin: Prior | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Merged weights and their precision, by name."""

    def posterior(prior: Prior) -> DiagonalGaussian:
        trunk, precision = prior.dynamics.trunk, prior.trunk_precision
        mean = np.concatenate([getattr(trunk, n).ravel() for n in WEIGHTS])
        scale = np.concatenate([precision[n].ravel() for n in WEIGHTS])
        return DiagonalGaussian(torch.tensor(mean), torch.tensor(scale))

    one, other = map(posterior, priors)
    # Without the origin nobody can tell how much of their knowledge is the same: half of the sum.
    merged = one.multiply(other, None if origin is None else posterior(origin))
    scale = merged.precision * (0.5 if origin is None else 1.0)
    weights, precision, at = {}, {}, 0
    for name in WEIGHTS:
        shape = getattr(priors[0].dynamics.trunk, name).shape
        size = int(np.prod(shape))
        weights[name] = merged.mean[at : at + size].numpy().reshape(shape)
        precision[name] = scale[at : at + size].numpy().reshape(shape)
        at += size
    return weights, precision


def _memories(learner: Learner) -> dict[str, list[Sample]]:
    return {r.name: list(r.reservoir.samples) for r in learner.library.regimes}


def _carried(
    learner: Learner,
    fresh: Learner,
    before: Trunk,
    trunk: Trunk,
    memory: dict[str, list[Sample]],
    inputs: np.ndarray,
) -> Library:
    """The regimes of a learner on the trunk of another one."""
    regimes = [replace(fresh.library.regimes[0], reservoir=learner.library.regimes[0].reservoir)]
    for regime in learner.library.regimes[1:]:
        samples = memory[regime.name]
        rows, weights = inputs, np.ones(len(inputs))
        if samples:
            own = normalised(before, Steps.of(samples))
            rows = np.concatenate([inputs, own])
            weights = np.concatenate([weights, np.full(len(own), OWN)])
        by = Transport.between(before, trunk, rows, weights)
        tape = _retold(regime.tape, learner, fresh, by)
        head = tape.run(fresh.dynamics, fresh.family)
        noise = learner.prior.noise
        old = score(learner.dynamics, regime.head, samples, noise).error
        new = score(fresh.dynamics, head, samples, noise).error
        if new > TOLERANCE * max(old, 1e-12):
            raise UserError(
                f'the trunks have grown too far apart to be merged: the error of regime '
                f'{regime.name!r} on its memory would grow {new / old:.2f} times (allowed '
                f'{TOLERANCE})'
            )
        regimes.append(Regime(regime.name, head, regime.reservoir, tape))
    return Library(regimes, learner.library.named, dict(learner.library.notes))


def _retold(tape: Tape, learner: Learner, fresh: Learner, by: Transport) -> Tape:
    """A tape that starts from the same functions on another trunk."""
    outputs = len(learner.dynamics.scale)
    known = [(learner.family, fresh.family), (learner.nominal.posterior, fresh.nominal.posterior)]

    def carried(posterior: Gaussian) -> Gaussian:
        for before, after in known:
            if torch.equal(before.covariance, posterior.covariance):
                return after
        head = Head(posterior, tape.start.noise)
        return by.head(head, outputs, fresh.family, 0.0).posterior

    operations: list[Operation] = [
        Join(_retold(o.other, learner, fresh, by)) if isinstance(o, Join) else o for o in tape
    ]
    return replace(
        tape,
        start=tape.start.replace(posterior=carried(tape.start.posterior)),
        operations=operations,
        length=len(operations),
        middle=None,
        root=None if tape.root is None else carried(tape.root),
    )
