"""The synthetic head that `phantom.py` photographs: one solid model, cut along any plane.

Every organ is a solid given by its signed distance in millimetres, negative inside. A slice evaluates the solids at the
points of its plane and paints them from the outside in. Cutting one solid head three ways is what makes axial, coronal
and sagittal images agree with each other, and a tumour grow and shrink through the slices of a patient.

Coordinates: points are float32 (3, H, W) arrays in millimetres: x to the right of the image, y towards the nose, z
towards the top of the head; the origin lies between the hemispheres, where a brain atlas has the anterior commissure.
Intensities are relative to white matter, which is 1.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from brainseg_jax.data.phantom.solids import FAR, Field, Waves, column, cut, ellipsoid, join, mirror, norm, rod

MENINGIOMA, GLIOMA, PITUITARY = 1, 2, 3  # as the published files label them

AIR, BONE, FLUID, GREY, MUSCLE, WHITE = 0.02, 0.12, 0.33, 0.84, 0.72, 1.0
MARROW, MUCOSA, VESSEL, FAT = 1.35, 1.45, 1.75, 2.15


@dataclasses.dataclass(frozen=True)
class Head:
    """What one person's head is like; `random_head` draws it."""

    scale: tuple[float, float, float]  # breadth, length and height relative to the model
    warp: tuple[Waves, Waves, Waves]  # makes halves and persons differ
    folds: Waves  # its zero crossings are the sulci
    streaks: Waves  # fat between muscles, septa in bone, patches in tissue
    ventricles: float  # width of the ventricles relative to the model
    sulcus: float  # half the width of a sulcus in mm
    scalp: float  # thickness of the fat under the skin in mm
    grey: float  # intensity of grey matter


def random_head(rng: np.random.Generator) -> Head:
    """A person."""
    breadth, length, height = rng.normal(1, 0.03, 3).clip(0.93, 1.07)
    return Head(
        scale=(breadth, length, height),
        warp=(Waves.random(rng, 140, 4), Waves.random(rng, 140, 4), Waves.random(rng, 140, 4)),
        folds=Waves.random(rng, 23, 16),
        streaks=Waves.random(rng, 13, 12),
        ventricles=rng.uniform(0.75, 1.5),
        sulcus=rng.uniform(0.3, 1.0),
        scalp=rng.uniform(5.5, 10),
        grey=rng.uniform(0.78, 0.9),
    )


@dataclasses.dataclass(frozen=True)
class Tumour:
    """One tumour; `random_tumour` draws it."""

    kind: int  # MENINGIOMA, GLIOMA or PITUITARY
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    texture: Waves  # roughens the border and mottles the inside
    roughness: float  # height of the border's bumps in mm
    brightness: float  # of the enhancing part
    core: float  # size of the dark core relative to the tumour; 0: solid
    oedema: float  # how much the tissue around is darkened, 0 to 1
    halved: bool = False  # flat against the falx, on its own side of it


def _random_site(rng: np.random.Generator, kind: int, radius: float) -> tuple[NDArray[np.float64], bool]:
    """Where a tumour of about that radius grows, and whether it lies flat against the falx."""
    half = rng.choice((-1.0, 1.0))
    if kind == PITUITARY:
        return np.array([rng.uniform(-3, 3), rng.uniform(1, 6), -33 + 0.7 * radius]), False
    if kind == GLIOMA:
        if rng.random() < 0.3:  # temporal lobe
            return np.array([half * rng.uniform(34, 46), rng.uniform(-40, 8), rng.uniform(-22, -14)]), False
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1) ** 0.5
        return np.array(
            [half * rng.uniform(18, 42), 50 * reach * np.sin(angle) - 15, 26 + 20 * reach * np.cos(angle)]
        ), False
    place = rng.random()
    if place < 0.2:  # falx
        return np.array([half * 0.5 * radius, rng.uniform(-70, 45), rng.uniform(44, 60)]), True
    if place < 0.4:  # wing of the sphenoid bone, groove of the olfactory nerve
        return np.array([half * rng.choice((8, 32)), rng.uniform(22, 34), -21 + 0.6 * radius]), False
    direction = np.array([half * rng.uniform(0.4, 1), rng.uniform(-1, 1), rng.uniform(-0.1, 1)])  # convexity
    ray = np.linspace(0, 110, 111) * (direction / np.linalg.norm(direction))[:, None] + np.array([[0], [-17], [14]])
    outside = cavity(ray[:, None].astype(np.float32))[0] > 0
    return ray[:, int(outside.argmax())] - 0.6 * radius * direction / np.linalg.norm(direction), False


