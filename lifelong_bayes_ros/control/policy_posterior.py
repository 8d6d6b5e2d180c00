"""A policy posterior: a network, with a Gaussian over its weights, of what the planner chooses.

It sees the state, the goal a few steps ahead and how the Belief differs from the nominal plant, so
that one network can serve regimes that ask for different commands, and gives a whole plan. Draws
from the posterior are other plans that experience does not rule out; their spread is epistemic.
Inference only, in plain numpy, float32; `learning.policy_learner` learns it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..dynamics.belief import Belief
from ..dynamics.model import Dynamics
from ..errors import UserError
from ..robot.spec import RobotSpec
from .planner import Plan

LOOKS = 4  # at the goal, from the next step to the horizon
PAIRS = 4  # of draws that mirror each other about the mean
LAYERS = ('w1', 'b1', 'w2', 'b2', 'w3', 'b3')
PLANES = {'pitch': ('x', 'z'), 'yaw': ('x', 'y')}  # that a vehicle turns in


@dataclass(frozen=True)
class Choice:
    """What the planner chose, and what it was chosen for: one example to learn from.

    `inputs` [di] of `Senses`; `plan` [h, da] in half ranges about neutral, float32.
    """

    stamp_ns: int
    regime: str
    inputs: np.ndarray
    plan: np.ndarray


@dataclass(frozen=True)
class Advised(Plan):
    """A plan made through the planner, with what it was made for."""

    inputs: np.ndarray
    regime: str
    advice: Advice | None  # of the policy posterior, once it has learned


class Senses:
    """Inputs of the policy network, all of them of order one.

    - state and last command as the trunk has them: encoded and normalised;
    - the goal's distance from the present state at `LOOKS` steps of the horizon, per channel as
      the cost weighs it, √(w/max w) e / `goal.scale`; of an Odometry's positions and velocities in
      the frame of the body, if the robot has a heading;
    - how the Belief differs from the nominal plant here: the change of state after the last
      command that the nominal plant would not make [ds], and each actuator's gain along its
      nominal effect, less one [da].

    The last two are squashed by arsinh.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        spec = self.spec = dynamics.spec
        weighed = {*spec.goal.track, *(spec.goal_input.track if spec.goal_input else ())}
        rates = {c.name for c in spec.state if c.derivative_of in weighed & set(spec.cost.rate)}
        self.channels = [i for i, n in enumerate(spec.state_names) if n in weighed | rates]
        ahead = np.linspace(1, spec.planner.horizon, LOOKS)
        self._rows = np.unique(np.round(ahead).astype(int)) - 1
        self._turns = _turns(spec)
        self.adopt(dynamics)

    def adopt(self, dynamics: Dynamics) -> None:
        """See through another trunk from now on."""
        self._dynamics = dynamics
        self._trunk = dynamics.trunk.astype(np.float32)
        self._nominal = dynamics.nominal.astype(np.float32)
        self._half = self.spec.action_half_range.astype(np.float32)

    @property
    def size(self) -> int:
        """Number of inputs di."""
        own = len(self._trunk.mean) + len(self.spec.state) + len(self.spec.action)
        return own + len(self._rows) * len(self.channels)

    @property
    def outputs(self) -> int:
        """Numbers in a plan."""
        return self.spec.planner.horizon * len(self.spec.action)

    @property
    def fingerprint(self) -> str:
        """Hash of what the inputs and outputs mean."""
        names = [self.spec.state_names[i] for i in self.channels]
        facts = [self.spec.fingerprint, names, self._rows.tolist(), self.outputs, self._turns]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __call__(
        self,
        belief: Belief,
        x: np.ndarray,
        past: np.ndarray,
        target: np.ndarray,
        weights: np.ndarray,
    ) -> np.ndarray:
        """Inputs [di], float32.

        Args:
            belief: that is acted on.
            x: state [ds].
            past: past commands [DELAYS, da], newest first.
            target: target states [h, ds], from one control step on.
            weights: what the square of each channel's distance to the target costs [ds].
        """
        x, past, weights = (a.astype(np.float32) for a in (x, past, weights))
        trunk, da = self._trunk, past.shape[1]
        own = (trunk.encoder(x[None], past[:1]) - trunk.mean) / trunk.scale
        away = self.spec.wrap(target[self._rows] - x)
        for a, b, angle in self._turns:
            cos, sin = np.cos(x[angle]), np.sin(x[angle])
            away[:, [a, b]] = away[:, [a, b]] @ np.array([[cos, -sin], [sin, cos]])
        unit = np.sqrt(weights / max(float(weights.max()), 1e-12)) / self.spec.goal.scale
        away = (away * unit)[:, self.channels]

        w, g, b, c = self._dynamics.split(belief.theta.astype(np.float32))
        commands = np.tile(past[0], (da, 1))
        raw, tangent = trunk.raw_and_tangent(np.tile(x, (da, 1)), commands, np.eye(da, dtype='f4'))
        slope = tangent @ trunk.whiten  # [da, nf]
        nominal = self._nominal @ slope.T  # [ds, da]
        wrong = past[0] * g + b * self._half + c @ (past - past[0])
        change = w - self._nominal
        shift = change @ (raw[0] @ trunk.whiten) + nominal @ wrong + belief.offset
        power = np.maximum(np.square(nominal).sum(axis=0), 1e-12)
        gain = (nominal * (change @ slope.T)).sum(axis=0) / power + g - c.sum()
        squashed = np.arcsinh(np.concatenate([away.ravel(), shift, gain]))
        return np.concatenate([own[0], squashed]).astype(np.float32)


