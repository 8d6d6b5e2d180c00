"""Rows on one plant whose state space is seen region by region, with one network and no context.

Four bands of the pitch of the quadrotor are visited one after the other. Of the 3 000 transitions
of the first three, 100 are kept, which represent the others (`memorable.representative`). All
methods have the same network and the same steps; errors are those of held-out states without
noise, on the three old regions, over the error of joint training on everything.

A K-prior needs inputs and no labels, so it need not stop at those that were kept: it also holds
the old network at inputs that recombine them (`memorable.recombined`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..memory.dnn2gp import laplace
from ..memory.examples import Examples
from ..memory.flat import flat
from ..memory.memorable import recombined, representative
from ..memory.objective import Loss, Objective, Quadratic
from .bench_memory_networks import Plant, mlp, solve
from .published import row

Progress = Callable[[float], None]
ROBOT, PITCH, EDGES = 'quad', 2, (-0.3, 0.0, 0.3)
REGIONS, SEEN, STORED, TEST = 4, 1000, 100, 1000
WIDTHS = (16, 16)
# Of L-BFGS in a region. Joint training, on four times the data, has twice as many: with a quarter
# of these, or with twice these, it is worse (seeds from 100 on).
ITERATIONS = 800
PRECISION = 1.0  # of the prior over weights
WORLDS = 5
IMAGINED = 2000  # inputs of each region
JOINT = 'joint training'
OWN = 'a network for each'  # region, trained on all of it: nothing is forgotten, nothing shared


class World:
    """What is there to learn, of one seed."""

    def __init__(self, seed: int) -> None:
        plant, rng = Plant.of(ROBOT), np.random.default_rng(seed)
        self.seed, self.plant = seed, plant
        self.seen: list[Examples] = []
        self.raw: list[np.ndarray] = []  # states and commands of each region [SEEN, ds + da]
        self.tests: list[Examples] = []
        states = plant.states(rng, 8 * REGIONS * (SEEN + TEST))
        region = np.digitize(states[:, PITCH], EDGES)
        for number in range(REGIONS):
            x = states[region == number][: SEEN + TEST]
            u = plant.commands(rng, len(x))
            self.seen.append(plant.read(rng, x[:SEEN], u[:SEEN]))
            self.raw.append(np.concatenate([x, u], axis=1)[:SEEN])
            x, u = x[SEEN:], u[SEEN:]
            true = plant.change(x, u)
            self.tests.append(Examples.of(plant.inputs(x, u), true, plant.likelihood))
        share = -(-STORED // (REGIONS - 1))
        left = [min(share, STORED - share * i) for i in range(REGIONS - 1)]
        self.kept = [torch.tensor(representative(p, n, rng)) for p, n in zip(self.raw, left)]

    def network(self) -> torch.nn.Module:
        """A fresh one."""
        di, k = self.seen[0].inputs.shape[1], self.seen[0].labels.shape[1]
        return mlp(di, WIDTHS, k, self.seed)

    def memory(self, region: int) -> Examples:
        """What is kept of a region."""
        return self.seen[region].pick(self.kept[region])

    def imagined(self, region: int) -> Examples:
        """What is kept of a region, and inputs that recombine it."""
        kept = self.memory(region)
        rng = np.random.default_rng([self.seed, region])
        raw = recombined(self.raw[region][self.kept[region].numpy()], IMAGINED, rng)
        ds = raw.shape[1] - len(self.plant.commands(rng, 1)[0])
        inputs = torch.cat([kept.inputs, self.plant.inputs(raw[:, :ds], raw[:, ds:])])
        labels = np.zeros((len(inputs), kept.labels.shape[1]))  # to be softened
        return Examples.of(inputs, labels, kept.likelihood)

    def error(self, network: torch.nn.Module, regions: Sequence[int]) -> float:
        """Root mean square error on held-out states of regions, in units of y."""
        with torch.no_grad():
            squares = [
                (t.latent(network) - torch.tensor(t.labels)).square().mean()
                for t in (self.tests[r] for r in regions)
            ]
        return float(torch.stack(squares).mean().sqrt())


Past = Callable[[World, torch.nn.Module, int], Objective]  # of the regions before the k-th


def weights_prior(network: torch.nn.Module) -> Objective:
    """The prior over weights."""
    return 1.0 * Quadratic.isotropic(PRECISION, torch.zeros_like(flat(network)))


def naive(world: World, network: torch.nn.Module, k: int) -> Objective:
    """Nothing stands for the past."""
    return weights_prior(network)


def replay(world: World, network: torch.nn.Module, k: int) -> Objective:
    """The transitions kept stand for all."""
    losses = (Loss(world.memory(r).stand_for(SEEN)) for r in range(k))
    return sum(losses, weights_prior(network))


def stored_k_prior(world: World, network: torch.nn.Module, k: int) -> Objective:
    """The predictions at the inputs kept, and the weights, stay."""
    soft = (Loss(world.memory(r).softened(network).stand_for(SEEN)) for r in range(k))
    return sum(soft, 1.0 * Quadratic.isotropic(PRECISION, flat(network)))


def k_prior(world: World, network: torch.nn.Module, k: int) -> Objective:
    """And those at inputs imagined from them."""
    soft = (Loss(world.imagined(r).softened(network).stand_for(SEEN)) for r in range(k))
    return sum(soft, 1.0 * Quadratic.isotropic(PRECISION, flat(network)))


class Ewc:
    """EWC with the full Gauss-Newton matrix of every region, where it was learned."""

    def __init__(self) -> None:
        self.posterior: Any = PRECISION

    def __call__(self, world: World, network: torch.nn.Module, k: int) -> Objective:
        """The posterior after the last region is the prior."""
        self.posterior = laplace(network, world.seen[k - 1], self.posterior).posterior
        return 1.0 * Quadratic.of(self.posterior)


METHODS: dict[str, Callable[[], Past]] = {
    'K-prior': lambda: k_prior,
    'K-prior at what is stored alone': lambda: stored_k_prior,
    'replay': lambda: replay,
    'EWC, full covariance, none stored': Ewc,
    'naive': lambda: naive,
}


def regions(
    seed: int, progress: Progress = lambda share: None, methods: Sequence[str] = tuple(METHODS)
) -> dict[str, tuple[float, float]]:
    """Error on the old regions and on the new one, by method."""
    world, old = World(seed), range(REGIONS - 1)
    together, start = world.network(), world.network()
    losses = (Loss(seen) for seen in world.seen)
    solve(together, sum(losses, weights_prior(together)), 2 * ITERATIONS)
    solve(start, Loss(world.seen[0]) + weights_prior(start), ITERATIONS)
    found = {JOINT: (world.error(together, old), world.error(together, [REGIONS - 1]))}
    own = []
    for k, seen in enumerate(world.seen):
        progress(0.2 * (k + 1) / (len(world.seen) + 1))
        network = world.network()
        solve(network, Loss(seen) + weights_prior(network), ITERATIONS)
        own.append(world.error(network, [k]))
    found[OWN] = float(np.sqrt(np.mean(np.square(own[:-1])))), own[-1]
    for number, name in enumerate(methods):
        progress(0.2 + 0.8 * (number + 1) / (len(methods) + 1))
        past, network = METHODS[name](), world.network()
        network.load_state_dict(start.state_dict())
        for k in range(1, REGIONS):
            solve(network, Loss(world.seen[k]) + past(world, network, k), ITERATIONS)
        found[name] = world.error(network, old), world.error(network, [REGIONS - 1])
    return found


def region_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Geometric means over seeds of errors over those of joint training."""
    ratios: dict[str, list[np.ndarray]] = {}
    seeds = seeds[:WORLDS]
    for number, seed in enumerate(seeds):
        found = regions(seed, lambda s, n=number: progress((n + s) / len(seeds)))
        for name in (*METHODS, OWN):
            ratio = np.log(np.array(found[name]) / np.array(found[JOINT]))
            ratios.setdefault(name, []).append(ratio)
    rows = []
    what = f'{REGIONS} state regions, {STORED} stored of {SEEN * (REGIONS - 1)}'
    for name, logs in ratios.items():
        old, new = np.exp(np.mean(logs, axis=0))
        bar, aim = (1.15, 1.05) if name == 'K-prior' else (None, None)
        rows.append(row(f'{what}: old error / joint, {name}', old, '', 'lower', bar, aim))
        rows.append(row(f'{what}: new error / joint, {name}', new, '', 'lower', None))
    return rows
