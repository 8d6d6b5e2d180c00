"""Rows on recall, on adding and removing experience, and on what consolidation costs.

The recall stream is the differential-drive robot at 20 Hz under random commands: four hidden
regimes one after the other, then eight returns to them in random order. The oracle is told the
regime: it has one head of its own for each, of the same kind, that learns from nothing else.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.noise import Noise
from ..learning.background import WALK_EVERY
from ..learning.learner import Learner
from ..learning.saver import Saved, Saver
from ..learning.settings import LearnerConfig
from ..memory.regimes import NEW
from ..memory.reservoir import Sample
from ..memory.rows import Rows
from ..memory.tape import Tape
from ..robot.spec import load_robot
from ..robot.transitions import Flag, Transition
from .priors import prior_for
from .published import row
from .schedule import Life, load_life
from .streams import transitions

Progress = Callable[[float], None]
ROBOT = 'diffdrive'
FIRST, RETURN, RETURNS, EPISODE = 400, 100, 8, 480  # steps; returns; steps of an episode
WITHIN = 25  # steps after which a return that was not recalled is missed
EARLY = range(10, 30)  # steps after a return that are compared with the oracle
MIXED = 0.2  # share of another regime's transitions that makes a head wrongly merged
REPEATS = 20  # of what is timed
SAVES, SWITCH = 9, 5e-4  # times that it is saved; s that a thread may run on, as in the node
EPISODES, EPISODE_STEPS = 10, 1000  # episodes and transitions that a consolidation is timed on


@dataclass
class Recall:
    """What one stream showed."""

    delays: list[int | None] = field(default_factory=list)  # of each return; None: missed
    ours: list[float] = field(default_factory=list)  # mean squared errors after returns
    oracle: list[float] = field(default_factory=list)
    heads: int = 0
    wrong: int = 0  # merges of two true regimes, and heads that mix them at the end


def schedule(seed: int) -> Life:
    """Four regimes, then returns in an order that the seed decides; none follows itself."""
    life, rng = load_life(ROBOT), np.random.default_rng(seed)
    names = list(life.regimes)
    order: list[str] = []
    last = names[-1]
    for _ in range(RETURNS):
        last = str(rng.choice([n for n in names if n != last]))
        order.append(last)
    phases = [(n, FIRST) for n in names] + [(n, RETURN) for n in order]
    return Life(robot=ROBOT, regimes=life.regimes, phases=phases)


class Oracle:
    """One head for each regime, and who is told which one it is in."""

    def __init__(self, learner: Learner) -> None:
        noise = Noise.start(learner.prior.noise, learner.prior.noise)
        self._start, self._learner = Head(learner.family, noise), learner
        self._heads: dict[str, Head] = {}
        self._steps: dict[str, int] = {}

    def error(self, regime: str, design: np.ndarray, target: np.ndarray) -> float:
        """Mean squared error of the next reading in noise variances, before learning from it."""
        learner = self._learner
        head = self._heads.get(regime, self._start)
        steps = self._steps[regime] = self._steps.get(regime, 0) + 1
        if steps % WALK_EVERY == 0:
            share = 1 - (1 - learner.config.random_walk) ** WALK_EVERY
            head = head.replace(posterior=head.posterior.widen(learner.family.covariance, share))
        h = torch.tensor(design)
        prediction = head.predict(h, target)
        self._heads[regime] = head.update(prediction)
        return float(np.mean(prediction.residual**2 / learner.prior.noise))


def recall_stream(seed: int, progress: Progress = lambda share: None) -> Recall:
    """Live one stream."""
    spec = load_robot(ROBOT)
    prior, life = prior_for(spec), schedule(seed)
    learner, found = Learner(prior, LearnerConfig(), seed), Recall()
    oracle = Oracle(learner)
    truth: dict[int, str] = {}  # by stamp
    lived: dict[str, set[str]] = {}  # names by which the learner knows each regime
    stream = transitions(spec, life, seed)
    for phase, (regime, steps) in enumerate(life.phases):
        step, delay, errors = 0, None, []
        while step < steps:
            transition = next(stream)
            if not transition.usable:
                learner.observe(transition)
                continue
            x, u, x_next = (
                a.astype(float)
                for a in (transition.state, transition.action, transition.next_state)
            )
            design = learner.dynamics.design(x, u, learner.past)
            target = learner.dynamics.target(x, x_next)
            own = target - design @ learner.live.posterior.mean.numpy()
            own_error = float(np.mean(own**2 / prior.noise))
            errors.append((own_error, oracle.error(regime, design, target)))
            truth[transition.stamp_ns] = regime
            learner.observe(transition)
            step += 1
            if delay is None and learner.regime in lived.get(regime, ()):
                delay = step
            if (life.boundaries[phase] + step) % EPISODE == 0:
                found.wrong += _consolidate(learner, truth, lived)
        if phase >= len(life.regimes):
            found.delays.append(delay if delay is not None and delay <= WITHIN else None)
            early = np.array([errors[i] for i in EARLY]).mean(axis=0)
            found.ours.append(float(early[0]))
            found.oracle.append(float(early[1]))
        if learner.regime != NEW:
            lived.setdefault(regime, set()).add(learner.regime)
        progress((phase + 1) / len(life.phases))
    found.wrong += _consolidate(learner, truth, lived)
    found.heads = len(learner.library.regimes)
    found.wrong += sum(_mixed(r.tape, truth) for r in learner.library.regimes)
    return found


def _consolidate(learner: Learner, truth: dict[int, str], lived: dict[str, set[str]]) -> int:
    """Consolidate; how many merges were of two true regimes."""
    before = {r.name: _most(r.tape, truth) for r in learner.library.regimes}
    result = learner.consolidate()
    wrong = 0
    for kept, absorbed in result.merged:
        wrong += before[kept] != before[absorbed]
        for names in lived.values():
            if absorbed in names:
                names.add(kept)
    return wrong


def _counts(tape: Tape, truth: dict[int, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in tape.samples():
        regime = truth[sample.stamp_ns]
        counts[regime] = counts.get(regime, 0) + 1
    return counts


def _most(tape: Tape, truth: dict[int, str]) -> str:
    counts = _counts(tape, truth)
    return max(counts, key=counts.__getitem__, default='')


def _mixed(tape: Tape, truth: dict[int, str]) -> bool:
    counts = _counts(tape, truth)
    return bool(counts) and max(counts.values()) < (1 - MIXED) * sum(counts.values())


def recall_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Recall, the error after it, and how many heads are kept."""
    found = []
    for number, seed in enumerate(seeds):
        found.append(
            recall_stream(seed, lambda share, n=number: progress((n + share) / len(seeds)))
        )
    delays = [d for f in found for d in f.delays]
    known = [d for d in delays if d is not None]
    what = f'recall of {len(delays)} returns, {len(seeds)} streams at 20 Hz'
    ratio = np.sqrt(np.sum([f.ours for f in found]) / np.sum([f.oracle for f in found]))
    medians = [np.sqrt(a / b) for f in found for a, b in zip(f.ours, f.oracle, strict=True)]
    after = f'one-step error {EARLY.start} to {EARLY.stop} steps after a return / oracle'
    return [
        row(f'{what}: median', _percentile(known, 50), 'steps', 'lower', 3, 2),
        row(f'{what}: p90', _percentile(known, 90), 'steps', 'lower', 6, 4),
        row(f'{what}: missed', len(delays) - len(known), '', 'lower', 0, 0),
        row(f'{after}, root mean square of all', float(ratio), '', 'lower', 1.5, 1.1),
        row(f'{after}, median return', float(np.median(medians)), '', 'lower', None),
        row('heads kept for 4 regimes, least', min(f.heads for f in found), '', 'higher', 4, 4),
        row('heads kept for 4 regimes, most', max(f.heads for f in found), '', 'lower', 5, 4),
        row('heads wrongly merged', sum(f.wrong for f in found), '', 'lower', 0, 0),
    ]


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float('nan')


