"""What a display shows: the robot, where it thinks it goes, how sure it is, what has changed.

Plain shapes without ROS: `nodes.uncertainty_viz` sends them to RViz, `experiments.draw` paints.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ..errors import UserError
from . import mjcf, view
from .spec import RobotSpec

SIGMAS = 2.0  # half axes of the drawn ellipsoids in standard deviations
THIN = 0.01  # m: least extent of what is drawn
WIDEST = 1.5  # most extent of a drawn ellipsoid, in lengths of the robot: larger ones hide it
LINE = 34  # letters of a line of the headline
TUBE = 6  # places along a plan where its spread is drawn
# Futures that are drawn, and straight lines of each, at most: to send more costs the most.
FUTURES, LEGS = 8, 8
NUDGE = 1e-5  # for derivatives of a position by a state
NOISE, IGNORANCE = (0.2, 0.55, 1.0), (1.0, 0.45, 0.05)
GLASS = 0.6  # opacity of the robot: its plan begins inside it
BODY, FAN = (0.85, 0.85, 0.88), (1.0, 0.75, 0.45)
WELL, CHANGED, BAD = (0.35, 0.9, 0.4), (1.0, 0.6, 0.1), (1.0, 0.25, 0.2)
LIKELY = 0.5  # probability from which something is said to be so
KINDS = ('box', 'sphere', 'cylinder', 'lines', 'text')

Colour = tuple[float, ...]


@dataclass(frozen=True)
class Shape:
    """One thing to draw: `kind` is one of `KINDS`.

    `size` [3] holds full extents along the shape's own axes; of `lines` and `text` only the first
    number counts, their width or height. `points` [2 n, 3] are the ends of n lines.
    """

    ns: str
    kind: str
    colour: Colour
    size: np.ndarray
    alpha: float = 1.0
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    text: str = ''


# ---------------------------------------------------------------------- where things are
def place(spec: RobotSpec, states: np.ndarray) -> np.ndarray:
    """Point of space [..., 3] that stands for states [..., ds].

    The site `tip` of the robot's model where its file names one; else see `view.position`.
    """
    if spec.view.model is None or spec.view.tip is None:
        return view.in_space(spec, view.position(spec, states))
    model = mjcf.load_model(spec.view.model)
    return model.placed(model.site(spec.view.tip), model.poses(joint_values(spec, states)))[0]


def joint_values(spec: RobotSpec, states: np.ndarray) -> dict[str, np.ndarray]:
    """Values [...] of a model's joints in states [..., ds], by the joint's or channel's name."""
    values = {c.name: states[..., i] for i, c in enumerate(spec.state)}
    positions = {c.joint: i for i, c in enumerate(spec.state) if c.joint and c.field == 'position'}
    return values | {joint: states[..., i] for joint, i in positions.items()}


