"""Pictures and films of what RViz showed, from a bag, where there is no RViz."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import animation, patheffects
from matplotlib.collections import LineCollection, PolyCollection

from ..errors import UserError
from ..robot import mjcf, scene, wire
from ..robot.scene import Shape
from ..robot.spec import RobotSpec
from .bag import Bag, legible, open_bag

# Numbers that visualization_msgs/Marker gives to its kinds.
MARKERS = {1: 'box', 2: 'sphere', 3: 'cylinder', 5: 'lines', 9: 'text'}
ADD = 0
LASTS = 1.0  # s that a picture is shown
PICTURES = ('.png', '.svg', '.pdf', '.jpg')
FILMS = ('.gif', '.mp4')
# The view of config/lifelong.rviz.
YAW, PITCH, DISTANCE, FOCUS = 5.2, 0.38, 4.4, (0.0, 0.0, 0.95)
NEAREST = 1.6  # m: distance that a close-up keeps
HALF = 0.42  # of the height of a picture, in units of the distance
MARGIN = 0.9  # share of a close-up that what it shows may take
LETTER = 0.62  # width of a letter, in heights
SIZE, DPI = (9.6, 6.4), 100
GROUND = '#26262a'
PATH = (0.24, 1.0, 0.35)
CALM, SENSITIVE = np.array([80, 90, 130]) / 255, np.array([255, 120, 220]) / 255
RING = np.linspace(0, 2 * np.pi, 25)[:-1]


@dataclass
class Frame:
    """What was shown at a time: seconds of the robot's clock since the bag's first transition."""

    seconds: float = 0.0
    shapes: list[Shape] = field(default_factory=list)
    path: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    memory: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))  # x, y, z, sensitivity


# ---------------------------------------------------------------------- from a bag
def shape_of(marker: Any) -> Shape:
    """The shape that a visualization_msgs/Marker shows.

    Raises:
        UserError: of a kind that this package does not send.
    """
    kind = MARKERS.get(marker.type)
    if kind is None:
        raise UserError(f'a marker of type {marker.type} cannot be drawn here')
    p, q, s, c = marker.pose.position, marker.pose.orientation, marker.scale, marker.color
    size = np.array([s.x, s.y, s.z])
    if kind == 'text':
        size = np.full(3, s.z)
    return Shape(
        marker.ns,
        kind,
        (c.r, c.g, c.b),
        size,
        c.a,
        np.array([p.x, p.y, p.z]),
        mjcf.of_quaternion(np.array([q.w, q.x, q.y, q.z])),
        np.array([[e.x, e.y, e.z] for e in marker.points]).reshape(-1, 3),
        marker.text,
    )


def frames(bag: Bag, at: float | None = None, film: bool = True) -> Iterator[Frame]:
    """What was shown, picture by picture, or the one nearest to a time.

    The markers that were sent; of a bag without any, e.g. since nobody looked, those that would
    have been, five times for each second.

    Args:
        bag: where from.
        at: second of the robot's clock since the first transition; the end if not given.
        film: every picture instead.

    Raises:
        UserError: the bag tells neither, or not of that time.
    """
    if at is not None and not (math.isfinite(at) and at >= 0):
        raise UserError(f'--at {at}: give seconds since the first transition, e.g. 5')
    sent = any(n for name, n in bag.topics().items() if name.endswith('/markers'))
    if film:
        yield from _sent(bag) if sent else _made(bag)
        return
    shown = list(_sent_at(bag)) if sent else [(f, f.seconds) for f in _made(bag)]
    if not shown:
        return
    last = max(seconds for _, seconds in shown)
    wanted = last if at is None else at
    if wanted > last + LASTS:
        raise UserError(f'--at {at}: {bag.path} shows 0 to {last:.1f} s; give one of these')
    chosen, _ = min(shown, key=lambda one: abs(one[1] - wanted))
    yield from _sent(bag, chosen) if sent else [chosen]


def _sent_at(bag: Bag) -> Iterator[tuple[int, float]]:
    """Pictures with something in them: the number of the message, and its second."""
    start = _start(bag)
    for number, (_, read, _) in enumerate(bag.raw('markers')):
        markers = [m for m in read().markers if m.action == ADD]
        if markers:
            yield number, (_stamp(markers[0]) - start) * 1e-9


def _sent(bag: Bag, chosen: int | None = None) -> Iterator[Frame]:
    """Pictures sent, or only that of one message; a path comes after the markers of its time."""
    number, cloud = -1, np.zeros((0, 4))
    picture: Frame | None = None  # that may still get its path
    start, stamp = _start(bag), 0
    wanted = [t for t in ('markers', 'predicted_path', 'memory_map') if bag.has(t)]
    for kind, read, _ in bag.raw(*wanted):
        if kind == 'memory_map':
            cloud = _cloud(read())
        elif kind == 'predicted_path':
            if picture is not None and _stamp(message := read()) == stamp:
                yield replace(picture, path=_path(message))
                picture = None
        else:
            if picture is not None:
                yield picture
                picture = None
            if number == chosen:
                return
            number += 1
            markers = [m for m in read().markers if m.action == ADD]
            if markers and chosen in (None, number):
                stamp, none = _stamp(markers[0]), np.zeros((0, 3))
                seconds = (stamp - start) * 1e-9
                picture = Frame(seconds, [*map(shape_of, markers)], none, cloud)
    if picture is not None:
        yield picture


def _start(bag: Bag) -> int:
    """Time of the first transition, as in the report; else of the first picture."""
    for kind in ('learner_state', 'markers'):
        for _, message, _ in bag.timed(kind) if bag.has(kind) else ():
            if kind == 'learner_state':
                return _stamp(message)
            if message.markers:
                return _stamp(message.markers[0])
    return 0


def _stamp(message: Any) -> int:
    """By the robot's clock, nanoseconds."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _path(message: Any) -> np.ndarray:
    places = [pose.pose.position for pose in message.poses]
    return np.array([[p.x, p.y, p.z] for p in places]).reshape(-1, 3)