def random_tumour(rng: np.random.Generator, kind: int, *, faint: bool = False, small: bool = False) -> Tumour:
    """A tumour of a kind: MENINGIOMA, GLIOMA or PITUITARY.

    Args:
      rng: decides all else.
      kind: the kind.
      faint: hardly brighter, or little darker, than the brain.
      small: some 2 cm wide.
    """
    low, high = {MENINGIOMA: (15, 31), GLIOMA: (16, 36), PITUITARY: (10, 18)}[kind]
    radius = rng.uniform(8.5, 11) if small else low * (high / low) ** rng.random()
    centre, halved = _random_site(rng, kind, radius)
    radii = radius * rng.uniform(0.85, 1.15, 3)
    brightness, core, oedema = rng.uniform(1.4, 1.8), 0.0, rng.uniform(0, 0.5)
    if kind == PITUITARY:
        brightness, oedema = rng.uniform(1.3, 1.7), 0.0
    if faint:
        brightness = rng.uniform(1.2, 1.3)
    if kind == GLIOMA:
        if faint and rng.random() < 0.6:  # barely enhancing: dark, with a hint of a rim and no swelling
            brightness, core, oedema = rng.uniform(1.2, 1.35), 0.78, 0.0
        elif not small and rng.random() < 0.75:
            core = rng.uniform(0.45, 0.75)
        elif not faint:
            brightness = rng.uniform(1.3, 1.6)
    return Tumour(
        kind=kind,
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        radii=(float(radii[0]), float(radii[1]), float(radii[2])),
        texture=Waves.random(rng, 1.1 * radius, 8),
        roughness=(0.09 if kind == GLIOMA else 0.035) * radius,
        brightness=brightness,
        core=core,
        oedema=oedema,
        halved=halved,
    )


def tumour_distance(tumour: Tumour, points: Field, inner: Field, texture: Field) -> Field:
    """Signed distance to the tumour, (H, W), given its texture and the distance to the inside of the skull."""
    distance = ellipsoid(points, tumour.centre, tumour.radii) + tumour.roughness * texture
    if tumour.kind == PITUITARY:  # it widens the sella below and has a waist where it leaves it
        distance += 2.5 * np.exp(-(((points[2] + 25) / 3) ** 2))
    else:
        distance = cut(distance, inner + 1.5, 3)  # the skull stops it
    if tumour.halved:
        distance = cut(distance, 0.8 - points[0] * np.float32(np.sign(tumour.centre[0])), 2)
    return distance


def _brain(points: Field, mirrored: Field) -> tuple[Field, Field, Field, Field]:
    """Cerebrum, cerebellum, brain stem and the height of the tentorium, each (H, W)."""
    side, ahead, height = mirrored
    tent = 5 - 0.36 * side - 0.3 * np.maximum(-45 - ahead, 0)
    floor = tent - 7 + (-14 - tent) / (1 + np.exp(np.clip(-(ahead + 18) / 5, -30, 30)))
    cerebrum = ellipsoid(points, (0, -17, 13), (67, 86, 63))
    cerebrum = cut(cerebrum, floor - height, 9)
    cerebrum = join(cerebrum, ellipsoid(mirrored, (42, -12, -22), (24, 42, 21)), 7)
    cerebellum = cut(ellipsoid(mirrored, (14, -65, -32), (38, 32, 28)), height - tent + 2.5, 5)
    stem = rod(points, (0, -18, -6, 13), (0, -24, -16, 12), (0, -25, -28, 15), (0, -28, -36, 14), (0, -37, -54, 8))
    stem = join(stem, rod(points, (0, -37, -54, 8), (0, -47, -85, 6.5), (0, -42, -220, 6)), 3)
    return cerebrum, cerebellum, stem, tent


