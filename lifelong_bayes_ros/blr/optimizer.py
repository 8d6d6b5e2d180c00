"""The Bayesian learning rule for a diagonal Gaussian, as a `torch.optim.Optimizer`.

q = N(m, 1/(N (h + δ))) per parameter: N = ess / temperature is the number of examples the
posterior stands for, δ = the prior's precision / N, m₀ the prior's mean. With g the mean gradient
at a draw θ ~ q and f an estimate of the data curvature (curvature.py),

    h ← h + ρ (f − h) + ρ² (f − h)² / (2 (h + δ))     (Lin et al. 2020, eq. 20)
    m ← m − α (ḡ + δ (m − m₀)) / (h + δ)

with ρ = 1 − β₂ and ḡ the debiased average of g with rate β₁. As (h + δ) keeps at least half of its
value in a step, the precision stays positive for any f. `Rule` chooses between Vadam, VOGN,
SOBA/iBLR and IVON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import kernel
from .curvature import Loss, Predict
from .diagonal import DiagonalGaussian
from .rule import SOBA, Rule
from .twin import twin

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class Draw(Mapping[Tensor, Tensor]):
    """One draw of the weights: parameter → sampled tensor, a leaf that gradients go to."""

    def __init__(self, samples: dict[Tensor, Tensor]) -> None:
        self._samples = samples
        self.curvature: dict[Tensor, Tensor] = {}

    def __getitem__(self, parameter: Tensor) -> Tensor:
        return self._samples[parameter]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def call(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """`module(*args, **kwargs)` with the sampled weights in place of its parameters."""
        return twin(module, self._samples)(*args, **kwargs)

    def weights(self) -> tuple[Tensor, ...]:
        """The sampled tensors, detached, in the optimizer's order."""
        return tuple(s.detach() for s in self._samples.values())

    def at(self, weights: Iterable[Tensor]) -> Draw:
        """A draw with other values, in the optimizer's order."""
        return Draw(dict(zip(self._samples, weights, strict=True)))

    def add(self, parameter: Tensor, gradient: Tensor, curvature: Tensor) -> None:
        """Add a mean gradient and an observed curvature."""
        sample = self[parameter]
        sample.grad = gradient if sample.grad is None else sample.grad + gradient
        seen = self.curvature.get(parameter)
        self.curvature[parameter] = curvature if seen is None else seen + curvature


