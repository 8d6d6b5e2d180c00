"""The rule in torch's own operations: any device and dtype, no branch on data on a GPU.

Everything is done in place in two scratch buffers per parameter, so that a step can be captured
in a CUDA graph.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import kernel
from .rule import Rule
from .slot import Slot, examples, rates

Evidence = list[tuple[Slot, Tensor, Tensor | None]]  # mean gradient and observed curvature


def draw(slots: list[Slot], rule: Rule, generator: torch.Generator) -> None:
    """Write a draw into every `sample`."""
    for slot in slots:
        noise, scale = _scratch(slot)
        if rule.curvature.probe == 'rademacher':
            noise.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        else:
            noise.normal_(generator=generator)
        _total([scale], [slot])
        noise.div_(scale.mul_(examples(slot.group)).sqrt_())
        if 'moved_by' in slot.state:
            slot.state['moved_by'].copy_(noise)
        slot.state['sample'].copy_(noise.add_(slot.mean))


def moved_by(slot: Slot) -> Tensor:
    """θ − m of the last draw; changing it in place is what `antithetic` does."""
    if 'moved_by' in slot.state:
        return slot.state['moved_by']
    return torch.sub(slot.state['sample'], slot.mean, out=_scratch(slot)[0])


def finite(evidence: Evidence) -> Tensor:
    """Whether gradients and curvatures are finite, as a tensor []."""
    tensors = [t for _, *pair in evidence for t in pair if t is not None]
    # A norm, as isfinite() of a tensor makes several temporaries of its size.
    norms = torch._foreach_norm(tensors, math.inf)
    return torch.stack([n.double() for n in norms]).isfinite().all()


def update(evidence: Evidence, rule: Rule, steps: int | Tensor, ok: Tensor) -> None:
    """Update group by group.

    Args:
        evidence: what has a gradient.
        rule: which member of the family.
        steps: taken so far, this one included if it is taken.
        ok: [] 1.0, or 0.0 for a step that must change nothing.
    """
    groups: dict[int, Evidence] = {}
    for item in evidence:
        groups.setdefault(id(item[0].group), []).append(item)
    for items in groups.values():
        group = items[0][0].group
        lr, decay, rho = rates(group, rule)
        debias = (1 - (1 - decay) ** (ok * steps)).clamp_min(decay)
        for dtype in {s.state['h'].dtype for s, *_ in items}:
            mine = [item for item in items if item[0].state['h'].dtype == dtype]
            scalars = [t.to(dtype) for t in (ok * lr, ok * decay, ok * rho, 1 / debias)]
            _update(mine, rule, group, *scalars)


def _update(
    items: Evidence,
    rule: Rule,
    group: dict[str, Any],
    lr: Tensor,
    decay: Tensor,
    rho: Tensor,
    weight: Tensor,
) -> None:
    slots = [s for s, *_ in items]
    a, b = ([_scratch(s)[i] for s in slots] for i in (0, 1))
    h, momentum = [s.state['h'] for s in slots], [s.state['momentum'] for s in slots]
    mean, gradient = [s.mean for s in slots], [g for _, g, _ in items]
    for slot, g, f in items:
        estimate, scale = _scratch(slot)
        if f is not None:
            estimate.copy_(f)
        elif rule.curvature.mode == kernel.SQUARED:
            estimate.copy_(g).square_()
        else:
            estimate.copy_(moved_by(slot)).mul_(g)
            _total([scale], [slot])
            estimate.mul_(scale).mul_(examples(group))
    torch._foreach_sub_(a, h)
    torch._foreach_mul_(a, rho)
    if rule.positive:
        _total(b, slots)
        torch._foreach_reciprocal_(b)
        torch._foreach_mul_(b, a)
        torch._foreach_addcmul_(h, b, a, 0.5)
    torch._foreach_add_(h, a)
    torch._foreach_copy_(a, gradient)
    torch._foreach_sub_(a, momentum)
    torch._foreach_mul_(a, decay)
    torch._foreach_add_(momentum, a)
    torch._foreach_copy_(a, mean)
    own = 'prior_precision' in slots[0].state
    if own:
        torch._foreach_sub_(a, [s.state['prior_mean'] for s in slots])
        torch._foreach_mul_(a, [s.state['prior_precision'] for s in slots])
        torch._foreach_div_(a, examples(group))
    else:
        torch._foreach_sub_(a, group['prior_mean'])
        torch._foreach_mul_(a, group['prior_precision'])
    torch._foreach_copy_(b, momentum)
    torch._foreach_mul_(b, weight)
    torch._foreach_add_(a, b)
    _total(b, slots, rule.root)
    torch._foreach_div_(a, b)
    if group['clip'] < math.inf:
        torch._foreach_clamp_min_(a, -group['clip'])
        torch._foreach_clamp_max_(a, group['clip'])
    torch._foreach_mul_(a, lr)
    torch._foreach_sub_(mean, a)
    half = [s for s in slots if s.mean is not s.p]
    if half:
        torch._foreach_copy_([s.p for s in half], [s.mean for s in half])


def _total(out: list[Tensor], slots: list[Slot], root: bool = False) -> None:
    """h + δ, or √h + δ, of slots of one group into `out`."""
    group = slots[0].group
    torch._foreach_copy_(out, [s.state['h'] for s in slots])
    if root:
        torch._foreach_sqrt_(out)
    if 'prior_precision' in slots[0].state:
        prior = [s.state['prior_precision'] for s in slots]
        torch._foreach_add_(out, prior, alpha=1 / examples(group))
    else:
        torch._foreach_add_(out, group['prior_precision'])


def _scratch(slot: Slot) -> tuple[Tensor, Tensor]:
    state = slot.state
    if 'scratch' not in state:
        state['scratch'] = (torch.empty_like(state['h']), torch.empty_like(state['h']))
    return state['scratch']