def cavity(points: Field) -> Field:
    """Signed distance to the inside of the skull: (3, H, W) → (H, W)."""
    cerebrum, cerebellum, stem, _ = _brain(points, mirror(points))
    cisterns = ellipsoid(points, (0, -8, -22), (20, 24, 12))
    gap = ellipsoid(points, (0, -52, -8), (46, 36, 17))  # where the tentorium is
    return join(join(join(cerebrum, cerebellum, 12), stem, 8), np.minimum(cisterns, gap), 8) - 3


class Canvas:
    """A section through a head with a tumour, painted solid by solid from the outside in.

    Attributes, all float32 (H, W) but for the points:
      image: the image.
      points, mirrored: where the pixels lie in the model, (3, H, W); mirrored: with both halves laid on one.
      pushed, mirrored_pushed: the same, but the tumour has pushed aside what lies around it.
      inner: signed distance to the inside of the skull.
      tumour: signed distance to the tumour.
      texture, streaks, folds: random fields of the tumour, of the tissue and of the cortex.
    """

    def __init__(self, head: Head, tumour: Tumour, plane: Field) -> None:
        """Evaluates them all at the points of `plane`, float32 (3, H, W) in millimetres."""
        points = plane / column(head.scale)
        points += column((1.2, 2, 2)) * np.stack([wave(points) for wave in head.warp])
        offset = (points - column(tumour.centre)) / column(tumour.radii)
        push = np.float32(0.45) * np.exp(-0.4 * norm(offset) ** 2)
        self.points, self.pushed = points, points - push * (points - column(tumour.centre))
        self.mirrored, self.mirrored_pushed = mirror(points), mirror(self.pushed)
        self.image = np.full(plane.shape[1:], AIR, np.float32)
        self.pixel = float(np.linalg.norm(plane[:, 0, 1] - plane[:, 0, 0]))
        self.inner = cavity(points)
        self.texture = tumour.texture(points)
        self.tumour = tumour_distance(tumour, points, self.inner, self.texture)
        self.streaks = head.streaks(points)
        # Fold the cortex along rays from the centre, so that sulci run inwards and not along the surface.
        self.folds = head.folds(self.pushed / np.maximum(norm(self.pushed) / 65, np.float32(0.3)) ** 0.6)

    def paint(self, distance: Field, value: float | Field, *, blur: float = 1.2, opacity: float | Field = 1.0) -> None:
        """Covers the inside of a solid with `value`; its edge is `blur` millimetres wide, but a pixel at least."""
        if distance.min() < blur:
            covered = np.clip(0.5 - distance / np.float32(max(blur, self.pixel)), 0, 1) * opacity
            self.image += covered * (value - self.image)


def _paint_outside(canvas: Canvas, head: Head) -> None:
    """Skin, fat, muscles, face, neck and skull."""
    points, mirrored, inner, streaks = canvas.points, canvas.mirrored, canvas.inner, canvas.streaks
    surface = ellipsoid(points, (0, -16, 9), (80, 100, 83))
    face = join(ellipsoid(points, (0, 20, -56), (67, 65, 60)), ellipsoid(points, (0, 62, -98), (26, 22, 20)), 25)
    surface = join(surface, face, 22)
    surface = join(surface, rod(points, (0, -36, -50, 57), (0, -32, -220, 55)), 22)
    surface = join(surface, ellipsoid(points, (0, 80, -54), (12, 20, 15)), 16)
    surface = join(surface, inner - 12, 6)
    canvas.paint(ellipsoid(mirrored, (75, -26, -38), (8, 11, 21)) + streaks, 1.1)
    canvas.paint(surface, 1.3)
    canvas.paint(surface + 1.5, FAT)
    canvas.paint(np.maximum(surface + head.scalp, inner - 7), BONE)
    muscle = np.maximum(surface + head.scalp + 1.5, points[2] + 6 + 0.25 * points[1])
    fibres = head.streaks(points * column((1.3, 1.1, 0.3)))
    canvas.paint(muscle, MUSCLE + 0.5 * np.maximum(fibres - 0.3, 0) + 0.08 * fibres, blur=3)
    _paint_face(canvas, surface)
    half = 2.2 + 1.8 / (1 + np.exp(np.clip(-(points[2] + 12) / 4, -30, 30)))  # thinner at the base
    shell = np.abs(inner - half) - half  # skull: two dark tables with marrow between
    canvas.paint(shell, BONE, blur=2)
    canvas.paint(shell + 0.65 * half, 0.75 + 0.25 * streaks, blur=2, opacity=0.8)


