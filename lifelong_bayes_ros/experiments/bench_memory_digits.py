"""Rows on split digits: five tasks of two classes, one after the other, a head for each.

Of every task four images are kept: those whose class is least certain (Pan et al. 2020), or random
ones for replay, which learns more from them. All methods have the same network and the same steps,
and are judged on the test images of all tasks after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..blr import DiagonalGaussian
from ..dynamics.likelihoods import Categorical
from ..memory.dnn2gp import laplace
from ..memory.examples import Examples, Network, Read
from ..memory.flat import flat
from ..memory.memorable import curvature_score, stratified, top
from ..memory.objective import FunctionPrior, Loss, Objective, Quadratic
from .bench_memory_networks import digits, solve
from .published import row

Progress = Callable[[float], None]
TASKS, PER_TASK, WIDTH = 5, 4, 64
SPLITS = 3
TRAINING = 1257  # images, as in the authors' run of FROMP; the other 540 are for testing
ITERATIONS = 60  # of L-BFGS in a task
PRECISION = 1.0  # of the prior over weights
TEMPERATURE = 1.0  # of FROMP: what the loss of a new task is divided by
WEAK = 0.1  # precision about the old weights in FROMP, where the function prior says nothing
CLASSES = Categorical(('first', 'second'))


class MultiHead(torch.nn.Module):
    """A hidden layer that all tasks share, and two outputs for each."""

    def __init__(self, inputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = torch.nn.Sequential(torch.nn.Linear(inputs, WIDTH), torch.nn.Tanh())
        self.heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 2) for _ in range(TASKS))
        self.double()


def latent(task: int) -> Read:
    """Reads the outputs of a task's head."""

    def read(network: Network, inputs: Tensor) -> Tensor:
        return network.heads[task](network.trunk(inputs))

    return read


def probabilities(task: int) -> Read:
    """Reads the class probabilities of a task."""
    f = latent(task)
    return lambda network, inputs: torch.softmax(f(network, inputs), dim=1)


def tasks(seed: int) -> list[tuple[Examples, Examples]]:
    """Training and test images of each task."""
    x, y = digits()
    order = np.random.default_rng(seed).permutation(len(y))
    parts = []
    for task in range(TASKS):
        pair = []
        for rows in (order[:TRAINING], order[TRAINING:]):
            mine = rows[y[rows] // 2 == task]
            labels = np.eye(2)[y[mine] % 2]
            pair.append(Examples.of(x[mine], labels, CLASSES, latent(task)))
        parts.append((pair[0], pair[1]))
    return parts


def classes(seen: Examples) -> Tensor:
    """Which class each image is of [n]."""
    return torch.tensor(seen.labels.argmax(axis=1))


class Method:
    """Learns tasks one after the other; its own part is what stands for those before."""

    name = 'naive'

    def past(self, network: MultiHead) -> Objective:
        """What stands for the tasks before, the prior over weights included."""
        return 1.0 * Quadratic.isotropic(PRECISION, torch.zeros_like(flat(network)))

    def learned(self, network: MultiHead, task: int, seen: Examples) -> None:
        """Take note of a task that has been learned."""

    factor = 1.0  # of the loss of a new task


class Replay(Method):
    """Experience replay: the images kept, with their labels, stand for all."""

    name = 'replay'

    def __init__(self) -> None:
        self.memory: list[tuple[Examples, int]] = []

    def past(self, network: MultiHead) -> Objective:
        """The prior over weights and the losses of what is kept."""
        return sum((Loss(m.stand_for(n)) for m, n in self.memory), super().past(network))

    def learned(self, network: MultiHead, task: int, seen: Examples) -> None:
        """Keep some images."""
        self.memory.append((seen.pick(self.choose(network, task, seen)), len(seen)))

    def choose(self, network: MultiHead, task: int, seen: Examples) -> Tensor:
        """Random ones, equally many of each class."""
        generator = torch.Generator().manual_seed(task)
        return stratified(classes(seen), PER_TASK, generator)


class KPrior(Replay):
    """The predictions on what is kept, and the weights, stay (Khan & Swaroop 2021)."""

    name = 'K-prior'

    def past(self, network: MultiHead) -> Objective:
        """Soft labels of the network as it is, and the distance from its weights."""
        start = 1.0 * Quadratic.isotropic(PRECISION, flat(network))
        soft = (Loss(m.softened(network).stand_for(n)) for m, n in self.memory)
        return sum(soft, start)

    def choose(self, network: MultiHead, task: int, seen: Examples) -> Tensor:
        """The least certain ones."""
        return top(curvature_score(network, seen), PER_TASK, classes(seen))


class Ewc(Method):
    """Online EWC (Schwarz et al. 2018): the posterior so far is the prior."""

    name = 'online EWC'

    def __init__(self) -> None:
        self.posterior: DiagonalGaussian | None = None

    def past(self, network: MultiHead) -> Objective:
        """The quadratic of the posterior."""
        return 1.0 * Quadratic.of(self.so_far(network))

    def learned(self, network: MultiHead, task: int, seen: Examples) -> None:
        """Add the curvature of the task."""
        self.posterior = laplace(network, seen, self.so_far(network)).posterior

    def so_far(self, network: MultiHead) -> DiagonalGaussian:
        """The posterior after the tasks before."""
        if self.posterior is not None:
            return self.posterior
        zero = torch.zeros_like(flat(network)).detach()
        return DiagonalGaussian(zero, torch.full_like(zero, PRECISION))


class Fromp(Ewc):
    """Class probabilities at what is kept are held by the kernel of the posterior (Pan 2020)."""

    name = 'FROMP'

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, Tensor]] = []
        self.factor = 1 / TEMPERATURE

    def past(self, network: MultiHead) -> Objective:
        """A function prior for every task, at the weights as they are."""
        priors = (
            FunctionPrior.of(network, self.posterior, x, probabilities(task), jitter=1e-4)
            for task, x in self.points
        )
        return sum(priors, 1.0 * Quadratic.isotropic(WEAK, flat(network)))

    def learned(self, network: MultiHead, task: int, seen: Examples) -> None:
        """Keep the least certain images, and the posterior."""
        super().learned(network, task, seen)
        kept = top(curvature_score(network, seen), PER_TASK, classes(seen))
        self.points.append((task, seen.inputs[kept]))


