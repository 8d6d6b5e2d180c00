"""What the planner chose as a ROS message, and back.

Apart from `codecs`, for the sake of nodes that have nothing to do with a policy: what this imports
imports torch, which takes seconds.
"""

from __future__ import annotations

from array import array

from std_msgs.msg import Float32MultiArray

from ..control import choice_wire
from ..control.policy_posterior import Choice, Senses
from .commands import layout


def choice_to_msg(choice: Choice) -> Float32MultiArray:
    """A choice of the planner as labelled parts; the label of the last names the regime."""
    data = array('f', choice_wire.encode(choice).tobytes())
    return Float32MultiArray(layout=layout(choice_wire.sizes(choice)), data=data)


def choice_from_msg(senses: Senses, message: Float32MultiArray) -> Choice:
    """The choice of `choice_to_msg`.

    Raises:
        UserError: its layout is not that of this robot.
    """
    return choice_wire.decode(senses, message)
