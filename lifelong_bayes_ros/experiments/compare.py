"""Methods side by side on a recorded robot: nobody drives, all predict what really happened."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..dynamics.belief import predict
from ..errors import UserError
from ..learning.intervals import student_quantile
from ..robot.transitions import Transition
from .agents import METHODS, Agent, Setting
from .bag import open_bag
from .published import report_object, row
from .replay import Recording, Status, recording
from .schedule import Life

AHEAD = 15  # steps of the open-loop prediction
EVERY = 5  # steps between two of them
SIMULATED = ('oracle', 'randomised', 'history')  # are made in a simulator of the robot


class Score:
    """How well a method predicts, in units of a step of the robot (`Dynamics.scale`)."""

    def __init__(self, recorded: Recording, agent: Agent) -> None:
        self.spec, self.agent = recorded.spec, agent
        self.scale = recorded.prior.dynamics.scale
        self.past = recorded.prior.dynamics.history()
        self.errors: list[float] = []
        self.inside: list[float] = []
        self.ahead: list[float] = []
        self.seconds = 0.0  # of the processor, to learn
        self.steps = 0
        self._starts: deque[tuple[int, Any, np.ndarray, np.ndarray]] = deque()
        self._commands: list[np.ndarray] = []
        self._states: list[np.ndarray] = []

    def take(self, transition: Transition) -> None:
        """Predict a transition, then learn from it."""
        agent = self.agent
        belief = agent.belief(self.steps)
        good = transition.usable and all(
            np.isfinite(a).all()
            for a in (transition.state, transition.action, transition.next_state)
        )
        if good:
            x, u = transition.state.astype(float), transition.action.astype(float)
            spread = predict(agent.controller.dynamics, belief, x, u, self.past)
            error = self.spec.wrap(transition.next_state - spread.mean)
            dof = belief.noise_dof
            sd = np.sqrt(spread.epistemic + spread.aleatoric * (dof - 2) / dof)
            self.errors.append(float(np.mean(np.square(error / self.scale))))
            self.inside.append(float(np.mean(np.abs(error) <= student_quantile(dof) * sd)))
            self._look_ahead(transition, belief)
            self.past = np.vstack([u, self.past[:-1]])
        else:
            self.past = agent.controller.dynamics.history()
            self._starts.clear()
            self._commands.clear()
            self._states.clear()
        self.steps += 1
        started = time.process_time()
        agent.observe(transition)
        self.seconds += time.process_time() - started

    def _look_ahead(self, transition: Transition, belief: Any) -> None:
        if len(self._states) % EVERY == 0:
            rollout = self.agent.controller.planner.rollout
            model = (rollout, rollout.mean(belief))
            self._starts.append((len(self._states), model, transition.state, self.past))
        self._commands.append(transition.action)
        self._states.append(transition.next_state)
        if self._starts and len(self._states) - self._starts[0][0] == AHEAD:
            first, (rollout, weights), state, past = self._starts.popleft()
            actions = np.array(self._commands[first:], np.float32)[None]
            with np.errstate(all='ignore'):  # a wrong model may run away
                end = rollout.run(weights, state, actions, past)[0, -1].astype(float)
            error = self.spec.wrap(end - self._states[-1]) / self.scale
            self.ahead.append(float(np.mean(np.square(error))))

    def figures(self) -> dict[str, float]:
        """Root mean squared errors, coverage, and milliseconds of the processor per step."""
        return {
            'one-step error': float(np.sqrt(np.mean(self.errors))),
            f'{AHEAD}-step error': float(np.sqrt(np.mean(self.ahead))) if self.ahead else np.nan,
            '90 % intervals cover': float(np.mean(self.inside)),
            'CPU per transition': 1e3 * self.seconds / max(self.steps, 1),
        }


UNITS = {
    'one-step error': ('steps', 'lower'),
    f'{AHEAD}-step error': ('steps', 'lower'),
    '90 % intervals cover': ('', 'higher'),
    'CPU per transition': ('ms', 'lower'),
}


def recorded_methods(names: str) -> list[str]:
    """Methods of a comma-separated list, or all that need no simulator.

    Raises:
        UserError: a name is not known, or its method cannot be made from a recording.
    """
    able = [name for name in METHODS if name not in SIMULATED]
    asked = [name.strip() for name in names.split(',') if name.strip()]
    for name in asked:
        if name in SIMULATED:
            raise UserError(
                f'--method {name}: is made in a simulator of the robot; use some of '
                f'{", ".join(able)}'
            )
        if name not in able and name != 'all':
            raise UserError(f'--method {name}: unknown; use `all`, or some of {", ".join(able)}')
    if not asked:
        raise UserError(f'--method: none given; use `all`, or some of {", ".join(able)}')
    return [name for name in able if name in asked or 'all' in asked]


def compare(path: Path, methods: list[str], status: Status) -> dict[str, dict[str, float]]:
    """Figures of each method on a bag, by its name.

    Every method starts from the prior that the live learner started from; where the bag holds a
    state at its start, that is left aside, so that all start alike.

    Raises:
        UserError: no bag, or one without trunk, transitions or any that is usable.
    """
    found: dict[str, dict[str, float]] = {}
    with open_bag(path) as bag:
        recorded = recording(bag, path)
        spec = recorded.spec
        life = Life(robot=spec.name, regimes={'A': []}, phases=[('A', recorded.total)])
        setting = Setting(spec, recorded.prior, life, recorded.seed)
        transitions = list(recorded.transitions())
        if not any(t.usable for t in transitions):
            raise UserError(f'{path}: none of its {len(transitions)} transitions is usable')
        for number, name in enumerate(methods):
            score = Score(recorded, METHODS[name].make(setting))
            for count, transition in enumerate(transitions, start=1):
                score.take(transition)
                if count % 50 == 0:
                    status(name, (number + count / len(transitions)) / len(methods))
            found[name] = score.figures()
    return found


def compare_command(path: Path, names: str, status: Callable[..., None]) -> dict[str, Any]:
    """The report object of `replay --method`."""
    found = compare(path, recorded_methods(names), status)
    rows = [
        row(f'{method}: {what}', value, *UNITS[what], None)
        for method, figures in found.items()
        for what, value in figures.items()
    ]
    return report_object(f'replay {path} --method {names}', [], rows)
