"""The policy posterior is learned from the planner's choices, as they come, by the BLR.

Every choice is followed by a fixed number of steps, so that the same choices give the same
posterior, bit for bit. What is learned is a sum of terms (memory.objective):

- the choices of the regime that the robot is in, a uniform sample of them: a likelihood;
- a K-prior (Khan & Swaroop 2021) over those of all other regimes, with its error-correction term:
  a kept choice tells its own label for itself and a soft one, taken when the robot left its
  regime, for those of which it is the sample. Where none was given up, nothing is approximated.
  The memory's size is the memory length of this stream, so that every choice kept counts as one;
- a Gaussian prior over the weights: a broad one and, from when the last regime was left, a share
  of the posterior's precision, about its mean (EWC, by the optimizer's own precision).

A choice that the network has not learned keeps its own label: a soft one would teach the error.

At a learning rate that serves a robot that changes, the iterates of the BLR stray about the
posterior's mean (Mandt, Hoffman & Blei 2017): the mean that is handed out is their running
average, of polynomial decay (Shamir & Zhang 2013), begun anew with each regime.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..blr import BLR, VADAM, DiagonalGaussian
from ..control.policy_posterior import LAYERS, Choice, PolicyPosterior, Senses
from ..dynamics.likelihoods import KnownNoise
from ..memory.examples import Examples
from ..memory.objective import Loss, Objective
from ..memory.regimes import NEW

BATCH = 64
FIRST_NOISE = 0.1  # half ranges squared, before anything was seen
LEAST_NOISE = 1e-4
NOISE_RATE = 0.02
MEASURED = 25  # choices between measurements of the curvature
SAMPLE = 256  # inputs that it is measured on
FAINT = 0.01  # of a layer's mean curvature, at least
KNOWN = 2.0  # mean squared error in units of the noise up to which a choice has been learned
MOST = 16  # regimes told apart; the oldest two become one
DECAY = 3  # of the average over the first choices; more forgets sooner
SHARE = 0.01  # of the old precision: it is diagonal, which says little once weights move


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of the policy's learning; the defaults serve every shipped robot."""

    width: int = 64
    steps: int = 4  # of the Bayesian learning rule per choice
    least: int = 64  # choices before the first step
    capacity: int = 1024  # choices remembered per regime
    lr: float = 2e-3
    averaged: int = 500  # choices that the mean is an average over, at most
    temperature: float = 0.1  # of the posterior: choices that follow each other are alike
    settle: int = 500  # choices over which the learning rate falls to 1/√2
    memory: bool = True  # other regimes are remembered