def spread_at(spec: RobotSpec, x: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Covariances [..., 3, 3] of the points of states x [..., ds] with deviations sd [..., ds]."""
    x = np.asarray(x, float)
    steps = NUDGE * np.eye(x.shape[-1])
    x = x[..., None, :]
    up, down = place(spec, np.stack([x + steps, x - steps]))
    slope = (up - down) / (2 * NUDGE) * np.asarray(sd, float)[..., None]
    return np.swapaxes(slope, -1, -2) @ slope


# ---------------------------------------------------------------------- shapes
def body(spec: RobotSpec, x: np.ndarray) -> list[Shape]:
    """The robot in a state x [ds]: the shapes of its model, or the lines of its `view`."""
    x = np.asarray(x, float)
    if spec.view.model is not None:
        model = mjcf.load_model(spec.view.model)
        poses = model.poses(joint_values(spec, x))
        # Floors and walls, shapes of the world itself, are no part of the robot.
        parts = [part for part in model.shapes if part.body >= 0]
        shapes = [s for part in parts for s in _part(model, part, poses)]
        if shapes:
            if spec.view.kind == 'vehicle':  # round ones do not show where their nose is
                shapes.append(_nose(spec, x))
            return shapes
    points = view.in_space(spec, view.joints(spec, x))
    ends = np.stack([points[:-1], points[1:]], axis=1).reshape(-1, 3)
    return [Shape('robot', 'lines', BODY, np.full(3, 0.15 * spec.view.size), points=ends)]


def _part(model: mjcf.Model, part: mjcf.Part, poses: list) -> list[Shape]:
    position, rotation = model.placed(part, poses)
    colour, alpha = part.colour[:3], GLASS * part.colour[3]
    if part.colour == mjcf.GREY:
        colour = BODY
    kind = {'ellipsoid': 'sphere', 'capsule': 'cylinder'}.get(part.kind, part.kind)
    shapes = [Shape('robot', kind, colour, part.size, alpha, position, rotation)]
    if part.kind == 'capsule':
        half, ball = rotation[:, 2] * part.size[2] / 2, np.full(3, part.size[0])
        for end in (position - half, position + half):
            shapes.append(Shape('robot', 'sphere', colour, ball, alpha, end))
    return shapes


def _nose(spec: RobotSpec, x: np.ndarray) -> Shape:
    centre, nose = view.in_space(spec, view.joints(spec, x))[1:]
    high = np.array([0.0, 0.0, 0.3 * spec.view.size])
    ends = np.stack([centre + high, nose + high])
    return Shape('robot', 'lines', WELL, np.full(3, 0.1 * spec.view.size), points=ends)


def fan(points: np.ndarray) -> Shape:
    """Some of the futures, places [E, h, 3] under posterior draws, as lines."""
    points = points[:FUTURES, _among(points.shape[1], LEGS + 1)]
    ends = np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 3)
    return Shape('futures', 'lines', FAN, np.full(3, THIN / 2), 0.6, points=ends)


def length(spec: RobotSpec) -> float:
    """How long the robot is, m."""
    return sum(spec.view.lengths) if spec.view.kind == 'chain' else 2 * spec.view.size


@cache
def _among(steps: int, count: int) -> np.ndarray:
    """So many of the steps of a plan or all of them, the first and the last one included."""
    return np.unique(np.linspace(0, steps - 1, count).round().astype(int))


def tube(spec: RobotSpec, points: np.ndarray, spread: np.ndarray) -> list[Shape]:
    """Two ellipsoids at some places along a plan: noise alone, and noise with ignorance.

    Both are drawn smaller by the same share where the larger one is wider than `WIDEST`.

    Args:
        spec: the robot.
        points: places under each posterior draw [E, h, 3].
        spread: mean state, epistemic and aleatoric standard deviation [3, h, ds].
    """
    mean, _, aleatoric = spread.astype(float)
    at = _among(len(mean), TUBE + 1)[1:] if len(mean) > 1 else np.zeros(1, int)
    _, ignorance = view.moments(points[:, at])
    centres, noise = place(spec, mean[at]), spread_at(spec, mean[at], aleatoric[at])
    sizes, rotations = axes(np.stack([noise, noise + ignorance]))
    shrink = np.minimum(WIDEST * length(spec) / sizes[1].max(axis=-1), 1.0)
    sizes = np.maximum(sizes * shrink[:, None], THIN)
    inner = ellipsoids('noise', centres, sizes[0], rotations[0], NOISE, 0.55)
    outer = ellipsoids('ignorance', centres, sizes[1], rotations[1], IGNORANCE, 0.22)
    return [shape for pair in zip(inner, outer, strict=True) for shape in pair]


def axes(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extents [..., 3] and rotations [..., 3, 3] of the `SIGMAS` ellipsoids of covariances."""
    values, vectors = np.linalg.eigh(covariances)
    # Rotations, not reflections.
    vectors = vectors * np.sign(np.linalg.det(vectors))[..., None, None]
    return np.maximum(2 * SIGMAS * np.sqrt(np.maximum(values, 0.0)), THIN), vectors


def ellipsoids(
    ns: str,
    centres: np.ndarray,
    sizes: np.ndarray,
    rotations: np.ndarray,
    colour: Colour,
    alpha: float,
) -> list[Shape]:
    """Ellipsoids around points [n, 3]: their extents [n, 3] along the axes of rotations."""
    return [
        Shape(ns, 'sphere', colour, size, alpha, centre, rotation)
        for size, centre, rotation in zip(sizes, centres, rotations, strict=True)
    ]


# ---------------------------------------------------------------------- words
def headline(figures: Mapping[str, float]) -> tuple[str, Colour]:
    """The one thing to know, from the figures of `learner_state` and `uncertainty`.

    Returns:
        What has changed, and how well that is: as built, changed, or not to be relied on.
    """
    if not any(name.startswith('regime.') for name in figures):
        return 'NO BELIEF YET', BAD
    if figures.get('guarded') or figures.get('nominal'):
        return 'MODEL NOT TRUSTED', BAD
    changed = _over(figures, 'changed.', LIKELY)
    regime, p = likeliest(figures)
    if regime == 'new' and p >= LIKELY and not changed:
        return 'SOMETHING NEW', CHANGED
    if changed:
        names = ', '.join(f'{name.replace("_", " ")} {q:.0%}' for name, q in changed[:3])
        return f'CHANGED: {names}', CHANGED
    if regime not in ('nominal', 'new') and p >= LIKELY:
        return f'REMEMBERED: {regime}', CHANGED
    return 'AS BUILT', WELL


def likeliest(figures: Mapping[str, float]) -> tuple[str, float]:
    """Name and probability of the regime that the robot most likely is in."""
    regimes = _over(figures, 'regime.', 0.0)
    return regimes[0] if regimes else ('none', 0.0)


def _over(figures: Mapping[str, float], start: str, least: float) -> list[tuple[str, float]]:
    found = [(k[len(start) :], p) for k, p in figures.items() if k.startswith(start)]
    return sorted((f for f in found if f[1] >= least), key=lambda f: -f[1])


def mode(figures: Mapping[str, float]) -> str:
    """Which model is acted on, and how freely."""
    model = 'nominal model' if figures.get('nominal') else 'learned model'
    authority = figures.get('authority', 1.0)
    careful = f', carefully ({authority:.0%} authority)' if authority < 0.95 else ''
    return model + careful


def words(
    figures: Mapping[str, float], at: np.ndarray, height: float, widest: float = np.inf
) -> list[Shape]:
    """Headline, regime, surprise and mode, and the key to the colours, above a point [3].

    `widest`: the most extent that the ellipsoids were drawn with, if they are larger, m.
    """
    text, colour = headline(figures)
    regime, p = likeliest(figures)
    cut = f', drawn at most {widest:.2g} m' if np.isfinite(widest) else ''
    surprise = figures.get('surprise.fast', figures.get('nis', float('nan')))
    rows = (
        *(('headline', line, colour, 1.0) for line in textwrap.wrap(text, LINE)),
        ('figures', f'regime {regime} {p:.0%}, surprise {surprise:.1f}', (1.0, 1.0, 1.0), 0.7),
        ('mode', mode(figures), (1.0, 1.0, 1.0), 0.7),
        ('key noise', 'blue: noise', NOISE, 0.6),
        ('key ignorance', f'orange: what it does not know{cut}', IGNORANCE, 0.6),
    )
    shapes, z = [], height * (1.3 * sum(row[3] for row in rows))
    for ns, text, colour, size in rows:
        z -= 1.3 * size * height
        up = np.array([0.0, 0.0, z])
        shapes.append(
            Shape(ns, 'text', colour, np.full(3, size * height), position=at + up, text=text)
        )
    return shapes


def scene(
    spec: RobotSpec,
    x: np.ndarray,
    figures: Mapping[str, float],
    points: np.ndarray | None = None,
    spread: np.ndarray | None = None,
    height: float = 0.1,
) -> list[Shape]:
    """Everything but the path: see `body`, `fan`, `tube` and `words`.

    `points` [E, h, 3]: where the robot is along its plan, under each posterior draw; see `place`.

    Raises:
        UserError: the robot has no `view`, or its model cannot be read.
    """
    if spec.view is None:
        raise UserError(f'robot {spec.name} has no `view:`; add it, or do without display')
    shapes = body(spec, x)
    robot = max(_top(s) for s in shapes)
    at = place(spec, np.asarray(x, float))
    most = WIDEST * length(spec)
    widest = np.inf
    if points is not None:
        shapes.append(fan(points))
        if spread is not None and spread.shape[1] == points.shape[1]:
            drawn = tube(spec, points, spread)
            shapes += drawn
            if max(float(shape.size.max()) for shape in drawn[1::2]) > 0.999 * most:
                widest = most
    # Near the robot, whatever is foreseen.
    top = min(max(_top(s) for s in shapes), robot + most / 2)
    return shapes + words(figures, np.array([at[0], at[1], top + height]), height, widest)


def _top(shape: Shape) -> float:
    if len(shape.points):
        return float(shape.points[:, 2].max())
    return float(shape.position[2] + np.abs(shape.rotation[2]) @ shape.size / 2)
