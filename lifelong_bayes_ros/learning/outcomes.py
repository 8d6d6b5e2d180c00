"""Outcomes learned beside the head: predict, then learn the labels that a transition carries.

One head per outcome serves all regimes. What a touch looks like in the features, or a floor,
depends on where the robot is and what it commands more than on its own wear; labels are few, and
what does change is unlearned by the heads' random walk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..blr import ImproperPosteriorError
from ..dynamics.likelihoods import Predictive
from ..dynamics.outcome_head import OutcomeHead, channels
from ..dynamics.outcomes import OutcomeModel
from ..dynamics.trunk import Trunk
from ..memory.labels import MemorableLabel, memorable_labels
from ..memory.reservoir import Sample
from ..robot.outcomes import UNKNOWN, Kind
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .codec import TRUNK
from .transport import Transport

DRAWS = 32  # posterior draws of every head in a Belief
SHARE = 0.02  # of the prior that comes back when heads are carried to another trunk


@dataclass(frozen=True)
class Labelled:
    """A step that labels tell about: x [ds], u [da] and a label for each outcome."""

    x: np.ndarray
    u: np.ndarray
    labels: tuple[float, ...]
    episode: int

    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.x.nbytes + self.u.nbytes + 8 * len(self.labels)


class Outcomes:
    """Heads of all outcomes of a robot file, and the labelled steps that can be taken out again.

    The last half to all of `journal` steps are kept, fewer where memory is full. What is older,
    and what was learned before the trunk changed, is in the heads for good.
    """

    def __init__(self, spec: RobotSpec, trunk: Trunk, journal: int) -> None:
        self.kinds = {n: o.kind for n, o in spec.outcomes.items()}
        self.journal = journal
        self.start = self.model = OutcomeModel.start(trunk, self.kinds)
        self.steps: list[Labelled] = []  # since `start`
        self.folded: frozenset[int] = frozenset()  # episodes (partly) within `start`
        self.seen: Mapping[str, Predictive] = {}  # what was predicted of the last step
        self._middle: tuple[int, OutcomeModel] | None = None
        self._heads: tuple[OutcomeModel | None, dict[str, OutcomeHead]] = (None, {})

    # ------------------------------------------------------------------ one transition
    def learn(self, transition: Transition, episode: int) -> None:
        """Predict the outcomes of a usable transition, then learn from the labels it carries."""
        if not self.kinds:
            return
        x, u = transition.state, transition.action
        self.seen = self.model.predict(x, u)
        step = Labelled(x, u, transition.outcomes, episode)
        if any(value is not None for value in self.values(step).values()):
            self._absorb(step)

    def _absorb(self, step: Labelled) -> None:
        if len(self.steps) - (self._middle or (0,))[0] >= max(self.journal // 2, 1):
            self._fold()
        self.steps.append(step)
        self.model = self._after(self.model, step)

    def _fold(self) -> None:
        if self._middle is not None:
            at, model = self._middle
            self.folded |= {s.episode for s in self.steps[:at]}
            self.start, self.steps = model, self.steps[at:]
        self._middle = len(self.steps), self.model

    def _after(self, model: OutcomeModel, step: Labelled) -> OutcomeModel:
        return model.update(step.x, step.u, self.values(step))

    def values(self, step: Labelled) -> dict[str, bool | str | float | None]:
        """What happened in a step by outcome; None where that is not known."""
        if not step.labels:
            return dict.fromkeys(self.kinds)
        named = zip(self.kinds.items(), step.labels, strict=True)
        return {name: _value(kind, label) for (name, kind), label in named}

    # ------------------------------------------------------------------ what others may know
    def channels(self) -> dict[str, float]:
        """Named channels of what was predicted of the last step, its labels not yet learned."""
        return channels(self.seen, self.kinds)

    def heads(self) -> dict[str, OutcomeHead]:
        """For a Belief; made anew only where labels have come."""
        if self._heads[0] is not self.model:
            heads = {n: self._head(n) for n in self.kinds}
            self._heads = self.model, heads
        return self._heads[1]

    def _head(self, name: str) -> OutcomeHead:
        posterior = self.model.heads[name].posterior
        z = np.random.default_rng(0).standard_normal((posterior.size, DRAWS))
        factor = posterior.factor().numpy() @ z / np.sqrt(DRAWS)
        mean = posterior.mean.numpy().astype(np.float32)
        return OutcomeHead(self.kinds[name], mean, factor.astype(np.float32))

    @property
    def episodes(self) -> set[int]:
        """Episodes of the steps that can be taken out."""
        return {s.episode for s in self.steps}

    def parts(self) -> list[np.ndarray]:
        """Arrays that are equal if and only if the heads are."""
        posteriors = [h.posterior for h in self.model.heads.values()]
        return [a.numpy() for p in posteriors for a in (p.mean, p.covariance)]

    # ------------------------------------------------------------------ memory
    def nbytes(self) -> int:
        """Memory that heads and kept steps take."""
        models = [self.start, self.model] + ([self._middle[1]] if self._middle else [])
        heads = {id(model): model.nbytes() for model in models}
        return sum(heads.values()) + sum(step.nbytes() for step in self.steps)

    def least_bytes(self) -> int:
        """What the heads need, at both ends of the steps and between, where these are none."""
        return 3 * self.model.nbytes(full=True)

    def shrink(self, limit: int) -> bool:
        """Give up steps, the older half first, for as many bytes; tells whether there were any."""
        before = len(self.steps)
        while self.steps and self.nbytes() > limit:
            self._fold()
        return len(self.steps) < before

    def memorable(self) -> list[MemorableLabel]:
        """What each kept label means to the head of its outcome, the most memorable first."""
        if not self.steps:
            return []
        x, u = (np.array([getattr(s, k) for s in self.steps]) for k in ('x', 'u'))
        values = [self.values(s) for s in self.steps]
        return memorable_labels(self.model.heads, self.model.features(x, u), values)

    def without(self, episode: int) -> Outcomes:
        """Heads that never saw an episode: a refit from the labels that are left, in their order.

        The episode must not be among `folded`.
        """
        if episode not in self.episodes:
            return self
        return self._told(self.start, [s for s in self.steps if s.episode != episode], self.folded)

    def merged(
        self, other: Outcomes, trunk: Trunk, samples: Sequence[Sample], offset: int
    ) -> tuple[Outcomes, bool]:
        """As `carried`, with what another robot learned: the labels that it keeps, and its start.

        Returns:
            The merged heads, and whether they know what the other one no longer keeps one by one:
            on the same trunk always, on another one unless the result would be no density.
        """
        mine, whole = self.carried(trunk, samples), True
        steps = [replace(s, episode=s.episode + offset) for s in other.steps]
        if other.folded:
            prior = OutcomeModel.start(other.model.trunk, other.kinds)
            theirs, prior = other._moved([other.start, prior], trunk, samples)
            try:
                start = mine.start.joined(theirs, prior)
            except (ImproperPosteriorError, torch.linalg.LinAlgError):
                whole = False
            else:
                folded = mine.folded | {e + offset for e in other.folded}
                mine, steps = mine._told(start, [], folded), [*mine.steps, *steps]
        for step in steps:
            mine._absorb(step)
        return mine, whole

    def carried(self, trunk: Trunk, samples: Sequence[Sample]) -> Outcomes:
        """The same predictions on another trunk, as far as they agree on samples.

        What was learned can no longer be taken out.
        """
        if trunk is self.model.trunk or not self.kinds:
            return self
        (model,) = self._moved([self.model], trunk, samples)
        return self._told(model, [], self.folded | self.episodes)

    def _moved(
        self, models: Sequence[OutcomeModel], trunk: Trunk, samples: Sequence[Sample]
    ) -> list[OutcomeModel]:
        """Models of this trunk on another one."""
        old = self.model.trunk
        if all(np.array_equal(getattr(old, n), getattr(trunk, n)) for n in TRUNK):
            return [replace(model, trunk=trunk) for model in models]
        x, u = (np.array([getattr(s, k) for s in samples], float) for k in ('x', 'u'))
        inputs = (old.encoder(x, u) - old.mean) / old.scale
        by = Transport.between(old, trunk, inputs, np.ones(len(inputs)))
        return [model.carried(trunk, by.matrix, SHARE) for model in models]

    def _told(
        self, start: OutcomeModel, steps: list[Labelled], folded: frozenset[int]
    ) -> Outcomes:
        """Another one that starts from a model and learns steps."""
        other = object.__new__(Outcomes)
        other.__dict__.update(self.__dict__)
        other.start = other.model = start
        other.steps, other.folded, other._middle = [], folded, None
        for step in steps:
            other.steps.append(step)
            other.model = other._after(other.model, step)
        return other

    # ------------------------------------------------------------------ files
    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON metadata that `restore` takes."""
        models = {'now': self.model, 'start': self.start}
        models |= {'middle': self._middle[1]} if self._middle else {}
        arrays, meta = {}, {'folded': sorted(self.folded), 'at': self._middle and self._middle[0]}
        for name, model in models.items():
            parts, meta[name] = model.state()
            arrays |= {f'{name}.{key}': part for key, part in parts.items()}
        columns = ('x', 'u', 'labels', 'episode') if self.steps else ()
        arrays |= {f'steps.{c}': np.array([getattr(s, c) for s in self.steps]) for c in columns}
        return arrays, meta

    def restore(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Go on as when `state` was called, on the trunk of then."""
        trunk = self.model.trunk
        order = list(self.kinds)  # that of the robot file: JSON sorts keys, labels go by it

        def model(name: str) -> OutcomeModel:
            mine = {
                k.removeprefix(f'{name}.'): a
                for k, a in arrays.items()
                if k.startswith(f'{name}.')
            }
            heads = {n: meta[name]['outcomes'][n] for n in order}
            return OutcomeModel.from_state(trunk, mine, {**meta[name], 'outcomes': heads})

        self.model, self.start = model('now'), model('start')
        self._middle = None if meta['at'] is None else (meta['at'], model('middle'))
        self.folded = frozenset(meta['folded'])
        kept = [arrays.get(f'steps.{c}', ()) for c in ('x', 'u', 'labels', 'episode')]
        self.steps = [
            Labelled(x, u, tuple(labels.tolist()), int(episode))
            for x, u, labels, episode in zip(*kept, strict=True)
        ]


def _value(kind: Kind, label: float) -> bool | str | float | None:
    if isinstance(kind, float):
        return None if math.isnan(label) else label
    if label == UNKNOWN:
        return None
    return bool(label) if kind is None else kind[int(label)]