def _paint_face(canvas: Canvas, surface: Field) -> None:
    """Orbits, air spaces, jaws and the spine, inside the skin `surface`."""
    points, mirrored, streaks = canvas.points, canvas.mirrored, canvas.streaks
    below = surface + 5
    canvas.paint(ellipsoid(mirrored, (40, -30, -42), (20, 22, 15)), BONE + 0.5 * (streaks > 0.9), blur=4)
    canvas.paint(np.maximum(ellipsoid(mirrored, (28, 46, -40), (15, 26, 14)), surface + 2), FAT)
    for knots in (((18, 52, -40, 2), (12, 26, -36, 2)), ((41, 52, -40, 2), (22, 28, -36, 2))):
        canvas.paint(rod(mirrored, *knots), MUCOSA)
    canvas.paint(rod(mirrored, (29, 46, -39, 2.5), (12, 20, -30, 2)), 0.85)
    globe = ellipsoid(mirrored, (31, 59, -40), (12, 12, 12))
    canvas.paint(globe, 1.1)
    canvas.paint(globe + 1.5, 0.4)
    canvas.paint(ellipsoid(mirrored, (32, 69, -40), (4.5, 2.2, 4.5)), 0.9)
    for centre, radii in (
        ((14, 18, -43), (13, 13, 9)),  # sphenoid sinus
        ((28, 46, -70), (13, 15, 14)),  # maxillary sinus
        ((9, 71, 0), (8, 5, 9)),  # frontal sinus
        ((7, 44, -38), (6, 20, 9)),  # ethmoid cells
    ):
        air = np.maximum(ellipsoid(mirrored, centre, radii), below)
        canvas.paint(air - 1, MUCOSA)
        canvas.paint(air, AIR)
    nasal = np.maximum(ellipsoid(mirrored, (7, 55, -60), (7, 30, 17)), below)
    canvas.paint(nasal, np.where(streaks > 0.1, MUCOSA, AIR))
    canvas.paint(rod(points, (0, 18, -62, 8), (0, 0, -78, 7), (0, -2, -130, 7)), AIR, blur=2)
    canvas.paint(np.maximum(ellipsoid(points, (0, 48, -80), (24, 32, 3)), below), BONE)
    canvas.paint(np.maximum(ellipsoid(points, (0, 36, -98), (23, 33, 15)), below), MUSCLE + 0.2 * streaks, blur=3)
    jaw = rod(mirrored, (49, 0, -46, 5), (46, 4, -88, 7), (12, 66, -104, 7))
    canvas.paint(jaw, BONE, blur=2)
    canvas.paint(jaw + 3, MARROW)
    teeth = np.maximum(np.abs(ellipsoid(points, (0, 36, -90), (26, 42, 60))) - 3, np.abs(points[2] + 90) - 8)
    canvas.paint(np.maximum(np.maximum(teeth, below), 40 - points[1]), BONE)
    flat = points * column((0.6, 1, 1))
    canvas.paint(rod(flat, (0, -6, -44, 6), (0, -25, -66, 5)), BONE)
    canvas.paint(rod(flat, (0, -6, -44, 4.5), (0, -25, -66, 3.5)), MARROW)
    spine = rod(flat, (0, -26, -78, 7), (0, -21, -220, 8))
    canvas.paint(spine, BONE)
    canvas.paint(np.maximum(spine + 1.5, 2 - np.abs((points[2] + 96) % 17 - 8.5)), 1.05)


