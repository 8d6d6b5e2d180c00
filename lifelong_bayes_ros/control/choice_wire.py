"""A choice of the planner as the labelled float32 numbers of the topic `choice`.

Needs no ROS: nodes and bag readers share it. The stamp, which float32 cannot hold, travels as
16-bit words, the most significant one first; the regime is a label without numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError
from .policy_posterior import Choice, Senses

WORDS = 4
REGIME = 'regime '  # begins the label


def sizes(choice: Choice) -> dict[str, int]:
    """Labels of the layout, in order, and how many numbers each has.

    `inputs` of `Senses`, `plan` in half ranges, one row of commands per step, and `stamp`.
    """
    parts = {'inputs': choice.inputs.size, 'plan': choice.plan.size, 'stamp': WORDS}
    return {**parts, REGIME + choice.regime: 0}


def encode(choice: Choice) -> np.ndarray:
    """The numbers of a choice, float32, in the order of `sizes`."""
    words = [choice.stamp_ns >> 16 * k & 0xFFFF for k in reversed(range(WORDS))]
    parts = (choice.inputs, choice.plan.ravel(), words)
    return np.concatenate(parts, dtype=np.float32, casting='unsafe')


def decode(senses: Senses, message: Any) -> Choice:
    """The choice in a Float32MultiArray, of rclpy's or rosbags' making.

    Raises:
        UserError: its layout is not that of this robot.
    """
    expected = {'inputs': senses.size, 'plan': senses.outputs, 'stamp': WORDS}
    dim = message.layout.dim
    found = {d.label: d.size for d in dim[:-1]}
    label = dim[-1].label if dim else ''
    data = np.array(message.data, dtype=np.float32)
    fits = found == expected and len(data) == sum(expected.values())
    if not fits or not label.startswith(REGIME):
        raise UserError(
            f'choice of robot {senses.spec.name}: expected {expected} and a label '
            f'"{REGIME}NAME", got {[(d.label, d.size) for d in dim]} with {len(data)} numbers; '
            'start policy and learner with the same robot file'
        )
    inputs, plan, words = np.split(data, np.cumsum(list(expected.values()))[:-1])
    stamp_ns = 0
    for word in words:
        stamp_ns = stamp_ns << 16 | int(word)
    plan = plan.reshape(-1, len(senses.spec.action))
    return Choice(stamp_ns, label[len(REGIME) :], inputs, plan)
