"""Named outcomes of a step (a contact, a terrain, a current), predicted from trunk features.

Each outcome has a head of its own on φ(x, u), learned online from labelled transitions with a
random walk towards the prior, so that an old habit of the world can be unlearned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..errors import UserError
from ..robot.outcomes import Kind
from .likelihoods import Glm, HeteroscedasticGaussian, Likelihood, Predictive, Site
from .likelihoods.glm import WINDOW
from .outcome_head import likelihood_of
from .trunk import Trunk

LOG_ODDS_SD = 5.0  # of the prior on nominal data: touching or not is seldom a close call
MEAN_SD = 2.0  # of a number, in its scale
LOG_VARIANCE_SD = 3.0  # of its noise
RANDOM_WALK = 3e-4  # share of the prior's covariance that comes back at every label
NUMBER_WALK = 0.1  # times that of a number, whose labels tell more
SITE = ('phi', 'label', 'eta', 'precision')
NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')


@dataclass(frozen=True)
class OutcomeModel:
    """Heads of the outcomes by name. Immutable: what raises leaves nothing half learned."""

    trunk: Trunk
    heads: Mapping[str, Glm]
    log_odds_sd: float
    random_walk: float

    @classmethod
    def start(
        cls,
        trunk: Trunk,
        outcomes: Mapping[str, Kind],
        log_odds_sd: float = LOG_ODDS_SD,
        random_walk: float = RANDOM_WALK,
    ) -> OutcomeModel:
        """A model that knows nothing yet.

        Args:
            trunk: whitened features.
            outcomes: by name, the classes of a categorical outcome, the scale of a number, or
                None for one that happens or does not.
            log_odds_sd: prior standard deviation of the log odds on nominal data.
            random_walk: share of the prior's covariance added at every label, in [0, 1).

        Raises:
            UserError: a name, a list of classes or a number is not valid.
        """
        if not (np.isfinite(log_odds_sd) and log_odds_sd > 0):
            raise UserError(f'log_odds_sd={log_odds_sd}: give a positive number')
        if not 0 <= random_walk < 1:
            raise UserError(f'random_walk={random_walk}: give a share in [0, 1)')
        heads = {}
        for name, kind in outcomes.items():
            if NAME.fullmatch(name) is None:
                raise UserError(f'outcome {name!r}: use letters, digits and underscores')
            likelihood = _likelihood(name, kind)
            prior = _prior(likelihood, trunk, log_odds_sd)
            mean = torch.zeros(len(prior), dtype=torch.float64)
            heads[name] = Glm(Gaussian(mean, prior), likelihood)
        return cls(trunk, heads, log_odds_sd, random_walk)

    def predict(self, x: np.ndarray, u: np.ndarray) -> dict[str, Predictive]:
        """Predictive of every outcome for states x [..., ds] and commands u [..., da]."""
        phi = self.features(x, u)
        return {name: h.predict(h.likelihood.design(phi)) for name, h in self.heads.items()}

    def evidence(
        self, x: np.ndarray, u: np.ndarray, labels: Mapping[str, Any]
    ) -> dict[str, float]:
        """Log predictive probability or density of every label that is not None, nats.

        Raises:
            UserError: as in `update`.
        """
        known = self._known(labels)
        seen = self.predict(x, u) if known else {}
        return {name: float(seen[name].log_prob(label)) for name, label in known.items()}

    def update(self, x: np.ndarray, u: np.ndarray, labels: Mapping[str, Any]) -> OutcomeModel:
        """The model after one transition from x [ds] under u [da].

        Args:
            x: state.
            u: command.
            labels: by outcome, True or False, the name of a class, a number, or None where it is
                not known; outcomes left out are not known.

        Raises:
            UserError: an outcome or a label is not known, or x or u is not finite.
        """
        known = self._known(labels)
        if not known:
            return self
        phi = self.features(x, u)
        heads = dict(self.heads)
        for name, label in known.items():
            heads[name] = self._forget(
                heads[name].absorb(heads[name].likelihood.design(phi), label)
            )
        return replace(self, heads=heads)

    def settle(self) -> OutcomeModel:
        """The model after fitting recent labels again: for when there is time, as at a reset."""
        return replace(self, heads={name: head.settle() for name, head in self.heads.items()})

    def carried(self, trunk: Trunk, matrix: np.ndarray, share: float) -> OutcomeModel:
        """The same predictions on another trunk.

        Args:
            trunk: the other one.
            matrix: B [nf, nf] with φ ≈ φ′ B for features φ of now and φ′ of the other trunk.
            share: of the prior's covariance that comes back, for what the map misses.
        """
        heads = {}
        for name, head in self.heads.items():
            by = torch.block_diag(*[torch.tensor(matrix)] * head.likelihood.outputs)
            covariance = by @ head.posterior.covariance @ by.T
            moved = Gaussian(by @ head.posterior.mean, (covariance + covariance.T) / 2)
            prior = _prior(head.likelihood, trunk, self.log_odds_sd)
            heads[name] = Glm(moved, head.likelihood).widen(prior, share)
        return replace(self, trunk=trunk, heads=heads)

    def joined(self, other: OutcomeModel, prior: OutcomeModel) -> OutcomeModel:
        """With what another model learned: the product of both, divided by their common prior.

        Args:
            other: of the same outcomes on the same trunk.
            prior: what the other one would be had it learned nothing.

        Raises:
            ImproperPosteriorError: the result is no density.
        """
        heads = {}
        for name, head in self.heads.items():
            theirs = other.heads[name]
            both = head.posterior.multiply(theirs.posterior, prior.heads[name].posterior)
            heads[name] = Glm(both, head.likelihood, (head.sites + theirs.sites)[-WINDOW:])
        return replace(self, heads=heads)

    def nbytes(self, full: bool = False) -> int:
        """Memory that the heads take; `full`: once there have been labels enough."""
        return sum(head.nbytes(full) for head in self.heads.values())

    def features(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Features [..., nf] of states [..., ds] and commands [..., da].

        Raises:
            UserError: one is not finite.
        """
        x, u = np.asarray(x, float), np.asarray(u, float)
        for what, value in (('state', x), ('command', u)):
            if not np.isfinite(value).all():
                raise UserError(f'{what} {value} is not finite: leave this transition out')
        rows = self.trunk.features(x.reshape(-1, x.shape[-1]), u.reshape(-1, u.shape[-1]))
        return rows.reshape(*x.shape[:-1], -1)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON metadata that `from_state` makes an equal model of."""
        arrays: dict[str, np.ndarray] = {}
        outcomes = {}
        for name, head in self.heads.items():
            tensors = head.posterior.state()
            arrays |= {f'{name}.{key}': t.cpu().numpy() for key, t in tensors.items()}
            arrays |= {f'{name}.sites.{key}': a for key, a in _pack(head, self.trunk.size).items()}
            classes = getattr(head.likelihood, 'classes', None)
            outcomes[name] = {
                'classes': None if classes is None else list(classes),
                'cursor': head.cursor,
            }
            if isinstance(head.likelihood, HeteroscedasticGaussian):
                outcomes[name]['scale'] = head.likelihood.scale
        meta = {
            'outcomes': outcomes,
            'log_odds_sd': self.log_odds_sd,
            'random_walk': self.random_walk,
        }
        return arrays, meta

    @classmethod
    def from_state(
        cls, trunk: Trunk, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
    ) -> OutcomeModel:
        """The model of `state`, on the trunk that it was learned with.

        Raises:
            UserError: the state does not fit the trunk.
        """
        heads = {}
        for name, saved in meta['outcomes'].items():
            likelihood = _likelihood(name, saved.get('scale', saved['classes']))
            mean, covariance = (
                torch.tensor(arrays[f'{name}.{key}']) for key in ('mean', 'covariance')
            )
            if len(mean) != likelihood.outputs * trunk.size:
                raise UserError(
                    f'outcome {name}: its head has {len(mean) // likelihood.outputs} features, '
                    f'the trunk has {trunk.size}; load it with the trunk that it was learned with'
                )
            phi, *rest = (arrays[f'{name}.sites.{key}'] for key in SITE)
            sites = tuple(map(Site, likelihood.design(phi), *rest))
            heads[name] = Glm(Gaussian(mean, covariance), likelihood, sites, saved['cursor'])
        return cls(trunk, heads, meta['log_odds_sd'], meta['random_walk'])

    def _forget(self, head: Glm) -> Glm:
        """The random walk, in strides of a window of labels: it makes all of their sites final."""
        if self.random_walk == 0 or (head.likelihood.revisable and not head.full):
            return head
        labels = len(head.sites) if head.likelihood.revisable else NUMBER_WALK
        prior = _prior(head.likelihood, self.trunk, self.log_odds_sd)
        return head.widen(prior, 1 - (1 - self.random_walk) ** labels)

    def _known(self, labels: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Labels by outcome, without the missing ones."""
        known = {}
        for name, y in labels.items():
            if name not in self.heads:
                raise UserError(f'outcome {name!r} is not among {sorted(self.heads)}')
            if y is None:
                continue
            try:
                known[name] = self.heads[name].likelihood.label(y)
            except UserError as error:
                raise UserError(f'outcome {name}: {error}') from None
        return known


