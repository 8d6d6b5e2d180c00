"""The online learner: one transition in, one Belief out.

Each step: predict with the live head, condition it on what came (BLR, ρ = 1), learn the noise.
Beside it the hypotheses of what has changed are filtered; they are acted on while they predict as
well, since what they do not name stays as it was.
On surprise: consult memory first; if no stored regime explains the steps since the change point,
temper back to the task-family prior and replay them. What was learned up to just before the
change is committed to the regime it belongs to. A guard acts on the frozen nominal model while
the learned one predicts worse.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..control.arrays import torch_device
from ..dynamics.belief import Belief
from ..dynamics.head import Head, Prediction
from ..dynamics.hypotheses import RARE, SETTLED, HypothesisFilter, Seen
from ..dynamics.model import Prior
from ..dynamics.noise import Noise
from ..memory.bank import Bank
from ..memory.commits import newest_fitting
from ..memory.consolidation import Consolidation, too_small
from ..memory.regimes import NEW, NOMINAL, Library, Regime, RegimeFilter
from ..memory.reservoir import Reservoir, Sample
from ..memory.tape import Hold, Tape, Widen
from ..robot.transitions import Transition
from .admission import refusal
from .background import WALK_EVERY, Background, Outcome
from .intervals import Intervals
from .offline import job_of_now
from .offset import Offset
from .outcomes import Outcomes
from .pieces import digest
from .report import Event, Report
from .settings import LearnerConfig
from .surprise import REACH, WINDOW, Surprise
from .upkeep import Upkeep
from .window import Lead, Recent, Step

DRAWS = 16  # posterior draws in a Belief
WALKS = 256  # draws of the task family that feed the random walk of those draws
LIVE, HYPOTHESES = 'live head', 'hypotheses'
MODELS = (LIVE, HYPOTHESES, NOMINAL)  # that may be acted on
SNAPSHOT_EVERY = 4  # transitions between heads kept to go back to
CERTAIN = 100  # transitions after which a weak shift would have shown
GUARD_APART = 3.0  # squared distance of two models, per output, below which neither wins
GUARD_RELEASE = 0.1  # more weight that the learned model needs to be acted on again


class Learner:
    """Posterior over the dynamics of one robot, its memory, and the rules that move it."""

    def __init__(
        self,
        prior: Prior,
        config: LearnerConfig | None = None,
        seed: int = 0,
        device: str = 'cpu',
        wait: bool = True,
    ) -> None:
        """Start life at the nominal plant with the confidence of the task family.

        `device`: of torch, where the background learns the trunk. Heads stay on the CPU: their
        updates are too small for a GPU. `wait`: for what the background learns, where it is late;
        see `background`.

        Raises:
            UserError: the device is not there.
        """
        self.config = config or LearnerConfig()
        self.device = torch_device(device)
        self.seed = seed
        self.learning = True
        self.rng = np.random.default_rng(seed)
        self.step = 0  # transitions seen
        self.learned = 0  # transitions learned from
        self.stamp_ns = 0
        self.skipped: Counter[str] = Counter()
        self.events: list[Event] = []  # since the last call of `take_events`
        self.report = Report(epistemic=np.zeros(len(prior.noise)))

        self._start_from(prior, self.rng)

        self.live = self.nominal
        self.tape = Tape(self.live, root=self.nominal.posterior)  # how the live head came about
        reservoir = Reservoir(self.config.reservoir)
        self.library = Library([Regime(NOMINAL, self.nominal, reservoir, self.tape)])
        self._identity: int | None = None
        self.identity = 0
        self.filter = RegimeFilter()
        self.surprise = Surprise()
        self.guarded = False
        self.intervals = self._fresh_intervals(MODELS)
        # The guard acts on the nominal model as it is.
        self.offsets = {model: Offset(prior.noise) for model in (LIVE, HYPOTHESES)}
        self.past = self.dynamics.history()
        self.age = 0  # steps since the live head was born or recalled
        self._since_event = self.config.watch
        self._since_soft = self.config.watch
        self.recalled = False  # the live head was, at the last event, and is not a new one
        self._tempers: deque[int] = deque(maxlen=3)
        self._level = 0
        self._recent = Recent(self.config.watch)
        # Heads by the transitions that they have seen, to reach back `purge` and the window of
        # the surprise test.
        reach = -(-max(self.config.purge + WINDOW, REACH) // SNAPSHOT_EVERY) + 1
        self._snapshots: deque[tuple[int, Head, Tape]] = deque(maxlen=reach)
        self._certain: deque[tuple[int, Head, Tape]] = deque(maxlen=3)  # and longer ago
        self._owned = False  # nobody else holds the live head: it may be updated in place
        self.draws = self._nominal_draws
        self.sparse: HypothesisFilter | None = None
        self.dense = prior.hypotheses is None  # acting on the live head, not on the hypotheses
        if prior.hypotheses is not None:
            self.sparse = HypothesisFilter(prior.hypotheses, self.dynamics, self.nominal.noise)
            latents = prior.hypotheses.curves.latents
            half = self.rng.standard_normal((latents, DRAWS // 2))
            self._sparse_noise = np.stack([half, -half], axis=2).reshape(latents, DRAWS)
        self._bank = Bank(*self.dynamics.nominal.shape)
        self.background = Background(self.config, wait) if self.config.background else None
        self.upkeep = Upkeep()
        self.outcomes = Outcomes(prior.dynamics.spec, prior.dynamics.trunk, self.config.journal)
        self.taught: frozenset[int] = frozenset()  # episodes that the trunk has learned from
        self.first_episode = 0  # number of the first episode since the learner was made
        self.bound()

    def bound(self, **bounds: int) -> None:
        """Give memory other bounds: `capacity`, `memory_bytes`, `journal` of the settings.

        Raises:
            UserError: too few bytes.
        """
        config = replace(self.config, **bounds)
        # Of the nominal plant and of one more.
        least = 2 * self._regime_bytes() + self.outcomes.least_bytes()
        if config.memory_bytes is not None and config.memory_bytes < least:
            raise too_small(config.memory_bytes, least, bool(self.outcomes.kinds))
        self.config, self.outcomes.journal = config, config.journal

    # ------------------------------------------------------------------ the way of the data
    def observe(self, transition: Transition) -> None:
        """Learn from one transition; what happened is in `take_events` and `report`."""
        started = time.perf_counter()
        reason = refusal(self.dynamics, transition, self.stamp_ns if self.step else None)
        self.step += 1
        self.stamp_ns = transition.stamp_ns
        if reason:
            self.skipped[reason] += 1
            self.past = self.dynamics.history()
            self._forget_offsets()  # the robot may be elsewhere now
        else:
            past, u = self.past, transition.action.astype(float)
            self.past = np.vstack([u, past[:-1]])
            if self.learning:
                self._learn(transition, past)
            else:
                self._forget_offsets()
        self.upkeep.step(self, transition.ends_episode)
        self.report.seconds = time.perf_counter() - started

    def belief(self) -> Belief:
        """The Belief as it stands."""
        head = self.nominal if self.guarded else self.live
        draws = self._nominal_draws if self.guarded else self.draws
        name = NOMINAL if self.guarded else self.regime
        theta, noise = head.posterior.mean.numpy(), head.noise
        factor = draws.numpy()
        if self.acted == HYPOTHESES:
            theta, factor = self.sparse.posterior(self._sparse_noise)
            noise = self.sparse.noise
        return Belief(
            stamp_ns=self.stamp_ns,
            version=self.learned,
            theta=theta.astype(np.float32),
            factor=(factor / np.sqrt(DRAWS)).astype(np.float32),
            offset=self.offset.astype(np.float32),
            noise=self.intervals[self.acted].variance(noise).astype(np.float32),
            noise_dof=float(noise.dof),
            regimes=dict(self.filter.probabilities),
            regime=name,
            mode='nominal' if self.guarded else 'learned',
            outcomes=self.outcomes.heads(),
        )

    @property
    def offset(self) -> np.ndarray:
        """What the model that the Belief is of is off by near the robot, on average [ds]."""
        offset = self.offsets.get(self.acted)
        return np.zeros(len(self.prior.noise)) if offset is None else offset.mean

    @property
    def acted(self) -> str:
        """Which of `MODELS` the Belief is of."""
        if self.guarded:
            return NOMINAL
        return LIVE if self.dense else HYPOTHESES

    @property
    def regime(self) -> str:
        """Name of the regime that the live head belongs to, or `new`."""
        return NEW if self.identity is None else self.library.regimes[self.identity].name

    @property
    def identity(self) -> int | None:
        """Index of the stored regime that the live head belongs to; None: of none yet."""
        return self._identity

    @identity.setter
    def identity(self, index: int | None) -> None:
        if index is not None or self._identity is not None:
            self.waiting = Reservoir(self.config.reservoir)  # whoever had the last one keeps it
        self._identity = index
        self._note_entry()

    @property
    def changed(self) -> dict[str, float]:
        """Probability that each thing has changed, as far as hypotheses explain what is seen."""
        return {} if self.sparse is None or self.dense else self.sparse.changed

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events

    def consolidate(self) -> Consolidation:
        """Consolidate memory at once, as a transaction; the live head is committed first."""
        return self.upkeep.at_once(self)

    def teach_trunk(
        self, steps: int | None = None, progress: Callable[[float], None] = lambda share: None
    ) -> Outcome:
        """Let the trunk learn at once, from what is kept, and adopt it if it proves better.

        As the background does it, on its window and the reservoirs, and judged on the last
        transitions, which are held out; see `offline`. A job on its way is given up.

        Args:
            steps: of the Bayesian learning rule; None: as many as the background takes.
            progress: called with the share of them done.

        Returns:
            What became of it; what is not adopted has changed nothing.

        Raises:
            UserError: the trunk does not learn, or there is too little to learn or judge from.
        """
        running = job_of_now(self, steps, progress)
        return self._conclude(self.background.at_once(self, running))

    def nbytes(self) -> int:
        """Memory that regimes and outcomes take."""
        return self.library.nbytes() + self.outcomes.nbytes()

    def digest(self) -> str:
        """SHA-256 over the posterior: live head, stored regimes and noise, bit for bit."""
        heads = [self.live, *(r.head for r in self.library.regimes)]
        sparse = [] if self.sparse is None else list(self.sparse.state().values())
        return digest(heads, [*sparse, *self.widths(), *self.outcomes.parts()])

    def widths(self) -> np.ndarray:
        """Logarithms of how much wider intervals are than noise [MODELS, ds]."""
        return np.stack([self.intervals[model].log_width for model in MODELS])

    def _regime_bytes(self) -> int:
        """What a regime takes with a full reservoir."""
        dynamics, spec = self.dynamics, self.dynamics.spec
        sample = 4 * (2 * len(spec.state) + (1 + len(dynamics.history())) * len(spec.action))
        return 8 * (dynamics.size + dynamics.size**2) + sample * self.config.reservoir

    # ------------------------------------------------------------------ one transition
    def _learn(self, transition: Transition, past: np.ndarray) -> None:
        x, u = transition.state.astype(float), transition.action.astype(float)
        x_next = transition.next_state.astype(float)
        sample = Sample(
            transition.state,
            transition.action,
            past.astype(np.float32),
            transition.next_state,
            transition.stamp_ns,
            self.first_episode + transition.episode,
        )
        # From what is remembered, so that a tape gives the same head.
        rows = self.dynamics.design(x, u, sample.past.astype(float))
        design = torch.from_numpy(rows)
        target = self.dynamics.target(x, x_next)
        if self.learned % SNAPSHOT_EVERY == 0 or not self._snapshots:
            head = self.shared()
            self.tape = self.tape.bounded(head, self.config.journal)
            self._snapshots.append((self.learned, head, self.tape))
        if self.age % (CERTAIN // 2) == 0 and self.identity is not None:
            self._certain.append((self.learned, self.shared(), self.tape))
        self.learned += 1
        self.age += 1
        self._since_event += 1
        self._since_soft += 1

        if self.learned % WALK_EVERY == 0:
            self._widen(1 - (1 - self.config.random_walk) ** WALK_EVERY)
        live = self.live.predict(design, target)
        regimes = self.library.regimes
        self._bank.sync([self.family, *(r.head.posterior for r in regimes)])
        noise = [self.live.noise, *(r.head.noise for r in regimes)]
        scores = self._bank.score(rows, target, np.stack([n.variance for n in noise]))
        evidence, nis = scores.evidence.tolist(), scores.nis.tolist()
        step = Step(
            design,
            target,
            sample,
            live.evidence,
            0.0,
            {r.name: (evidence[i], nis[i]) for i, r in enumerate(regimes, start=1)},
            live.residual / self._sensors,
            scores.residual[1] / self._sensors,
        )
        self._recent.append(step)
        self._filter(step, evidence[0])
        self.report.nis = live.nis
        self._note(LIVE, live.residual, live.epistemic, self.live.noise)
        nominal = np.square(rows @ self._nominal_draws.numpy()).mean(axis=1)
        self._note(NOMINAL, scores.residual[1], nominal, self.nominal.noise)
        self._condition(design, live)
        if self.sparse is not None:
            noise = self.sparse.noise
            seen = self._test_hypotheses(self.sparse, step)
            self._note(HYPOTHESES, seen.residual, seen.epistemic, noise)
        self._remember(sample)

        alarm = self.surprise.update(live.nis)
        if alarm:
            self._on_alarm()
        elif not self._recall_later():
            self._soften()
            self._settle()
            self._look_again()
        self._choose()
        self._guard()
        self.outcomes.learn(transition, sample.episode)
        if self.background is not None:
            self._refine(sample, live.evidence)

    def _condition(self, design: torch.Tensor, prediction: Prediction) -> None:
        """Condition the live head and its draws (Matheron's rule: draws follow the same gain)."""
        if self.dense:
            innovation = prediction.innovation
            noise = np.sqrt(self.live.noise.variance)[:, None]
            jitter = self._tensor(noise * self.rng.standard_normal((len(noise), DRAWS)))
            gain = innovation.gain @ (innovation.inverse.T @ innovation.inverse)
            self.draws = self.draws - gain @ (design @ self.draws + jitter)
        self.live = self.live.update(prediction, self._owned)
        self._owned = True

    def _test_hypotheses(self, sparse: HypothesisFilter, step: Step) -> Seen:
        """Let the hypotheses learn from a step, and note how they predicted it."""
        seen = sparse.update(step.design.numpy(), step.target)
        step.sparse = seen.evidence
        if not self.dense:
            step.learned = seen.residual / self._sensors
        return seen

    def _choose(self) -> None:
        """Act on the live head where the hypotheses explain less: something else has changed."""
        steps = min(self.config.dense_window, max(self._since_event, 1))
        if self.sparse is None or len(self._recent) < steps:  # just resumed: go on as before
            return
        window = self._recent.last(steps)
        lead = sum(s.live - s.sparse for s in window)
        allowed = self.config.dense_nats * len(window)
        was_dense = self.dense
        self.dense = lead > (0.5 * allowed if was_dense else allowed + self.config.dense_start)
        if self.dense and not was_dense:
            self.redraw()

    def _restart_hypotheses(self, steps: Sequence[Step], memory: Sequence[Sample] = ()) -> None:
        """Anything may have changed: learn from the memory of a regime, then from `steps`."""
        if self.sparse is None:
            return
        self.sparse.noise = self.sparse.noise.hold()
        self._weigh_hypotheses(memory)
        self.dense = False
        for step in steps:
            self._test_hypotheses(self.sparse, step)
        self.sparse.noise = self.sparse.noise.hold()

    def _weigh_hypotheses(self, memory: Sequence[Sample], steps: Sequence[Step] = ()) -> None:
        """Let hypotheses begin anew, from the memory of a regime and from steps, all at once."""
        # Memory tells which things had changed; after a shift, anything may have.
        self.sparse.restart(self.sparse.noise, SETTLED if memory else RARE)
        rows = [tuple(a.astype(float) for a in (s.x, s.u, s.past, s.x_next)) for s in memory]
        designs = [self.dynamics.design(x, u, past) for x, u, past, _ in rows]
        targets = [self.dynamics.target(x, x_next) for x, _, _, x_next in rows]
        self.sparse.remember(
            designs + [s.design.numpy() for s in steps], targets + [s.target for s in steps]
        )

    def _look_again(self) -> None:
        """Weigh all hypotheses anew, on many steps after an event at once.

        The first ones came in one by one, and some of them may be from before the shift: the right
        hypothesis may have fallen behind for good.
        """
        watch = self.config.watch
        if self.sparse is None or self.age != watch + self.config.purge:
            return
        if self.identity == 0 and not self.recalled:  # life begins
            return
        steps = list(self._recent)
        if len(steps) == watch:
            self._weigh_hypotheses(self._memory(steps) if self.recalled else (), steps)

    def _memory(self, steps: Sequence[Step]) -> list[Sample]:
        """What the live regime remembers beside these steps."""
        if self.identity is None:
            return []
        seen = {id(s.sample) for s in steps}  # not by time, which a simulator begins anew
        memory = self.library.regimes[self.identity].reservoir.samples
        return [s for s in memory if id(s) not in seen]

    def relearn(self, samples: Sequence[Sample]) -> None:
        """Let hypotheses and background know of these steps and of nothing else."""
        self.forget_snapshots()
        self.intervals = self._fresh_intervals(MODELS)
        self._forget_offsets()
        if self.sparse is not None:
            self.sparse.noise = self.live.noise
            dense = self.dense
            self._restart_hypotheses((), samples)
            self.dense = dense
        if self.background is not None:
            self.background.close()
            self.background = Background(self.config, self.background.wait)

    def _filter(self, step: Step, fresh: float) -> None:
        """Move the regime probabilities; `fresh` is the evidence of the task-family prior."""
        evidence = {name: e for name, (e, _) in step.stored.items()}
        if self.identity is None:
            evidence[NEW] = step.live
        else:
            name = self.regime
            evidence[name] = max(evidence[name], step.live)
            evidence[NEW] = fresh
        self.filter.update(evidence)

    def _note(self, model: str, residual: np.ndarray, epistemic: np.ndarray, noise: Noise) -> None:
        """Let the intervals of a model learn from its errors; figures are those of the acted one.

        Each model has its own: which one is acted on depends on windows that are not saved.
        """
        error = residual
        if model in self.offsets:
            error = residual - self.offsets[model].mean
            self.offsets[model].follow(residual)
        inside = self.intervals[model].update(error, epistemic, noise)
        if model == self.acted:
            self.report.inside, self.report.epistemic = inside, epistemic

    def _remember(self, sample: Sample) -> None:
        self.tape = self.tape.add(sample)
        self._keep(sample)

    def _keep(self, sample: Sample) -> None:
        if self.identity is None:
            self.waiting.add(sample, self.rng)
        else:
            self.library.regimes[self.identity].reservoir.add(sample, self.rng)

    # ------------------------------------------------------------------ surprise
    def _on_alarm(self) -> None:
        steps = min(self.surprise.since_change(), len(self._recent))
        nis = self.surprise.fast
        best = self._leader(steps, WINDOW)
        if best.name is not None and steps >= 2 and best.nats > self.config.recall_nats:
            self._recall(best)
        else:
            self._temper(steps, nis)

    def _recall_later(self) -> bool:
        """Keep consulting memory: the first steps after a change rarely decide."""
        watching = self._since_event < self.config.watch
        steps = self._since_event if watching else 8
        limit = self.config.recall_nats_after if watching else self.config.recall_nats_calm
        if steps < 2 or len(self._recent) < steps:
            return False
        best = self._leader(steps, WINDOW if watching else 1)
        named = self.identity is not None and best.name == self.regime
        if best.name is None or named or best.nats <= limit:
            return False
        self._recall(best)
        return True

    def _leader(self, steps: int, latest: int) -> Lead:
        config = self.config
        names = self.library.names
        return self._recent.leader(names, steps, latest, config.recall_later, config.recall_nis)

    def _recall(self, best: Lead) -> None:
        index, steps = self.library.names.index(best.name), best.steps
        if index != self.identity:
            self._leave(steps)
        regime = self.library.regimes[index]
        if index == self.identity:  # they come again
            regime.reservoir.drop([s.sample for s in self._recent.last(steps)])
        posterior = regime.head.posterior.widen(self.family.covariance, self.config.recall_widen)
        self.live, self._owned = Head(posterior, regime.head.noise.hold()), True
        if self.sparse is not None:  # theirs is of the regime that was left
            self.sparse.noise = regime.head.noise
        self.tape = regime.tape.add(Widen(self.config.recall_widen), Hold())
        before = self.regime
        self.identity, self.recalled = index, True
        self.intervals |= self._fresh_intervals((LIVE, HYPOTHESES))
        self._reborn(steps)
        self.event(
            'recall', regime=regime.name, left=before, nats=round(best.nats, 2), steps=steps
        )

    def _temper(self, steps: int, nis: float) -> None:
        snapshot = self._leave(steps)
        lately = [t for t in self._tempers if self.learned - t <= 40]
        self._level = min(self._level + 1, 2) if lately else 0
        self._tempers.append(self.learned)
        covariance = self.family.covariance
        if self._level:
            covariance = covariance + torch.diag((10.0**self._level - 1) * self._floor)
        self.live = Head(Gaussian(self.family.mean, covariance), snapshot.noise.hold())
        self._owned = False
        self.tape = Tape(self.live, root=self.live.posterior)
        before = self.regime
        self.identity, self.recalled = None, False
        self.waiting = Reservoir(self.config.reservoir)
        self._reborn(steps)
        self.event('shift', left=before, nis=round(nis, 2), steps=steps, level=self._level)

    def _reborn(self, steps: int) -> None:
        """Replay the steps since the change point on the new live head."""
        self.dense = self.sparse is None
        self._forget_offsets()
        self.redraw()
        since = self._recent.last(steps)
        # What was committed since, e.g. at the end of an episode, is known to a recalled regime.
        known = {sample.key for sample in self.tape.samples()}
        for step in since:
            prediction = self.live.predict(step.design, step.target)
            step.live = prediction.evidence
            step.learned = prediction.residual / self._sensors
            if step.sample.key in known:
                self._keep(step.sample)
            else:
                self._condition(step.design, prediction)
                self._remember(step.sample)
        self._restart_hypotheses(since, self._memory(since))
        self.live = self.live.replace(noise=self.live.noise.hold())
        self.tape = self.tape.add(Hold())
        self.surprise.reset()
        self.forget_snapshots()
        self.age = steps
        self._since_event = steps

    def _leave(self, steps: int) -> Head:
        """Commit the live head as it was before the steps since the change, with a margin."""
        latest = self.learned - max(steps, self.config.purge, self.surprise.since_doubt())
        old = [kept for seen, *kept in self._snapshots if seen <= latest]
        snapshot, tape = old[-1] if old else self._snapshots[0][1:]
        self.commit(snapshot, tape)
        if self.identity is not None:
            reservoir = self.library.regimes[self.identity].reservoir
            reservoir.drop([s.sample for s in self._recent.last(steps)])
        return snapshot

    def commit(self, head: Head, tape: Tape, stays: bool = False) -> None:
        """Keep what a head learned, if it lived long enough to be worth it.

        Only as far as it still is the regime that it belongs to: else an earlier version of it is
        kept, and the head is stored beside it if it has become another regime for good: if it
        `stays` the live one, or there is no such version.
        """
        if not self.identity or self.age < self.config.store_age:
            return
        regime = self.library.regimes[self.identity]
        versions = [(head, tape), *(kept for _, *kept in reversed(self._certain))]
        known, seen = self.entered
        noise = self.prior.noise
        fitting = newest_fitting(self.dynamics, noise, known, regime.head, versions)
        if fitting is not None:
            self.library.commit(self.identity, *fitting)
        if fitting is not versions[0]:
            regime.reservoir.samples, regime.reservoir.seen = known, seen
        if fitting is None or (stays and fitting is not versions[0]):
            reservoir, recent = Reservoir(self.config.reservoir), [s.sample for s in self._recent]
            # Steps of before a resume are on the tape alone.
            for sample in max(recent, tape.samples()[-self.config.watch :], key=len):
                reservoir.add(sample, self.rng)
            self.identity = self.library.store(head, reservoir, tape)
            self._certain.clear()
            self.event('new_regime', regime=self.regime, left=regime.name)
        self._note_entry()

    def _note_entry(self) -> None:
        """Note what is known of the regime before the live head learns on in it."""
        self.entered: tuple[list[Sample], int] = [], 0
        if self.identity is not None:
            reservoir = self.library.regimes[self.identity].reservoir
            self.entered = list(reservoir.samples), reservoir.seen

    def _soften(self) -> None:
        """A weak shift shows as noise that grew: let the head move again, and find its regime."""
        if self._since_soft < 60:
            return
        # The typical regime's noise: the least of several estimates is least by chance.
        known = np.array([r.head.noise.variance for r in self.library.regimes])
        reference = np.exp(np.log(known).mean(axis=0))
        noise = self.live.noise
        # For a while a recalled regime is on trial: it is to be as it was.
        tried = self.recalled and self.identity is not None
        tried = tried and self._since_event < self.config.watch
        if tried:
            reference = np.maximum(reference, known[self.identity])
        if (noise.variance / reference).max() <= self.config.soft_ratio:
            return
        self._since_soft = 0
        if tried:  # the recall was wrong
            steps, self.age = min(self.age, len(self._recent)), 0  # too young to be committed
            self._temper(steps, self.surprise.fast)
            return
        before = self.regime
        self._doubt()
        self._forget_offsets()
        self._widen(0.15)
        lowered = np.minimum(noise.variance, 1.2 * reference)
        self.live = self.live.replace(noise=Noise.start(lowered, self.prior.noise))
        self._restart_hypotheses(self._recent.last(WINDOW))
        self.tape = self.tape.add(Hold(lowered))
        ratio = round(float(np.max(noise.variance / reference)), 2)
        self.event('soft_shift', left=before, ratio=ratio)

    def _doubt(self) -> None:
        """Leave a regime as it was before a shift that was too weak to be noticed at once.

        The live head goes on as it is, as one that `_settle` will find a regime for.
        """
        if self.identity is None:
            return
        sure = [kept for seen, *kept in self._certain if seen <= self.learned - CERTAIN]
        if sure:
            self.commit(*sure[-1])
        reservoir = self.library.regimes[self.identity].reservoir
        reservoir.drop([s.sample for s in self._recent])
        self.identity, self.age = None, 0
        self._certain.clear()

    def _settle(self) -> None:
        """Give a calm, mature head its identity: a stored regime, or a new one."""
        need = self.config.store_age
        if (self.identity or 0) > 0 or self.age < need or not self.surprise.calm:
            return
        if len(self._recent) < need:
            return
        best, lead = self._recent.best_stored(self.library.names, need)
        if lead > self.config.store_nats:
            if self.config.capacity == 1:
                return  # there is room for the nominal one only
            reservoir = self.waiting
            if self.identity is not None:
                reservoir = Reservoir(self.config.reservoir)
                for step in self._recent.last(need):
                    reservoir.add(step.sample, self.rng)
            self.identity = self.library.store(self.shared(), reservoir, self.tape)
            self.filter.rename(NEW, self.regime)
            what = {}
            if self.sparse is not None and not self.dense:
                what['changed'] = self.sparse.likeliest[0]
            self.event('new_regime', regime=self.regime, nats_per_step=round(lead, 2), **what)
        elif self.identity is None:
            self.identity = self.library.names.index(best)
            self.filter.rename(NEW, self.regime)
            self.event(
                'recall', regime=self.regime, left=NEW, nats=round(-lead * need, 2), steps=need
            )

    def _guard(self) -> None:
        """Act on the nominal model while the last steps speak too little for the learned one."""
        if not self.config.guard_weight:  # there is no nominal plant, as from scratch
            return
        race = self._recent.race(self.config.guard_window)
        least = self.config.guard_weight + (GUARD_RELEASE if self.guarded else 0.0)
        lost = self.guarded
        if race.apart >= GUARD_APART * len(self.prior.noise):
            lost = race.weight < least
        tempers = [t for t in self._tempers if self.learned - t <= 80]
        if len(tempers) == 3:
            longer = self._recent.race(30)
            lost = lost or longer.learned > 0.45 * longer.nominal
        if lost != self.guarded:
            self.guarded = lost
            self.event('guard', on=lost)

    # ------------------------------------------------------------------ another trunk
    def _start_from(self, prior: Prior, rng: np.random.Generator) -> None:
        """Take a prior: at the start of life, and when the trunk has learned."""
        self.prior = prior
        self.dynamics = prior.dynamics
        theta = self._tensor(self.dynamics.nominal_theta)
        self.family = Gaussian(theta, self._tensor(prior.covariance))
        self._floor = self._tensor(prior.floor)
        start = Gaussian(theta, self.config.confidence_home * self.family.covariance)
        self.nominal = Head(start, Noise.start(prior.noise, prior.noise))
        self._sensors = np.sqrt(prior.noise)  # sd
        # Fresh draws at every walk would cost n²: these are taken again, with random signs.
        fresh = self._tensor(rng.standard_normal((len(theta), WALKS)))
        walks = self.family.factor() @ fresh
        self._walks = walks.T.contiguous()  # some are picked at a time
        self._nominal_draws = self.config.confidence_home**0.5 * walks[:, :DRAWS]

    def _refine(self, sample: Sample, evidence: float) -> None:
        """Let the background see a transition, and adopt what it has learned."""
        outcome = self.background.step(self, sample, evidence)
        if outcome is not None:
            self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> Outcome:
        adopted = outcome.candidate is not None
        if adopted:
            self._adopt(outcome)
        self.event('adopted' if adopted else 'rolled_back', **outcome.detail)
        return outcome

    def _adopt(self, outcome: Outcome) -> None:
        """Go over to another trunk with all heads on it: recent transitions are one regime."""
        candidate, regime = outcome.candidate, outcome.job.regime
        self._forget_offsets()
        self._start_from(candidate.prior, np.random.default_rng(self.seed))
        for index, old in enumerate(self.library.regimes):
            head = self.nominal if index == 0 else candidate.heads[old.name]
            root = head.posterior if index == 0 else None
            tape = Tape(head, root=root, folded=old.tape.everything_folded() | old.tape.episodes)
            self.library.regimes[index] = Regime(old.name, head, old.reservoir, tape)
        folded = self.tape.everything_folded() | self.tape.episodes
        index = self.library.names.index(regime) if regime != NEW else 0
        self.identity = index or None
        if self.identity is None:  # to be stored once it is found to be worth it
            self.waiting = Reservoir(self.config.reservoir)
            for sample in outcome.job.recent:
                self.waiting.add(sample, self.rng)
        self.live = outcome.live
        # The new trunk knows the episodes: they can no longer be taken out one by one.
        self.taught |= outcome.job.episodes
        self.tape = Tape(self.shared(), folded=folded)
        self.upkeep.give_up()
        self.background.evidence.clear()  # of heads on it, too: the new one has yet to be judged
        self.redraw()
        if self.sparse is not None:
            self.sparse.carry(self.prior.hypotheses, self.dynamics)
        self.outcomes = self.outcomes.carried(self.dynamics.trunk, outcome.job.recent)
        self._bank = candidate.bank
        self.forget_snapshots()
        for step in self._recent:
            x, u = step.sample.x.astype(float), step.sample.u.astype(float)
            step.design = self._tensor(self.dynamics.design(x, u, step.sample.past.astype(float)))

    # ------------------------------------------------------------------ small helpers
    def _fresh_intervals(self, models: Sequence[str]) -> dict[str, Intervals]:
        return {model: Intervals.start(len(self.prior.noise)) for model in models}

    def forget_snapshots(self) -> None:
        """Let no earlier version of the live head come back."""
        self._snapshots.clear()
        self._certain.clear()

    def _forget_offsets(self) -> None:
        for offset in self.offsets.values():
            offset.reset()

    def shared(self) -> Head:
        """The live head for someone who keeps it: the next update is written elsewhere."""
        self._owned = False
        return self.live

    def _widen(self, share: float) -> None:
        posterior = self.live.posterior.widen(self.family.covariance, share, self._owned)
        self.live, self._owned = self.live.replace(posterior=posterior), True
        self.tape = self.tape.add(Widen(share))
        if not self.dense:
            return
        pick = self._walks[self.rng.integers(WALKS, size=DRAWS)].T.contiguous()
        signs = self._tensor(self.rng.choice((-1.0, 1.0), DRAWS))
        self.draws = (1 - share) ** 0.5 * self.draws + share**0.5 * signs * pick

    def redraw(self) -> None:
        """Draw from the live head anew; its draws are kept up while it is acted on."""
        if not self.dense:
            return
        fresh = self._tensor(self.rng.standard_normal((self.live.posterior.size, DRAWS)))
        self.draws = self.live.posterior.factor() @ fresh

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64)

    def event(self, name: str, **detail: Any) -> None:
        """Tell of something that happened now."""
        self.events.append(Event(name, self.stamp_ns, self.step, detail))