def _cloud(message: Any) -> np.ndarray:
    cloud = np.frombuffer(np.asarray(message.data, np.uint8).tobytes(), np.float32)
    return cloud.reshape(-1, len(message.fields))[:, :4].astype(float)


def _told(kind: str, spec: RobotSpec, message: Any) -> Any:
    """What a message says: a table, figures by name, or a transition."""
    if kind in ('plan', 'uncertainty/plan'):
        return _table(message)
    if kind in ('uncertainty', 'learner_state'):
        return dict(zip(message.name, message.position.tolist(), strict=True))
    return wire.decode(spec, message)


def _made(bag: Bag) -> Iterator[Frame]:
    spec = bag.prior()[0].dynamics.spec
    figures: dict[str, float] = {}
    members = spread = start = None
    drawn = -np.inf
    wanted = [
        t
        for t in ('transition', 'plan', 'uncertainty/plan', 'uncertainty', 'learner_state')
        if bag.has(t)
    ]
    for kind, message, _ in bag.timed(*wanted):
        with legible(bag.path):
            found = _told(kind, spec, message)
        if kind == 'plan':
            members = found
        elif kind == 'uncertainty/plan':
            spread = found
        elif kind in ('uncertainty', 'learner_state'):
            figures |= found
        else:
            met = found
            start = met.stamp_ns if start is None else start
            seconds = (met.stamp_ns - start) * 1e-9
            if seconds < drawn + 0.2:
                continue
            drawn = seconds
            points = None if members is None else scene.place(spec, members.astype(float))
            shapes = scene.scene(spec, met.next_state, figures, points, spread)
            path = np.zeros((0, 3)) if points is None else points.mean(axis=0)
            yield Frame(seconds, shapes, path)


def _table(message: Any) -> np.ndarray:
    return np.array(message.data, float).reshape([d.size for d in message.layout.dim])


