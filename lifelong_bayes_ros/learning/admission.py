"""What a learner does not learn from, and why."""

from __future__ import annotations

import numpy as np

from ..dynamics.model import Dynamics
from ..robot.spec import RobotSpec
from ..robot.transitions import Transition

SLACK = 1e-3  # of a command's half range beyond its limits: rounding
OUT_OF_RANGE, BEYOND = 'out of range', 'command beyond the limits'
FAR = 1e3  # standard deviations from what pre-training saw; beyond, it is no motion of this robot


def refusal(dynamics: Dynamics, transition: Transition, before_ns: int | None = None) -> str:
    """Why nothing can be learned from a transition; empty: it can.

    `before_ns`: stamp of the transition before it, if there was one.
    """
    reason = unfit(dynamics.spec, transition, before_ns)
    if reason:
        return reason
    values = (transition.state, transition.action, transition.next_state)
    return OUT_OF_RANGE if _is_far(dynamics, *(v.astype(float) for v in values)) else ''


def unfit(spec: RobotSpec, transition: Transition, before_ns: int | None = None) -> str:
    """As `refusal`, whatever is known of the robot's dynamics."""
    values = (transition.state, transition.action, transition.next_state)
    if not transition.usable:
        return 'not usable'
    if not all(bool(np.isfinite(v).all()) for v in values):
        return 'not finite'
    if not transition.timely(spec.period):
        return 'dt far from the period'
    if not _are_labels(spec, transition.outcomes):
        return 'no label of an outcome'
    if _is_beyond(spec, transition.action):
        return BEYOND
    return 'repeated stamp' if transition.stamp_ns == before_ns else ''


def _is_far(dynamics: Dynamics, x: np.ndarray, u: np.ndarray, x_next: np.ndarray) -> bool:
    trunk = dynamics.trunk
    inputs = (trunk.encoder(x[None], u[None]) - trunk.mean) / trunk.scale
    change = dynamics.target(x, x_next)
    return bool(np.abs(inputs).max() > FAR or np.abs(change).max() > FAR)


def _are_labels(spec: RobotSpec, labels: tuple[float, ...]) -> bool:
    outcomes = spec.outcomes.values()
    # None at all: nobody told, or nobody asked.
    return not (labels and outcomes) or (
        len(labels) == len(outcomes)
        and all(o.admits(label) for o, label in zip(outcomes, labels, strict=True))
    )


def _is_beyond(spec: RobotSpec, action: np.ndarray) -> bool:
    """Whether the robot cannot have done what was commanded."""
    slack = SLACK * spec.action_half_range
    low, high = spec.action_low - slack, spec.action_high + slack
    return bool(((action < low) | (action > high)).any())