def _paint_brain(canvas: Canvas, head: Head) -> None:
    """Fluid, folded cortex, white matter, cerebellum, stem and the deep parts."""
    points, mirrored, inner, streaks = canvas.pushed, canvas.mirrored_pushed, canvas.inner, canvas.streaks
    side, ahead, height = mirrored
    cerebrum, cerebellum, stem, tent = _brain(points, mirrored)
    canvas.paint(inner, FLUID)
    # The medial wall counts as surface too, but for the bridge of the corpus callosum.
    bridge = ellipsoid(points, (0, -6, 4), (30, 40, 26))
    depth = np.minimum(np.maximum(-cerebrum, 0), np.where(bridge > 0, side, np.float32(FAR)))
    sulcus = np.abs(canvas.folds) * 3.7  # about the distance to the nearest one, in mm
    shallow: Field = np.clip(1.5 - depth / 14, 0, 1)
    cortex = np.maximum(np.minimum(depth, sulcus / np.maximum(shallow, 0.05)) - 3.2, -3)
    canvas.paint(np.maximum(cerebrum, inner + 1.5), WHITE + 0.02 * streaks)
    canvas.paint(np.maximum(cortex, cerebrum), head.grey, blur=2.5)
    groove = sulcus - head.sulcus * (0.5 + 1.2 * np.clip(1 - depth / 6, 0, 1))
    canvas.paint(np.maximum(groove, cerebrum), FLUID, blur=2.2, opacity=0.8 * shallow)
    # A slice is thick: one along the fissure shows the walls as well.
    fissure = np.maximum(np.maximum(side - 0.5 - head.sulcus, -bridge), cerebrum)
    canvas.paint(fissure, FLUID, blur=2, opacity=0.7 if np.ptp(points[0]) > 50 else 0.3)

    folia = np.sin(1.15 * cerebellum + 1.2 * streaks + 0.5 * canvas.folds)
    canvas.paint(np.maximum(cerebellum, inner + 1.5), head.grey * (0.97 + 0.09 * folia))
    canvas.paint(ellipsoid(mirrored, (17, -60, -36), (17, 15, 9)) + 2 * streaks, WHITE * 0.97, blur=4, opacity=0.8)
    tentorium = np.maximum(np.maximum(np.abs(height - tent + 1.5) - 0.6, inner), ahead + 38)
    canvas.paint(tentorium, 1.15)
    canvas.paint(np.maximum(stem, inner + 1), WHITE * 0.96)

    sylvian = np.minimum(
        ellipsoid(mirrored, (54, -4, -3), (16, 30, 1.7)), ellipsoid(mirrored, (40, 0, 2), (1.2, 20, 13))
    )
    canvas.paint(sylvian - 0.6 * head.sulcus + 0.9 * streaks, FLUID, blur=2, opacity=0.75)
    for centre, radii, value in (
        ((0, -6, -21), (13, 13, 6), FLUID),  # suprasellar cistern
        ((0, -31, -2), (9, 5, 5), FLUID),  # quadrigeminal cistern
        ((11, -18, 7), (9, 15, 9), head.grey + 0.05),  # thalamus
        ((24, 0, 2), (7, 19, 11), head.grey + 0.04),  # lentiform nucleus
        ((15, 14, 10), (5, 11, 9), head.grey),  # caudate nucleus
    ):
        canvas.paint(ellipsoid(mirrored, centre, radii), value, blur=2.5)
    callosum = rod(points * column((0.25, 1, 1)), (0, 18, -3, 3), (0, 29, 6, 5), (0, 18, 22, 4), (0, -10, 27, 3.5),
                   (0, -32, 20, 4.5), (0, -37, 13, 5))  # fmt: skip
    canvas.paint(callosum, WHITE * 1.05)
    width = head.ventricles
    slanted = np.stack([1.2 * side - 0.4 * (height - 14), ahead, 0.8 * height + 3])  # wings, in a coronal cut
    lateral = rod(slanted, (9, 26, 2, 3.5 * width), (11, 12, 14, 4.5 * width), (12, -12, 21, 4 * width),
                  (24, -40, 13, 6 * width), (25, -62, 6, 2.5 * width))  # fmt: skip
    lateral = join(lateral, rod(mirrored, (24, -40, 13, 5 * width), (33, -26, -12, 2 * width)), 3)
    lateral = np.maximum(lateral, 1.2 - side)  # the septum keeps the two apart
    canvas.paint(lateral, FLUID, blur=1.6)
    canvas.paint(ellipsoid(points, (0, -9, 0), (1.6 * width + 0.8, 14, 10)), FLUID)
    canvas.paint(ellipsoid(points, (0, -43, -33), (9 * width**0.5, 5, 10)), FLUID)


