"""Rows on what leaving a transition out would change: foretold, and by training again.

A network of a robot's dynamics learns noisy transitions. What its posterior says that leaving one
out does to the prediction there (memory-perturbation equation, Nickl et al. 2023) is compared with
what it does: the network is trained again without that transition, from where it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..blr import DiagonalGaussian
from ..memory.dnn2gp import Sensitivity, laplace
from ..memory.examples import Examples
from ..memory.flat import at, flat, load
from ..memory.objective import Loss, Quadratic
from .bench_memory_networks import Plant, mlp, solve
from .published import row

Progress = Callable[[float], None]
ROBOT, WIDTHS = 'quad', (10,)
TRANSITIONS, LEFT_OUT = 400, 60
PRECISION = 3.0  # of the prior over weights
NETWORKS = 1  # each trained again so often
ITERATIONS = 1000  # of L-BFGS, before Newton steps finish it
STEPS, CONVERGED = 200, 1e-7  # of Newton, at most; change of a weight
SLOW = 0.3  # a step this share of the last one needs a fresh Hessian


def leave_out(
    seed: int, progress: Progress = lambda share: None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """True changes of the prediction [LEFT_OUT, k], and those foretold, by kind of posterior."""
    plant, rng = Plant.of(ROBOT), np.random.default_rng(seed)
    x, u = plant.states(rng, TRANSITIONS), plant.commands(rng, TRANSITIONS)
    seen = plant.read(rng, x, u)
    network = mlp(seen.inputs.shape[1], WIDTHS, seen.labels.shape[1], seed)
    zero = torch.zeros_like(flat(network)).detach()
    prior = Quadratic.isotropic(PRECISION, zero)
    solve(network, Loss(seen) + prior, ITERATIONS)
    finish(network, seen)
    diagonal = DiagonalGaussian(zero, torch.full_like(zero, PRECISION))
    told: dict[str, Sensitivity] = {
        'full covariance': laplace(network, seen, PRECISION).sensitivity(seen),
        'diagonal': laplace(network, seen, diagonal).sensitivity(seen),
    }
    picked = rng.permutation(TRANSITIONS)[:LEFT_OUT]
    true = []
    for number, i in enumerate(picked):
        other = copy.deepcopy(network)
        finish(other, seen.pick([k for k in range(TRANSITIONS) if k != i]))
        with torch.no_grad():
            there = seen.inputs[i : i + 1]
            true.append((other(there) - network(there))[0].numpy())
        progress((number + 1) / LEFT_OUT)
    return np.array(true), {n: s.deviation[picked].numpy() for n, s in told.items()}


def finish(network: torch.nn.Module, seen: Examples) -> None:
    """Newton steps with the true Hessian until no weight moves: the gradient is zero then.

    Written anew, so that what it is compared with cannot share a mistake with it.

    Raises:
        RuntimeError: they do not converge.
    """
    labels, variance = torch.tensor(seen.labels), torch.tensor(seen.likelihood.variance)

    def loss(weights: Tensor) -> Tensor:
        f = at(network, weights)(seen.inputs)
        return 0.5 * (((f - labels).square() / variance).sum() + PRECISION * weights @ weights)

    weights = flat(network).detach()
    slope, curvature = torch.func.grad(loss), torch.func.hessian(loss)
    inverse, last = None, 0.0
    for _ in range(STEPS):
        if inverse is None:
            values, vectors = torch.linalg.eigh(curvature(weights))
            # Downhill at a saddle, too.
            inverse = (vectors / values.abs().clamp_min(1e-3 * PRECISION)) @ vectors.T
        step = inverse @ slope(weights)
        share, height = 1.0, loss(weights)
        while loss(weights - share * step) > height + 1e-12 * height.abs() and share > 1e-6:
            share /= 2
        weights = weights - share * step
        size = float(step.abs().max())
        if size < CONVERGED:
            load(network, weights)
            return
        if share < 1 or not size < SLOW * last:  # else the same Hessian serves once more
            inverse = None
        last = size
    raise RuntimeError(f'{STEPS} Newton steps do not converge')


def agreement(true: np.ndarray, told: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation of the sizes of changes [n, k], and the slope of true on told."""
    sizes = [np.linalg.norm(a, axis=1).argsort().argsort() for a in (true, told)]
    slope = float(np.sum(true * told) / np.sum(np.square(told)))
    return float(np.corrcoef(*sizes)[0, 1]), slope


def leave_out_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Agreement, the worst of some networks and the mean."""
    found: dict[str, list[tuple[float, float]]] = {}
    seeds = seeds[:NETWORKS]
    for number, seed in enumerate(seeds):
        true, told = leave_out(seed, lambda s, n=number: progress((n + s) / len(seeds)))
        for name, deviation in told.items():
            found.setdefault(name, []).append(agreement(true, deviation))
    rows = []
    for name, pairs in found.items():
        ranks, slopes = np.array(pairs).T
        judged = name == 'full covariance'
        bars = (0.95, 0.9, 1.1) if judged else (None, None, None)
        what = f'network left out of {LEFT_OUT} transitions, {name}'
        rows += [
            row(f'{what}: Spearman, lowest of {len(seeds)}', ranks.min(), '', 'higher', bars[0]),
            row(f'{what}: slope, lowest', slopes.min(), '', 'higher', bars[1]),
            row(f'{what}: slope, highest', slopes.max(), '', 'lower', bars[2]),
        ]
    return rows
