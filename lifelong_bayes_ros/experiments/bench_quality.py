"""What the posterior is worth: held-out likelihood beside Adam, an ensemble and ivon-opt.

Each split has training and test examples. Every method gets the same grid of weight decays, steps
and batches; what is chosen is chosen by cross-validation within the training examples, then the
method learns from all of these and meets the test examples once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from .. import blr
from ..errors import UserError
from .lives import report_object, row

STEPS, BATCH, SPLITS, DRAWS = 1500, 64, 4, 32
FOLDS = 3
DECAYS = (1e-3, 1e-2, 3e-2, 1e-1)
NOISES = (0.3, 0.4, 0.5, 0.6, 0.8)  # variances of standardised targets
LEVELS = torch.linspace(0.1, 0.9, 9)


@dataclass(frozen=True)
class Task:
    """A data set and how a network's outputs predict its targets."""

    name: str
    x: Tensor
    y: Tensor
    train: int
    outputs: int
    blr: dict[str, float]  # lr and init_curvature of BLR and ivon-opt alike
    bar: float

    @property
    def classes(self) -> bool:
        """Whether targets are labels."""
        return self.outputs > 1

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean negative log-likelihood; of a regression, up to a constant, with variance ½."""
        if self.classes:
            return cross_entropy(outputs, y)
        return (outputs[:, 0] - y).square().mean()

    def nll(self, outputs: Tensor, y: Tensor, noise: float) -> float:
        """Of the mixture over draws [draws, b, k]; of a regression, of its Gaussian moments."""
        if self.classes:
            probability = torch.softmax(outputs, dim=2).mean(dim=0)
            return float(-probability[torch.arange(len(y)), y].log().mean())
        m, v = _moments(outputs, noise)
        return float(0.5 * ((y - m).square() / v + (2 * math.pi * v).log()).mean())

    def calibration(self, outputs: Tensor, y: Tensor, noise: float) -> dict[str, float]:
        """Calibration error, and coverage of the 90 % interval or the 90 % set of labels."""
        if self.classes:
            probability = torch.softmax(outputs, dim=2).mean(dim=0)
            top, label = probability.max(dim=1)
            right = (label == y).float()
            bins = (top * 10).clamp(max=9).long()
            error = sum(
                float((right[bins == b] - top[bins == b]).sum().abs()) for b in range(10)
            ) / len(y)
            ordered, order = probability.sort(dim=1, descending=True)
            needed = ordered.cumsum(dim=1) - ordered < 0.9
            inside = (one_hot(y, self.outputs).gather(1, order) * needed).sum(dim=1)
            return {'calibration error': error, 'coverage of 90 %': float(inside.float().mean())}
        m, v = _moments(outputs, noise)
        z = (y - m).abs() / v.sqrt()
        widths = torch.special.ndtri(0.5 + LEVELS / 2)
        covered = (z[None] <= widths[:, None]).float().mean(dim=1)
        error = float((covered - LEVELS).abs().mean())
        return {'calibration error': error, 'coverage of 90 %': float(covered[-1])}


def _moments(outputs: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    values = outputs[:, :, 0]
    return values.mean(dim=0), values.var(dim=0, correction=0) + noise


def tasks() -> list[Task]:
    """The two data sets that come with scikit-learn."""
    try:
        from sklearn.datasets import load_diabetes, load_digits
    except ImportError:
        raise UserError(
            "scikit-learn, which brings the data, is not installed: pip install '.[test]'"
        ) from None
    x, y = (torch.tensor(a, dtype=torch.float32) for a in load_diabetes(return_X_y=True))
    diabetes = Task('diabetes', x, y, 330, 1, {'lr': 0.02, 'init_curvature': 1.0}, 1.15)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    return [
        diabetes,
        Task('digits', x, y, 800, 10, {'lr': 0.2, 'init_curvature': 0.5}, 0.135),
    ]


def network(task: Task, seed: int) -> torch.nn.Module:
    """The network of every method."""
    torch.manual_seed(seed)
    silu = torch.nn.SiLU
    return torch.nn.Sequential(
        torch.nn.Linear(task.x.shape[1], 50),
        silu(),
        torch.nn.Linear(50, 50),
        silu(),
        torch.nn.Linear(50, task.outputs),
    )


# A method: (task, x, y, weight decay, seed) to a function from inputs to outputs of draws.
Learned = Callable[[Tensor], Tensor]


def _train(
    task: Task,
    x: Tensor,
    y: Tensor,
    seed: int,
    optimizer: torch.optim.Optimizer,
    step: Callable[[Tensor, Tensor], None],
) -> None:
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        pick = torch.randint(len(x), (BATCH,), generator=generator)
        step(x[pick], y[pick])
        schedule.step()


def adam(task: Task, x: Tensor, y: Tensor, decay: float, seed: int) -> Learned:
    """AdamW; one network."""
    model = network(task, seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=decay)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        task.loss(model(xb), yb).backward()
        optimizer.step()

    _train(task, x, y, seed, optimizer, step)
    return lambda inputs: model(inputs)[None]


def ensemble(task: Task, x: Tensor, y: Tensor, decay: float, seed: int) -> Learned:
    """Five AdamW networks."""
    members = [adam(task, x, y, decay, 100 * seed + i) for i in range(5)]
    return lambda inputs: torch.cat([m(inputs) for m in members])


def ours(task: Task, x: Tensor, y: Tensor, decay: float, seed: int) -> Learned:
    """BLR, IVON setting."""
    model = network(task, seed)
    optimizer = blr.BLR(
        model.parameters(),
        ess=len(x),
        rule=blr.IVON,
        prior_precision=decay,
        betas=(0.9, 0.99999),
        generator=torch.Generator().manual_seed(seed),
        **task.blr,
    )

    def step(xb: Tensor, yb: Tensor) -> None:
        with optimizer.sampled() as draw:
            task.loss(draw.call(model, xb), yb).backward()
        optimizer.step()

    def outputs(inputs: Tensor) -> Tensor:
        weights = optimizer.posterior().sample(DRAWS, torch.Generator().manual_seed(seed)).float()
        sizes = [p.numel() for p in model.parameters()]
        drawn = []
        for flat in weights:
            parts = zip(model.parameters(), flat.split(sizes), strict=True)
            drawn.append(blr.Draw({p: w.view_as(p) for p, w in parts}).call(model, inputs))
        return torch.stack(drawn)

    _train(task, x, y, seed, optimizer, step)
    return outputs


def ivon_opt(task: Task, x: Tensor, y: Tensor, decay: float, seed: int) -> Learned:
    """The peer, with the same settings as ours."""
    try:
        from ivon import IVON
    except ImportError:
        raise UserError(
            "ivon-opt, the peer to compare with, is not installed: pip install '.[test]'"
        ) from None
    model = network(task, seed)
    lr, h = task.blr['lr'], task.blr['init_curvature']
    optimizer = IVON(model.parameters(), lr, len(x), hess_init=h, weight_decay=decay)

    def step(xb: Tensor, yb: Tensor) -> None:
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            task.loss(model(xb), yb).backward()
        optimizer.step()

    def outputs(inputs: Tensor) -> Tensor:
        drawn = []
        for _ in range(DRAWS):
            with optimizer.sampled_params():
                drawn.append(model(inputs))
        return torch.stack(drawn)

    _train(task, x, y, seed, optimizer, step)
    return outputs


METHODS = {'BLR': ours, 'ivon-opt': ivon_opt, 'Adam': adam, 'ensemble of 5': ensemble}


def split(task: Task, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Training and test examples, standardised by the training ones."""
    order = torch.randperm(len(task.x), generator=torch.Generator().manual_seed(seed))
    x, y = task.x[order], task.y[order]
    seen = x[: task.train]
    x = (x - seen.mean(dim=0)) / seen.std(dim=0).clamp_min(0.1)
    if not task.classes:
        y = (y - y[: task.train].mean()) / y[: task.train].std()
    return [(x[: task.train], y[: task.train]), (x[task.train :], y[task.train :])]


