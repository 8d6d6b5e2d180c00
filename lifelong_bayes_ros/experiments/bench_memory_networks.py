"""Small networks for the rows on priors, trained the same way by every method.

All is deterministic: full batches in float64, by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros_sim.base import MujocoRobot

from ..dynamics.likelihoods import KnownNoise
from ..dynamics.trunk import Encoder
from ..errors import UserError
from ..memory.examples import Examples
from ..memory.fit import fit
from ..memory.objective import Term
from ..robot.spec import load_robot

FLOOR = 0.05  # standard deviation, in units of y: what networks this small leave unexplained
HISTORY = 3  # past commands that are the present one: the plant is at a steady command


def mlp(inputs: int, widths: Sequence[int], outputs: int, seed: int) -> torch.nn.Sequential:
    """A network with tanh units, from random weights."""
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for width in widths:
        layers += [torch.nn.Linear(inputs, width), torch.nn.Tanh()]
        inputs = width
    return torch.nn.Sequential(*layers, torch.nn.Linear(inputs, outputs)).double()


def solve(network: torch.nn.Module, objective: Term, iterations: int) -> None:
    """Minimise an objective, nats, from where the network is."""
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=iterations,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-13,
        line_search_fn='strong_wolfe',
    )
    fit(network, objective, optimizer, 1)


@dataclass(frozen=True)
class Plant:
    """One-step changes of the speeds of a simulated robot, as its sensors would see them.

    Inputs and outputs are normalised by the sizes they have on random operating states.
    """

    name: str
    centre: np.ndarray  # [di]
    size: np.ndarray  # [di]
    unit: np.ndarray  # [k]
    noise: np.ndarray  # variance of y [k], units squared

    @classmethod
    def of(cls, name: str) -> Plant:
        """By the robot's name."""
        spec = load_robot(name)
        plant, rng = sim.make(name, spec=spec), np.random.default_rng(0)
        x, u = plant.sample_states(rng, 1000), plant.sample_actions(rng, 1000)
        inputs = Encoder.of(spec)(x, u)
        rates = slice(len(spec.state) // 2, None)
        y = (_next(plant, x, u) - x)[:, rates]
        unit = y.std(axis=0)
        noise = 2 * np.square(plant.sensor_noise[rates] / unit) + FLOOR**2
        return cls(name, inputs.mean(axis=0), inputs.std(axis=0), unit, noise)

    @property
    def likelihood(self) -> KnownNoise:
        """Of y, with the noise of the sensors."""
        return KnownNoise(self.noise)

    def states(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Random operating states [n, ds]."""
        return sim.make(self.name).sample_states(rng, n)

    def commands(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Random commands [n, da]."""
        return sim.make(self.name).sample_actions(rng, n)

    def inputs(self, x: np.ndarray, u: np.ndarray) -> Tensor:
        """Normalised inputs [n, di] of a network."""
        return torch.tensor((Encoder.of(load_robot(self.name))(x, u) - self.centre) / self.size)

    def change(
        self, x: np.ndarray, u: np.ndarray, shifts: Sequence[dict[str, object]] = ()
    ) -> np.ndarray:
        """True y [n, k] after one step."""
        plant = sim.make(self.name)
        plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        rates = slice(x.shape[1] // 2, None)
        return (_next(plant, x, u) - x)[:, rates] / self.unit

    def read(self, rng: np.random.Generator, x: np.ndarray, u: np.ndarray) -> Examples:
        """What sensors make of steps from states [n, ds] under commands [n, da]."""
        sd = sim.make(self.name).sensor_noise
        before, after = sd * rng.standard_normal((2, *x.shape))
        rates = slice(x.shape[1] // 2, None)
        y = self.change(x, u) + (after - before)[:, rates] / self.unit
        return Examples.of(self.inputs(x + before, u), y, self.likelihood)


def _next(plant: MujocoRobot, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    return plant.one_step(x, u, np.repeat(u[:, None], HISTORY, axis=1))


def digits() -> tuple[Tensor, np.ndarray]:
    """Images [1797, 64] in [0, 1] and their digits [1797], from scikit-learn.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "scikit-learn, which brings the data, is not installed: pip install '.[test]'"
        ) from None
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16), y
