"""Messages that RViz draws, of what `robot.scene` shows."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import Point, PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.duration import Duration
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from ..robot import mjcf, scene
from ..robot.scene import Shape
from ..robot.spec import RobotSpec

MARKERS = {
    'box': Marker.CUBE,
    'sphere': Marker.SPHERE,
    'cylinder': Marker.CYLINDER,
    'lines': Marker.LINE_LIST,
    'text': Marker.TEXT_VIEW_FACING,
}
CLOUD = ('x', 'y', 'z', 'intensity', 'leverage', 'residual', 'regime')


class Canvas:
    """Markers and path of one picture after the other.

    The messages are kept and filled anew: to make them costs more than all that they show.
    """

    def __init__(self) -> None:
        self._kinds: list[tuple[str, str]] = []
        self._markers = MarkerArray()
        self._points: dict[int, list[Point]] = {}  # of lines, by marker
        self._path = Path()

    def markers(self, shapes: list[Shape], header: Header) -> MarkerArray:
        """Shapes as RViz takes them; gone after a second unless they are sent again."""
        kinds = [(shape.ns, shape.kind) for shape in shapes]
        if kinds != self._kinds:
            self._kinds, self._points = kinds, {}
            lifetime = Duration(seconds=1).to_msg()
            self._markers.markers = [
                Marker(ns=ns, id=i, type=MARKERS[kind], lifetime=lifetime)
                for i, (ns, kind) in enumerate(kinds)
            ]
        turns = mjcf.quaternion(np.stack([shape.rotation for shape in shapes])).tolist()
        for marker, shape, turn in zip(self._markers.markers, shapes, turns, strict=True):
            marker.header = header
            self._fill(marker, shape, turn)
        return self._markers

    def path(self, points: np.ndarray, header: Header) -> Path:
        """A path through points [n, 3]."""
        if len(self._path.poses) != len(points):
            self._path.poses = [PoseStamped() for _ in points]
        self._path.header = header
        for pose, row in zip(self._path.poses, points.tolist(), strict=True):
            pose.header = header
            _move(pose.pose.position, row)
        return self._path

    def _fill(self, marker: Marker, shape: Shape, turn: list[float]) -> None:
        _move(marker.pose.position, shape.position.tolist())
        at, size, colour = marker.pose.orientation, shape.size.tolist(), marker.color
        at.w, at.x, at.y, at.z = turn
        if shape.kind == 'lines':
            marker.scale.x = size[0]
            kept = self._points.setdefault(marker.id, [])
            marker.points = _ends(kept, shape.points)
        elif shape.kind == 'text':
            marker.scale.z = size[0]
            marker.text = shape.text
        else:
            marker.scale.x, marker.scale.y, marker.scale.z = size
        colour.r, colour.g, colour.b = map(float, shape.colour)
        colour.a = float(shape.alpha)


def predicted_pose(
    point: np.ndarray, covariance: np.ndarray, header: Header
) -> PoseWithCovarianceStamped:
    """A point [3] with its covariance [3, 3]; of the orientation nothing is said."""
    pose = PoseWithCovarianceStamped(header=header)
    _move(pose.pose.pose.position, point.tolist())
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = covariance
    pose.pose.covariance = matrix.ravel()
    return pose


def memory_cloud(spec: RobotSpec, table: np.ndarray, header: Header) -> PointCloud2:
    """What is remembered, each transition where it happened.

    Args:
        spec: the robot.
        table: of `belief/memory` [n, 3 + ds]: leverage, residual, regime and state.
        header: of the cloud.

    Returns:
        Points with the fields `CLOUD`. `intensity` is the sensitivity, leverage times residual:
        how far the prediction there would move if the transition were left out.
    """
    leverage, residual, regime = table[:, :3].T
    points = np.column_stack(
        [
            scene.place(spec, table[:, 3:].astype(float)),
            leverage * residual,
            leverage,
            residual,
            regime,
        ]
    ).astype(np.float32)
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(CLOUD)
        ],
        is_bigendian=False,
        point_step=4 * len(CLOUD),
        row_step=4 * len(CLOUD) * len(points),
        data=array('B', points.tobytes()),
        is_dense=True,
    )


def _ends(kept: list[Point], points: np.ndarray) -> list[Point]:
    """Ends of lines [n, 3]; where one ends and the next one begins, both share a point.

    `kept` holds the points of the last time, and those of this time afterwards.
    """
    found: list[Point] = []
    used, before = 0, None
    for row in points.tolist():
        if row != before:
            if used == len(kept):
                kept.append(Point())
            _move(kept[used], row)
            used, before = used + 1, row
        found.append(kept[used - 1])
    return found


def _move(point: Point, to: list[float]) -> None:
    point.x, point.y, point.z = to