class PolicyNetwork(torch.nn.Module):
    """The network of `PolicyPosterior`, in torch."""

    def __init__(self, inputs: int, outputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        for number, rows, columns in (
            (1, inputs, width),
            (2, width, width),
            (3, width + inputs, outputs),
        ):
            # Plans start at neutral.
            scale = math.sqrt(2 / rows) if number < 3 else 0.0
            weight = scale * torch.randn(rows, columns, generator=generator)
            self.register_parameter(f'w{number}', torch.nn.Parameter(weight))
            self.register_parameter(f'b{number}', torch.nn.Parameter(torch.zeros(columns)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Plans [n, outputs] for inputs [n, di]."""
        hidden = torch.relu(inputs @ self.w1 + self.b1)
        hidden = torch.relu(hidden @ self.w2 + self.b2)
        return torch.cat([hidden, inputs], dim=1) @ self.w3 + self.b3

    @torch.no_grad()
    def squares(self, inputs: Tensor, signs: Tensor) -> list[Tensor]:
        """Σ_n (∂ signs_nᵀ f(i_n) / ∂w)² for every weight w, as the parameters are, by hand.

        Args:
            inputs: [n, di].
            signs: direction of each example in the outputs [n, outputs].
        """
        first = torch.relu(inputs @ self.w1 + self.b1)
        second = torch.relu(first @ self.w2 + self.b2)
        back = [signs, (signs @ self.w3[: second.shape[1]].T) * (second > 0)]
        back.append((back[1] @ self.w2.T) * (first > 0))
        into = [torch.cat([second, inputs], dim=1), first, inputs]
        found: list[Tensor] = []
        for a, d in zip(reversed(into), reversed(back), strict=True):
            found += [a.square().T @ d.square(), d.square().sum(dim=0)]
        return found


class Shelf:
    """A uniform random sample of the choices made in one regime (Vitter 1985)."""

    def __init__(self, capacity: int, inputs: int, outputs: int) -> None:
        self.seen = 0
        self.size = 0
        self._inputs = np.zeros((capacity, inputs), np.float32)
        self._own, self._plans = np.zeros((2, capacity, outputs), np.float32)

    @property
    def inputs(self) -> np.ndarray:
        """Of the choices that are kept [size, di]."""
        return self._inputs[: self.size]

    @property
    def own(self) -> np.ndarray:
        """Their own labels [size, outputs]."""
        return self._own[: self.size]

    @property
    def plans(self) -> np.ndarray:
        """The labels that they tell, for themselves and for those that were not kept."""
        return self._plans[: self.size]

    def add(
        self,
        inputs: np.ndarray,
        own: np.ndarray,
        rng: np.random.Generator,
        told: np.ndarray | None = None,
    ) -> None:
        """Offer one more choice: its inputs and its own label, and another one that it tells."""
        self.seen += 1
        slot = self.size
        if slot == len(self._inputs):
            slot = int(rng.integers(self.seen))
            if slot >= self.size:
                return
        else:
            self.size += 1
        self._inputs[slot], self._own[slot] = inputs, own
        self._plans[slot] = own if told is None else told

    def restore(self, inputs: np.ndarray, own: np.ndarray, plans: np.ndarray, seen: int) -> None:
        """Hold what another of the same capacity held."""
        self.seen, self.size = seen, len(inputs)
        self._inputs[: self.size], self._own[: self.size] = inputs, own
        self._plans[: self.size] = plans

    def absorb(self, other: Shelf, rng: np.random.Generator) -> None:
        """Take over another's choices, and what those stand for."""
        for inputs, own, told in zip(other.inputs, other.own, other.plans, strict=True):
            self.add(inputs, own, rng, told)
        self.seen += other.seen - other.size


class PolicyLearner:
    """Posterior over the weights of one robot's policy network, its memory, and how it learns."""

    def __init__(
        self,
        senses: Senses,
        config: PolicyConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.config = config or PolicyConfig()
        self.fingerprint = senses.fingerprint
        self.shape = (senses.size, senses.outputs)
        self.seed = seed
        self.rng = np.random.default_rng([seed, 7])
        self.generator = torch.Generator().manual_seed(seed)
        self.picker = torch.Generator().manual_seed(seed)
        self.network = PolicyNetwork(*self.shape, self.config.width, self.picker)
        self.mean = copy.deepcopy(self.network).requires_grad_(False)
        self.version = 0  # choices seen
        self.stay = 0  # choices learned since the robot came into its regime
        self.stamp_ns = 0
        self.shelves: dict[str, Shelf] = {}
        self.noise = np.full(self.shape[1], FIRST_NOISE)
        # Weights of a layer together are of order one beforehand.
        fans = [p.shape[0] / 2 if p.ndim == 2 else 1.0 for p in self.network.parameters()]
        shapes = [p.flatten() for p in self.network.parameters()]
        parts = [torch.full_like(p, f).double() for p, f in zip(shapes, fans, strict=True)]
        precision = torch.cat(parts).detach()
        self._broad = precision
        self.restart(DiagonalGaussian(torch.zeros_like(precision), precision))
        self.resume('')

    # ------------------------------------------------------------------ one choice
    def observe(self, choice: Choice, learn: bool = True) -> None:
        """Learn from one choice of the planner; or only take note of the time."""
        self.stamp_ns = choice.stamp_ns
        plan = choice.plan.ravel()
        if not (learn and np.isfinite(choice.inputs).all() and np.isfinite(plan).all()):
            return
        self.version += 1
        if choice.regime != self.regime:
            self._enter(choice.regime)
        if self.version > self.config.least:
            error = np.square(plan - self.plans(choice.inputs[None])[0]).astype(float)
            # Choices far from all that was learned must not pass for noise.
            error = np.minimum(error, 16 * self.noise)
            self.noise += NOISE_RATE * (np.maximum(error, LEAST_NOISE) - self.noise)
        shelf = self.shelves[self.regime]
        shelf.add(choice.inputs, plan, self.rng)
        if self.version < self.config.least:
            return
        if (self.version - self.config.least) % MEASURED == 0:
            self._measure(shelf)
        self._learn(shelf)

    def plans(self, inputs: np.ndarray) -> np.ndarray:
        """The mean's plans [n, outputs] in half ranges for inputs [n, di]."""
        with torch.no_grad():
            return self.mean(torch.tensor(inputs)).numpy()

    def posterior(self) -> PolicyPosterior:
        """What it knows by now; of version 0 before it has begun to learn."""
        version = self.version if self.version >= self.config.least else 0
        mean = {n: getattr(self.mean, n).numpy().copy() for n in LAYERS}
        precision = self._precision()
        sd = {n: precision[n].rsqrt().numpy() for n in LAYERS}
        return PolicyPosterior(mean, sd, self.noise.copy(), self.stamp_ns, version)

    def log_likelihood(self, choices: Sequence[Choice]) -> float:
        """Mean log likelihood of choices under the mean weights and the noise, nats."""
        labels = np.array([c.plan.ravel() for c in choices], float)
        means = self.plans(np.array([c.inputs for c in choices], np.float32))
        return float(-KnownNoise(self.noise).loss(means.astype(float), labels).mean())

    # ------------------------------------------------------------------ learning
    def _learn(self, shelf: Shelf) -> None:
        objective = self._objective(shelf)
        total = sum(self._counts(shelf))
        # The square of a batch's mean gradient is the curvature of one example over the batch.
        for group in self.optimizer.param_groups:
            group['ess'] = float(total * BATCH)
            group['lr'] = self.config.lr / math.sqrt(1 + self.version / self.config.settle)
        for _ in range(self.config.steps):
            with self.optimizer.sampled():
                loss = objective.batch(BATCH, self.picker)(self._twin)
                (loss / total).backward()
            self.optimizer.step()
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        rate = max((1 + DECAY) / (1 + DECAY + self.stay), 1 / self.config.averaged)
        self.stay += 1
        for mean, p in zip(self.mean.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(p, rate)

    def _objective(self, shelf: Shelf) -> Objective:
        likelihood = KnownNoise(self.noise)
        new = Examples.of(torch.tensor(shelf.inputs), shelf.plans, likelihood)
        objective = Objective(((1.0, Loss(new.stand_for(self._counts(shelf)[0]))),))
        if self._others is not None:
            objective = objective + Loss(Examples.of(*self._others, likelihood))
        return objective

    def _counts(self, shelf: Shelf) -> list[int]:
        """Choices that the present regime and, if there are any, the others stand for."""
        others = [] if self._others is None else [len(self._others[1])]
        return [max(shelf.size, BATCH), *others]  # a new regime must be heard among the others

    def _enter(self, regime: str) -> None:
        """Go over to another regime; what the one that is left taught becomes the prior."""
        left = self.regime
        if left and not self.config.memory:
            self.shelves.clear()
        elif left:
            if self.version > self.config.least:
                self._soften(self.shelves[left])
                self._consolidate()
            if left == NEW:  # it has been found out which one it is
                found = self.shelves.pop(NEW)
                if regime in self.shelves:
                    self.shelves[regime].absorb(found, self.rng)
                else:
                    self.shelves[regime] = found
        if regime not in self.shelves and len(self.shelves) == MOST:
            oldest, next_one = list(self.shelves)[:2]
            self.shelves[next_one].absorb(self.shelves.pop(oldest), self.rng)
        if regime not in self.shelves:
            self.shelves[regime] = Shelf(self.config.capacity, *self.shape)
        self.stay = 0
        self.resume(regime)

    def _soften(self, shelf: Shelf) -> None:
        """Let what the network has learned stand for the choices that were not kept.

        Squared errors from two labels are, up to a constant, one from their weighted mean.
        """
        given_up = np.float32(1 - shelf.size / shelf.seen)
        wrong = self.plans(shelf.inputs) - shelf.own
        learned = (np.square(wrong) / self.noise).mean(axis=1) < KNOWN
        shelf.plans[:] = shelf.own + given_up * wrong * learned[:, None]

    def _consolidate(self) -> None:
        """The posterior becomes the prior, with a share of its precision."""
        precision = torch.cat([p.double().flatten() for p in self._precision().values()])
        mean = torch.cat([p.double().flatten() for p in self.mean.parameters()])
        data = precision - self.prior.precision
        curvature = [self.optimizer.state[p]['h'] for p in self.network.parameters()]
        self.restart(DiagonalGaussian(mean, self._broad + SHARE * data.clamp_min(0)))
        for p, h in zip(self.network.parameters(), curvature, strict=True):
            self.optimizer.set_curvature(p, h)

    def resume(self, regime: str) -> None:
        """Be in a regime; the choices of all others are memory."""
        self.regime = regime
        others = [s for n, s in self.shelves.items() if n != self.regime and s.size]
        self._others = None
        if others:
            inputs = np.concatenate([s.inputs for s in others])
            self._others = (torch.tensor(inputs), np.concatenate([s.plans for s in others]))

    def restart(self, prior: DiagonalGaussian) -> None:
        """A fresh optimizer, with this prior over the weights."""
        self.prior = prior
        scaled = DiagonalGaussian(self.prior.mean, self.prior.precision * BATCH)
        self.optimizer = BLR(
            self.network.parameters(),
            lr=self.config.lr,
            ess=float(BATCH),
            rule=VADAM,
            temperature=self.config.temperature,
            prior=scaled,
            betas=(0.9, 0.999),
            generator=self.generator,
            # The kernel draws ahead, with the settings of before: a resume could not repeat it.
            use_kernel=False,
        )
        self._twin = self.optimizer.twin(self.network)

    def _measure(self, shelf: Shelf) -> None:
        """Give the optimizer the Gauss–Newton diagonal of a sample of all that is remembered.

        Squared gradients, which it follows in between, see nothing where labels are soft. One
        random sign per output stands for the sum over outputs: E[(Σ_k ±J_k)²] = Σ_k J_k².
        """
        inputs = [torch.tensor(shelf.inputs)]
        inputs += [] if self._others is None else [self._others[0]]
        shares = self._counts(shelf)
        curvature = [torch.zeros_like(p) for p in self.network.parameters()]
        for rows, share in zip(inputs, shares, strict=True):
            picked = self.rng.integers(len(rows), size=SAMPLE)
            signs = self.rng.choice((-1.0, 1.0), (SAMPLE, self.shape[1])) / np.sqrt(self.noise)
            found = self.network.squares(
                rows[torch.tensor(picked)], torch.tensor(signs.astype(np.float32))
            )
            for total, part in zip(curvature, found, strict=True):
                total.add_(part * (share / (sum(shares) * SAMPLE)))
        for p, h in zip(self.network.parameters(), curvature, strict=True):
            # A unit that is silent by now must not learn in leaps.
            self.optimizer.set_curvature(p, h.clamp_min(FAINT * float(h.mean()) + 1e-8) / BATCH)

    def _precision(self) -> dict[str, Tensor]:
        """Posterior precision of every weight: data, and the prior as it is."""
        found, at = {}, 0
        for name in LAYERS:
            p = getattr(self.network, name)
            prior = self.prior.precision[at : at + p.numel()].to(p).reshape(p.shape)
            found[name] = self.optimizer.precision(p) - (BATCH - 1) * prior
            at += p.numel()
        return found