# ---------------------------------------------------------------------- on paper
class Camera:
    """RViz's orbit view: points of space to points of the paper, and how far away they are."""

    def __init__(self, focus: Sequence[float] = FOCUS, distance: float = DISTANCE) -> None:
        back = np.array([np.cos(YAW) * np.cos(PITCH), np.sin(YAW) * np.cos(PITCH), np.sin(PITCH)])
        self.eye = np.asarray(focus) + distance * back
        right = np.array([-np.sin(YAW), np.cos(YAW), 0.0])
        self.axes = np.stack([right, np.cross(back, right), back])

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [n, 3] on paper [n, 2], in units of the distance, and their depths [n]."""
        seen = (np.asarray(points, float) - self.eye) @ self.axes.T
        depth = np.maximum(-seen[:, 2], 1e-3)
        return seen[:, :2] / depth[:, None], depth


def close_up(*shown: Frame) -> Camera:
    """A camera that has the robot, its path and its words in view."""
    points = np.concatenate([_framed(frame) for frame in shown] or [np.zeros((0, 3))])
    camera = Camera()
    if not len(points):
        return camera
    focus, distance = np.mean([points.min(axis=0), points.max(axis=0)], axis=0), DISTANCE
    room = MARGIN * HALF * np.array([SIZE[0] / SIZE[1], 1.0])
    for _ in range(8):  # nearer is larger, but not by the same share for all
        camera = Camera(focus, distance)
        at, _ = camera(points)
        low, high = at.min(axis=0), at.max(axis=0)
        focus = focus + distance * (low + high) / 2 @ camera.axes[:2]
        distance = max(distance * float(np.max((high - low) / 2 / room)), NEAREST)
    return Camera(focus, distance)


def _framed(frame: Frame) -> np.ndarray:
    """Points [n, 3] that a picture must show."""
    right, up = Camera().axes[:2]
    points = [frame.path]
    for shape in frame.shapes:
        if shape.kind == 'text':
            half = shape.size[0] * LETTER * len(shape.text) / 2 * right
            points.append(shape.position + np.array([-half, half, shape.size[0] * up]))
        elif shape.ns == 'robot':
            points.append(shape.points if shape.kind == 'lines' else surface(shape))
    return np.concatenate(points)


def outline(points: np.ndarray) -> np.ndarray:
    """The convex hull of points [n, 2], in order (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points))
    hull: list[tuple[float, float]] = []
    for run in (ordered, ordered[::-1]):
        least = len(hull)
        for p in run:
            while len(hull) - least >= 2 and _turn(hull[-2], hull[-1], p) <= 0:
                hull.pop()
            hull.append(p)
        hull.pop()
    return np.array(hull or ordered)


def _turn(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def surface(shape: Shape) -> np.ndarray:
    """Points [n, 3] whose hull is a box, sphere or cylinder."""
    if shape.kind == 'box':
        unit = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3)
    elif shape.kind == 'cylinder':
        ring = np.stack([np.cos(RING), np.sin(RING)], axis=1) / 2
        unit = np.concatenate([np.insert(ring, 2, z, axis=1) for z in (-0.5, 0.5)])
    else:
        rows = np.linspace(-np.pi / 2, np.pi / 2, 11)
        up, around = (a.ravel() for a in np.meshgrid(rows, RING))
        unit = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], 1)
        unit = unit / 2
    return shape.position + (unit * shape.size) @ shape.rotation.T


