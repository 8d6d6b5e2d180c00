"""Node: what the robot expects and how sure it is, for RViz."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovarianceStamped, Quaternion
from nav_msgs.msg import Path
from rclpy.duration import Duration
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ..errors import UserError
from ..robot import view
from ..robot.transitions import StateAssembler
from . import qos, topics
from .base import OK, BaseNode, Parameter, run
from .codecs import from_named, read_channels, table_from_msg, to_stamp
from .topics import MEMORY_AXES, PLAN_AXES

SIGMAS = 2.0  # half axes of the drawn ellipsoids in standard deviations
THIN = 0.01  # m: least extent of what is drawn
TUBE = 8  # ellipsoids along a plan
KNOWN, UNKNOWN = np.array([0.2, 0.5, 1.0]), np.array([1.0, 0.35, 0.1])


class UncertaintyViz(BaseNode):
    """Draws predicted tubes, plans and the memory map; does nothing while nobody looks."""

    NAME = 'uncertainty_viz'
    TASK = 'display'
    PARAMETERS = (Parameter('rate', 5.0, 'pictures per second', 0.1, 20.0, live=True),)

    def configure(self) -> None:
        self.spec = self.load_spec()
        if self.spec.view is None:
            raise UserError(
                f'robot {self.spec.name} has no `view:`; add it, or do without display'
            )
        self.assembler = StateAssembler(self.spec)
        self.markers = self.advertise(topics.MARKERS)
        self.path = self.advertise(topics.PREDICTED_PATH)
        self.pose = self.advertise(topics.PREDICTED_POSE)
        self.memory_map = self.advertise(topics.MEMORY_MAP)
        self.inputs: list[Subscription] = []
        self.memory_input: Subscription | None = None
        self.timer = self.every(1 / self.value('rate'), self._draw)

    def activate(self) -> None:
        self.assembler.reset()
        self.plan: np.ndarray | None = None
        self.figures: dict[str, float] = {}
        clear = Marker(action=Marker.DELETEALL)
        clear.header.frame_id = self.spec.frame
        self.markers.publish(MarkerArray(markers=[clear]))

    def change(self, name: str, value: Any) -> None:
        if name == 'rate' and hasattr(self, 'timer'):
            self.timer.timer_period_ns = round(1e9 / value)

    def deactivate(self) -> None:
        self._look(False)
        self._look_at_memory(False)

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        return OK, 'drawing' if self.inputs else 'nobody looks', {}

    # ------------------------------------------------------------------ inputs, while they matter
    def _look(self, wanted: bool) -> None:
        if wanted and not self.inputs:
            self.inputs = [
                self.glance(topic, partial(self._on_state, source), qos.SENSOR)
                for source, topic in topics.state_topics(self.spec).items()
            ]
            self.inputs.append(self.glance(topics.PLAN, self._on_plan))
            for topic in (topics.UNCERTAINTY, topics.LEARNER_STATE):
                self.inputs.append(self.glance(topic, self._on_figures))
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

    def _on_figures(self, message: Any) -> None:
        self.figures |= from_named(message)[1]

    def _on_memory(self, message: Any) -> None:
        table = table_from_msg(message, MEMORY_AXES)
        self.memory_map.publish(memory_cloud(table, Header(frame_id=self.spec.frame)))

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
        points = None if self.plan is None else view.position(self.spec, self.plan)
        if self.markers.get_subscription_count():
            shapes = self._shapes(state.x, points)
            for number, marker in enumerate(shapes):
                marker.header, marker.id = header, number
                marker.lifetime = Duration(seconds=1).to_msg()
            self.markers.publish(MarkerArray(markers=shapes))
        if points is None:
            return
        mean, covariance = view.moments(points)
        if self.path.get_subscription_count():
            centres = view.in_space(self.spec, mean)
            poses = [PoseStamped(header=header, pose=Pose(position=_point(p))) for p in centres]
            self.path.publish(Path(header=header, poses=poses))
        if self.pose.get_subscription_count():
            pose = PoseWithCovarianceStamped(header=header)
            pose.pose.pose.position = _point(view.in_space(self.spec, mean[0]))
            axes = view.plane(self.spec)
            matrix = np.zeros((6, 6))
            matrix[np.ix_(axes, axes)] = covariance[0]
            pose.pose.covariance = matrix.ravel()
            self.pose.publish(pose)

    def _shapes(self, x: np.ndarray, points: np.ndarray | None) -> list[Marker]:
        body = view.in_space(self.spec, view.joints(self.spec, x.astype(float)))
        width = 0.15 * self.spec.view.size
        shapes = [_lines('robot', np.stack([body[:-1], body[1:]], axis=1), width, (0.9, 0.9, 0.9))]
        shapes.append(self._text(view.position(self.spec, x.astype(float))))
        if points is not None:
            colour = self._colour()
            fan = view.in_space(self.spec, points)
            segments = np.stack([fan[:, :-1], fan[:, 1:]], axis=2).reshape(-1, 2, 3)
            shapes.append(_lines('plan', segments, THIN / 2, colour, 0.5))
            every = max(1, points.shape[1] // TUBE)
            for mean, covariance in zip(*view.moments(points[:, every - 1 :: every])):
                centre = view.in_space(self.spec, mean)
                shapes.append(_ellipsoid(centre, covariance, view.plane(self.spec), colour))
        return shapes

    def _colour(self) -> np.ndarray:
        """From known to unknown, by the epistemic share of the predicted variance."""
        kinds = {'epistemic': [], 'aleatoric': []}
        for name in self.spec.state_names:
            for kind, variances in kinds.items():
                variances.append(self.figures.get(f'{name}.{kind}', 0.0) ** 2)
        epistemic, aleatoric = (np.array(v) for v in kinds.values())
        share = float(np.mean(epistemic / np.maximum(epistemic + aleatoric, 1e-300)))
        return KNOWN + share * (UNKNOWN - KNOWN)

    def _text(self, at: np.ndarray) -> Marker:
        regimes = {k[7:]: p for k, p in self.figures.items() if k.startswith('regime.')}
        regime = max(regimes, key=regimes.get) if regimes else 'no belief'
        mode = 'nominal model' if self.figures.get('nominal') else 'learned model'
        entropy = self.figures.get('regime_entropy', 0.0)
        marker = Marker(ns='text', type=Marker.TEXT_VIEW_FACING)
        marker.text = (
            f'{regime} {regimes.get(regime, 0.0):.0%}\n{mode}\nentropy {entropy:.2f} nats'
        )
        above = np.array([0.0, 0.0, 3 * self.spec.view.size])
        marker.pose.position = _point(view.in_space(self.spec, at) + above)
        marker.scale.z = 0.5 * self.spec.view.size
        marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        return marker


def memory_cloud(table: np.ndarray, header: Header) -> PointCloud2:
    """Memory map [n, 3] of leverage, residual and regime as points: x, y and intensity; z is 0."""
    leverage, residual, regime = table.T
    points = np.stack([leverage, residual, np.zeros_like(leverage), regime], axis=1)
    points = points.astype(np.float32)
    names = ('x', 'y', 'z', 'intensity')
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(points),
        data=array('B', points.tobytes()),
        is_dense=True,
    )


def _point(p: np.ndarray) -> Point:
    return Point(x=float(p[0]), y=float(p[1]), z=float(p[2]))


def _colour_message(colour: Sequence[float], alpha: float) -> ColorRGBA:
    r, g, b = (float(c) for c in colour)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)


def _lines(
    kind: str, segments: np.ndarray, width: float, colour: Sequence[float], alpha: float = 1.0
) -> Marker:
    """Segments [n, 2, 3] as one marker."""
    marker = Marker(ns=kind, type=Marker.LINE_LIST)
    marker.scale.x = width
    marker.color = _colour_message(colour, alpha)
    marker.points = [_point(p) for p in segments.reshape(-1, 3)]
    return marker


def _ellipsoid(
    centre: np.ndarray, covariance: np.ndarray, plane: tuple[int, int], colour: Sequence[float]
) -> Marker:
    """Of a covariance [2, 2] in a plane (robot.view.plane) around a point [3]."""
    sd, angle = view.ellipse(covariance)
    marker = Marker(ns='tube', type=Marker.SPHERE)
    marker.pose.position = _point(centre)
    size = np.full(3, THIN)
    size[list(plane)] = np.maximum(2 * SIGMAS * sd, THIN)
    marker.scale.x, marker.scale.y, marker.scale.z = size.tolist()
    sine, cosine = math.sin(angle / 2), math.cos(angle / 2)
    if plane == (0, 1):
        marker.pose.orientation = Quaternion(z=sine, w=cosine)
    else:  # from +x towards +z is a turn about -y
        marker.pose.orientation = Quaternion(y=-sine, w=cosine)
    marker.color = _colour_message(colour, 0.3)
    return marker


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    os.nice(10)  # off the control path
    return run(UncertaintyViz, argv)


if __name__ == '__main__':
    raise SystemExit(main())