def choose(task: Task, name: str, seed: int) -> tuple[float, float]:
    """Weight decay and noise variance that predict left-out training examples best."""
    x, y = split(task, seed)[0]
    fold = torch.arange(task.train) * FOLDS // task.train
    noises = NOISES if not task.classes else (1.0,)
    scores: dict[tuple[float, float], float] = {}
    for decay in DECAYS:
        for k in range(FOLDS):
            learned = METHODS[name](task, x[fold != k], y[fold != k], decay, seed)
            with torch.no_grad():
                outputs = learned(x[fold == k])
                for noise in noises:
                    nll = task.nll(outputs, y[fold == k], noise)
                    scores[decay, noise] = scores.get((decay, noise), 0.0) + nll
    return min(scores, key=scores.__getitem__)


def assess(task: Task, name: str, seed: int, choice: tuple[float, float]) -> dict[str, float]:
    """Learn from all training examples with what was chosen, and test."""
    (x, y), (x_test, y_test) = split(task, seed)
    decay, noise = choice
    learned = METHODS[name](task, x, y, decay, seed)
    with torch.no_grad():
        outputs = learned(x_test)
        nll = task.nll(outputs, y_test, noise)
        return {'NLL': nll} | task.calibration(outputs, y_test, noise)


def quality_report(status: Callable[[str, float], None]) -> dict[str, Any]:
    """Rows of `bench quality`: means over splits, and the scale of the posterior."""
    rows, todo = [], tasks()
    for number, task in enumerate(todo):
        chosen: dict[str, list[tuple[float, float]]] = {}
        for place, name in enumerate(METHODS):
            share = (number + place / len(METHODS)) / (len(todo) + 0.2)
            status(f'{task.name}: {name}', share)
            # The members' settings are those of one network: five would cost five times more.
            like = 'Adam' if name.startswith('ensemble') else name
            if like not in chosen:
                chosen[like] = [choose(task, like, seed) for seed in range(SPLITS)]
            results = [assess(task, name, seed, chosen[like][seed]) for seed in range(SPLITS)]
            for figure in results[0]:
                bar = task.bar if (name, figure) == ('BLR', 'NLL') else None
                better = 'higher' if 'coverage' in figure else 'lower'
                value = mean(r[figure] for r in results)
                rows.append(row(f'{task.name} {name}: {figure}', value, '', better, bar))
    status('scale of the posterior', 0.95)
    rows += scale_rows()
    return report_object('bench quality', list(range(SPLITS)), rows)