def paint(axis: plt.Axes, frame: Frame, camera: Camera) -> None:
    """Draw a frame, what is far away first."""
    axis.clear()
    axis.set_axis_off()
    axis.set_aspect('equal')
    axis.set_xlim(-HALF * SIZE[0] / SIZE[1], HALF * SIZE[0] / SIZE[1])
    axis.set_ylim(-HALF, HALF)
    per_unit = SIZE[1] * 72 / (2 * HALF)  # points of the paper
    _grid(axis, camera)
    if len(frame.memory):
        _memory(axis, frame.memory, camera)
    solids = []
    for shape in frame.shapes:
        if shape.kind == 'lines':
            if len(shape.points):
                at, depth = camera(shape.points)
                width = np.maximum(shape.size[0] / depth[::2] * per_unit, 0.6)
                colour = (*shape.colour, shape.alpha)
                ends = at.reshape(-1, 2, 2)
                axis.add_collection(
                    LineCollection(ends, linewidths=width, colors=[colour], zorder=4)
                )
        elif shape.kind == 'text':
            (at,), (depth,) = camera(shape.position[None])
            size = shape.size[0] / depth * per_unit
            text = axis.text(*at, shape.text, color=shape.colour, size=size, ha='center', zorder=6)
            text.set_path_effects([patheffects.withStroke(linewidth=3, foreground=GROUND)])
            text.set_parse_math(False)
        else:
            at, depth = camera(surface(shape))
            # The robot lies on top: its plan begins inside it and must not hide it.
            far = shape.ns != 'robot', depth.mean()
            solids.append((far, outline(at), (*shape.colour, shape.alpha)))
    solids.sort(key=lambda s: s[0], reverse=True)
    if solids:
        _, outlines, colours = zip(*solids, strict=True)
        edges = [(*np.multiply(c[:3], 0.7), c[3]) for c in colours]
        axis.add_collection(
            PolyCollection(outlines, facecolors=colours, edgecolors=edges, lw=0.5, zorder=3)
        )
    if len(frame.path):
        axis.plot(*camera(frame.path)[0].T, color=PATH, lw=2.0, zorder=5)


def _grid(axis: plt.Axes, camera: Camera) -> None:
    lines = np.arange(-3, 3.01, 0.5)
    ends = [[[a, -3, 0], [a, 3, 0]] for a in lines] + [[[-3, a, 0], [3, a, 0]] for a in lines]
    at, _ = camera(np.array(ends).reshape(-1, 3))
    axis.add_collection(
        LineCollection(at.reshape(-1, 2, 2), colors='#a0a0a4', alpha=0.25, lw=0.6, zorder=1)
    )


def _memory(axis: plt.Axes, memory: np.ndarray, camera: Camera) -> None:
    at, _ = camera(memory[:, :3])
    value = memory[:, 3]
    share = (value - value.min()) / max(np.ptp(value), 1e-12)
    colours = CALM + share[:, None] * (SENSITIVE - CALM)
    axis.scatter(*at.T, s=9, c=colours, alpha=0.8, lw=0, zorder=2)


def draw_bag(bag_path: Path, out: Path, at: float | None = None) -> Path:
    """Draw a bag as a picture or a film, by the ending of `out`; returns `out`.

    Args:
        bag_path: the bag.
        out: file to write.
        at: second of the robot's clock, since the first transition, that a picture shows; the
            end if not given.

    Raises:
        UserError: no bag, nothing to draw in it, an ending that is not known, or no encoder.
    """
    ending = out.suffix.lower()
    if ending not in PICTURES + FILMS:
        raise UserError(
            f'--out {out}: ends with {ending or "nothing"}; pictures end with '
            f'{", ".join(PICTURES)}, films with {", ".join(FILMS)}'
        )
    if at is not None and ending in FILMS:
        raise UserError(f'--at {at}: is for pictures; leave it out for {out}')
    writer = _writer(ending) if ending in FILMS else None
    with open_bag(bag_path) as bag:
        shown = list(frames(bag, at, writer is not None))
    if not shown:
        raise UserError(f'{bag_path}: nothing to draw in it; was it recorded while the robot ran?')
    figure = plt.figure(figsize=SIZE, facecolor=GROUND)
    axis = figure.add_axes((0, 0, 1, 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{out.stem}.partial{out.suffix}')
    try:
        if writer is None:
            paint(axis, shown[0], close_up(shown[0]))
            figure.savefig(temporary, dpi=DPI, facecolor=GROUND)
        else:
            with writer.saving(figure, str(temporary), DPI):
                camera = close_up(*shown)
                for frame in shown:
                    paint(axis, frame, camera)
                    writer.grab_frame(facecolor=GROUND)
        temporary.replace(out)
    finally:
        plt.close(figure)
        temporary.unlink(missing_ok=True)
    return out


def _writer(ending: str) -> animation.AbstractMovieWriter:
    if ending == '.gif':
        return animation.PillowWriter(fps=5)
    if not animation.FFMpegWriter.isAvailable():
        raise UserError(
            'an .mp4 needs ffmpeg, which is not installed here; install it, or write a .gif'
        )
    return animation.FFMpegWriter(fps=5)
