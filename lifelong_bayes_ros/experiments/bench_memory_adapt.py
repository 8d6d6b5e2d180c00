"""Rows on adapting a network by a K-prior, beside training it again from scratch on everything.

Four changes (Khan & Swaroop 2021): add examples of a kind not seen before, remove examples whose
labels turn out to be wrong, change the regulariser, change the model class; for a Gaussian
likelihood (changes of a robot's speeds), a heteroscedastic one (the same robot with a rotor of
which nobody knows how well it pulls, so that the noise grows with the command), Bernoulli (odd
digits or even) and Categorical (digits). A share of the old examples is kept. Errors are on test
examples, over those of training again; costs are CPU seconds, likewise.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..dynamics.likelihoods import (
    Bernoulli,
    Categorical,
    HeteroscedasticGaussian,
    KnownNoise,
    Likelihood,
)
from ..memory.examples import Examples
from ..memory.flat import flat
from ..memory.objective import Correction, Loss, Quadratic, Term
from .bench_memory_networks import Plant, digits, mlp, solve
from .published import row

Progress = Callable[[float], None]
ROBOT, PITCH, STEEP = 'quad', 2, 0.3  # pitch beyond which nothing was seen before
OLD, NEW, WRONG, TEST = 600, 150, 40, 500  # examples
KEPT = 0.25  # share of the old examples
GAINS = (0.5, 1.2)  # of the rotor of the heteroscedastic case
PRECISION, STRICTER = 1.0, 10.0  # of the prior over weights, before and after
WIDTHS, SMALLER, LARGER = (24, 24), (12,), (48, 48)
SPLITS = 2
ITERATIONS, FEWER = 150, 50  # of L-BFGS from scratch, and to adapt
LEAST = 1e-12


@dataclass(frozen=True)
class Case:
    """Examples under one likelihood."""

    name: str
    old: Examples
    new: Examples  # of a kind that `old` has none of
    wrong: Examples  # as `old`, with labels of others
    test: Examples

    def error(self, network: torch.nn.Module) -> float:
        """Root mean square error of the mean of y; of classes the perplexity."""
        with torch.no_grad():
            f, labels = self.test.latent(network), torch.tensor(self.test.labels)
            if isinstance(self.test.likelihood, HeteroscedasticGaussian):
                f, labels = f[:, :1], labels[:, :1]  # the rest is about the noise
            if isinstance(self.test.likelihood, (KnownNoise, HeteroscedasticGaussian)):
                return float((f - labels).square().mean().sqrt())
            return float(self.test.loss(f).mean().exp())

    def network(self, widths: Sequence[int], seed: int) -> torch.nn.Module:
        """A fresh one."""
        return mlp(self.old.inputs.shape[1], widths, self.old.likelihood.outputs, seed)


def cases(seed: int) -> Iterator[Case]:
    """One for each likelihood."""
    rng = np.random.default_rng(seed)
    plant = Plant.of(ROBOT)
    n = OLD + WRONG + NEW + TEST
    x, u = plant.states(rng, 4 * n), plant.commands(rng, 4 * n)
    seen = plant.read(rng, x, u)
    yield _case('Gaussian', seen, x[:, PITCH] > STEEP, rng)

    # The change of the last speed while a rotor pulls as it likes, in a dozen different ways.
    y = np.empty(len(x))
    for part in np.array_split(np.arange(len(x)), 12):
        gain = {'actuator': 'left', 'factor': float(rng.uniform(*GAINS))}
        y[part] = plant.change(x[part], u[part], [{'actuator_gain': gain}])[:, -1]
    varied = HeteroscedasticGaussian()
    labels = np.array([varied.label(float(v)) for v in y])
    order = rng.permutation(len(x))
    seen = Examples.of(plant.inputs(x, u), labels, varied).pick(order)
    yield _case('heteroscedastic', seen, x[order, PITCH] > STEEP, rng)

    images, digit = digits()
    order = rng.permutation(len(digit))
    images, digit = images[order], digit[order]
    for likelihood in (Bernoulli(), Categorical(tuple('0123456789'))):
        seen = Examples.of(images, _labels(likelihood, digit), likelihood)
        yield _case(type(likelihood).__name__, seen, digit == 9, rng)


def _labels(likelihood: Likelihood, digit: np.ndarray) -> np.ndarray:
    if isinstance(likelihood, Bernoulli):
        return np.array([likelihood.label(bool(d % 2)) for d in digit])
    return np.array([likelihood.label(str(d)) for d in digit])


def _case(name: str, seen: Examples, strange: np.ndarray, rng: np.random.Generator) -> Case:
    """Split examples: the last ones test, and what is strange was not seen before."""
    rest, test = np.arange(len(seen) - TEST), np.arange(len(seen) - TEST, len(seen))
    usual, new = rest[~strange[rest]], rest[strange[rest]][:NEW]
    wrong = seen.pick(usual[OLD : OLD + WRONG])
    moved = rng.permutation(usual[OLD + WRONG :])[: len(wrong)]
    wrong = replace(wrong, labels=seen.labels[moved])
    return Case(name, seen.pick(usual[:OLD]), seen.pick(new), wrong, seen.pick(test))


@dataclass(frozen=True)
class Change:
    """How an adapted network compares with one that was trained again."""

    error: float  # ratios
    cost: float
    before: float  # the error ratio of the network as it was


def adapt(case: Case, seed: int) -> Iterator[tuple[str, Change]]:
    """All changes of one case."""
    old = case.old
    base = case.network(WIDTHS, seed)
    zero = torch.zeros_like(flat(base)).detach()
    prior = Quadratic.isotropic(PRECISION, zero)
    solve(base, Loss(old) + prior, ITERATIONS)
    generator = torch.Generator().manual_seed(seed)
    kept = old.pick(torch.randperm(len(old), generator=generator)[: int(KEPT * len(old))])

    def k_prior(network: torch.nn.Module) -> Term:
        soft = Loss(kept.softened(network).stand_for(len(old)))
        return soft + Quadratic.isotropic(PRECISION, flat(network))

    def compare(start: torch.nn.Module, adapted: Term, again: Term) -> Change:
        network, fresh = copy.deepcopy(start), case.network(WIDTHS, seed + 1)
        costs = [_cost(network, adapted, FEWER), _cost(fresh, again, ITERATIONS)]
        return _change(case, network, fresh, case.error(start), costs)

    losses = Loss(old) + prior
    yield 'add data', compare(base, k_prior(base) + Loss(case.new), losses + Loss(case.new))

    misled = case.network(WIDTHS, seed)
    solve(misled, losses + Loss(case.wrong), ITERATIONS)
    # K − Loss(removed), with the removed in memory: their neighbours, which are gone, keep the
    # network in place there, and of the loss a line is left, which a correction is.
    each = (len(old) + len(case.wrong)) / (len(kept) + len(case.wrong))
    without = each * Loss(kept.softened(misled)) + (each - 1) * Loss(case.wrong.softened(misled))
    without += Quadratic.isotropic(PRECISION, flat(misled)) - Correction.of(misled, case.wrong)
    yield 'remove data', compare(misled, without, losses)

    stricter = Quadratic.isotropic(STRICTER - PRECISION, zero)
    yield 'change the regulariser', compare(base, k_prior(base) + stricter, losses + stricter)

    for what, widths in (('smaller', SMALLER), ('larger', LARGER)):
        network, fresh = case.network(widths, seed + 2), case.network(widths, seed + 3)
        own = Quadratic.isotropic(PRECISION, torch.zeros_like(flat(network)))
        taught = Loss(kept.softened(base).stand_for(len(old))) + own
        costs = [_cost(network, taught, ITERATIONS), _cost(fresh, Loss(old) + own, ITERATIONS)]
        name = f'change the model class, {what}'
        yield name, _change(case, network, fresh, case.error(base), costs)


def _cost(network: torch.nn.Module, objective: Term, iterations: int) -> float:
    before = time.thread_time()
    solve(network, objective, iterations)
    return time.thread_time() - before


def _change(
    case: Case,
    network: torch.nn.Module,
    fresh: torch.nn.Module,
    before: float,
    costs: Sequence[float],
) -> Change:
    again = max(case.error(fresh), LEAST)
    return Change(case.error(network) / again, costs[0] / max(costs[1], LEAST), before / again)


def adapt_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Medians over seeds of every change under every likelihood."""
    found: dict[tuple[str, str], list[Change]] = {}
    seeds = seeds[:SPLITS]
    for number, seed in enumerate(seeds):
        for place, case in enumerate(cases(seed)):
            for what, change in adapt(case, seed):
                found.setdefault((case.name, what), []).append(change)
            progress((number + (place + 1) / 4) / len(seeds))
    rows = []
    for (case, what), changes in found.items():
        error, cost, before = np.median([(c.error, c.cost, c.before) for c in changes], axis=0)
        name = f'K-prior, {case}, {what}'
        rows += [
            row(f'{name}: error / retrained', float(error), '', 'lower', None),
            row(f'{name}: error before / retrained', float(before), '', 'lower', None),
            row(f'{name}: cost / retraining', float(cost), '', 'lower', None),
        ]
    return rows
