"""How states look: positions in the x-z plane, or x-y for a vehicle, for displays of any kind."""

from __future__ import annotations

import numpy as np

from .spec import RobotSpec


def joints(spec: RobotSpec, states: np.ndarray) -> np.ndarray:
    """Points [..., m, 2] that the drawing of states [..., ds] goes through.

    They are (x, z), for a `vehicle` (x, y). A `body` is a bar across its position, turned by the
    pitch (positive: nose down, about +y); a vehicle is a bar along its heading, rear end first. A
    `chain` starts at the origin or at its `x`; its first angle is measured upwards from +x (if
    `upright`: from the vertical towards +x), each further one from the link before.
    """
    view = spec.view

    def channel(name: str | None) -> np.ndarray:
        return states[..., spec.state_names.index(name)] if name else 0 * states[..., 0]

    if view.kind == 'chain':
        angle = np.cumsum(states[..., spec.index(view.joints)], axis=-1)
        if view.upright:
            angle = np.pi / 2 - angle
        links = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * np.array(view.lengths)[:, None]
        base = np.stack([channel(view.x), 0 * channel(view.x)], axis=-1)[..., None, :]
        return np.concatenate([base, base + np.cumsum(links, axis=-2)], axis=-2)
    turn = channel(view.heading) if view.kind == 'vehicle' else -channel(view.pitch)
    half = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * view.size
    other = view.y if view.kind == 'vehicle' else view.z
    centre = np.stack([channel(view.x), channel(other)], axis=-1)
    return np.stack([centre - half, centre, centre + half], axis=-2)


def position(spec: RobotSpec, states: np.ndarray) -> np.ndarray:
    """Point [..., 2] that stands for states [..., ds]: tip of a chain, else the centre."""
    points = joints(spec, states)
    return points[..., -1, :] if spec.view.kind == 'chain' else points[..., 1, :]


def plane(spec: RobotSpec) -> tuple[int, int]:
    """Which axes of space the two numbers of a point are: x and z, for a vehicle x and y."""
    return (0, 1) if spec.view.kind == 'vehicle' else (0, 2)


def in_space(spec: RobotSpec, points: np.ndarray) -> np.ndarray:
    """Points [..., 2] as x, y, z [..., 3]."""
    space = np.zeros((*points.shape[:-1], 3))
    space[..., plane(spec)] = points
    return space


def moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [..., 2] and covariance [..., 2, 2] over the first axis of points [n, ..., 2]."""
    mean = points.mean(axis=0)
    deviation = points - mean
    return mean, np.einsum('n...i,n...j->...ij', deviation, deviation) / max(len(points) - 1, 1)


def ellipse(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Standard deviations [2] along the main axes of a covariance [2, 2], the larger one first.

    Also the angle of the larger axis, from the first axis of the plane towards the second.
    """
    values, vectors = np.linalg.eigh(covariance)
    sd = np.sqrt(np.maximum(values[::-1], 0.0))
    return sd, float(np.arctan2(vectors[1, 1], vectors[0, 1]))