# ---------------------------------------------------------------------- adding and removing
def head_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Natural parameters against a refit: add, remove and merge an episode of 100 transitions."""
    spec = load_robot('quad')
    prior = prior_for(spec)
    learner = Learner(prior)
    errors: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    for number, seed in enumerate(seeds):
        stream = _samples(learner, seed, 200)
        rows = Rows.of(learner.dynamics, stream[100:])
        second = _evidence(rows, prior.noise)
        refits = {
            'both': _refit(learner, stream),
            'first': _refit(learner, stream[:100]),
            'second': _refit(learner, stream[100:]),
        }
        one, other, both = (refits[n].natural() for n in ('first', 'second', 'both'))
        base = learner.family.natural()
        for what, target, start, plus, minus in (
            ('add', 'both', one, second, None),
            ('remove', 'first', both, None, second),
            ('merge', 'both', one, other, base),
        ):
            for _ in range(REPEATS):
                began = time.perf_counter()
                natural = start
                if plus is not None:
                    natural = [a + b for a, b in zip(natural, plus, strict=True)]
                if minus is not None:
                    natural = [a - b for a, b in zip(natural, minus, strict=True)]
                got = Gaussian.from_natural(*natural)
                seconds.setdefault(what, []).append(time.perf_counter() - began)
            errors[what] = max(errors.get(what, 0.0), _relative(got, refits[target]))
        progress((number + 1) / len(seeds))
    size = learner.dynamics.size
    return [
        r
        for what in errors
        for r in (
            row(f'{what} an episode / refit, head of {size}', errors[what], '', 'lower', 1e-9),
            row(f'{what} an episode', 1e3 * float(np.median(seconds[what])), 'ms', 'lower', 5),
        )
    ]


def _evidence(rows: Rows, noise: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Natural parameters of transitions under a fixed noise: Σ Hᵀ R⁻¹ y and Σ Hᵀ R⁻¹ H."""
    phi, tangent, y = rows.phi, rows.tangent, rows.target
    ds, nf = y.shape[1], phi.shape[1]
    at, k = ds * nf, tangent.shape[2]
    eta, precision = np.zeros(at + k), np.zeros((at + k, at + k))
    gram = phi.T @ phi
    for j in range(ds):
        block, t = slice(j * nf, (j + 1) * nf), tangent[:, j]
        precision[block, block] = gram / noise[j]
        precision[block, at:] = phi.T @ t / noise[j]
        precision[at:, block] = precision[block, at:].T
        precision[at:, at:] += t.T @ t / noise[j]
        eta[block] = phi.T @ y[:, j] / noise[j]
        eta[at:] += t.T @ y[:, j] / noise[j]
    return torch.tensor(eta), torch.tensor(precision)


