"""The rule through the one-pass kernel: contiguous float32 parameters on the CPU."""

from __future__ import annotations

import ctypes

import torch

from . import kernel
from .rule import Rule
from .slot import Slot, examples, rates
from .torch_step import Evidence

LARGEST = 3e38  # stands for infinity, which fast arithmetic does not know
STRIDE = 1024  # indices of the random stream; a parameter begins at a multiple


class KernelStep:
    """Tables of addresses that the kernel reads, one row per parameter, and the calls to it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._slots: list[Slot] = []
        self._means: list[torch.Tensor] = []
        self._samples: list[torch.Tensor] = []
        self._tables: list[ctypes.Array[kernel.Tensor]] = []
        self._rows: list[kernel.Tensor] = []
        self._row_of: dict[int, kernel.Tensor] = {}  # by the slot's id
        self._versions: list[int] = []  # of the parameters, when they were last drawn from
        self._groups = (kernel.Group * 0)()
        self._offset = 0
        self._observed = False  # a row has a curvature

    @staticmethod
    def serves(slots: list[Slot]) -> bool:
        """Whether the kernel can work on these parameters."""
        return all(
            s.p.dtype == torch.float32 and s.p.is_contiguous() and s.p.device.type == 'cpu'
            for s in slots
        )

    def add_group(self, slots: list[Slot]) -> None:
        """Take in the parameters of a new group."""
        table = (kernel.Tensor * len(slots))()
        # Rows of an array are made anew at every access: these are kept.
        rows = [table[i] for i in range(len(slots))]
        for slot, row in zip(slots, rows, strict=True):
            state = slot.state
            row.sample, row.h = state['sample'].data_ptr(), state['h'].data_ptr()
            row.momentum = state['momentum'].data_ptr()
            if 'prior_precision' in state:
                row.prior_mean = state['prior_mean'].data_ptr()
                row.prior_precision = state['prior_precision'].data_ptr()
            # Random numbers are indexed over all parameters, whatever the groups.
            row.size, row.offset = slot.p.numel(), self._offset
            self._offset += -(-slot.p.numel() // STRIDE) * STRIDE
        self._slots += slots
        self._means += [s.p for s in slots]
        self._samples += [s.state['sample'] for s in slots]
        self._tables.append(table)
        self._rows += rows
        self._row_of |= {id(s): row for s, row in zip(slots, rows, strict=True)}
        self._versions += [-1] * len(slots)
        self._groups = (kernel.Group * len(self._tables))(
            *(kernel.Group(t, len(t)) for t in self._tables)
        )

    @property
    def moved(self) -> bool:
        """Whether a parameter was changed from outside since the last draw."""
        return self._versions != [p._version for p in self._means]

    def draw(self, rule: Rule, seed: int, number: int) -> None:
        """Write draw `number` of the stream `seed` into every `sample`."""
        self._run(rule, seed, number, 0)

    def update(self, evidence: Evidence, rule: Rule, seed: int, number: int, steps: int) -> bool:
        """Update, and draw as `draw` does; False, and nothing changes, if it is not finite.

        Args:
            evidence: mean gradients and observed curvatures.
            rule: which member of the family.
            seed: of the stream of draws.
            number: of the draw.
            steps: taken so far, this one included.
        """
        if len(evidence) < len(self._slots):
            for row in self._rows:
                row.gradient = None
        if self._observed:
            for row in self._rows:
                row.curvature = None
            self._observed = False
        kept = []  # what must live until the kernel has read it
        for slot, g, f in evidence:
            row = self._row_of[id(slot)]
            if not g.is_contiguous():
                g = g.contiguous()
                kept.append(g)
            row.gradient = g.data_ptr()
            if f is not None:
                f = f.to(torch.float32).contiguous()
                kept.append(f)
                row.curvature = f.data_ptr()
                self._observed = True
        return self._run(rule, seed, number, steps)

    def _run(self, rule: Rule, seed: int, number: int, steps: int) -> bool:
        curvature = rule.curvature
        for p, row in zip(self._means, self._rows, strict=True):
            row.mean = p.data_ptr()
        at = 0
        for place, table in zip(self._groups, self._tables, strict=True):
            group = self._slots[at].group
            at += len(table)
            lr, decay, rho = rates(group, rule)
            place.rule = kernel.Settings(
                lr,
                decay,
                1 - (1 - decay) ** steps if steps else 1.0,
                rho,
                examples(group),
                group['prior_precision'],
                group['prior_mean'],
                min(group['clip'], LARGEST),
                curvature.mode,
                rule.root,
                rule.positive,
                curvature.probe == 'rademacher',
            )
        if not self._library.blr_run(self._groups, len(self._tables), seed, number, steps > 0):
            return False
        # Autograd must see what the kernel wrote.
        torch.autograd.graph.increment_version(
            self._means + self._samples if steps else self._samples
        )
        self._versions = [p._version for p in self._means]
        return True