class BLR(torch.optim.Optimizer):
    """Bayesian learning rule for a diagonal Gaussian over `params`.

    The parameters always hold the mean. A draw lives in its own buffers, so that no other thread,
    exported pointer or exception can meet perturbed weights::

        with optimizer.sampled() as draw:
            loss = mean_negative_log_likelihood(draw.call(model, x), y)
            loss.backward()
        optimizer.step()

    On leaving `sampled()`, `p.grad` is the gradient at the draw, for clipping or scaling. Several
    backward passes in one `sampled()` add up (gradient accumulation); several `sampled()` before a
    `step()` are several draws, which are averaged. Gradients need no zeroing.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        ess: float,
        rule: Rule = SOBA,
        prior: DiagonalGaussian | None = None,
        prior_mean: float = 0.0,
        prior_precision: float = 1e-6,
        temperature: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        init_curvature: float = 1.0,
        clip: float = math.inf,
        samples: int = 1,
        generator: torch.Generator | None = None,
        use_kernel: bool | None = None,
    ) -> None:
        """Every keyword from `ess` to `clip`, but for `rule`, may also be set per group.

        Args:
            params: tensors or groups, all on one device.
            lr: α; with `rule.rescale`, times h₀ + δ.
            ess: examples that the posterior stands for, or memory length of a stream.
            rule: which member of the family.
            prior: posterior of earlier data, over all parameters in order; overrides the next
                two. Its precision is S_old of EWC (Kirkpatrick et al. 2017).
            prior_mean: m₀.
            prior_precision: δ, precision per example: weight decay.
            temperature: τ with N = ess / τ; below 1 is a cold posterior.
            betas: (β₁, β₂).
            init_curvature: h₀; better a Gauss–Newton diagonal, by `set_curvature`.
            clip: bound of each entry of a mean step before α.
            samples: draws per step with a closure.
            generator: seeds the draws, on the parameters' device.
            use_kernel: one-pass kernel for contiguous float32 on the CPU. None: where it builds.

        Raises:
            ValueError: a setting out of range, an empty list, several devices, or a prior of
                another size; the message names the value.
        """
        _positive('samples', samples)
        self.rule = rule
        self.samples = samples
        self.generator = generator
        self._kernel = None if use_kernel is False else kernel.load()
        if use_kernel and self._kernel is None:
            raise ValueError('use_kernel=True, but the kernel could not be built: see kernel.load')
        self._require_kernel = bool(use_kernel)
        self._device: torch.device | None = None
        self._flat: list[tuple[Tensor, dict[str, Any]]] = []
        self._samples: dict[Tensor, Tensor] = {}
        self._tables: list[Any] = []  # of the kernel, one per group
        self._offset = 0
        defaults: dict[str, Any] = {
            'lr': lr,
            'ess': ess,
            'prior_mean': prior_mean,
            'prior_precision': prior_precision,
            'temperature': temperature,
            'betas': betas,
            'init_curvature': init_curvature,
            'clip': clip,
        }
        super().__init__(_with_prior(params, prior), defaults)
        device = self._device
        if generator is None:
            self.generator = torch.Generator(device)
            self.generator.manual_seed(int(torch.randint(2**62, ())))
        # Counters stay on a GPU, where a step must not wait for them.
        self._steps: int | Tensor = 0
        self._skipped: int | Tensor = 0
        if device.type != 'cpu':
            self._steps = torch.zeros((), dtype=torch.float64, device=device)
            self._skipped = torch.zeros_like(self._steps)
        # The kernel's random numbers: draw `_draws` of the stream `_seed`.
        seeds = torch.randint(2**62, (), generator=self.generator, device=device)
        self._seed = int(seeds) if self._kernel is not None else 0
        self._draws = 0
        self._fresh = False  # the samples are a draw that nobody has used
        self._inside = False
        self._pending: Draw | None = None  # a used draw whose gradient is in p.grad
        self._folded = 0  # draws in the accumulators

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `prior` may give it a posterior over its parameters."""
        param_group = dict(param_group)
        prior = param_group.pop('prior', None)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check(group, prior)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        at = 0
        for p in group['params']:
            self.state[p] = self._new_state(p, group)
            if prior is not None:
                self._set_prior(p, prior, at)
            at += p.numel()
        fits = all(
            p.dtype == torch.float32 and p.is_contiguous() and p.device.type == 'cpu'
            for p in group['params']
        )
        if self._require_kernel and not fits:
            raise ValueError('use_kernel=True needs contiguous float32 parameters on the CPU')
        if not fits:
            self._kernel = None
        # Random numbers are indexed over all parameters, whatever the groups.
        table = (kernel.Tensor * len(group['params']))()
        for p, row in zip(group['params'], table, strict=True):
            state = self.state[p]
            row.sample, row.h = state['sample'].data_ptr(), state['h'].data_ptr()
            row.momentum = state['momentum'].data_ptr()
            if prior is not None:
                row.prior_mean = state['prior_mean'].data_ptr()
                row.prior_precision = state['prior_precision'].data_ptr()
            row.size, row.offset = p.numel(), self._offset
            self._offset += -(-p.numel() // 1024) * 1024
            self._flat.append((p, state))
            self._samples[p] = state['sample']
        self._tables.append(table)

    def _check(self, group: dict[str, Any], prior: DiagonalGaussian | None) -> None:
        for name in ('lr', 'ess', 'prior_precision', 'temperature', 'init_curvature', 'clip'):
            _positive(name, group[name])
        for beta in group['betas']:
            if not 0 <= beta < 1:
                raise ValueError(f'betas={group["betas"]} must be in [0, 1)')
        devices = {str(p.device) for p in group['params']} | (
            {str(self._device)} if self._device else set()
        )
        if len(devices) > 1:
            raise ValueError(f'parameters on several devices: {", ".join(sorted(devices))}')
        for p in group['params']:
            if not p.is_floating_point():
                raise ValueError(f'a parameter of dtype {p.dtype} has no Gaussian posterior')
            self._device = p.device
        if prior is None:
            return
        if not isinstance(prior, DiagonalGaussian):
            raise TypeError(f'prior is a {type(prior).__name__}: give a DiagonalGaussian')
        size = sum(p.numel() for p in group['params'])
        if prior.size != size:
            raise ValueError(f'prior over {prior.size} parameters does not fit {size} parameters')

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        like = {'dtype': dtype, 'memory_format': torch.contiguous_format}
        state: dict[str, Any] = {
            'h': torch.full_like(p, group['init_curvature'], **like, requires_grad=False),
            'momentum': torch.zeros_like(p, **like, requires_grad=False),
            'sample': p.detach().clone().requires_grad_(),
        }
        if p.dtype != dtype:  # half precision has too few digits for the mean and for θ − m
            state['mean'] = p.detach().to(dtype)
            state['moved_by'] = torch.zeros_like(state['mean'])
        return state

    def _set_prior(self, p: Tensor, prior: DiagonalGaussian, at: int) -> None:
        part = slice(at, at + p.numel())
        h = self.state[p]['h']
        for name, values in (
            ('prior_mean', prior.mean),
            ('prior_precision', prior.precision),
        ):
            self.state[p][name] = values[part].to(h).reshape(p.shape).clone()

    # Reading the posterior.

    @property
    def skipped(self) -> int:
        """Steps skipped because a gradient was not finite."""
        return int(self._skipped)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self._steps)

    def precision(self, p: Tensor) -> Tensor:
        """Posterior precision N (h + δ) of one parameter tensor; S_old of EWC."""
        group, state = self._group_of(p), self.state[p]
        if 'prior_precision' in state:
            return _examples(group) * state['h'] + state['prior_precision']
        return _examples(group) * (state['h'] + group['prior_precision'])

    def posterior(self) -> DiagonalGaussian:
        """q over all parameters in order, float64: the prior of the next run."""
        mean = [self._mean(p).detach().double().flatten() for p, _ in self._flat]
        precision = [self.precision(p).double().flatten() for p, _ in self._flat]
        return DiagonalGaussian(torch.cat(mean), torch.cat(precision))

    @torch.no_grad()
    def set_curvature(self, p: Tensor, h: Tensor) -> None:
        """Start from a known data curvature, e.g. a Gauss–Newton diagonal, per example."""
        if h.shape != p.shape or not bool(((h >= 0) & torch.isfinite(h)).all()):
            raise ValueError(
                f'curvature of shape {tuple(h.shape)} for a parameter {tuple(p.shape)}: give '
                'the same shape, finite and not negative'
            )
        self.state[p]['h'].copy_(h)
        self._fresh = False

    # Drawing.

    @contextmanager
    def sampled(self) -> Iterator[Draw]:
        """A draw from the posterior; the parameters themselves stay at the mean."""
        if self._inside:
            raise RuntimeError('sampled() is entered already: one draw at a time')
        self._inside = True
        try:
            self._fold()
            self._sample()
            draw = Draw(self._samples)
            yield draw
            self._fresh = False
            if any(sample.grad is not None for sample in draw.values()):
                for p, sample in draw.items():
                    p.grad = sample.grad
                self._pending = draw
        finally:
            self._inside = False
            for sample in self._samples.values():
                sample.grad = None

    def evaluate(self, predict: Predict, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient and curvature at a draw, as the rule's estimator takes them, for `step()`.

        Args:
            predict: (draw, inputs [b, ...]) to outputs [b, ...], e.g.
                `lambda draw, x: draw.call(model, x)`.
            loss: (outputs, targets) to the negative log-likelihood of each example [b].
            inputs: [b, ...].
            targets: [b, ...].

        Returns:
            The mean loss [], detached.
        """
        with self.sampled() as draw:
            return self.rule.curvature.observe(draw, predict, loss, inputs, targets)

    @torch.no_grad()
    def _sample(self) -> None:
        if self.rule.curvature.antithetic and self._folded % 2 == 1:
            for p, state in self._flat:
                offset = self._moved_by(p, state).neg_()
                state['sample'].copy_(self._mean(p) + offset)
        elif self._kernel is None:
            for p, state in self._flat:
                self._noise(p, state)
        elif not (self._fresh and all(p._version == s['version'] for p, s in self._flat)):
            self._draws += not self._fresh
            self._run_kernel(update=False)
        self._fresh = True

    def _noise(self, p: Tensor, state: dict[str, Any]) -> None:
        """A draw by torch's own generator."""
        noise, scale = self._scratch(state)
        if self.rule.curvature.probe == 'rademacher':
            noise.bernoulli_(0.5, generator=self.generator).mul_(2).sub_(1)
        else:
            noise.normal_(generator=self.generator)
        self._total(scale, state, self._group_of(p)).mul_(_examples(self._group_of(p))).sqrt_()
        noise.div_(scale)
        if 'moved_by' in state:
            state['moved_by'].copy_(noise)
        state['sample'].copy_(noise.add_(self._mean(p)))

    @torch.no_grad()
    def _fold(self) -> None:
        """Take the last draw into the average over draws of this step."""
        if self._pending is None:
            return
        for p, state in self._flat:
            if p.grad is None:
                continue
            f = self._pending.curvature.get(p)
            if f is None:
                offset = self.precision(p) * self._moved_by(p, state)
                f = self.rule.curvature.estimate(offset, p.grad.to(state['h']))
            for name, value in (('sum_gradient', p.grad), ('sum_curvature', f)):
                if name not in state:
                    state[name] = torch.zeros_like(state['h'])
                state[name].add_(value)
            p.grad = None
        self._pending = None
        self._folded += 1

    # Learning.

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the draws since the last step.

        A gradient that is not finite skips the whole step, is counted in `skipped` and changes
        nothing.

        Args:
            closure: enters `sampled()`, goes backward and returns the loss; called `samples`
                times.

        Returns:
            The closure's mean loss, or None.

        Raises:
            RuntimeError: there was no draw with a gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = sum(closure() for _ in range(self.samples)) / self.samples
        if self._pending is None and not self._folded:
            raise RuntimeError(
                'step() without a sample: go backward inside `with optimizer.sampled() as draw:`'
            )
        moved = self._evidence()
        folded, self._folded = self._folded, 0
        self._pending, self._fresh = None, False
        if self._kernel is None:
            self._torch_step(moved)
        else:
            self._kernel_step(moved)
        for _, state in self._flat if folded else ():
            for name in ('sum_gradient', 'sum_curvature'):
                if name in state:
                    state[name].zero_()
        return loss

    def _evidence(self) -> dict[Tensor, tuple[Tensor, Tensor | None]]:
        """Mean gradient and, unless it follows from that, curvature, of what has a gradient."""
        if self._folded:
            self._fold()
            return {
                p: (s['sum_gradient'] / self._folded, s['sum_curvature'] / self._folded)
                for p, s in self._flat
                if 'sum_gradient' in s
            }
        observed = self._pending.curvature
        moved = {p: (p.grad, observed.get(p)) for p, _ in self._flat if p.grad is not None}
        if self.rule.curvature.mode == kernel.OBSERVED and any(
            f is None for _, f in moved.values()
        ):
            self.rule.curvature.estimate(None, None)  # says what to do
        return moved

    def _rates(self, group: dict[str, Any]) -> tuple[float, float, float]:
        """(α, 1 − β₁, ρ)."""
        beta1, beta2 = group['betas']
        lr = group['lr']
        if self.rule.rescale:
            lr = lr * (group['init_curvature'] + group['prior_precision'])
        return lr, 1 - beta1, 1 - beta2

    def _kernel_step(self, moved: dict[Tensor, tuple[Tensor, Tensor | None]]) -> None:
        kept = []  # what must live until the kernel has read it
        for group, table in zip(self.param_groups, self._tables, strict=True):
            for p, row in zip(group['params'], table, strict=True):
                g, f = moved.get(p, (None, None))
                if g is not None and not g.is_contiguous():
                    g = g.contiguous()
                if f is not None:
                    f = f.to(torch.float32).contiguous()
                row.gradient = None if g is None else g.data_ptr()
                row.curvature = None if f is None else f.data_ptr()
                kept.append((g, f))
        if not all(self._kernel.blr_finite(table, len(table)) for table in self._tables):
            self._skipped += 1
            return
        self._steps += 1
        self._draws += 1
        self._run_kernel(update=True)
        self._fresh = True

    def _run_kernel(self, update: bool) -> None:
        """Update if asked to, then draw sample number `_draws`."""
        for group, table in zip(self.param_groups, self._tables, strict=True):
            lr, decay, rho = self._rates(group)
            settings = kernel.Settings(
                lr,
                decay,
                1 - (1 - decay) ** self._steps if update else 1.0,
                rho,
                _examples(group),
                group['prior_precision'],
                group['prior_mean'],
                min(group['clip'], 3e38),
                self.rule.curvature.mode,
                self.rule.root,
                self.rule.positive,
                self.rule.curvature.probe == 'rademacher',
            )
            for p, row in zip(group['params'], table, strict=True):
                row.mean = p.data_ptr()
            self._kernel.blr_run(table, len(table), settings, self._seed, self._draws, update)
        for p, state in self._flat:
            # Autograd must see what the kernel wrote.
            torch.autograd.graph.increment_version(state['sample'])
            if update:
                torch.autograd.graph.increment_version(p)
            state['version'] = p._version

    def _torch_step(self, moved: dict[Tensor, tuple[Tensor, Tensor | None]]) -> None:
        """The same in torch's own operations, without a branch on the data on a GPU."""
        evidence = [t for pair in moved.values() for t in pair if t is not None]
        # A norm, as isfinite() of a tensor makes several temporaries of its size.
        norms = [torch.linalg.vector_norm(t, math.inf) for t in evidence]
        finite = torch.stack(norms).isfinite().all()
        if self._device.type == 'cpu':
            if not finite:
                self._skipped += 1
                return
        else:
            for t in evidence:
                torch.nan_to_num_(t, 0.0, 0.0, 0.0)
        ok = finite.to(torch.float64)
        self._steps += 1 if self._device.type == 'cpu' else ok
        self._skipped += 0 if self._device.type == 'cpu' else 1 - ok
        for group in self.param_groups:
            lr, decay, rho = self._rates(group)
            params = [p for p in group['params'] if p in moved]
            if not params:
                continue
            states = [self.state[p] for p in params]
            debias = (1 - (1 - decay) ** (ok * self._steps)).clamp_min(decay)
            rates = [(ok * rate).to(states[0]['h']) for rate in (lr, decay, rho)]
            for p, state in zip(params, states, strict=True):
                self._torch_update(p, state, group, *moved[p], *rates, debias.to(rates[0]))

    def _torch_update(
        self,
        p: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
        g: Tensor,
        f: Tensor | None,
        lr: Tensor,
        decay: Tensor,
        rho: Tensor,
        debias: Tensor,
    ) -> None:
        a, b = self._scratch(state)
        h, momentum, mean = state['h'], state['momentum'], self._mean(p)
        if f is not None:
            a.copy_(f)
        elif self.rule.curvature.mode == kernel.SQUARED:
            a.copy_(g).square_()
        else:
            a.copy_(self._moved_by(p, state)).mul_(g)
            a.mul_(self._total(b, state, group)).mul_(_examples(group))
        a.sub_(h).mul_(rho)
        if self.rule.positive:
            self._total(b, state, group).reciprocal_().mul_(a).mul_(a).mul_(0.5)
            h.add_(b)
        h.add_(a)
        momentum.add_(a.copy_(g).sub_(momentum).mul_(decay))
        a.copy_(mean)
        if 'prior_precision' in state:
            a.sub_(state['prior_mean']).mul_(state['prior_precision']).div_(_examples(group))
        else:
            a.sub_(group['prior_mean']).mul_(group['prior_precision'])
        a.add_(b.copy_(momentum).div_(debias))
        if self.rule.root:
            b.copy_(h).sqrt_()
            if 'prior_precision' in state:
                b.add_(state['prior_precision'], alpha=1 / _examples(group))
            else:
                b.add_(group['prior_precision'])
        else:
            self._total(b, state, group)
        a.div_(b)
        if group['clip'] < math.inf:
            a.clamp_(-group['clip'], group['clip'])
        mean.sub_(a.mul_(lr))
        if mean is not p:
            p.copy_(mean)

    def _moved_by(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        """θ − m of the last draw; changing it in place is what `antithetic` does."""
        if 'moved_by' in state:
            return state['moved_by']
        return torch.sub(state['sample'], self._mean(p), out=self._scratch(state)[0])

    @staticmethod
    def _total(out: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """h + δ, into `out`."""
        out.copy_(state['h'])
        if 'prior_precision' in state:
            return out.add_(state['prior_precision'], alpha=1 / _examples(group))
        return out.add_(group['prior_precision'])

    @staticmethod
    def _scratch(state: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if 'scratch' not in state:
            state['scratch'] = (torch.empty_like(state['h']), torch.empty_like(state['h']))
        return state['scratch']

    # Saving.

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next step: buffers, settings, counters and random generators."""
        packed = {
            i: {name: state[name].clone() for name in _SAVED if name in state}
            for i, (_, state) in enumerate(self._flat)
        }
        first = 0
        groups = []
        for group in self.param_groups:
            settings = {k: v for k, v in group.items() if k != 'params'}
            settings['params'] = list(range(first, first + len(group['params'])))
            first += len(group['params'])
            groups.append(settings)
        random = {
            'generator': self.generator.get_state(),
            'seed': self._seed,
            # A draw that nobody has used is drawn again.
            'draws': self._draws - self._fresh,
        }
        counters = {'steps': self.steps, 'skipped': self.skipped}
        return {'state': packed, 'param_groups': groups, 'random': random, 'counters': counters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken, bit for bit; no buffer is rebound.

        Raises:
            ValueError: it is the state of another model.
        """
        saved = state_dict['state']
        mine = self._flat
        sizes = [len(g['params']) for g in self.param_groups]
        theirs = [len(g['params']) for g in state_dict['param_groups']]
        if sizes != theirs:
            raise ValueError(f'the state has groups of {theirs} parameters, this model of {sizes}')
        for i, (p, _) in enumerate(mine):
            shape = tuple(saved[i]['h'].shape)
            names = {name for name in _SAVED if name in mine[i][1]}
            if names != set(saved[i]):
                raise ValueError(
                    f'the state of another model: parameter {i} has {sorted(names)} here and '
                    f'{sorted(saved[i])} there'
                )
            if shape != tuple(p.shape):
                raise ValueError(
                    f'the state of another model: parameter {i} is {tuple(p.shape)} here and '
                    f'{shape} there'
                )
        for i, (_, state) in enumerate(mine):
            for name, value in saved[i].items():
                state[name].copy_(value)
            for name in ('sum_gradient', 'sum_curvature'):
                state.pop(name, None)
        for group, settings in zip(self.param_groups, state_dict['param_groups'], strict=True):
            group.update({k: v for k, v in settings.items() if k != 'params'})
        self.generator.set_state(state_dict['random']['generator'])
        self._seed = state_dict['random']['seed']
        self._draws = state_dict['random']['draws']
        # In place where it is a tensor, as a captured graph knows it by its address.
        self._steps += state_dict['counters']['steps'] - self.steps
        self._skipped += state_dict['counters']['skipped'] - self.skipped
        self._pending, self._folded, self._fresh = None, 0, False

    def _mean(self, p: Tensor) -> Tensor:
        return self.state[p].get('mean', p)

    def _group_of(self, p: Tensor) -> dict[str, Any]:
        return next(g for g in self.param_groups if any(p is q for q in g['params']))


_SAVED = ('h', 'momentum', 'mean', 'prior_mean', 'prior_precision')


def _examples(group: dict[str, Any]) -> float:
    """N, the examples that the posterior stands for."""
    return group['ess'] / group['temperature']


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f'{name}={value} must be positive')


def _with_prior(params: Parameters, prior: DiagonalGaussian | None) -> list[Any]:
    """Parameters or groups, each group with its part of the prior."""
    params = list(params)
    if prior is None or not params:
        return params
    if not isinstance(params[0], dict):
        return [{'params': params, 'prior': prior}]
    if not isinstance(prior, DiagonalGaussian):
        raise TypeError(f'prior is a {type(prior).__name__}: give a DiagonalGaussian')
    groups, at = [], 0
    for group in params:
        tensors = group['params']
        tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        end = at + sum(p.numel() for p in tensors)
        part = DiagonalGaussian(prior.mean[at:end], prior.precision[at:end])
        groups.append(group | {'params': tensors, 'prior': part})
        at = end
    if at != prior.size:
        raise ValueError(f'prior over {prior.size} parameters does not fit {at} parameters')
    return groups