def _refit(learner: Learner, samples: Sequence[Sample]) -> Gaussian:
    """The head that transitions make of the family's prior one by one, at a fixed noise."""
    posterior, noise = learner.family, torch.tensor(learner.prior.noise)
    for s in samples:
        x, u = s.x.astype(float), s.u.astype(float)
        design = torch.tensor(learner.dynamics.design(x, u, s.past.astype(float)))
        target = torch.tensor(learner.dynamics.target(x, s.x_next.astype(float)))
        innovation = posterior.predict(design, noise)
        posterior = posterior.condition(innovation, target - innovation.mean)
    return posterior


def _relative(first: Gaussian, second: Gaussian) -> float:
    pairs = (first.mean, second.mean), (first.covariance, second.covariance)
    return max(float(torch.linalg.norm(a - b) / torch.linalg.norm(b)) for a, b in pairs)


def _samples(learner: Learner, seed: int, count: int, episode: int = 0) -> list[Sample]:
    """Transitions of the robot as built under random commands."""
    spec = learner.dynamics.spec
    life = Life(robot=spec.name, regimes={'A': []}, phases=[('A', count)])
    past, found = learner.dynamics.history(), []
    for t in transitions(spec, life, seed):
        if not t.usable:
            past = learner.dynamics.history()
            continue
        if len(found) == count:
            break
        found.append(
            Sample(t.state, t.action, past.astype(np.float32), t.next_state, t.stamp_ns, episode)
        )
        past = np.vstack([t.action.astype(float), past[:-1]])
    return found


