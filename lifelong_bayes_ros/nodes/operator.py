"""What an operator tells the policy, limits and a stop: both outlast its process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rclpy.parameter import Parameter as RosParameter

from ..control.safety import Safety
from ..errors import UserError
from ..robot.spec import RobotSpec
from .base import LIMITS, BaseNode, Parameter
from .kept import Kept

STOPPED = 'stopped'  # name of the reason of a stop among what is kept
NOT_YET = 'not enabled yet'  # the one reason that is no operator's


class Operator:
    """Limits and stop of a safety stage, as parameters of a node and in a file.

    Begins with what an operator told the process in whose place this one was started.
    """

    def __init__(self, node: BaseNode, spec: RobotSpec, safety: Safety) -> None:
        """Offer parameters that narrow the range of each action.

        Raises:
            UserError: those given at the start contradict each other.
        """
        self.node, self.spec, self.safety = node, spec, safety
        self.kept = Kept(node)
        self.limits = self.kept.read()  # that were given while running
        if stopped := self.limits.pop(STOPPED, ''):
            safety.stop(stopped)
        for action in spec.action:
            for end, default in (('low', action.low), ('high', action.high)):
                row = Parameter(
                    f'{LIMITS}{action.name}.{end}',
                    float(default),
                    f'{end}est command of {action.name} in {action.unit}, inside the robot file',
                    action.low,
                    action.high,
                    live=True,
                )
                if not node.has_parameter(row.name):
                    node.declare_parameter(row.name, row.default, row.descriptor())
        node.name_unknown_parameters(LIMITS)
        safety.narrow(*self._ends({}))
        for name, value in self.limits.items():
            if node.has_parameter(name):
                node.set_parameters([RosParameter(name, value=value)])
        safety.narrow(*self._ends({}))

    def check(self, news: Mapping[str, float]) -> None:
        """Refuse limits by the names of their parameters that do not go with each other.

        Raises:
            UserError: the neutral command would be outside.
        """
        self._ends(news)

    def narrow(self, news: Mapping[str, float]) -> None:
        """Take other limits, all at once."""
        self.safety.narrow(*self._ends(news))
        if self.node.active:
            self.limits |= news
            self.keep()

    def keep(self) -> None:
        """Write down what must hold on in a process that takes the place of this one."""
        stopped = self.safety.stopped
        values = self.limits | ({STOPPED: stopped} if stopped not in ('', NOT_YET) else {})
        try:
            if values:
                self.kept.write(values)
            else:
                self.kept.forget()
        except OSError as error:
            self.node.get_logger().error(
                f'{self.kept.path}: {error.strerror}; a stop and limits given now end with this '
                'process; free the disk'
            )

    def _ends(self, news: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Low and high [da] with these changes."""
        ends: dict[str, list[float]] = {'low': [], 'high': []}
        for action in self.spec.action:
            for end, values in ends.items():
                name = f'{LIMITS}{action.name}.{end}'
                values.append(news.get(name, self.node.value(name)))
            low, high, rest = ends['low'][-1], ends['high'][-1], action.neutral
            if not low <= rest <= high:
                raise UserError(
                    f'{LIMITS}{action.name}: {low:g} to {high:g} {action.unit} must contain the '
                    f'neutral command {rest:g}'
                )
        return np.array(ends['low']), np.array(ends['high'])