SCALE_BAR = 1.5


def scale_rows() -> list[dict[str, Any]]:
    """How far h is from the true Gauss–Newton diagonal as learning goes on, from that start."""
    rules = {'Gauss-Newton': (blr.Rule(blr.GaussNewton()), 0.95, SCALE_BAR)}
    rules['Price'] = (blr.SOBA, 0.99999, None)
    rows = []
    for name, (rule, beta2, bar) in rules.items():
        folds = [scale(rule, beta2, (100, 1000, 3000), seed) for seed in range(SPLITS)]
        for steps in folds[0]:
            label = f'scale of h, {name}, after {steps} steps: median fold error'
            rows.append(row(label, mean(f[steps] for f in folds), 'factor', 'lower', bar))
    return rows


def scale(
    rule: blr.Rule, beta2: float, checkpoints: tuple[int, ...], seed: int
) -> dict[int, float]:
    """Median of max(h/true, true/h) after so many steps on Friedman's first function."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2000, 10, generator=generator)
    y = 10 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5).square()
    y = y + 10 * x[:, 3] + 5 * x[:, 4] + torch.randn(2000, generator=generator)
    y = ((y - y.mean()) / y.std())[:, None]
    x = (x - 0.5) * math.sqrt(12)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(10, 30), torch.nn.SiLU(), torch.nn.Linear(30, 1))
    parameters = list(model.parameters())

    def predict(draw: blr.Draw, inputs: Tensor) -> Tensor:
        return draw.call(model, inputs)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - targets).square().sum(dim=1) / 0.04  # standardised noise variance

    def truth() -> list[Tensor]:
        at_mean = blr.Draw({p: p.detach().clone().requires_grad_() for p in parameters})
        blr.GaussNewton().observe(at_mean, predict, loss, x, y)
        return [at_mean.curvature[p] for p in parameters]

    optimizer = blr.BLR(
        parameters, 0.004, ess=2000, rule=rule, betas=(0.9, beta2), generator=generator
    )
    for p, h in zip(parameters, truth(), strict=True):
        optimizer.set_curvature(p, h)
    folds = {}
    for step in range(1, max(checkpoints) + 1):
        pick = torch.randint(2000, (32,), generator=generator)
        optimizer.evaluate(predict, loss, x[pick], y[pick])
        optimizer.step()
        if step in checkpoints:
            h = torch.cat([optimizer.state[p]['h'].flatten() for p in parameters])
            true = torch.cat([t.flatten() for t in truth()])
            folds[step] = float((h / true).log().abs().median().exp())
    return folds
