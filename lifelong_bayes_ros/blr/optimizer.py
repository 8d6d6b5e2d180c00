"""The Bayesian learning rule for a diagonal Gaussian, as a `torch.optim.Optimizer`.

q = N(m, 1/(N (h + δ))) per parameter: N is `ess`, δ the prior precision per example. With g the
mean gradient at θ = m + ε/√(N (h + δ)) and f an estimate of the data curvature,

    h ← h + ρ (f − h) + ρ² (f − h)² / (2 (h + δ))     (Lin et al. 2020, eq. 20; keeps h + δ > 0)
    m ← m − α (ḡ + δ (m − m₀)) / (h + δ)

`curvature='squared'` takes f = g² and the square root of Adam in the mean step: Vadam (Khan et
al. 2018). `curvature='price'` takes f = N (h + δ)(θ − m) g: iBLR / SOBA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class BLR(torch.optim.Optimizer):
    """Bayesian learning rule for a diagonal Gaussian over `params`.

    A parameter tensor holds the mean outside of `sampled()` and a posterior draw inside of it;
    an exception inside restores the mean.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        ess: float,
        prior_precision: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        init_curvature: float = 1.0,
        curvature: str = 'squared',
        generator: torch.Generator | None = None,
    ) -> None:
        for name, value in (
            ('lr', lr),
            ('ess', ess),
            ('prior_precision', prior_precision),
            ('init_curvature', init_curvature),
        ):
            if not value > 0:
                raise ValueError(f'{name}={value} must be positive')
        if curvature not in ('squared', 'price'):
            raise ValueError(f"curvature={curvature!r} must be 'squared' or 'price'")
        defaults: dict[str, Any] = {
            'lr': lr,
            'ess': ess,
            'delta': prior_precision,
            'betas': betas,
            'curvature': curvature,
        }
        super().__init__(params, defaults)
        self.generator = generator
        self.skipped = 0
        for group in self.param_groups:
            for p in group['params']:
                self.state[p] = {
                    'step': 0,
                    'mean': p.detach().clone(),
                    'prior_mean': p.detach().clone(),
                    'momentum': torch.zeros_like(p),
                    'h': torch.full_like(p, init_curvature),
                }

    def precision(self, p: Tensor) -> Tensor:
        """Posterior precision N (h + δ) of one parameter tensor; S_old of EWC."""
        group = next(g for g in self.param_groups if any(p is q for q in g['params']))
        return group['ess'] * (self.state[p]['h'] + group['delta'])

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Inside, the parameters are one draw from the posterior."""
        try:
            for p, state in self._states():
                noise = torch.randn(
                    p.shape, dtype=p.dtype, device=p.device, generator=self.generator
                )
                p.data.copy_(state['mean'] + noise / self.precision(p).sqrt())
                state['sample'] = p.detach().clone()
            yield
        finally:
            for p, state in self._states():
                p.data.copy_(state['mean'])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update from the gradients left by a backward pass inside `sampled()`.

        A gradient that is not finite skips the whole step and is counted in `skipped`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad(), self.sampled():
                loss = closure()
        moved = [(p, s) for p, s in self._states() if p.grad is not None]
        if any('sample' not in s for _, s in moved):
            raise RuntimeError('step() needs gradients taken inside `with optimizer.sampled():`')
        if not all(bool(torch.isfinite(p.grad).all()) for p, _ in moved):
            self.skipped += 1
            return loss
        for p, state in moved:
            self._update(p, state)
        return loss

    def _update(self, p: Tensor, state: dict[str, Any]) -> None:
        group = next(g for g in self.param_groups if any(p is q for q in g['params']))
        (beta1, beta2), delta, g = group['betas'], group['delta'], p.grad
        rho, h, mean = 1 - beta2, state['h'], state['mean']
        state['step'] += 1
        state['momentum'].lerp_(g, 1 - beta1)
        price = group['curvature'] == 'price'
        f = self.precision(p) * (state.pop('sample') - mean) * g if price else g.square()
        gap = f - h
        h.add_(rho * gap + (rho * gap).square() / (2 * (h + delta)))
        scale = h + delta if price else (h + delta).sqrt()
        step = state['momentum'] / (1 - beta1 ** state['step'])
        mean.sub_(group['lr'] * (step + delta * (mean - state['prior_mean'])) / scale)
        p.copy_(mean)

    def _states(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for p in group['params']:
                yield p, self.state[p]
