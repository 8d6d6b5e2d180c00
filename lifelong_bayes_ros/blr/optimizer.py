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
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from . import kernel, torch_step
from .curvature import Loss, Predict
from .diagonal import DiagonalGaussian
from .draw import Draw
from .kernel_step import KernelStep
from .rule import SOBA, Rule
from .slot import Slot, State
from .twin import twin
from .untraced import untraced

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


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
        library = None if use_kernel is False else kernel.load()
        if use_kernel and library is None:
            raise ValueError('use_kernel=True, but the kernel could not be built: see kernel.load')
        self._kernel = None if library is None else KernelStep(library)
        self._require_kernel = bool(use_kernel)
        self._device: torch.device | None = None
        self._slots: list[Slot] = []
        self._samples: dict[Tensor, Tensor] = {}
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
        self._seed = self._draws = 0
        if self._kernel is not None:
            self._seed = int(torch.randint(2**62, (), generator=self.generator))
        self._fresh = False  # the samples are a draw that nobody has used
        self._sampling = _Sampling(self)
        self._inside = False
        self._pending: Draw | None = None  # a used draw whose gradient is in p.grad
        self._folded = 0  # draws in the sums of this step
        self._summed: dict[int, Slot] = {}  # what has sums, by id

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `prior` may give it a posterior over its parameters."""
        param_group = dict(param_group)
        prior = param_group.pop('prior', None)
        # The bare method: torch's is decorated, see `untraced`.
        add = torch.optim.Optimizer.add_param_group
        getattr(add, '__wrapped__', add)(self, param_group)
        group = self.param_groups[-1]
        try:
            self._check(group, prior)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        slots, at = [], 0
        for p in group['params']:
            self.state[p] = self._new_state(p, group)
            if prior is not None:
                self._set_prior(p, prior, at)
            at += p.numel()
            slots.append(Slot(p, self.state[p], group))
            self._samples[p] = self.state[p]['sample']
        self._slots += slots
        fits = KernelStep.serves(slots)
        if self._require_kernel and not fits:
            raise ValueError('use_kernel=True needs contiguous float32 parameters on the CPU')
        if not fits:
            self._kernel = None
        elif self._kernel is not None:
            self._kernel.add_group(slots)

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

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        like = {'dtype': dtype, 'memory_format': torch.contiguous_format}
        state: State = {
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
        return next(s for s in self._slots if s.p is p).precision()

    def posterior(self) -> DiagonalGaussian:
        """q over all parameters in order, float64: the prior of the next run."""
        mean = [s.mean.detach().double().flatten() for s in self._slots]
        precision = [s.precision().double().flatten() for s in self._slots]
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

    def sampled(self) -> AbstractContextManager[Draw]:
        """A draw from the posterior; the parameters themselves stay at the mean."""
        return self._sampling

    @untraced  # see `step`
    def _enter(self) -> Draw:
        if self._inside:
            raise RuntimeError('sampled() is entered already: one draw at a time')
        if self._pending is not None:
            self._fold()
        self._sample()
        self._inside = True
        return Draw(self._samples)

    @untraced  # see `step`
    def _leave(self, draw: Draw, failed: bool) -> None:
        self._inside = False
        gradients = [(p, sample.grad) for p, sample in self._samples.items()]
        for sample in self._samples.values():
            sample.grad = None
        if failed:
            return
        self._fresh = False
        if not all(g is None for _, g in gradients):
            for p, g in gradients:
                p.grad = g
            self._pending = draw

    def twin(self, module: torch.nn.Module) -> torch.nn.Module:
        """A module that computes with the draw at hand, to be made once and compiled.

        It shares all but the parameters with `module`, as it is now::

            sampled = torch.compile(optimizer.twin(model))
            with optimizer.sampled():
                mean_negative_log_likelihood(sampled(x), y).backward()
        """
        return twin(module, self._samples)

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

    def _sample(self) -> None:
        if self.rule.curvature.antithetic and self._folded % 2 == 1:
            with torch.no_grad():
                for slot in self._slots:
                    offset = torch_step.moved_by(slot).neg_()
                    slot.state['sample'].copy_(slot.mean + offset)
        elif self._kernel is None:
            with torch.no_grad():
                torch_step.draw(self._slots, self.rule, self.generator)
        elif not self._fresh or self._kernel.moved:
            self._draws += not self._fresh
            self._kernel.draw(self.rule, self._seed, self._draws)
        self._fresh = True

    @torch.no_grad()
    def _fold(self) -> None:
        """Take the last draw into the sums over the draws of this step."""
        for slot in self._slots:
            p, state = slot.p, slot.state
            if p.grad is None:
                continue
            f = self._pending.curvature.get(p)
            if f is None:
                offset = slot.precision() * torch_step.moved_by(slot)
                f = self.rule.curvature.estimate(offset, p.grad.to(state['h']))
            first = id(slot) not in self._summed
            self._summed[id(slot)] = slot
            for name, value in zip(_SUMS, (p.grad, f), strict=True):
                if name not in state:
                    state[name] = torch.empty_like(state['h'])
                state[name].copy_(value) if first else state[name].add_(value)
            p.grad = None
        self._pending = None
        self._folded += 1

    # Learning.

    # Traced by torch.compile, what an optimizer counts in its attributes would be lost.
    @untraced
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
        evidence = self._evidence()
        self._pending, self._folded, self._fresh = None, 0, False
        self._summed = {}
        if self._kernel is None:
            self._torch_step(evidence)
        else:
            self._kernel_step(evidence)
        return loss

    def _evidence(self) -> torch_step.Evidence:
        """Mean gradient and, unless it follows from that, curvature, of what has a gradient."""
        if self._folded:
            if self._pending is not None:
                self._fold()
            summed = [(s, *(s.state[name] for name in _SUMS)) for s in self._summed.values()]
            for _, g, f in summed:
                g.div_(self._folded)
                f.div_(self._folded)
            return summed
        observed = self._pending.curvature
        evidence = [
            (s, s.p.grad, observed.get(s.p) if observed else None)
            for s in self._slots
            if s.p.grad is not None
        ]
        if self.rule.curvature.mode == kernel.OBSERVED and any(f is None for *_, f in evidence):
            self.rule.curvature.estimate(None, None)  # says what to do
        return evidence

    def _kernel_step(self, evidence: torch_step.Evidence) -> None:
        after = self._steps + 1
        if self._kernel.update(evidence, self.rule, self._seed, self._draws + 1, after):
            self._steps = after
            self._draws += 1
            self._fresh = True
        else:
            self._skipped += 1

    @torch.no_grad()
    def _torch_step(self, evidence: torch_step.Evidence) -> None:
        finite = torch_step.finite(evidence)
        if self._device.type == 'cpu':
            if not finite:
                self._skipped += 1
                return
        else:
            for _, *pair in evidence:
                for t in pair:
                    if t is not None:
                        torch.nan_to_num_(t, 0.0, 0.0, 0.0)
        ok = finite.to(torch.float64)
        self._steps += 1 if self._device.type == 'cpu' else ok
        self._skipped += 0 if self._device.type == 'cpu' else 1 - ok
        torch_step.update(evidence, self.rule, self._steps, ok)

    # Saving.

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next step: buffers, settings, counters and random generators."""
        packed = {
            i: {name: s.state[name].clone() for name in _SAVED if name in s.state}
            for i, s in enumerate(self._slots)
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
        mine = self._slots
        sizes = [len(g['params']) for g in self.param_groups]
        theirs = [len(g['params']) for g in state_dict['param_groups']]
        if sizes != theirs:
            raise ValueError(f'the state has groups of {theirs} parameters, this model of {sizes}')
        for i, slot in enumerate(mine):
            shape = tuple(saved[i]['h'].shape)
            names = {name for name in _SAVED if name in slot.state}
            if names != set(saved[i]):
                raise ValueError(
                    f'the state of another model: parameter {i} has {sorted(names)} here and '
                    f'{sorted(saved[i])} there'
                )
            if shape != tuple(slot.p.shape):
                raise ValueError(
                    f'the state of another model: parameter {i} is {tuple(slot.p.shape)} here and '
                    f'{shape} there'
                )
        for i, slot in enumerate(mine):
            for name, value in saved[i].items():
                slot.state[name].copy_(value)
            for name in _SUMS:
                slot.state.pop(name, None)
        for group, settings in zip(self.param_groups, state_dict['param_groups'], strict=True):
            group.update({k: v for k, v in settings.items() if k != 'params'})
        self.generator.set_state(state_dict['random']['generator'])
        self._seed = state_dict['random']['seed']
        self._draws = state_dict['random']['draws']
        # In place where it is a tensor, as a captured graph knows it by its address.
        self._steps += state_dict['counters']['steps'] - self.steps
        self._skipped += state_dict['counters']['skipped'] - self.skipped
        self._pending, self._folded, self._fresh = None, 0, False
        self._summed = {}


class _Sampling(AbstractContextManager):
    """What `sampled()` returns: no generator, into which torch.compile would look."""

    def __init__(self, optimizer: BLR) -> None:
        self._optimizer = optimizer

    def __enter__(self) -> Draw:
        self._draw = self._optimizer._enter()
        return self._draw

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._optimizer._leave(self._draw, kind is not None)


_SUMS = ('sum_gradient', 'sum_curvature')
_SAVED = ('h', 'momentum', 'mean', 'prior_mean', 'prior_precision')


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
