"""Bodies, joints and shapes of a MuJoCo model file, without MuJoCo: what a display needs of it.

Reads the part of MJCF that tells how a robot looks: bodies, hinge and slide joints, shapes that
are boxes, spheres, ellipsoids, cylinders and capsules, sites, and the defaults that they take.
Meshes and height fields are left out. MJCF: https://mujoco.readthedocs.io/en/stable/XMLreference.html.
"""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError

SIMULATORS = 'lifelong_bayes_ros_sim'
SHAPES = ('box', 'sphere', 'ellipsoid', 'cylinder', 'capsule')
GREY = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's own


@dataclass(frozen=True)
class Joint:
    """A hinge or slide: axis [3] and anchor [3] in its body's frame; `zero` is its angle there."""

    name: str
    kind: str
    axis: np.ndarray
    anchor: np.ndarray
    zero: float


@dataclass(frozen=True)
class Body:
    """Position [3] and rotation [3, 3] in its parent's frame; `parent` is −1 for the world."""

    name: str
    parent: int
    position: np.ndarray
    rotation: np.ndarray
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class Part:
    """A shape, or a site (`kind` is empty), in the frame of a body.

    `size` [3] holds full extents along its own axes, for a capsule without its caps.
    """

    name: str
    kind: str
    body: int
    position: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    colour: tuple[float, float, float, float]