def _turns(spec: RobotSpec) -> list[tuple[int, int, int]]:
    """Channels a and b of a vector, and the angle that turns it into the frame of the body.

    In the order in which the angle turns a towards b: a pitch turns z towards x.
    """
    found = []
    for source in spec.sources:
        at = {c.field: i for i, c in enumerate(spec.state) if c.source == source}
        for angle, axes in PLANES.items():
            turn = at.get(f'orientation.{angle}')
            for kind in ('position', 'velocity'):
                pair = [at.get(f'{kind}.{axis}') for axis in axes]
                if turn is not None and None not in pair:
                    first, second = pair if angle == 'yaw' else reversed(pair)
                    found.append((first, second, turn))
    return found


@dataclass(frozen=True)
class Advice:
    """Plans of the posterior's mean [h, da] and of its draws [E, h, da], in half ranges."""

    mean: np.ndarray
    draws: np.ndarray
    noise: np.ndarray  # sd of the planner's choices about them [h, da]

    @property
    def spread(self) -> np.ndarray:
        """Epistemic sd of the first command [da]."""
        return np.sqrt(np.square(self.draws[:, 0] - self.mean[0]).mean(axis=0))


class PolicyPosterior:
    """Weights N(mean, sd²) of   plan = W₃ᵀ [relu(W₂ᵀ relu(W₁ᵀ i + b₁) + b₂); i] + b₃.

    `noise` [outputs] is the variance of the planner's choices about it; `stamp_ns` the time of the
    last choice that it knows of, `version` how many those are, 0 while there are too few to learn
    from. Its draws are made once, from the version as seed.
    """

    def __init__(
        self,
        mean: Mapping[str, np.ndarray],
        sd: Mapping[str, np.ndarray],
        noise: np.ndarray,
        stamp_ns: int,
        version: int,
    ) -> None:
        self.mean = {n: np.asarray(mean[n], np.float32) for n in LAYERS}
        self.sd = {n: np.asarray(sd[n], np.float32) for n in LAYERS}
        self.noise = np.asarray(noise, np.float32)
        self.stamp_ns, self.version = stamp_ns, version
        rng = np.random.default_rng(version)
        self._members = {n: self._drawn(n, rng) for n in LAYERS}

    def _drawn(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """The mean and then its draws [1 + 2 · PAIRS, rows, columns]."""
        mean = np.atleast_2d(self.mean[name])
        offset = rng.standard_normal((PAIRS, *mean.shape), np.float32)
        offset *= np.atleast_2d(self.sd[name])
        return np.concatenate([mean[None], mean + offset, mean - offset])

    def __call__(self, inputs: np.ndarray, actions: int) -> Advice:
        """What to do for inputs [di], with so many actions da."""
        m, i = self._members, inputs[None]
        hidden = np.maximum(i @ m['w1'] + m['b1'], 0)
        hidden = np.maximum(hidden @ m['w2'] + m['b2'], 0)
        width = hidden.shape[2]
        plans = hidden @ m['w3'][:, :width] + i @ m['w3'][:, width:] + m['b3']
        plans = plans.reshape(len(plans), -1, actions)
        noise = np.sqrt(self.noise).reshape(plans.shape[1:])
        return Advice(plans[0], plans[1:], noise)


class Adviser:
    """The policy posterior beside a planner: what it sees, proposes, and would do alone."""

    def __init__(self, dynamics: Dynamics) -> None:
        self.spec = dynamics.spec
        self.settings = self.spec.policy
        self.senses = Senses(dynamics)
        self.posterior: PolicyPosterior | None = None

    def take(self, posterior: PolicyPosterior) -> None:
        """Use this posterior from now on.

        Raises:
            UserError: it was made for other inputs or plans.
        """
        rows, outputs = len(posterior.mean['w1']), len(posterior.mean['b3'])
        if (rows, outputs) != (self.senses.size, self.senses.outputs):
            raise UserError(
                f'policy posterior: it takes {rows} inputs and plans {outputs} numbers, robot '
                f'{self.spec.name} has {self.senses.size} and {self.senses.outputs}; learn it '
                'again with this robot file'
            )
        self.posterior = posterior

    def advise(self, inputs: np.ndarray) -> Advice | None:
        """What the posterior says to inputs [di]; None before it has learned."""
        if self.posterior is None or self.posterior.version == 0:
            return None
        return self.posterior(inputs, len(self.spec.action))

    def proposals(self, advice: Advice | None) -> np.ndarray | None:
        """Plans to try [P, h, da], if the planner is to be seeded."""
        if advice is None or not self.settings.seed:
            return None
        plans = np.concatenate([advice.mean[None], advice.draws])[: self.settings.proposals]
        return self.commands(plans)

    def alone(self, advice: Advice, stamp_ns: int) -> Plan | None:
        """The plan to act on without the planner, if it may and is sure enough."""
        if not self.settings.alone:
            return None
        if not (advice.spread <= self.settings.spread).all():
            return None
        half = self.spec.action_half_range
        return Plan(stamp_ns, self.commands(advice.mean), (advice.spread * half).astype('f4'))

    def commands(self, plans: np.ndarray) -> np.ndarray:
        """Plans [..., da] in half ranges as commands, float32."""
        spec = self.spec
        wanted = spec.neutral + plans * spec.action_half_range
        return np.clip(wanted, spec.action_low, spec.action_high).astype(np.float32)

    def choice(self, plan: Advised) -> Choice:
        """A plan of the planner as an example."""
        spec = self.spec
        scaled = (plan.actions - spec.neutral) / spec.action_half_range
        return Choice(plan.stamp_ns, plan.regime, plan.inputs, scaled.astype(np.float32))
