"""Describes the head and the tumour of a synthetic patient as solids, with random shapes.

Points are float32 (3, H, W) in millimetres: x to the right of the image, y towards the nose, z towards the top of the
head. The origin lies between the hemispheres, at a brain atlas's anterior commissure.
"""

import numpy as np

from brainseg_jax.data.phantom.solids import Field, Waves, cut, ellipsoid, join, mirror, rod

MENINGIOMA, GLIOMA, PITUITARY = 1, 2, 3  # the labels of the published files


class Head:
    """Anatomy of one person's head."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draws a random head."""
        self.scale = rng.normal(1, 0.03, 3).clip(0.93, 1.07)  # breadth, length and height relative to the model
        self.warp = [Waves(rng, 140, 4) for _ in range(3)]  # deforms the head: its halves and different heads differ
        self.folds = Waves(rng, 23, 16)  # the sulci are at its zero crossings
        self.streaks = Waves(rng, 13, 12)  # fat between muscles, septa in bone, patches in tissue
        self.ventricles = rng.uniform(0.75, 1.5)  # width of the ventricles relative to the model
        self.sulcus = rng.uniform(0.3, 1.0)  # half the width of a sulcus in mm
        self.scalp = rng.uniform(5.5, 10)  # thickness of the fat under the skin in mm
        self.grey = rng.uniform(0.78, 0.9)  # intensity of grey matter


class Tumour:
    """Shape and appearance of one tumour.

    Attributes:
      kind: MENINGIOMA, GLIOMA or PITUITARY.
      centre, radii: (3,) float64 in millimetres.
      is_halved: whether it is cut flat at the falx, the membrane between the hemispheres.
      texture: random field that roughens the border and mottles the inside.
      roughness: height of the border's bumps in millimetres.
      brightness: intensity of the enhancing tissue.
      core: size of the dark core relative to the tumour; 0 for a solid tumour.
      oedema: how much the tissue around the tumour is darkened, 0 to 1.
    """

    def __init__(self, rng: np.random.Generator, kind: int, *, growth: float, faint: bool, small: bool) -> None:
        """Draws a random tumour.

        Args:
          rng: source of randomness.
          kind: MENINGIOMA, GLIOMA or PITUITARY.
          growth: factor of the radii; changes nothing else.
          faint: whether its contrast to the brain is low.
          small: whether it is only about 2 cm wide.
        """
        low, high = {MENINGIOMA: (15, 31), GLIOMA: (16, 36), PITUITARY: (10, 18)}[kind]
        radius = rng.uniform(8.5, 11) if small else low * (high / low) ** rng.random()
        self.kind = kind
        self.centre, self.is_halved = _random_site(rng, kind, radius)
        self.radii = radius * rng.uniform(0.85, 1.15, 3) * growth
        self.brightness, self.core, self.oedema = rng.uniform(1.4, 1.8), 0.0, rng.uniform(0, 0.5)
        if kind == PITUITARY:
            self.brightness, self.oedema = rng.uniform(1.3, 1.7), 0.0
        if faint:
            self.brightness = rng.uniform(1.2, 1.3)
        if kind == GLIOMA:
            if faint and rng.random() < 0.6:  # barely enhancing: dark, with a faint rim and no oedema
                self.brightness, self.core, self.oedema = rng.uniform(1.2, 1.35), 0.78, 0.0
            elif not small and rng.random() < 0.75:
                self.core = rng.uniform(0.45, 0.75)
            elif not faint:
                self.brightness = rng.uniform(1.3, 1.6)
        self.texture = Waves(rng, 1.1 * radius, 8)
        self.roughness = (0.09 if kind == GLIOMA else 0.035) * radius

    def distance(self, points: Field, inner: Field, texture: Field) -> Field:
        """Computes the signed distance to the tumour, given the skull's inside and the tumour's texture, (H, W)."""
        distance = ellipsoid(points, self.centre, self.radii) + self.roughness * texture
        if self.kind == PITUITARY:  # it fills the sella and narrows where it leaves it
            distance += 2.5 * np.exp(-(((points[2] + 25) / 3) ** 2))
        else:
            distance = cut(distance, inner + 1.5, 3)  # it cannot grow into the skull
        if self.is_halved:
            distance = cut(distance, 0.8 - points[0] * np.float32(np.sign(self.centre[0])), 2)
        return distance


