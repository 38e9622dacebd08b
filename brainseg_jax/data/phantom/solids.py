"""Defines the solids and random fields of which the phantoms consist.

A solid is given by the signed distance to its surface in millimetres, negative inside. The functions evaluate it at
points, float32 (3, H, W), and return float32 (H, W).
"""

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.floating]  # float32; NumPy's stubs do not infer it through arithmetic

FAR = 99.0  # mm; a solid so far away is invisible


def column(vector: ArrayLike) -> Field:
    """Reshapes (3,) to float32 (3, 1, 1), to broadcast with points."""
    return np.asarray(vector, np.float32)[:, None, None]


def norm(vectors: Field) -> Field:
    """Computes Euclidean norms: (3, H, W) → (H, W)."""
    return np.sqrt(vectors[0] * vectors[0] + vectors[1] * vectors[1] + vectors[2] * vectors[2])


def mirror(points: Field) -> Field:
    """Takes the absolute value of x, so that one solid describes a pair: (3, H, W) → (3, H, W)."""
    return np.concatenate([np.abs(points[:1]), points[1:]])


def is_out_of_reach(points: Field, low: ArrayLike, high: ArrayLike) -> bool:
    """Returns whether the box from `low` to `high` is so far from all points that a solid inside it is invisible."""
    sparse = points[:, ::8, ::8].reshape(3, -1)
    return bool(np.any(sparse.max(1) < np.subtract(low, 25)) or np.any(sparse.min(1) > np.add(high, 25)))


def ellipsoid(points: Field, centre: ArrayLike, radii: ArrayLike) -> Field:
    """Computes the signed distance to an ellipsoid; it is exact on the surface only."""
    if is_out_of_reach(points, np.subtract(centre, radii), np.add(centre, radii)):
        return np.full(points.shape[1:], FAR, np.float32)
    scaled = (points - column(centre)) / column(radii)
    length = norm(scaled)
    scaled /= column(radii)
    return (length - 1) * length / np.maximum(norm(scaled), np.float32(1e-6))


def rod(points: Field, *knots: tuple[float, float, float, float]) -> Field:
    """Computes the signed distance to a chain of rods through knots (x, y, z, radius)."""
    distance = np.full(points.shape[1:], FAR, np.float32)
    corners = np.array(knots)[:, :3]
    if is_out_of_reach(points, corners.min(0), corners.max(0)):
        return distance
    for (*start, radius), (*end, end_radius) in itertools.pairwise(knots):
        axis = np.subtract(end, start)
        offset = points - column(start)
        along = np.clip(np.tensordot((axis / (axis @ axis)).astype(np.float32), offset, 1), 0, 1)
        offset -= column(axis) * along
        distance = np.minimum(distance, norm(offset) - (radius + (end_radius - radius) * along))
    return distance


def join(first: Field, second: Field, blend: float) -> Field:
    """Unites two solids and rounds their seam over `blend` millimetres."""
    overlap = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap / (4 * blend)


def cut(first: Field, second: Field, blend: float) -> Field:
    """Intersects two solids and rounds the edge over `blend` millimetres."""
    return -join(-first, -second, blend)


class Waves:
    """A smooth random field of unit variance: a sum of plane waves in random directions."""

    def __init__(self, rng: np.random.Generator, wavelength: float, count: int) -> None:
        """Draws `count` waves with wavelengths near `wavelength`, in millimetres."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = 2 * np.pi / (wavelength * rng.uniform(0.8, 1.25, (count, 1)))
        self._vectors = (directions * lengths).astype(np.float32)  # radians per millimetre
        self._phases = rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)

    def __call__(self, points: Field) -> Field:
        """Evaluates the field."""
        angles = np.tensordot(self._vectors, points, 1) + self._phases
        return np.cos(angles, out=angles).sum(0) * np.float32((2 / len(self._phases)) ** 0.5)