METHODS: tuple[type[Method], ...] = (Method, Replay, Ewc, KPrior, Fromp)


def accuracy(network: MultiHead, parts: list[tuple[Examples, Examples]]) -> float:
    """Mean share of test images that is right, over tasks, in %."""
    with torch.no_grad():
        right = [
            np.mean(t.latent(network).numpy().argmax(axis=1) == t.labels.argmax(axis=1))
            for _, t in parts
        ]
    return 100 * float(np.mean(right))


def learn(method: Method, parts: list[tuple[Examples, Examples]], seed: int) -> MultiHead:
    """All tasks one after the other."""
    network = MultiHead(parts[0][0].inputs.shape[1], seed)
    for task, (seen, _) in enumerate(parts):
        solve(network, method.factor * Loss(seen) + method.past(network), ITERATIONS)
        method.learned(network, task, seen)
    return network


def joint(parts: list[tuple[Examples, Examples]], seed: int) -> MultiHead:
    """All tasks at once."""
    network = MultiHead(parts[0][0].inputs.shape[1], seed)
    losses = (Loss(seen) for seen, _ in parts)
    solve(network, sum(losses, Method().past(network)), 2 * ITERATIONS)
    return network


def digits_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Mean accuracy of every method over splits."""
    found: dict[str, list[float]] = {}
    seeds = seeds[:SPLITS]
    for number, seed in enumerate(seeds):
        parts = tasks(seed)
        found.setdefault('joint', []).append(accuracy(joint(parts, seed), parts))
        for place, kind in enumerate(METHODS):
            progress((number + (1 + place) / (1 + len(METHODS))) / len(seeds))
            network = learn(kind(), parts, seed)
            found.setdefault(kind.name, []).append(accuracy(network, parts))
    rows = []
    for name, values in found.items():
        judged = name in (KPrior.name, Fromp.name)
        bar, aim = (98.0, 98.7) if judged else (None, None)
        what = f'split digits, {TASKS} tasks, {PER_TASK} stored of each, {name}'
        if name in ('joint', Method.name, Ewc.name):
            what = f'split digits, {TASKS} tasks, {name}'
        what = f'{what}: mean of {len(seeds)}'
        rows.append(row(what, float(np.mean(values)), '%', 'higher', bar, aim))
    return rows