def _random_site(rng: np.random.Generator, kind: int, radius: float) -> tuple[Field, bool]:
    """Draws the centre of a tumour of about that radius, and whether it is cut flat at the falx."""
    half = rng.choice((-1.0, 1.0))
    if kind == PITUITARY:
        return np.array([rng.uniform(-3, 3), rng.uniform(1, 6), -33 + 0.7 * radius]), False
    if kind == GLIOMA:
        if rng.random() < 0.3:  # temporal lobe
            return np.array([half * rng.uniform(34, 46), rng.uniform(-40, 8), rng.uniform(-22, -14)]), False
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1) ** 0.5
        y, z = 50 * reach * np.sin(angle) - 15, 26 + 20 * reach * np.cos(angle)
        return np.array([half * rng.uniform(18, 42), y, z]), False
    place = rng.random()
    if place < 0.2:  # falx
        return np.array([half * 0.5 * radius, rng.uniform(-70, 45), rng.uniform(44, 60)]), True
    if place < 0.4:  # wing of the sphenoid bone, groove of the olfactory nerve
        return np.array([half * rng.choice((8, 32)), rng.uniform(22, 34), -21 + 0.6 * radius]), False
    direction = np.array([half * rng.uniform(0.4, 1), rng.uniform(-1, 1), rng.uniform(-0.1, 1)])  # convexity
    length = np.linalg.norm(direction)
    ray = np.linspace(0, 110, 111) * (direction / length)[:, None] + np.array([[0], [-17], [14]])
    is_outside = cavity(ray[:, None].astype(np.float32))[0] > 0
    return ray[:, int(is_outside.argmax())] - 0.6 * radius * direction / length, False


def brain(points: Field, mirrored: Field) -> tuple[Field, Field, Field, Field]:
    """Computes the distances to cerebrum, cerebellum and brain stem and the tentorium's height, (H, W) each."""
    side, ahead, height = mirrored
    tent = 5 - 0.36 * side - 0.3 * np.maximum(-45 - ahead, 0)
    floor = tent - 7 + (-14 - tent) / (1 + np.exp(np.clip(-(ahead + 18) / 5, -30, 30)))
    cerebrum = cut(ellipsoid(points, (0, -17, 13), (67, 86, 63)), floor - height, 9)
    cerebrum = join(cerebrum, ellipsoid(mirrored, (42, -12, -22), (24, 42, 21)), 7)
    cerebellum = cut(ellipsoid(mirrored, (14, -65, -32), (38, 32, 28)), height - tent + 2.5, 5)
    stem = rod(points, (0, -18, -6, 13), (0, -24, -16, 12), (0, -25, -28, 15), (0, -28, -36, 14), (0, -37, -54, 8))
    stem = join(stem, rod(points, (0, -37, -54, 8), (0, -47, -85, 6.5), (0, -42, -220, 6)), 3)
    return cerebrum, cerebellum, stem, tent


def cavity(points: Field) -> Field:
    """Computes the signed distance to the inside of the skull: (3, H, W) → (H, W)."""
    cerebrum, cerebellum, stem, _ = brain(points, mirror(points))
    cisterns = ellipsoid(points, (0, -8, -22), (20, 24, 12))
    gap = ellipsoid(points, (0, -52, -8), (46, 36, 17))  # where the tentorium is
    return join(join(join(cerebrum, cerebellum, 12), stem, 8), np.minimum(cisterns, gap), 8) - 3