# ---------------------------------------------------------------------- cost
def consolidation_rows(seeds: Sequence[int], progress: Progress) -> list[dict[str, Any]]:
    """Consolidation of ten episodes of a thousand transitions, under the regimes of a life."""
    spec, seed = load_robot('quad'), seeds[0]
    learner = Learner(prior_for(spec), LearnerConfig(), seed)
    life = load_life('quad')
    names = [list(life.regimes)[i % len(life.regimes)] for i in range(EPISODES)]
    phases = [(n, EPISODE_STEPS) for n in names]
    stream = transitions(spec, Life(robot='quad', regimes=life.regimes, phases=phases), seed)
    step, usual = 0, []
    while step < EPISODES * EPISODE_STEPS:
        transition = next(stream)
        learner.observe(transition)
        usual.append(learner.report.seconds)
        step += transition.usable
        if step % 500 == 0:
            progress(step / (EPISODES * EPISODE_STEPS))
    learner.take_events()
    # The episode ends, and the robot goes on.
    waits: list[float] = []
    done = None
    while done is None:
        transition = next(stream)
        flags = transition.flags if waits else transition.flags | Flag.EPISODE_END
        learner.observe(replace(transition, flags=flags))
        waits.append(learner.report.seconds)
        ends = ('consolidated', 'rolled_back')
        done = next((e for e in learner.take_events() if e.event in ends), None)
    snapshot, writing, while_saved = _saving(learner, stream)
    what = f'consolidation of {EPISODES} episodes × {EPISODE_STEPS} transitions'
    longest, limit = 1e3 * max(waits), 1e3 * spec.period
    return [
        row(what, done.detail['seconds'], 's', 'lower', 20, 5),
        row(f'{what}: transitions that it was spread over', len(waits), '', 'lower', None),
        row(f'{what}: longest head update meanwhile', longest, 'ms', 'lower', limit),
        row('head update, median', 1e3 * float(np.median(usual)), 'ms', 'lower', None),
        row(f'{what}: regimes', len(learner.library.regimes), '', 'lower', None),
        row(f'{what}: memory', done.detail['bytes'] / 1e6, 'MB', 'lower', None),
        row('saving: stall for the snapshot', 1e3 * snapshot, 'ms', 'lower', limit),
        row('saving: longest head update meanwhile', 1e3 * while_saved, 'ms', 'lower', limit),
        row('saving: until it is on disk', 1e3 * writing, 'ms', 'lower', None),
    ]


def _saving(learner: Learner, stream: Iterator[Transition]) -> tuple[float, float, float]:
    """Median seconds of a snapshot and of writing it, and of the longest update meanwhile."""
    snapshots, writes, longest = [], [], []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        with tempfile.TemporaryDirectory() as folder:
            saver = Saver(Path(folder))
            for _ in range(SAVES):
                began = time.perf_counter()
                saver.save(learner)
                snapshots.append(time.perf_counter() - began)
                done: list[Saved] = []
                updates = [0.0]
                while not done:
                    learner.observe(next(stream))
                    updates.append(learner.report.seconds)
                    done = saver.take()
                longest.append(max(updates))
                writes.append(done[-1].seconds)
            saver.close()
    finally:
        sys.setswitchinterval(interval)
    return float(np.median(snapshots)), float(np.median(writes)), float(np.median(longest))
