"""Where plans are drawn and weighed: in numpy, or as tensors of torch on a device; float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError


class Arrays:
    """The arrays of numpy, or of torch on a device, e.g. `cpu` or `cuda`."""

    def __init__(self, device: str | None = None) -> None:
        """`device` of torch; numpy without one.

        Raises:
            UserError: torch cannot use the device.
        """
        self.lib: Any = np
        self.device: Any = None
        if device is not None:
            import torch

            self.lib, self.device = torch, torch_device(device)

    @property
    def on_cuda(self) -> bool:
        """Whether work is launched there, and best so as a graph."""
        return self.device is not None and self.device.type == 'cuda'

    def array(self, values: Any) -> Any:
        """Values of float32, there; of torch, always a copy."""
        if self.device is None:
            return np.asarray(values, np.float32)
        return self.lib.tensor(np.asarray(values, np.float32)).to(self.device)

    def index(self, places: Sequence[int]) -> Any:
        """Places to take from an axis, there."""
        if self.device is None:
            return np.asarray(places, int)
        return self.lib.tensor(np.asarray(places, int)).to(self.device)

    def host(self, array: Any) -> np.ndarray:
        """Values from there."""
        return array if self.device is None else array.cpu().numpy()

    def normal(self, seed: int) -> Any:
        """A source of standard normal numbers of a given shape, drawn where that takes no time.

        Without CUDA they are numpy's, the same for all arrays.
        """
        if self.on_cuda:
            generator = self.lib.Generator(self.device).manual_seed(seed)
            return lambda shape: self.lib.randn(
                shape, generator=generator, device=self.device, dtype=self.lib.float32
            )
        rng = np.random.default_rng(seed)
        return lambda shape: self.array(rng.standard_normal(shape, np.float32))


NUMPY = Arrays()


def torch_device(name: str) -> Any:
    """A device of torch.

    Raises:
        UserError: torch knows no such device, does not see it, or cannot use it here.
    """
    import torch

    try:
        device = torch.device(name)
        if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
            raise UserError(
                f'{name} is not there, torch {torch.__version__} sees '
                f'{torch.cuda.device_count()} GPUs; use cpu, or install torch for this GPU'
            )
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f'device {name!r}: torch cannot use it here ({why}); use cpu or cuda'
        ) from None
    return device
