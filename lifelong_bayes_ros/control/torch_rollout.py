"""Many states rolled out at once through a Belief with torch, e.g. on a GPU; float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dynamics.belief import Belief
from .arrays import Arrays
from .rollout import Rollout, Weights


class TorchRollout:
    """What `Rollout` does, as tensors on a device. Plans and states stay there.

    What is done depends on the shapes of tensors alone, so that it can be captured as a graph.
    """

    def __init__(self, rollout: Rollout, arrays: Arrays) -> None:
        """Take the weights of a Rollout."""
        self._arrays = arrays
        encoder = rollout.dynamics.trunk.encoder
        self._values, self._angles = (arrays.index(i) for i in (encoder.values, encoder.angles))
        self._rollout = rollout
        self._trunk = self._tensors(_folded(rollout))

    def adopt(self, rollout: Rollout) -> bool:
        """Roll out with another trunk from now on; returns whether it is where the last one was.

        Graphs read it there. One of another width is not.
        """
        self._rollout, last, new = rollout, self._trunk, self._tensors(_folded(rollout))
        if [t.shape for t in new] != [t.shape for t in last]:
            self._trunk = new
            return False
        for held, values in zip(last, new, strict=True):
            held.copy_(values)
        return True

    def mean(self, belief: Belief) -> tuple[Tensor, ...]:
        """As of `Rollout.mean`."""
        return self._tensors(self._rollout.mean(belief))

    def draws(self, belief: Belief, count: int) -> tuple[Tensor, ...]:
        """As of `Rollout.draws`."""
        return self._tensors(self._rollout.draws(belief, count))

    def run(self, weights: tuple[Tensor, ...], x: Tensor, actions: Tensor, past: Tensor) -> Tensor:
        """States [n, h, ds] of plans [n, h, da] under one set of weights."""
        return self._roll(*(w[None] for w in weights), x, actions[None], past)[0]

    def run_shared(
        self, draws: tuple[Tensor, ...], x: Tensor, actions: Tensor, past: Tensor
    ) -> Tensor:
        """States [n, h, ds] of plans that take the draws in turn, one each."""
        members, n = len(draws[0]), len(actions)
        places = torch.arange(-(-n // members) * members, device=actions.device)
        grouped = actions[places % n].unflatten(0, (-1, members)).transpose(0, 1)
        states = self._roll(*draws, x, grouped, past)
        return states.transpose(0, 1).flatten(0, 1)[:n]

    def run_all(
        self, draws: tuple[Tensor, ...], x: Tensor, actions: Tensor, past: Tensor
    ) -> Tensor:
        """States [E, n, h, ds] of every plan under every draw."""
        return self._roll(*draws, x, actions[None], past)

    def _roll(
        self, w: Tensor, g: Tensor, b: Tensor, c: Tensor, x: Tensor, actions: Tensor, past: Tensor
    ) -> Tensor:
        """States [E, n, h, ds] of plans [E or 1, n, h, da], a row of plans for each draw."""
        mean, scale, w1, b1, w2, b2, lift, straight = self._trunk
        members, (_, n, horizon, da) = len(w), actions.shape
        width, di = len(w2), len(mean)
        bent, linear, constant = w.split([width, di, 1], dim=1)
        along = self._along(g, b, c, actions, past)
        # Of a step all that no state is needed for.
        given = along @ straight + constant[:, None]
        moved, state = w1[-da:], x.expand(members, n, len(x))
        states = []
        for h in range(horizon):
            angle, u = state[..., self._angles], actions[:, :, h].expand(members, n, da)
            encoded = torch.cat([state[..., self._values], angle.cos(), angle.sin(), u], dim=-1)
            inputs = ((encoded - mean) / scale).flatten(0, 1)
            before = torch.addmm(b1, inputs, w1)
            tanh = torch.addmm(b2, before.relu(), w2).tanh_()
            # Tangents along the change of command: backward and forward, relu and tanh are alike.
            slope = along[:, :, h].reshape(-1, da) @ moved
            slope = torch.ops.aten.threshold_backward(slope, before, 0) @ w2
            tangent = torch.ops.aten.tanh_backward(slope, tanh) @ lift
            state = state + given[:, :, h] + tangent.unflatten(0, (members, n))
            state = torch.baddbmm(state, inputs.unflatten(0, (members, n)), linear)
            state = state.baddbmm_(tanh.unflatten(0, (members, n)), bent)
            states.append(state)
        return torch.stack(states, dim=2)

    def _along(self, g: Tensor, b: Tensor, c: Tensor, actions: Tensor, past: Tensor) -> Tensor:
        """Changes of normalised command [E, n, h, da] that actuators make of plans."""
        g, b = g[:, None, None], b[:, None, None]
        along = actions * g + b
        delayed = actions
        for k, before in enumerate(past):
            first = before.expand(*actions.shape[:2], 1, actions.shape[3])
            delayed = torch.cat([first, delayed[:, :, :-1]], dim=2)
            along = along + c[:, None, None, k : k + 1] * (delayed - actions)
        return along / self._trunk[1][-actions.shape[3] :]

    def _tensors(self, weights: Weights) -> tuple[Tensor, ...]:
        return tuple(self._arrays.array(w) for w in weights)


def _folded(rollout: Rollout) -> Weights:
    """What `TorchRollout._roll` reads of a trunk: the nominal head as those of features bent by
    the command through the network [h, ds], and of the command itself [da, ds]."""
    trunk, nominal = rollout.trunk, rollout.nominal
    da = len(rollout.dynamics.spec.action)
    lift, straight = nominal[: len(trunk.w2)], nominal[-1 - da : -1]
    return trunk.mean, trunk.scale, trunk.w1, trunk.b1, trunk.w2, trunk.b2, lift, straight
