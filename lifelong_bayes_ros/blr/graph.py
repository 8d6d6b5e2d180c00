"""Work on a CUDA device captured once as a graph, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

CAPTURING = Lock()  # torch allows one at a time in a process
WARM = 3  # calls that make buffers and choose algorithms, before the one that is captured


class Graph:
    """A function of tensors on a CUDA device, captured for their shapes.

    Where kernels are small, launching them one by one takes the processor longer than they take
    the GPU; a graph is launched as a whole. What the function returned when it was captured is
    overwritten by every call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor] = (),
        device: torch.device | str = 'cuda',
        generator: torch.Generator | None = None,
    ) -> None:
        """Call the function `WARM` times, whose effects stay, then capture it.

        Args:
            function: what it does may depend on the values of tensors on the device only.
            inputs: what it is called with; values may change, shapes may not.
            device: where it works.
            generator: that it draws from, on that device.
        """
        self._inputs = tuple(t.clone() for t in inputs)
        self._device = torch.device(device)
        self._graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            if generator is not None:
                self._graph.register_generator_state(generator)
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode='thread_local'):
                self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """Do it with the values of these inputs."""
        with torch.cuda.device(self._device):
            for held, new in zip(self._inputs, inputs, strict=True):
                held.copy_(new)
            self._graph.replay()
        return self._output
