"""How states look: positions in the vertical x-z plane, for displays of any kind."""

from __future__ import annotations

import numpy as np

from .spec import RobotSpec


def joints(spec: RobotSpec, states: np.ndarray) -> np.ndarray:
    """Points [..., m, 2] that the drawing of states [..., ds] goes through, as (x, z).

    A `body` is a bar across its position, turned by the pitch (positive: nose down, about +y). A
    `chain` starts at the origin; its first angle is measured upwards from +x, each further one
    from the link before.
    """
    view = spec.view
    if view.kind == 'body':
        x, z = (states[..., spec.state_names.index(n)] for n in (view.x, view.z))
        pitch = states[..., spec.state_names.index(view.pitch)] if view.pitch else 0 * x
        half = np.stack([np.cos(pitch), -np.sin(pitch)], axis=-1) * view.size
        centre = np.stack([x, z], axis=-1)
        return np.stack([centre - half, centre, centre + half], axis=-2)
    angle = np.cumsum(states[..., spec.index(view.joints)], axis=-1)
    links = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * np.array(view.lengths)[:, None]
    return np.concatenate([np.zeros_like(links[..., :1, :]), np.cumsum(links, axis=-2)], axis=-2)


def position(spec: RobotSpec, states: np.ndarray) -> np.ndarray:
    """Point [..., 2] that stands for states [..., ds]: centre of a body, tip of a chain."""
    points = joints(spec, states)
    return points[..., 1, :] if spec.view.kind == 'body' else points[..., -1, :]


def moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [..., 2] and covariance [..., 2, 2] over the first axis of points [n, ..., 2]."""
    mean = points.mean(axis=0)
    deviation = points - mean
    return mean, np.einsum('n...i,n...j->...ij', deviation, deviation) / max(len(points) - 1, 1)


def ellipse(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Standard deviations [2] along the main axes of a covariance [2, 2], the larger one first.

    Also the angle of the larger axis, from +x towards +z.
    """
    values, vectors = np.linalg.eigh(covariance)
    sd = np.sqrt(np.maximum(values[::-1], 0.0))
    return sd, float(np.arctan2(vectors[1, 1], vectors[0, 1]))