def _likelihood(name: str, kind: Kind) -> Likelihood:
    try:
        return likelihood_of(kind)
    except UserError as error:
        raise UserError(f'outcome {name}: {error}') from None


def _prior(likelihood: Likelihood, trunk: Trunk, log_odds_sd: float) -> torch.Tensor:
    """Covariance [k · nf, k · nf] that gives f its standard deviation where E[φφᵀ] = I.

    A number and its noise may lie anywhere about their scale: to these it adds a constant.
    """
    nf = trunk.size
    if not isinstance(likelihood, HeteroscedasticGaussian):
        size = likelihood.outputs * nf
        return torch.eye(size, dtype=torch.float64) * (log_odds_sd**2 / nf)
    constant = np.linalg.solve(trunk.whiten, np.eye(nf)[-1])  # weights of φ that make 1
    unit = torch.tensor(np.eye(nf) / nf + np.outer(constant, constant))
    return torch.block_diag(MEAN_SD**2 * unit, LOG_VARIANCE_SD**2 * unit)


def _pack(head: Glm, features: int) -> dict[str, np.ndarray]:
    """The sites of a head as stacked arrays; a design is stored as the features it is made of."""
    k = head.likelihood.outputs
    t = len(head.likelihood.soft_label(np.zeros(k)))
    shapes = {'phi': (features,), 'label': (t,), 'eta': (k,), 'precision': (k, k)}
    rows = {
        'phi': [s.design[0, :features] for s in head.sites],
        **{key: [getattr(s, key) for s in head.sites] for key in SITE[1:]},
    }
    return {key: np.reshape(rows[key], (len(head.sites), *shapes[key])) for key in SITE}