@dataclass
class Model:
    """A robot as MJCF describes it."""

    bodies: list[Body] = field(default_factory=list)
    shapes: list[Part] = field(default_factory=list)
    sites: list[Part] = field(default_factory=list)

    @property
    def joints(self) -> list[str]:
        """Names of all joints."""
        return [joint.name for body in self.bodies for joint in body.joints]

    def poses(
        self, joints: Mapping[str, np.ndarray | float]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Position [..., 3] and rotation [..., 3, 3] of every body in the world.

        Args:
            joints: angle or displacement [...] by joint name; 0 where it is missing.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for body in self.bodies:
            position, rotation = body.position, body.rotation
            if body.parent >= 0:
                at, turn = found[body.parent]
                position, rotation = at + turn @ position, turn @ rotation
            for joint in body.joints:
                value = np.asarray(joints.get(joint.name, 0.0), float)[..., None] - joint.zero
                if joint.kind == 'slide':
                    position = position + value * (rotation @ joint.axis)
                else:  # the anchor stays where it is
                    anchor = position + rotation @ joint.anchor
                    rotation = rotation @ turns(joint.axis, value[..., 0])
                    position = anchor - rotation @ joint.anchor
            found.append((position, rotation))
        return found

    def placed(
        self, part: Part, poses: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Position [..., 3] and rotation [..., 3, 3] of a shape or site in the world."""
        if part.body < 0:
            return part.position, part.rotation
        at, turn = poses[part.body]
        return at + turn @ part.position, turn @ part.rotation

    def site(self, name: str) -> Part:
        """The site of this name.

        Raises:
            UserError: there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise UserError(
            f'the MJCF model has no site {name!r}; it has {[s.name for s in self.sites]}'
        )


def find_model(name: str) -> Path:
    """The file of a model: a path, or the name of a file beside the shipped simulators.

    Raises:
        UserError: there is no such file.
    """
    places = [Path(name)]
    shipped = importlib.util.find_spec(SIMULATORS)  # looked up, not imported: MuJoCo may be absent
    if shipped is not None:
        places += [Path(p) / name for p in shipped.submodule_search_locations or ()]
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f'view.model: {name}: no such file; give the path of an MJCF file (.xml), or a shipped one'
    )


@lru_cache(maxsize=16)
def load_model(name: str) -> Model:
    """The model of a file, see `find_model`.

    Raises:
        UserError: no such file, not MJCF, or with a joint or orientation that is not read here.
    """
    path = find_model(name)
    try:
        return parse_model(path.read_text('utf-8'), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'view.model: {path}: cannot be read as text ({error})') from None


def parse_model(text: str, where: str = 'MJCF') -> Model:
    """The model of MJCF text; `where` names it in errors."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f'{where}: not valid XML: {error}') from None
    if root.tag != 'mujoco':
        raise UserError(f'{where}: an MJCF model begins with <mujoco>, this with <{root.tag}>')
    try:
        return _Reader(root).model
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f'{where}: {error}; correct the MJCF file') from None


class _Reader:
    def __init__(self, root: ElementTree.Element) -> None:
        compiler = {k: v for e in root.findall('compiler') for k, v in e.attrib.items()}
        self.unit = 1.0 if compiler.get('angle') == 'radian' else np.pi / 180
        self.order = compiler.get('eulerseq', 'xyz')
        self.defaults: dict[str, dict[str, dict[str, str]]] = {'main': {}}
        for default in root.findall('default'):
            self._default(default, {})
        self.model = Model()
        for world in root.findall('worldbody'):
            self._inside(world, -1, 'main')

    def _default(self, element: ElementTree.Element, above: dict[str, dict[str, str]]) -> None:
        own = {tag: dict(attributes) for tag, attributes in above.items()}
        for child in element:
            if child.tag != 'default':
                own[child.tag] = own.get(child.tag, {}) | child.attrib
        self.defaults[element.get('class', 'main')] = own
        for child in element.findall('default'):
            self._default(child, own)

    def _attributes(self, element: ElementTree.Element, inherited: str) -> dict[str, str]:
        name = element.get('class', inherited)
        if name not in self.defaults:
            raise ValueError(f'unknown default class {name!r}')
        return self.defaults[name].get(element.tag, {}) | element.attrib

    def _inside(self, element: ElementTree.Element, body: int, inherited: str) -> None:
        for child in element:
            if child.tag in ('geom', 'site'):
                self._part(self._attributes(child, inherited), child.tag, body)
        for child in element.findall('body'):
            self._body(child, body, child.get('childclass', inherited))

    def _body(self, element: ElementTree.Element, parent: int, inherited: str) -> None:
        joints = []
        if element.find('freejoint') is not None:
            raise ValueError(f'body {element.get("name")!r}: a free joint cannot be drawn')
        for child in element.findall('joint'):
            a = self._attributes(child, inherited)
            kind = a.get('type', 'hinge')
            if kind not in ('hinge', 'slide'):
                raise ValueError(f'joint {a.get("name")!r}: type {kind} cannot be drawn')
            axis = _numbers(a.get('axis', '0 0 1'))
            zero = float(a.get('ref', 0.0)) * (self.unit if kind == 'hinge' else 1.0)
            anchor = _numbers(a.get('pos', '0 0 0'))
            axis = axis / np.linalg.norm(axis)
            joints.append(Joint(a.get('name', ''), kind, axis, anchor, zero))
        place = _numbers(element.get('pos', '0 0 0')), self._rotation(element.attrib)
        self.model.bodies.append(Body(element.get('name', ''), parent, *place, tuple(joints)))
        self._inside(element, len(self.model.bodies) - 1, inherited)

    def _part(self, a: dict[str, str], tag: str, body: int) -> None:
        kind = a.get('type', 'sphere') if tag == 'geom' else ''
        if 'mesh' in a and 'type' not in a:
            kind = 'mesh'
        if kind and kind not in SHAPES:
            return  # planes, meshes and height fields
        position, rotation = _numbers(a.get('pos', '0 0 0')), self._rotation(a)
        size = np.append(_numbers(a.get('size', '0')), np.zeros(3))[:3]
        if 'fromto' in a:
            ends = _numbers(a['fromto']).reshape(2, 3)
            position, along = ends.mean(axis=0), ends[0] - ends[1]  # as MuJoCo has it
            rotation = _z_to(along)
            size[1:] = np.linalg.norm(along) / 2, 0.0
            if kind == 'box' or kind == 'ellipsoid':
                size = np.array([size[0], size[0], size[1]])
        if kind == 'sphere':
            size = np.full(3, size[0])
        elif kind in ('cylinder', 'capsule'):
            size = np.array([size[0], size[0], size[1]])
        colour = tuple(_numbers(a['rgba'])) if 'rgba' in a else GREY
        part = Part(a.get('name', ''), kind, body, position, rotation, 2 * size, colour)
        (self.model.shapes if kind else self.model.sites).append(part)

    def _rotation(self, a: Mapping[str, str]) -> np.ndarray:
        if 'quat' in a:
            return of_quaternion(_numbers(a['quat']))
        if 'axisangle' in a:
            x, y, z, angle = _numbers(a['axisangle'])
            return turns(np.array([x, y, z]) / np.linalg.norm([x, y, z]), angle * self.unit)
        if 'zaxis' in a:
            return _z_to(_numbers(a['zaxis']))
        if 'xyaxes' in a:
            x, y = _numbers(a['xyaxes']).reshape(2, 3)
            x = x / np.linalg.norm(x)
            y = y - (y @ x) * x
            y = y / np.linalg.norm(y)
            return np.stack([x, y, np.cross(x, y)], axis=1)
        result = np.eye(3)
        for name, angle in zip(self.order, _numbers(a.get('euler', '0 0 0')), strict=True):
            turn = turns(np.eye(3)['xyz'.index(name.lower())], angle * self.unit)
            # Lower case: about axes that turn along.
            result = result @ turn if name.islower() else turn @ result
        return result


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def _z_to(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings +z to a direction."""
    z = direction / np.linalg.norm(direction)
    axis, cosine = np.cross([0.0, 0.0, 1.0], z), float(z[2])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-10:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return turns(axis / sine, np.arctan2(sine, cosine))


def turns(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rotations [..., 3, 3] by angles [...] about a unit axis [3] (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.asarray(angle, float)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def of_quaternion(q: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of a quaternion (w, x, y, z)."""
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions [..., 4] (w, x, y, z) of rotations [..., 3, 3]; inverse of `of_quaternion`.

    By the eigenvector of the largest eigenvalue, which no rotation makes ill-conditioned
    (Bar-Itzhack 2000, J. Guidance, Control and Dynamics 23(6)).
    """
    r = np.moveaxis(rotation, (-2, -1), (0, 1))
    symmetric = np.zeros((*rotation.shape[:-2], 4, 4))  # its lower triangle is read
    symmetric[..., 0, 0] = r[0, 0] + r[1, 1] + r[2, 2]
    symmetric[..., 1, 0] = r[2, 1] - r[1, 2]
    symmetric[..., 2, 0] = r[0, 2] - r[2, 0]
    symmetric[..., 3, 0] = r[1, 0] - r[0, 1]
    symmetric[..., 2, 1] = r[0, 1] + r[1, 0]
    symmetric[..., 3, 1] = r[0, 2] + r[2, 0]
    symmetric[..., 3, 2] = r[1, 2] + r[2, 1]
    for i in range(3):
        symmetric[..., i + 1, i + 1] = 2 * r[i, i] - symmetric[..., 0, 0]
    return np.linalg.eigh(symmetric)[1][..., -1]
