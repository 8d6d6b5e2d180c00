"""What a Bayesian step costs: sample and step of BLR beside AdamW and ivon-opt.

All optimizers take turns in random order in one process on one thread, on copies of one network
with the same gradients. A ratio is the median over rounds of the ratio within a round, of thread
CPU time (of the device's time on a GPU), so that what else the machine does cancels.
"""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from .. import blr
from ..blr.graph import Graph
from ..errors import UserError
from .lives import report_object, row

SIZES = {'10k': 90, '100k': 300, '1M': 990, '10M': 3150}  # hidden units
ROUNDS = {'10k': 100, '100k': 60, '1M': 20, '10M': 5}
TURN = 4  # steps in a row of one optimizer; one more, not timed, comes first
# Bars and aims of the ratio to AdamW, and the size from which on the one to ivon-opt holds.
BAR, AIM = {'10M': 2.5}, {'10M': 1.5}
PEER_BAR, PEER_AIM, MEMORY_BAR = 10.0, 20.0, 24.0


def network(hidden: int, device: str) -> torch.nn.Module:
    """An MLP with a fixed gradient in every parameter."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, hidden), torch.nn.Linear(hidden, hidden)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 8)).to(device)
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 1e-3
    return model


@dataclass(frozen=True)
class Alternating:
    """A step in which every second part, between two `yield`, does not count."""

    parts: Callable[[], Iterator[None]]
    optimizer: blr.BLR

    def __call__(self) -> None:
        """The whole step."""
        for _ in self.parts():
            pass

    def seconds(self, clock: Callable[[], float]) -> float:
        """The step, and the time of the parts that count."""
        total, counts, end = 0.0, True, object()
        parts = self.parts()
        while True:
            start = clock()
            more = next(parts, end)
            if counts:
                total += clock() - start
            if more is end:
                return total
            counts = not counts


def steps_of(hidden: int, device: str) -> dict[str, Callable[[], None]]:
    """One sample and step of each optimizer."""

    def bayes(use_kernel: bool | None) -> Callable[[], None]:
        model = network(hidden, device)
        gradients = [p.grad for p in model.parameters()]
        optimizer = blr.BLR(
            model.parameters(), 1e-3, ess=1e4, rule=blr.IVON, use_kernel=use_kernel
        )

        def step() -> Iterator[None]:
            with optimizer.sampled() as draw:
                yield  # the backward pass is not what is measured
                for sample, g in zip(draw.values(), gradients, strict=True):
                    sample.grad = g
                yield
            optimizer.step()

        return Alternating(step, optimizer)

    steps = {'torch': bayes(False)}
    if device == 'cpu' and blr.kernel.load() is not None:
        steps['kernel'] = bayes(True)
    model = network(hidden, device)
    capturable = device != 'cpu'
    adamw = torch.optim.AdamW(model.parameters(), 1e-3, fused=True, capturable=capturable)
    steps['adamw'] = adamw.step
    steps['ivon-opt'] = _peer(network(hidden, device))
    return steps


def _peer(model: torch.nn.Module) -> Callable[[], None]:
    try:
        from ivon import IVON
    except ImportError:
        raise UserError(
            "ivon-opt, the peer to compare with, is not installed: pip install '.[test]'"
        ) from None
    optimizer = IVON(model.parameters(), 1e-3, 1e4)

    def step() -> None:
        with optimizer.sampled_params(train=True):
            pass  # the gradients are there
        optimizer.step()

    return step


def timed(step: Callable[[], None], device: str) -> float:
    """Seconds of one call."""
    if device != 'cpu':
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    if isinstance(step, Alternating):
        return step.seconds(time.thread_time)
    start = time.thread_time()
    step()
    return time.thread_time() - start


def measure(size: str, device: str) -> dict[str, list[float]]:
    """Seconds of every optimizer in every round."""
    steps = steps_of(SIZES[size], device)
    if device != 'cpu':
        steps = {
            name: _captured(step) if name in ('torch', 'adamw') else step
            for name, step in steps.items()
        }
    order, rng = list(steps), random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS[size] + 1):
        rng.shuffle(order)
        for name in order:
            steps[name]()
            spent = sum(timed(steps[name], device) for _ in range(TURN)) / TURN
            if number:  # buffers are made lazily
                seconds[name].append(spent)
    return seconds


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph."""
    owner = getattr(step, 'optimizer', None)
    return Graph(step, generator=None if owner is None else owner.generator)


MEMORY = """
import sys, torch
from pathlib import Path
from lifelong_bayes_ros import blr
from lifelong_bayes_ros.experiments import bench_optimizer as bench
torch.set_num_threads(1)
def memory(key):
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
def steps(model, count):
    gradients = [p.grad for p in model.parameters()]
    use = sys.argv[1] == '1'
    optimizer = blr.BLR(model.parameters(), 1e-3, ess=1e4, rule=blr.IVON, use_kernel=use)
    for _ in range(count):
        with optimizer.sampled() as draw:
            for sample, g in zip(draw.values(), gradients):
                sample.grad = g
        optimizer.step()
steps(bench.network(8, 'cpu'), 2)  # loads what torch loads with the first optimizer
model = bench.network(3150, 'cpu')
start = memory('VmRSS')
Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
steps(model, 3)
print((memory('VmHWM') - start) / sum(p.numel() for p in model.parameters()))
"""


def peak_memory(use_kernel: bool) -> float:
    """Bytes per parameter over network and gradients, at 10M parameters, in a fresh process."""
    command = [sys.executable, '-c', MEMORY, str(int(use_kernel))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def optimizer_report(status: Callable[[str, float], None]) -> dict[str, Any]:
    """Rows of `bench optimizer`: ratios and times per size, peak memory."""
    torch.set_num_threads(1)
    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    rows, done = [], 0
    for device in devices:
        for size in SIZES:
            status(f'{device}: {size} parameters', done / (len(devices) * len(SIZES) + 1))
            rows += _ratios(size, device, measure(size, device))
            done += 1
            _release()
    status('peak memory', 0.95)
    for name in ('kernel', 'torch'):
        if name == 'torch' or blr.kernel.load() is not None:
            used = peak_memory(name == 'kernel')
            label = f'cpu 10M {name}: peak memory over the gradients'
            rows.append(row(label, used, 'B/param', 'lower', MEMORY_BAR))
    return report_object('bench optimizer', [0], rows)


def _ratios(size: str, device: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    def ratio(one: str, other: str) -> float:
        return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    rows = []
    for name in ('kernel', 'torch'):
        if name not in seconds:
            continue
        # The bars are for the path that is taken where there is a compiler.
        judged = name == 'kernel'
        rows += [
            row(
                f'{device} {size} {name}: sample + step / AdamW fused',
                ratio(name, 'adamw'),
                'ratio',
                'lower',
                BAR.get(size, 1.5) if judged else None,
                AIM.get(size, 1.0) if judged else None,
            ),
            row(
                f'{device} {size} {name}: times faster than ivon-opt',
                ratio('ivon-opt', name),
                'ratio',
                'higher',
                PEER_BAR if judged and size != '10k' else None,
                PEER_AIM if judged and size != '10k' else None,
            ),
            row(f'{device} {size} {name}', 1e6 * median(seconds[name]), 'us', 'lower', None),
        ]
    rows.append(
        row(f'{device} {size} AdamW fused', 1e6 * median(seconds['adamw']), 'us', 'lower', None)
    )
    return rows


def _release() -> None:
    """Give freed memory back, so that every size starts alike."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).malloc_trim(0)
