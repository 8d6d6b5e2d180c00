"""Learning the trunk on board by the Bayesian learning rule, on a copy of it.

A lesson is all that this takes, so that the same lesson gives the same trunk. Its loss is the
negative log-likelihood of recent transitions under one head of their own, plus a K-prior (Khan &
Swaroop 2021): the stored heads, as functions, on remembered, recent and imagined inputs. The
posterior of the trunk so far, its mean and a share of its precision, is the prior (EWC).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..blr import BLR, VADAM, DiagonalGaussian
from ..blr.graph import WARM, Graph
from ..dynamics.model import Dynamics, Prior
from ..dynamics.trunk import Trunk
from ..memory.reservoir import Sample
from .pretrain import PretrainConfig

WEIGHTS = ('w1', 'b1', 'w2', 'b2')
BATCH = 64  # recent transitions, and as many of memory, in a step
IMAGINED = 2000  # inputs that stand for the data of pre-training, which are gone
LR = 1e-3
RISE = 0.101  # share of the steps on which the rate rises; 1 / RISE must be no number of steps
# What the old posterior counts for: it knows far more examples than a window holds, but only the
# diagonal of their curvature, which says little once weights move. The K-prior says the rest.
SHARE = 0.0025
EXAMPLES = PretrainConfig().regimes * PretrainConfig().per_regime  # that it knows


@dataclass(frozen=True)
class Steps:
    """Transitions as arrays: x [n, ds], u [n, da], past [n, DELAYS, da], x_next [n, ds]."""

    x: np.ndarray
    u: np.ndarray
    past: np.ndarray
    x_next: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Steps:
        """From samples, at least one."""
        fields = ('x', 'u', 'past', 'x_next')
        return cls(*(np.array([getattr(s, f) for s in samples], float) for f in fields))

    def __len__(self) -> int:
        return len(self.x)

    def columns(self, dynamics: Dynamics) -> tuple[np.ndarray, np.ndarray]:
        """Features φ [n, nf] and structured columns [n, ds, k] of the design of every row."""
        return dynamics.columns(self.x, self.u, self.past)

    def target(self, dynamics: Dynamics) -> np.ndarray:
        """Outputs y [n, ds]."""
        return dynamics.target(self.x, self.x_next)


@dataclass(frozen=True)
class Lesson:
    """Recent transitions, and what must not change."""

    prior: Prior
    recent: Steps
    target: np.ndarray  # y of the recent rows less the structured part [n, ds]
    start: np.ndarray  # head that they are fitted from [ds, nf]
    noise: np.ndarray  # variance of their residuals under it [ds]
    inputs: np.ndarray  # normalised inputs that the old functions are kept on [m, di]
    heads: np.ndarray  # of the stored regimes [r, ds, nf]
    steps: int
    seed: int


@dataclass(frozen=True)
class Refined:
    """What a lesson gives."""

    trunk: Trunk  # whitened as before
    precision: dict[str, np.ndarray]  # of its weights
    head: np.ndarray  # of the recent transitions [ds, nf]
    noise: np.ndarray  # variance of their residuals [ds]


def refine(
    lesson: Lesson,
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] = lambda share: None,
) -> Refined | None:
    """Learn from a lesson; None if `stopped` says so before the end.

    `progress` is called with the share done, after every step.
    """
    prior, trunk = lesson.prior, lesson.prior.dynamics.trunk
    generator = torch.Generator(device).manual_seed(lesson.seed)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    inputs = tensor(normalised(trunk, lesson.recent))
    targets, memory = tensor(lesson.target), tensor(lesson.inputs)
    weights = [tensor(getattr(trunk, name)).requires_grad_() for name in WEIGHTS]
    whiten = tensor(trunk.whiten)
    old = tensor(lesson.heads.transpose(0, 2, 1)).contiguous()  # [r, nf, ds]
    labels = torch.einsum('mf,rfo->rmo', _features(memory, weights).detach() @ whiten, old)
    heads = torch.cat([tensor(lesson.start.T)[None], old]).requires_grad_()
    fixed, variance = tensor(prior.noise), tensor(lesson.noise)

    # The square of the mean gradient of a batch is the curvature of one example over the batch.
    ess = float(len(inputs) * BATCH)
    mean = torch.cat([w.detach().double().flatten() for w in weights])
    precision = [tensor(prior.trunk_precision[name]) for name in WEIGHTS]
    flat = torch.cat([p.double().flatten() for p in precision])
    cuda = device.type == 'cuda'
    optimizer = BLR(
        [
            {'params': weights, 'prior': DiagonalGaussian(mean, flat * SHARE * BATCH)},
            {'params': [heads], 'prior_precision': 1e-6},
        ],
        lr=LR,
        ess=ess,
        rule=VADAM,
        generator=generator,
    )
    for w, p in zip(weights, precision, strict=True):
        optimizer.set_curvature(w, (p / (EXAMPLES * BATCH)).clamp_min(1e-3))
    seen = torch.cat([variance[None], fixed.expand(len(old), -1)])  # [1 + r, ds]
    optimizer.set_curvature(heads, (1 / (seen * BATCH))[:, None].expand_as(heads).contiguous())
    for group in optimizer.param_groups:
        if cuda:  # a graph reads its value there
            group['lr'] = torch.tensor(LR, dtype=torch.float64, device=device)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=lesson.steps, pct_start=RISE, cycle_momentum=False
    )

    def step() -> None:
        recent = _pick(len(inputs), generator, device)
        of, at = _pick(len(old), generator, device), _pick(len(memory), generator, device)
        rows = torch.cat([inputs[recent], memory[at]])
        with optimizer.sampled() as draw:
            phi = _features(rows, [draw[w] for w in weights]) @ whiten
            sampled = draw[heads]
            residual = phi[:BATCH] @ sampled[0] - targets[recent]
            drift = torch.einsum('bf,bfo->bo', phi[BATCH:], sampled[1 + of]) - labels[of, at]
            loss = (residual.square() / variance).sum() + (drift.square() / fixed).sum()
            (0.5 / BATCH * loss).backward()
        optimizer.step()
        with torch.no_grad():
            variance.lerp_(residual.square().mean(dim=0).clamp_min(1e-6), 0.02)

    taken = 0
    if cuda and lesson.steps > WARM and hasattr(torch.cuda.CUDAGraph, 'register_generator_state'):
        step, taken = Graph(step, device=device, generator=generator), WARM
    for number in range(taken, lesson.steps):
        if stopped():
            return None
        step()
        schedule.step()
        progress((number + 1) / lesson.steps)

    def array(t: Tensor) -> np.ndarray:
        return t.detach().cpu().numpy().astype(float)

    learned = {n: array(w) for n, w in zip(WEIGHTS, weights, strict=True)}
    gained = [
        optimizer.precision(w) - SHARE * BATCH * p for w, p in zip(weights, precision, strict=True)
    ]
    after = {
        n: prior.trunk_precision[n] + array(g.clamp_min(0))
        for n, g in zip(WEIGHTS, gained, strict=True)
    }
    head = array(heads)[0].T
    return Refined(replace(trunk, **learned), after, np.ascontiguousarray(head), array(variance))


def normalised(trunk: Trunk, rows: Steps) -> np.ndarray:
    """Inputs [n, di] of the network."""
    return (trunk.encoder(rows.x, rows.u) - trunk.mean) / trunk.scale


def imagined(trunk: Trunk, rng: np.random.Generator, count: int = IMAGINED) -> np.ndarray:
    """Normalised inputs [count, di] like those of pre-training: it left their first two moments.

    Angles are drawn from the wrapped normal with the same mean direction and resultant length.
    """
    encoder, di = trunk.encoder, len(trunk.mean)
    values, angles = len(encoder.values), len(encoder.angles)
    inputs = rng.standard_normal((count, di))
    cos, sin = slice(values, values + angles), slice(values + angles, values + 2 * angles)
    centre = np.arctan2(trunk.mean[sin], trunk.mean[cos])
    length = np.clip(np.hypot(trunk.mean[sin], trunk.mean[cos]), 1e-3, 1 - 1e-9)
    angle = centre + np.sqrt(-2 * np.log(length)) * rng.standard_normal((count, angles))
    inputs[:, cos] = (np.cos(angle) - trunk.mean[cos]) / trunk.scale[cos]
    inputs[:, sin] = (np.sin(angle) - trunk.mean[sin]) / trunk.scale[sin]
    return inputs


def features(trunk: Trunk, inputs: np.ndarray) -> np.ndarray:
    """Features before whitening [n, nf] of normalised inputs [n, di]."""
    hidden = np.tanh(np.maximum(inputs @ trunk.w1 + trunk.b1, 0) @ trunk.w2 + trunk.b2)
    return np.concatenate([hidden, inputs, np.ones((len(inputs), 1))], axis=1)


def _features(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    w1, b1, w2, b2 = weights
    hidden = torch.tanh(torch.relu(inputs @ w1 + b1) @ w2 + b2)
    return torch.cat([hidden, inputs, inputs.new_ones(len(inputs), 1)], dim=1)


def _pick(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randint(count, (BATCH,), generator=generator, device=device)
