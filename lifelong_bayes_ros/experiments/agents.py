"""Who may drive a robot through a life or a stream: the learner, the oracle and the baselines.

Every method acts through the same planner, so what it predicts is always a pair of a Dynamics and
a Belief; the registry `METHODS` is where all experiments find them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..control.controller import Controller
from ..dynamics.belief import Belief
from ..dynamics.model import Prior
from ..errors import UserError
from ..learning.broad import SCRATCH, broad_prior
from ..learning.learner import Learner
from ..learning.policy_learner import PolicyConfig, PolicyLearner
from ..learning.policy_thread import PolicyThread
from ..learning.report import Event
from ..learning.settings import LearnerConfig
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition
from .baselines.adam import Adam
from .baselines.cache import OfflineNetwork
from .baselines.frozen import Frozen
from .baselines.history import History
from .baselines.history_training import history_network
from .baselines.ivon import Ivon
from .baselines.randomised import Randomised, randomised_network
from .baselines.retrain import Retrain
from .baselines.rls import RecursiveLeastSquares
from .baselines.single import SingleHead
from .baselines.structured import Structured
from .baselines.walk import Walk
from .course import Shifts, points
from .oracle import OracleAgent, delays
from .priors import oracle_for
from .schedule import Life

Status = Callable[[str, float], None]  # what is going on, share done


class Agent(Protocol):
    """Whoever drives the robot through a life.

    `belief` belongs to `controller.dynamics` as they are after the call: a method that changes
    its trunk has handed the new one to `controller.adopt`.
    """

    name: str
    controller: Controller

    def belief(self, step: int) -> Belief:
        """What to act on at a step of the life."""

    def observe(self, transition: Transition) -> None:
        """Take the outcome of a step."""

    def take_events(self) -> list[Event]:
        """Events since the last call."""


class LearningAgent:
    """The system itself: learner, controller and, where wanted, a policy posterior."""

    def __init__(
        self,
        prior: Prior,
        seed: int,
        device: str = 'cpu',
        config: LearnerConfig | None = None,
        name: str = 'ours',
        policy: PolicyConfig | None = None,
    ) -> None:
        """`config`: settings of the learner; `policy`: of its policy; defaults if not given."""
        self.name = name
        self.learner = Learner(prior, config, seed=seed, device=device)
        self.controller = Controller(prior.dynamics, seed)
        self.policy: PolicyThread | None = None
        if self.controller.adviser is not None:
            learner = PolicyLearner(self.controller.adviser.senses, policy, seed)
            self.policy = PolicyThread(learner, prior.dynamics.spec.period_ns)

    def belief(self, step: int) -> Belief:
        if self.controller.dynamics is not self.learner.dynamics:
            self.controller.adopt(self.learner.dynamics)
        return self.learner.belief()

    def observe(self, transition: Transition) -> None:
        self.learner.observe(transition)
        choice, self.controller.choice = self.controller.choice, None
        if self.policy is not None and choice is not None:
            posterior = self.policy.offer(choice)
            if posterior is not None:
                self.controller.adviser.take(posterior)

    def take_events(self) -> list[Event]:
        return self.learner.take_events()


@dataclass(frozen=True)
class Setting:
    """What a method may be made from."""

    spec: RobotSpec
    prior: Prior
    life: Life
    seed: int
    status: Status = lambda what, share: None

    def specialists(self) -> dict[str, Prior]:
        """Networks of the oracle, one per regime of the life, several of one that drifts."""
        return {
            name: oracle_for(
                self.spec,
                shifts,
                progress=lambda share, what, n=name: self.status(f'oracle {n}: {what}', share),
            )
            for name, shifts in self._points().items()
        }

    def oracle(self) -> OracleAgent:
        """Whoever knows each regime."""
        specialists = self.specialists()
        late = {n: delays(self.spec, specialists[n], s) for n, s in self._points().items()}
        return OracleAgent(specialists, self.life, self.seed, late)

    def _points(self) -> dict[str, Shifts]:
        return {n: p for r, s in self.life.regimes.items() for n, p in points(r, s).items()}

    def scratch(self) -> LearningAgent:
        """The learner of a robot of which only its file is known."""
        self.status('no prior is used: learns from scratch', 0.0)
        prior = broad_prior(self.spec, seed=self.seed)
        return LearningAgent(prior, self.seed, config=SCRATCH, name='scratch')

    def offline(self, network: OfflineNetwork) -> Prior:
        """A network that a baseline trains before life, from the cache where it is there."""
        return network(self.prior, lambda share, what: self.status(what, share))


@dataclass(frozen=True)
class Method:
    """An entry of the registry."""

    description: str
    make: Callable[[Setting], Agent]


METHODS: dict[str, Method] = {
    'frozen': Method('the nominal model, never changed', lambda s: Frozen(s.prior, s.seed)),
    'oracle': Method(
        'a network trained on each regime, switched at the exact boundary',
        lambda s: s.oracle(),
    ),
    'ours': Method('the learner of this package', lambda s: LearningAgent(s.prior, s.seed)),
    'ours_head': Method(
        'the learner of this package with a trunk that stays as pre-training left it',
        lambda s: LearningAgent(
            s.prior, s.seed, config=LearnerConfig(background=False), name='ours_head'
        ),
    ),
    'scratch': Method(
        'the learner of this package without pre-training: a broad prior, learned from scratch',
        lambda s: s.scratch(),
    ),
    'single': Method(
        'one Bayesian head with the family prior and surprise, but no memory',
        lambda s: SingleHead(s.prior, s.seed),
    ),
    'walk': Method(
        'one Bayesian head with the family prior under a 2 % random walk',
        lambda s: Walk(s.prior, s.seed),
    ),
    'structured': Method(
        'Kalman filter on actuator gain, bias, delay and one constant per output',
        lambda s: Structured(s.prior, s.seed),
    ),
    'rls': Method(
        'recursive least squares on the features, with a forgetting factor',
        lambda s: RecursiveLeastSquares(s.prior, s.seed),
    ),
    'adam': Method(
        'Adam on all weights, 32 of the last 200 transitions per step',
        lambda s: Adam(s.prior, s.seed),
    ),
    'ivon': Method(
        'ivon-opt on all weights, 32 of the last 200 transitions per step',
        lambda s: Ivon(s.prior, s.seed),
    ),
    'retrain': Method(
        'a fresh network trained on all data so far, every 250 transitions',
        lambda s: Retrain(s.prior, s.seed),
    ),
    'randomised': Method(
        'domain randomisation: one network with one head for all plants, never changed',
        lambda s: Randomised(s.offline(randomised_network), s.seed),
    ),
    'history': Method(
        'domain randomisation with the last 5 transitions as inputs, never changed',
        lambda s: History(s.offline(history_network), s.seed),
    ),
}


def methods_named(names: str) -> list[str]:
    """The methods of a comma-separated list, or `all` of them, in the order of the registry.

    Raises:
        UserError: a name is not known, or there is none.
    """
    asked = [name.strip() for name in names.split(',') if name.strip()]
    unknown = [name for name in asked if name not in METHODS and name != 'all']
    if unknown or not asked:
        what = ', '.join(repr(name) for name in unknown) or 'none given'
        known = '\n'.join(f'  {name}: {method.description}' for name, method in METHODS.items())
        raise UserError(f'methods: {what}; give `all`, or some of\n{known}')
    return [name for name in METHODS if name in asked or 'all' in asked]