def _paint_vessels(canvas: Canvas) -> None:
    """What the contrast agent brightens without being a tumour."""
    points, mirrored, inner = canvas.pushed, canvas.mirrored_pushed, canvas.inner
    side, ahead, height = canvas.mirrored
    canvas.paint(np.abs(inner + 0.2) - 0.5, 0.95, opacity=0.7)  # dura
    sagittal = np.hypot(inner + 2.5, side) - 3
    canvas.paint(np.maximum(sagittal, 0.3 * ahead - 22 - height), VESSEL)
    canvas.paint(rod(mirrored, (0, -98, -14, 3), (38, -88, -19, 3), (56, -56, -23, 3), (50, -38, -34, 3)), VESSEL)
    canvas.paint(rod(points, (0, -38, 6, 1.6), (0, -50, 4, 1.6), (0, -94, -13, 2)), VESSEL)
    canvas.paint(np.maximum(ellipsoid(mirrored, (25, -40, 10), (3, 8, 3)), -40 - height) + 0.8 * canvas.streaks, VESSEL)
    canvas.paint(
        rod(mirrored, (2, 20, -14, 1.1), (7, 2, -18, 1.6), (30, 2, -14, 1.2), (42, -4, -2, 1)), VESSEL, opacity=0.8
    )
    canvas.paint(rod(points, (0, -11, -24, 1.8), (2, -9, -48, 1.8)), VESSEL)
    canvas.paint(ellipsoid(mirrored, (13, 2, -33), (4.5, 11, 5)), MUCOSA)
    canvas.paint(rod(mirrored, (13, 10, -34, 2.2), (14, -8, -36, 2.2), (20, -12, -60, 2.2)), BONE)
    canvas.paint(ellipsoid(points, (0, 3, -32), (6, 4.5, 3.2)), MUCOSA)
    # Veins that run in the sulci, seen as dots and short lines.
    vein = np.abs(canvas.folds) * 4 + np.abs(canvas.streaks) * 1.6 - 0.75
    canvas.paint(np.maximum(vein, np.abs(inner + 9) - 8), VESSEL, opacity=0.8)


def _paint_tumour(canvas: Canvas, tumour: Tumour) -> None:
    """The tumour, the swelling around it and its tail along the dura."""
    distance, texture, inner = canvas.tumour, canvas.texture, canvas.inner
    halo = np.maximum(distance - 9 + 5 * texture, inner + 3)
    canvas.paint(halo, 0.72, blur=9, opacity=tumour.oedema)
    if tumour.kind == GLIOMA:
        mottled: Field = tumour.brightness * (1 + 0.1 * texture + 0.12 * canvas.streaks)
        canvas.paint(distance, mottled, blur=2)
    else:
        canvas.paint(distance - 1.2, FLUID, opacity=0.6)  # cleft between it and the brain
        canvas.paint(distance, tumour.brightness * (1 + 0.04 * texture), blur=1.5)
    if tumour.kind == MENINGIOMA:
        canvas.paint(np.maximum(np.abs(inner + 0.8) - 1.1, distance - 7), tumour.brightness, opacity=0.8)
    if tumour.core:
        size = min(tumour.radii)
        core = np.maximum(distance + size * (1 - tumour.core) + 0.1 * size * texture, distance + 3)
        canvas.paint(core, 0.45 + 0.05 * texture, blur=2.5)


def draw_section(head: Head, tumour: Tumour, plane: Field) -> tuple[Field, Field]:
    """The head along a plane, without noise.

    Args:
      head: the person.
      tumour: the person's tumour.
      plane: float32 (3, H, W), the pixels' places in millimetres.

    Returns:
      The intensity, float32 (H, W), 0 to about 2.5, and the signed distance to the tumour, float32 (H, W).
    """
    canvas = Canvas(head, tumour, plane)
    _paint_outside(canvas, head)
    _paint_brain(canvas, head)
    _paint_vessels(canvas)
    _paint_tumour(canvas, tumour)
    return canvas.image, canvas.tumour


def tumour_areas(head: Head, tumour: Tumour, planes: Iterable[Field]) -> list[float]:
    """The share of each plane that the tumour covers, 0 to 1, without drawing it."""
    return [float((Canvas(head, tumour, plane).tumour < 0).mean()) for plane in planes]
