"""Pictures and films of what RViz showed, from a bag, where there is no RViz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import animation
from matplotlib.collections import LineCollection, PolyCollection

from ..errors import UserError
from ..robot import mjcf, scene, wire
from ..robot.scene import Shape
from .bag import Bag, open_bag

# Numbers that visualization_msgs/Marker gives to its kinds.
MARKERS = {1: 'box', 2: 'sphere', 3: 'cylinder', 5: 'lines', 9: 'text'}
ADD = 0
PICTURES = ('.png', '.svg', '.pdf', '.jpg')
FILMS = ('.gif', '.mp4')
# The view of config/lifelong.rviz.
YAW, PITCH, DISTANCE, FOCUS = 5.2, 0.38, 4.4, (0.0, 0.0, 0.95)
SIZE, DPI = (9.6, 6.4), 100
GROUND = '#26262a'
PATH = (0.24, 1.0, 0.35)
CALM, SENSITIVE = np.array([80, 90, 130]) / 255, np.array([255, 120, 220]) / 255
RING = np.linspace(0, 2 * np.pi, 25)[:-1]


@dataclass
class Frame:
    """What was shown at a time: seconds since the start of the bag."""

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
        at: second of the recording; the end if not given.
        film: every picture instead.

    Raises:
        UserError: the bag tells neither.
    """
    sent = any(n for name, n in bag.topics().items() if name.endswith('/markers'))
    times = _sent_at(bag) if sent else []
    if not sent:
        shown = list(_made(bag))
        if not film and shown:
            wanted = shown[-1].seconds if at is None else at
            shown = [min(shown, key=lambda frame: abs(frame.seconds - wanted))]
        yield from shown
        return
    chosen = None
    if not film and times:
        wanted = times[-1] if at is None else times[0] + round(at * 1e9)
        chosen = min(times, key=lambda time: abs(time - wanted))
    yield from _sent(bag, chosen)


def _sent_at(bag: Bag) -> list[int]:
    """When pictures with something in them were sent."""
    return [received for _, _, received in bag.raw('markers')]


def _sent(bag: Bag, chosen: int | None) -> Iterator[Frame]:
    """Pictures sent, or only the first from a time on that shows something."""
    newest: dict[str, Any] = {}
    start = None
    wanted = [t for t in ('markers', 'predicted_path', 'memory_map') if bag.has(t)]
    for kind, read, received in bag.raw(*wanted):
        start = received if start is None else start
        if kind != 'markers':
            newest[kind] = read
        elif chosen is None or received >= chosen:
            shapes = [shape_of(m) for m in read().markers if m.action == ADD]
            if shapes:
                yield Frame((received - start) * 1e-9, shapes, _path(newest), _cloud(newest))
                if chosen is not None:
                    return


def _path(newest: dict[str, Any]) -> np.ndarray:
    if 'predicted_path' not in newest:
        return np.zeros((0, 3))
    places = [pose.pose.position for pose in newest['predicted_path']().poses]
    return np.array([[p.x, p.y, p.z] for p in places]).reshape(-1, 3)


def _cloud(newest: dict[str, Any]) -> np.ndarray:
    if 'memory_map' not in newest:
        return np.zeros((0, 4))
    message = newest['memory_map']()
    cloud = np.frombuffer(np.asarray(message.data, np.uint8).tobytes(), np.float32)
    return cloud.reshape(-1, len(message.fields))[:, :4].astype(float)


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
    for kind, message, received in bag.timed(*wanted):
        start = received if start is None else start
        if kind == 'plan':
            members = _table(message)
        elif kind == 'uncertainty/plan':
            spread = _table(message)
        elif kind in ('uncertainty', 'learner_state'):
            figures |= dict(zip(message.name, message.position.tolist(), strict=True))
        elif received - start >= drawn + 2e8:
            drawn = received - start
            x = wire.decode(spec, message).next_state
            shapes = scene.scene(spec, x, figures, members, spread)
            path = np.zeros((0, 3))
            if members is not None:
                path = scene.place(spec, members.astype(float)).mean(axis=0)
            yield Frame(drawn * 1e-9, shapes, path)


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


def close_up(frame: Frame) -> Camera:
    """A camera that looks at the robot and its words."""
    places = [s.position for s in frame.shapes if s.ns == 'robot' or s.kind == 'text']
    focus = np.mean([np.min(places, axis=0), np.max(places, axis=0)], axis=0) if places else FOCUS
    return Camera(focus, 0.6 * DISTANCE)


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
    half = 0.42
    axis.set_xlim(-half * SIZE[0] / SIZE[1], half * SIZE[0] / SIZE[1])
    axis.set_ylim(-half, half)
    per_unit = SIZE[1] * 72 / (2 * half)  # points of the paper
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
            axis.text(*at, shape.text, color=shape.colour, size=size, ha='center', zorder=6)
        else:
            at, depth = camera(surface(shape))
            solids.append((depth.mean(), outline(at), (*shape.colour, shape.alpha)))
    solids.sort(key=lambda s: -s[0])
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
        at: second of the recording that a picture shows; the end if not given.

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
                for frame in shown:
                    paint(axis, frame, Camera())
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
