"""Pre-training: the trunk and the task-family prior, by domain randomisation in simulation.

The trunk is trained with one linear head per random regime, so that its features are those in
which regimes differ linearly; the covariance of the regimes' heads is the prior over heads.
`recorded` does the same from recordings of a real robot, `broad` without any data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..blr import BLR, VADAM
from ..dynamics.model import DELAYS, Dynamics, Prior
from ..dynamics.trunk import Encoder, Trunk
from ..robot.spec import RobotSpec
from .disturbances import matched

Progress = Callable[[float, str], None]


class Plant(Protocol):
    """What pre-training needs of a simulator."""

    sensor_noise: np.ndarray

    def set_shifts(self, shifts: Sequence[Any]) -> None:
        """Make these disturbances act from now on."""

    def family(self, rng: np.random.Generator) -> list[Any]:
        """A random member of the task family."""

    def candidates(self, rng: np.random.Generator) -> list[Any]:
        """One random disturbance of everything that may change, each with a `label`."""

    def sample_states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Operating states [n, ds]."""

    def sample_actions(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Commands [n, da]."""

    def one_step(
        self, states: np.ndarray, actions: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """Next states [n, ds] without noise; `previous` commands [n, k, da], newest first."""


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pre-training."""

    width: int = 64
    regimes: int = 64
    per_regime: int = 2400
    nominal: int = 10_000
    steps: int = 4000
    batch: int = 16  # per regime
    lr: float = 6e-3
    family: int = 60
    per_family: int = 700
    family_scale: float = 0.1
    floor: float = 3e-5
    actuator_sd: float = 0.2
    bias_sd: float = 0.1
    delay_sd: float = 0.3
    matched_sd: float = 0.03
    hypotheses: int = 64  # sets of things that may change together, about
    per_set: int = 24  # plants of each
    per_hypothesis: int = 400  # transitions of each plant
    rank: int = 8  # columns of a hypothesis, at most
    segment: int = 200  # transitions of a recording that count as one regime, at least
    segments: int = 3  # fewer tell nothing about the family


@dataclass(frozen=True)
class Data:
    """Transitions of one regime."""

    x: np.ndarray
    u: np.ndarray
    x_next: np.ndarray


def collect(plant: Plant, rng: np.random.Generator, n: int, noisy: bool = True) -> Data:
    """Random transitions under the plant's present shifts, as its sensors would see them."""
    x, u = plant.sample_states(rng, n), plant.sample_actions(rng, n)
    x_next = plant.one_step(x, u, np.repeat(u[:, None], DELAYS, axis=1))
    if noisy:
        x = x + plant.sensor_noise * rng.standard_normal(x.shape)
        x_next = x_next + plant.sensor_noise * rng.standard_normal(x.shape)
    return Data(x, u, x_next)


def pretrain(
    plant: Plant,
    spec: RobotSpec,
    config: PretrainConfig | None = None,
    seed: int = 0,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """Fit trunk, nominal head, task-family covariance and sensor noise.

    Args:
        plant: the simulator; left with no shifts.
        spec: the robot.
        config: settings.
        seed: of all random streams.
        progress: called with the share done in [0, 1] and what is going on.
    """
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    progress(0.0, 'simulating the task family')
    plant.set_shifts([])
    nominal = collect(plant, rng, config.nominal)
    regimes = [nominal]
    for _ in range(config.regimes - 1):
        plant.set_shifts(plant.family(rng))
        regimes.append(collect(plant, rng, config.per_regime))
    regimes[0] = Data(*(a[: config.per_regime] for a in (nominal.x, nominal.u, nominal.x_next)))
    home = regimes[0].x, regimes[0].u
    trunk, scale, precision = train_trunk(regimes, home, spec, config, seed, progress)

    progress(0.85, 'fitting the task family')
    plant.set_shifts([])
    w0, noise = fit_nominal(trunk, spec, scale, nominal)
    spread = []
    for _ in range(config.family):
        plant.set_shifts(plant.family(rng))
        data = collect(plant, rng, config.per_family, noisy=False)
        phi = trunk.features(data.x, data.u)
        y = spec.wrap(data.x_next - data.x) / scale
        spread.append(ridge(phi, y - phi @ w0.T, 1.0).ravel())
    plant.set_shifts([])
    heads = np.array(spread)
    family = config.family_scale * (heads.T @ heads / len(heads))
    dynamics = Dynamics(spec, trunk, w0, scale)
    covariance, floor = covariance_of(family, spec, w0.shape, config)
    covariance[: w0.size, : w0.size] += matched(dynamics, regimes[0], config.matched_sd)
    # Here, since that module is made of the parts of this one.
    from .hypotheses import fit_hypotheses

    hypotheses = fit_hypotheses(
        plant,
        dynamics,
        noise,
        config,
        np.random.default_rng([seed, 1]),
        lambda share, what: progress(0.9 + 0.1 * share, what),
    )
    progress(1.0, 'done')
    return Prior(dynamics, covariance, floor, noise, precision, hypotheses)


def specialist(
    plant: Plant,
    spec: RobotSpec,
    config: PretrainConfig | None = None,
    seed: int = 0,
    progress: Progress = lambda share, what: None,
) -> Prior:
    """The same network trained on the plant's present shifts alone: the oracle of a regime."""
    config = config or PretrainConfig()
    rng = np.random.default_rng(seed)
    data = collect(plant, rng, config.nominal)
    home = data.x, data.u
    trunk, scale, precision = train_trunk([data], home, spec, config, seed, progress)
    w0, noise = fit_nominal(trunk, spec, scale, data)
    family = np.zeros((w0.size, w0.size))
    covariance, floor = covariance_of(family, spec, w0.shape, config)
    return Prior(Dynamics(spec, trunk, w0, scale), covariance, floor, noise, precision)


def fit_nominal(
    trunk: Trunk, spec: RobotSpec, scale: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """Nominal head W₀ [ds, nf] by ridge regression, and the noise [ds] on the last tenth."""
    phi = trunk.features(data.x, data.u)
    y = spec.wrap(data.x_next - data.x) / scale
    train = len(y) * 9 // 10
    w0 = ridge(phi[:train], y[:train], 1e-2)
    noise = np.mean(np.square(y[train:] - phi[train:] @ w0.T), axis=0)
    return w0, noise


def ridge(phi: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Head [ds, nf] that predicts outputs y [n, ds] from features φ [n, nf]."""
    return np.ascontiguousarray(np.linalg.solve(gram(phi, strength), phi.T @ y).T)


def gram(phi: np.ndarray, strength: float) -> np.ndarray:
    """Normal matrix [nf, nf] of a ridge regression on features φ [n, nf]."""
    return phi.T @ phi + strength * np.eye(phi.shape[1])


def covariance_of(
    family: np.ndarray, spec: RobotSpec, shape: tuple[int, int], config: PretrainConfig
) -> tuple[np.ndarray, np.ndarray]:
    """P₀ [n, n] and its floor [n].

    Args:
        family: covariance of heads over the task family [ds·nf, ds·nf].
        spec: the robot.
        shape: of a head [ds, nf].
        config: floor, and variances of the actuator's errors.
    """
    ds, nf = shape
    variance = np.diag(family).reshape(ds, nf).sum(axis=1)
    relative = np.clip(variance / max(variance.mean(), 1e-30), 0.02, 2.0)
    da = len(spec.action)
    structured = np.concatenate(
        [
            np.full(da, config.actuator_sd**2),
            np.full(da, config.bias_sd**2),
            np.full(DELAYS, config.delay_sd**2),
        ]
    )
    floor = np.concatenate([np.repeat(config.floor * relative, nf), np.zeros(len(structured))])
    n = len(floor)
    covariance = np.zeros((n, n))
    covariance[: ds * nf, : ds * nf] = family
    covariance[np.arange(ds * nf, n), np.arange(ds * nf, n)] = structured
    return covariance + np.diag(floor), floor


def train_trunk(
    regimes: Sequence[Data],
    home: tuple[np.ndarray, np.ndarray],
    spec: RobotSpec,
    config: PretrainConfig,
    seed: int,
    progress: Progress,
) -> tuple[Trunk, np.ndarray, dict[str, np.ndarray]]:
    """Train the shared layers with one linear head per regime, by the Bayesian learning rule.

    Args:
        regimes: transitions of each, equally many.
        home: states and commands that the features are whitened on.
        spec: the robot.
        config: settings.
        seed: of weights and batches.
        progress: called with shares from 0.1 to 0.85.

    Returns:
        The trunk, the scale of the outputs [ds], and the posterior precision of the weights.
    """
    encoder = Encoder.of(spec)
    raw = [encoder(d.x, d.u) for d in regimes]
    mean, std = np.concatenate(raw).mean(axis=0), np.concatenate(raw).std(axis=0)
    change = np.concatenate([spec.wrap(d.x_next - d.x) for d in regimes])
    scale = change.std(axis=0)
    inputs = torch.tensor(np.stack([(r - mean) / std for r in raw]), dtype=torch.float32)
    targets = torch.tensor(
        np.stack([spec.wrap(d.x_next - d.x) / scale for d in regimes]), dtype=torch.float32
    )

    generator = torch.Generator().manual_seed(seed)
    count, examples, di = inputs.shape
    h, ds = config.width, targets.shape[2]

    def weight(*shape: int, fan: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator) * (1.0 / fan) ** 0.5
        return values.requires_grad_()

    w1, b1 = weight(di, h, fan=di // 2 or 1), torch.zeros(h, requires_grad=True)
    w2, b2 = weight(h, h, fan=h), torch.zeros(h, requires_grad=True)
    heads = weight(count, h + di + 1, ds, fan=100 * h)
    weights = [w1, b1, w2, b2]
    batch = min(config.batch * config.regimes // count, examples)
    optimizer = BLR(
        [*weights, heads],
        lr=config.lr,
        # Squaring the mean gradient of a batch gives the curvature of one example over the batch.
        ess=count * examples * count * batch,
        rule=VADAM,
        init_curvature=1e-4,
        generator=generator,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=0.05, cycle_momentum=False
    )
    # A unit likelihood variance would make the posterior far too wide: track the residual's.
    variance = torch.ones(ds)
    rows = torch.arange(count)[:, None]
    ones = torch.ones(count, batch, 1)
    for step in range(config.steps):
        pick = torch.randint(examples, (count, batch), generator=generator)
        x, y = inputs[rows, pick], targets[rows, pick]
        with optimizer.sampled() as draw:
            hidden = torch.tanh(torch.relu(x @ draw[w1] + draw[b1]) @ draw[w2] + draw[b2])
            residual = torch.cat([hidden, x, ones], dim=2) @ draw[heads] - y
            loss = 0.5 * (residual.square() / variance).sum(dim=2).mean()
            loss.backward()
        torch.nn.utils.clip_grad_norm_([*weights, heads], 10.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            variance.lerp_(residual.square().mean(dim=(0, 1)).clamp_min(1e-6), 0.02)
        if step % 100 == 0:
            progress(0.1 + 0.75 * step / config.steps, 'training the trunk')

    names = ('w1', 'b1', 'w2', 'b2')
    arrays = {n: w.detach().numpy().astype(float) for n, w in zip(names, weights, strict=True)}
    precision = {
        n: optimizer.precision(w).numpy().astype(float)
        for n, w in zip(names, weights, strict=True)
    }
    size = h + di + 1
    trunk = Trunk(encoder, mean, std, **arrays, whiten=np.eye(size))
    phi = trunk.raw(*home)
    lower = np.linalg.cholesky(phi.T @ phi / len(phi) + 1e-3 * np.eye(size))
    # The layout a file gives back: products in another one differ in their last bits.
    whiten = np.ascontiguousarray(np.linalg.inv(lower).T)
    return Trunk(encoder, mean, std, **arrays, whiten=whiten), scale, precision
