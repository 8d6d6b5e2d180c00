"""Many states rolled out at once through a Belief with torch, e.g. on a GPU; float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..dynamics.belief import Belief
from ..errors import UserError
from .rollout import Rollout, Weights


class TorchRollout:
    """What `Rollout` does, as tensors on a device. Plans and states stay there."""

    def __init__(self, rollout: Rollout, device: str) -> None:
        """Take the weights of a Rollout.

        Raises:
            UserError: torch cannot use the device.
        """
        self.device = torch_device(device)
        self._rollout = rollout
        encoder, trunk = rollout.dynamics.trunk.encoder, rollout.trunk
        self._values, self._angles = (
            torch.as_tensor(i, device=self.device) for i in (encoder.values, encoder.angles)
        )
        self._mean, self._scale, self._w1, self._b1, self._w2, self._b2, self._nominal = (
            self._tensor(a)
            for a in (
                trunk.mean,
                trunk.scale,
                trunk.w1,
                trunk.b1,
                trunk.w2,
                trunk.b2,
                rollout.nominal,
            )
        )

    def weights(self, theta: np.ndarray) -> tuple[Tensor, ...]:
        """As of `Rollout.weights`."""
        return self._tensors(self._rollout.weights(theta))

    def draws(self, belief: Belief, count: int) -> tuple[Tensor, ...]:
        """As of `Rollout.draws`."""
        return self._tensors(self._rollout.draws(belief, count))

    def run(
        self, weights: tuple[Tensor, ...], x: np.ndarray, actions: Tensor, past: np.ndarray
    ) -> Tensor:
        """States [n, h, ds] of plans [n, h, da] under one set of weights."""
        return self._run(tuple(w[None] for w in weights), x, actions[None], past)[0]

    def run_shared(
        self, draws: tuple[Tensor, ...], x: np.ndarray, actions: Tensor, past: np.ndarray
    ) -> Tensor:
        """States [n, h, ds] of plans that take the draws in turn, one each."""
        members, n = len(draws[0]), len(actions)
        places = torch.arange(-(-n // members) * members, device=self.device)
        grouped = actions[places % n].unflatten(0, (-1, members)).transpose(0, 1)
        states = self._run(draws, x, grouped, past)
        return states.transpose(0, 1).flatten(0, 1)[:n]

    def run_all(
        self, draws: tuple[Tensor, ...], x: np.ndarray, actions: Tensor, past: np.ndarray
    ) -> Tensor:
        """States [E, n, h, ds] of every plan under every draw."""
        return self._run(draws, x, actions.expand(len(draws[0]), *actions.shape), past)

    @torch.inference_mode()
    def _run(
        self, draws: tuple[Tensor, ...], x: np.ndarray, actions: Tensor, past: np.ndarray
    ) -> Tensor:
        """States [E, n, h, ds] of plans [E, n, h, da], a row of plans for each draw."""
        w, g, b, c = draws
        g, b = g[:, None], b[:, None]
        members, n, horizon, da = actions.shape
        commands = slice(len(self._mean) - da, None)
        state = self._tensor(x).expand(members, n, len(x))
        delayed = [p.expand(members, n, da) for p in self._tensor(past)]
        one = torch.ones(members, n, 1, device=self.device)
        states = []
        for h in range(horizon):
            u = actions[:, :, h]
            along = u * g + b
            for k, earlier in enumerate(delayed):
                along = along + c[:, None, k : k + 1] * (earlier - u)
            along = along / self._scale[commands]
            angle = state[..., self._angles]
            encoded = (state[..., self._values], torch.cos(angle), torch.sin(angle), u)
            inputs = (torch.cat(encoded, dim=-1) - self._mean) / self._scale
            before = inputs @ self._w1 + self._b1
            tanh = torch.tanh(torch.relu(before) @ self._w2 + self._b2)
            slope = torch.where(before > 0, along @ self._w1[commands], 0.0)
            slope = (slope @ self._w2) * (1 - tanh * tanh)
            tangent = slope @ self._nominal[: slope.shape[-1]]
            tangent = tangent + along @ self._nominal[-1 - da : -1]
            change = torch.cat([tanh, inputs, one], dim=-1) @ w
            state = state + change + tangent
            states.append(state)
            delayed = [u, *delayed[:-1]]
        return torch.stack(states, dim=2)

    def _tensors(self, weights: Weights) -> tuple[Tensor, ...]:
        return tuple(self._tensor(w) for w in weights)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(array, np.float32), device=self.device)


def torch_device(name: str) -> torch.device:
    """A device of torch.

    Raises:
        UserError: torch knows no such device, or cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f'device {name!r}: torch cannot use it here ({why}); use cpu or cuda'
        ) from None
    return device
