"""Node: what the robot expects and how sure it is, for RViz."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rclpy.subscription import Subscription
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from ..robot import mjcf, scene, view
from ..robot.transitions import StateAssembler
from . import qos, topics
from .base import OK, BaseNode, Parameter, run
from .canvas import Canvas, memory_cloud, predicted_pose
from .codecs import from_named, read_channels, table_from_msg, to_stamp
from .table import RANGES
from .topics import MEMORY_AXES, PLAN_AXES, SPREAD_AXES

NO_VIEW = 'nothing is drawn: the robot file has no `view:`; add one to see it in RViz'


class UncertaintyViz(BaseNode):
    """Draws the robot, its plan, the tube around it and its memory; idle while nobody looks."""

    NAME = 'uncertainty_viz'
    TASK = 'display'
    PARAMETERS = (
        Parameter('rate', 5.0, 'pictures per second', *RANGES['rate'], live=True),
        Parameter('text_height', 0.1, 'height of the headline in metres', 0.01, 10.0, live=True),
    )

    def configure(self) -> None:
        self.spec = self.load_spec()
        self.inputs: list[Subscription] = []
        self.memory_input: Subscription | None = None
        if self.spec.view is None:  # a display must not keep a robot from starting
            self.get_logger().warning(f'robot {self.spec.name}: {NO_VIEW}')
            return
        if self.spec.view.model is not None:
            mjcf.load_model(self.spec.view.model)
        scene.place(self.spec, np.zeros(len(self.spec.state)))  # that all it names is there
        self.assembler, self.canvas = StateAssembler(self.spec), Canvas()
        self.markers = self.advertise(topics.MARKERS)
        self.path = self.advertise(topics.PREDICTED_PATH)
        self.pose = self.advertise(topics.PREDICTED_POSE)
        self.memory_map = self.advertise(topics.MEMORY_MAP)
        self.timer = self.every(1 / self.value('rate'), self._draw)

    def activate(self) -> None:
        if self.spec.view is None:
            return
        self.assembler.reset()
        self.plan: np.ndarray | None = None  # [members, steps, channels]
        self.spread: np.ndarray | None = None  # [kinds, steps, channels]
        self.figures: dict[str, float] = {}
        clear = Marker(action=Marker.DELETEALL)
        clear.header.frame_id = self.spec.frame
        self.markers.publish(MarkerArray(markers=[clear]))

    def change(self, news: Mapping[str, Any]) -> None:
        if 'rate' in news and hasattr(self, 'timer'):
            self.timer.timer_period_ns = round(1e9 / news['rate'])
            self.timer.reset()  # what was due by the old rate

    def deactivate(self) -> None:
        self._look(False)
        self._look_at_memory(False)

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        if self.spec.view is None:
            return OK, NO_VIEW, {}
        return OK, 'drawing' if self.inputs else 'nobody looks', {}

    # ------------------------------------------------------------------ inputs, while they matter
    def _look(self, wanted: bool) -> None:
        if wanted and not self.inputs:
            self.inputs = [
                self.glance(topic, partial(self._on_state, source), qos.SENSOR)
                for source, topic in topics.state_topics(self.spec).items()
            ]
            self.inputs.append(self.glance(topics.PLAN, self._on_plan))
            self.inputs.append(self.glance(topics.PLAN_SPREAD, self._on_spread))
            for topic in (topics.UNCERTAINTY_DISPLAY, topics.LEARNER_DISPLAY):
                # One that is lost is followed by the next: no need to confirm every one.
                self.inputs.append(self.glance(topic, self._on_figures, qos.SENSOR))
        elif self.inputs and not wanted:
            for subscription in self.inputs:
                self.forget(subscription)
            self.inputs = []

    def _look_at_memory(self, wanted: bool) -> None:
        if wanted and self.memory_input is None:
            self.memory_input = self.listen(topics.MEMORY, self._on_memory)
        elif self.memory_input is not None and not wanted:
            self.forget(self.memory_input)
            self.memory_input = None

    def _on_state(self, source: str, message: Any) -> None:
        self.assembler.update(source, *read_channels(self.spec, source, message))

    def _on_plan(self, message: Any) -> None:
        self.plan = table_from_msg(message, PLAN_AXES)

    def _on_spread(self, message: Any) -> None:
        self.spread = table_from_msg(message, SPREAD_AXES)

    def _on_figures(self, message: Any) -> None:
        self.figures |= from_named(message)[1]

    def _on_memory(self, message: Any) -> None:
        table = table_from_msg(message, MEMORY_AXES)
        header = Header(frame_id=self.spec.frame)
        self.memory_map.publish(memory_cloud(self.spec, table, header))

    # ------------------------------------------------------------------ pictures
    def _draw(self) -> None:
        self._look_at_memory(self.memory_map.get_subscription_count() > 0)
        outputs = (self.markers, self.path, self.pose)
        self._look(any(output.get_subscription_count() for output in outputs))
        self.look(self.inputs)
        state = self.assembler.last
        if not self.inputs or state is None:
            return
        header = Header(frame_id=self.spec.frame, stamp=to_stamp(state.stamp_ns))
        points = None if self.plan is None else scene.place(self.spec, self.plan.astype(float))
        if self.markers.get_subscription_count():
            height = self.value('text_height')
            shapes = scene.scene(self.spec, state.x, self.figures, points, self.spread, height)
            self.markers.publish(self.canvas.markers(shapes, header))
        if points is None:
            return
        mean, covariance = view.moments(points)
        if self.path.get_subscription_count():
            self.path.publish(self.canvas.path(mean, header))
        if self.pose.get_subscription_count() and self.spread is not None:
            noise = scene.spread_at(self.spec, self.spread[0, 0], self.spread[2, 0])
            self.pose.publish(predicted_pose(mean[0], covariance[0] + noise, header))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    os.nice(10)  # off the control path
    return run(UncertaintyViz, argv)


if __name__ == '__main__':
    raise SystemExit(main())
