"""Renders a section through a synthetic head: cuts one solid model along a plane and paints the image.

Each structure is a solid, given by its signed distance in millimetres, negative inside. A section evaluates the solids
at the points of its plane and paints them from the outside in. Since all views cut the same model, axial, coronal and
sagittal images of a patient agree, and the tumour grows and shrinks from slice to slice.

Intensities are relative to white matter, which has 1.
"""

import numpy as np

from brainseg_jax.data.phantom.anatomy import GLIOMA, MENINGIOMA, Head, Tumour, brain, cavity
from brainseg_jax.data.phantom.solids import FAR, Field, column, ellipsoid, join, mirror, norm, rod

AIR, BONE, FLUID, MUSCLE, WHITE = 0.02, 0.12, 0.33, 0.72, 1.0
MARROW, MUCOSA, VESSEL, FAT = 1.35, 1.45, 1.75, 2.15


class Canvas:
    """An image of a section, and the fields that its painting needs, float32 (H, W), or (3, H, W) for points.

    Attributes:
      image: the image.
      points, mirrored: positions of the pixels in the model; the latter with absolute x, for paired structures.
      pushed, mirrored_pushed: the same, displaced by the tumour.
      inner: signed distance to the inside of the skull.
      tumour: signed distance to the tumour.
      texture, streaks, folds: random fields of the tumour, the tissue and the cortex.
    """

    def __init__(self, head: Head, tumour: Tumour, plane: Field) -> None:
        """Evaluates the fields at the points of `plane`, float32 (3, H, W) in millimetres."""
        points = plane / column(head.scale)
        points += column((1.2, 2, 2)) * np.stack([wave(points) for wave in head.warp])
        offset = points - column(tumour.centre)
        push = np.float32(0.45) * np.exp(-0.4 * norm(offset / column(tumour.radii)) ** 2)
        self.points, self.pushed = points, points - push * offset
        self.mirrored, self.mirrored_pushed = mirror(points), mirror(self.pushed)
        self.image = np.full(plane.shape[1:], AIR, np.float32)
        self.pixel = float(np.linalg.norm(plane[:, 0, 1] - plane[:, 0, 0]))
        self.inner = cavity(points)
        self.texture, self.streaks = tumour.texture(points), head.streaks(points)
        self.tumour = tumour.distance(points, self.inner, self.texture)
        # Scales the folds along rays from the centre, so that sulci run inwards and not along the surface.
        self.folds = head.folds(self.pushed / np.maximum(norm(self.pushed) / 65, np.float32(0.3)) ** 0.6)

    def paint(self, distance: Field, value: float | Field, *, blur: float = 1.2, opacity: float | Field = 1.0) -> None:
        """Paints the inside of a solid with `value`; its edge is `blur` millimetres wide, at least one pixel."""
        if distance.min() < blur:
            covered = np.clip(0.5 - distance / np.float32(max(blur, self.pixel)), 0, 1) * opacity
            self.image += covered * (value - self.image)


def _paint_outside(canvas: Canvas, head: Head) -> None:
    """Paints skin, fat, muscles, face, neck and skull."""
    paint, points, mirrored, inner, streaks = canvas.paint, canvas.points, canvas.mirrored, canvas.inner, canvas.streaks
    surface = ellipsoid(points, (0, -16, 9), (80, 100, 83))
    face = join(ellipsoid(points, (0, 20, -56), (67, 65, 60)), ellipsoid(points, (0, 62, -98), (26, 22, 20)), 25)
    neck = rod(points, (0, -36, -50, 57), (0, -32, -220, 55))
    nose = ellipsoid(points, (0, 80, -54), (12, 20, 15))
    for solid, blend in ((face, 22), (neck, 22), (nose, 16), (inner - 12, 6)):
        surface = join(surface, solid, blend)
    paint(ellipsoid(mirrored, (75, -26, -38), (8, 11, 21)) + streaks, 1.1)
    paint(surface, 1.3)
    paint(surface + 1.5, FAT)
    paint(np.maximum(surface + head.scalp, inner - 7), BONE)
    muscle = np.maximum(surface + head.scalp + 1.5, points[2] + 6 + 0.25 * points[1])
    fibres = head.streaks(points * column((1.3, 1.1, 0.3)))
    paint(muscle, MUSCLE + 0.5 * np.maximum(fibres - 0.3, 0) + 0.08 * fibres, blur=3)
    _paint_face(canvas, surface)
    half = 2.2 + 1.8 / (1 + np.exp(np.clip(-(points[2] + 12) / 4, -30, 30)))  # thinner at the base
    shell = np.abs(inner - half) - half  # skull: two dark layers with marrow between them
    paint(shell, BONE, blur=2)
    paint(shell + 0.65 * half, 0.75 + 0.25 * streaks, blur=2, opacity=0.8)


def _paint_face(canvas: Canvas, surface: Field) -> None:
    """Paints orbits, air spaces, jaws and spine inside the skin `surface`."""
    paint, points, mirrored, streaks = canvas.paint, canvas.points, canvas.mirrored, canvas.streaks
    below = surface + 5
    paint(ellipsoid(mirrored, (40, -30, -42), (20, 22, 15)), BONE + 0.5 * (streaks > 0.9), blur=4)
    paint(np.maximum(ellipsoid(mirrored, (28, 46, -40), (15, 26, 14)), surface + 2), FAT)
    for knots in (((18, 52, -40, 2), (12, 26, -36, 2)), ((41, 52, -40, 2), (22, 28, -36, 2))):
        paint(rod(mirrored, *knots), MUCOSA)
    paint(rod(mirrored, (29, 46, -39, 2.5), (12, 20, -30, 2)), 0.85)
    globe = ellipsoid(mirrored, (31, 59, -40), (12, 12, 12))
    paint(globe, 1.1)
    paint(globe + 1.5, 0.4)
    paint(ellipsoid(mirrored, (32, 69, -40), (4.5, 2.2, 4.5)), 0.9)
    for centre, radii in (
        ((14, 18, -43), (13, 13, 9)),  # sphenoid sinus
        ((28, 46, -70), (13, 15, 14)),  # maxillary sinus
        ((9, 71, 0), (8, 5, 9)),  # frontal sinus
        ((7, 44, -38), (6, 20, 9)),  # ethmoid cells
    ):
        air = np.maximum(ellipsoid(mirrored, centre, radii), below)
        paint(air - 1, MUCOSA)
        paint(air, AIR)
    nasal = np.maximum(ellipsoid(mirrored, (7, 55, -60), (7, 30, 17)), below)
    paint(nasal, np.where(streaks > 0.1, MUCOSA, AIR))
    paint(rod(points, (0, 18, -62, 8), (0, 0, -78, 7), (0, -2, -130, 7)), AIR, blur=2)
    paint(np.maximum(ellipsoid(points, (0, 48, -80), (24, 32, 3)), below), BONE)
    paint(np.maximum(ellipsoid(points, (0, 36, -98), (23, 33, 15)), below), MUSCLE + 0.2 * streaks, blur=3)
    jaw = rod(mirrored, (49, 0, -46, 5), (46, 4, -88, 7), (12, 66, -104, 7))
    paint(jaw, BONE, blur=2)
    paint(jaw + 3, MARROW)
    teeth = np.maximum(np.abs(ellipsoid(points, (0, 36, -90), (26, 42, 60))) - 3, np.abs(points[2] + 90) - 8)
    paint(np.maximum(np.maximum(teeth, below), 40 - points[1]), BONE)
    flat = points * column((0.6, 1, 1))
    paint(rod(flat, (0, -6, -44, 6), (0, -25, -66, 5)), BONE)
    paint(rod(flat, (0, -6, -44, 4.5), (0, -25, -66, 3.5)), MARROW)
    spine = rod(flat, (0, -26, -78, 7), (0, -21, -220, 8))
    paint(spine, BONE)
    paint(np.maximum(spine + 1.5, 2 - np.abs((points[2] + 96) % 17 - 8.5)), 1.05)


def _paint_brain(canvas: Canvas, head: Head) -> None:
    """Paints fluid, cortex, white matter, cerebellum, brain stem and deep structures."""
    paint, points, inner, streaks = canvas.paint, canvas.pushed, canvas.inner, canvas.streaks
    side, ahead, height = mirrored = canvas.mirrored_pushed
    cerebrum, cerebellum, stem, tent = brain(points, mirrored)
    paint(inner, FLUID)
    # The medial wall is part of the surface, except at the corpus callosum.
    bridge = ellipsoid(points, (0, -6, 4), (30, 40, 26))
    depth = np.minimum(np.maximum(-cerebrum, 0), np.where(bridge > 0, side, np.float32(FAR)))
    sulcus = np.abs(canvas.folds) * 3.7  # roughly the distance to the nearest sulcus in mm
    shallow: Field = np.clip(1.5 - depth / 14, 0, 1)
    cortex = np.maximum(np.minimum(depth, sulcus / np.maximum(shallow, 0.05)) - 3.2, -3)
    paint(np.maximum(cerebrum, inner + 1.5), WHITE + 0.02 * streaks)
    paint(np.maximum(cortex, cerebrum), head.grey, blur=2.5)
    groove = sulcus - head.sulcus * (0.5 + 1.2 * np.clip(1 - depth / 6, 0, 1))
    paint(np.maximum(groove, cerebrum), FLUID, blur=2.2, opacity=0.8 * shallow)
    # A slice has a thickness: one along the fissure also shows its walls.
    fissure = np.maximum(np.maximum(side - 0.5 - head.sulcus, -bridge), cerebrum)
    paint(fissure, FLUID, blur=2, opacity=0.7 if np.ptp(points[0]) > 50 else 0.3)

    folia = np.sin(1.15 * cerebellum + 1.2 * streaks + 0.5 * canvas.folds)
    paint(np.maximum(cerebellum, inner + 1.5), head.grey * (0.97 + 0.09 * folia))
    paint(ellipsoid(mirrored, (17, -60, -36), (17, 15, 9)) + 2 * streaks, WHITE * 0.97, blur=4, opacity=0.8)
    tentorium = np.maximum(np.maximum(np.abs(height - tent + 1.5) - 0.6, inner), ahead + 38)
    paint(tentorium, 1.15)
    paint(np.maximum(stem, inner + 1), WHITE * 0.96)

    sylvian = ellipsoid(mirrored, (54, -4, -3), (16, 30, 1.7))
    sylvian = np.minimum(sylvian, ellipsoid(mirrored, (40, 0, 2), (1.2, 20, 13)))
    paint(sylvian - 0.6 * head.sulcus + 0.9 * streaks, FLUID, blur=2, opacity=0.75)
    for centre, radii, value in (
        ((0, -6, -21), (13, 13, 6), FLUID),  # suprasellar cistern
        ((0, -31, -2), (9, 5, 5), FLUID),  # quadrigeminal cistern
        ((11, -18, 7), (9, 15, 9), head.grey + 0.05),  # thalamus
        ((24, 0, 2), (7, 19, 11), head.grey + 0.04),  # lentiform nucleus
        ((15, 14, 10), (5, 11, 9), head.grey),  # caudate nucleus
    ):
        paint(ellipsoid(mirrored, centre, radii), value, blur=2.5)
    callosum = rod(points * column((0.25, 1, 1)), (0, 18, -3, 3), (0, 29, 6, 5), (0, 18, 22, 4), (0, -10, 27, 3.5),
                   (0, -32, 20, 4.5), (0, -37, 13, 5))  # fmt: skip
    paint(callosum, WHITE * 1.05)
    width = head.ventricles
    slanted = np.stack([1.2 * side - 0.4 * (height - 14), ahead, 0.8 * height + 3])  # wings, in a coronal cut
    lateral = rod(slanted, (9, 26, 2, 3.5 * width), (11, 12, 14, 4.5 * width), (12, -12, 21, 4 * width),
                  (24, -40, 13, 6 * width), (25, -62, 6, 2.5 * width))  # fmt: skip
    lateral = join(lateral, rod(mirrored, (24, -40, 13, 5 * width), (33, -26, -12, 2 * width)), 3)
    lateral = np.maximum(lateral, 1.2 - side)  # the septum separates the two
    paint(lateral, FLUID, blur=1.6)
    paint(ellipsoid(points, (0, -9, 0), (1.6 * width + 0.8, 14, 10)), FLUID)
    paint(ellipsoid(points, (0, -43, -33), (9 * width**0.5, 5, 10)), FLUID)


def _paint_vessels(canvas: Canvas) -> None:
    """Paints the healthy structures that the contrast agent brightens."""
    paint, points, mirrored, inner = canvas.paint, canvas.pushed, canvas.mirrored_pushed, canvas.inner
    side, ahead, height = canvas.mirrored
    paint(np.abs(inner + 0.2) - 0.5, 0.95, opacity=0.7)  # dura
    sagittal = np.hypot(inner + 2.5, side) - 3
    paint(np.maximum(sagittal, 0.3 * ahead - 22 - height), VESSEL)
    paint(rod(mirrored, (0, -98, -14, 3), (38, -88, -19, 3), (56, -56, -23, 3), (50, -38, -34, 3)), VESSEL)
    paint(rod(points, (0, -38, 6, 1.6), (0, -50, 4, 1.6), (0, -94, -13, 2)), VESSEL)
    paint(np.maximum(ellipsoid(mirrored, (25, -40, 10), (3, 8, 3)), -40 - height) + 0.8 * canvas.streaks, VESSEL)
    middle_artery = rod(mirrored, (2, 20, -14, 1.1), (7, 2, -18, 1.6), (30, 2, -14, 1.2), (42, -4, -2, 1))
    paint(middle_artery, VESSEL, opacity=0.8)
    paint(rod(points, (0, -11, -24, 1.8), (2, -9, -48, 1.8)), VESSEL)
    paint(ellipsoid(mirrored, (13, 2, -33), (4.5, 11, 5)), MUCOSA)
    paint(rod(mirrored, (13, 10, -34, 2.2), (14, -8, -36, 2.2), (20, -12, -60, 2.2)), BONE)
    paint(ellipsoid(points, (0, 3, -32), (6, 4.5, 3.2)), MUCOSA)
    # Veins in the sulci appear as dots and short lines.
    vein = np.abs(canvas.folds) * 4 + np.abs(canvas.streaks) * 1.6 - 0.75
    paint(np.maximum(vein, np.abs(inner + 9) - 8), VESSEL, opacity=0.8)


def _paint_tumour(canvas: Canvas, tumour: Tumour) -> None:
    """Paints the tumour, the oedema around it and its tail along the dura."""
    paint, distance, texture, inner = canvas.paint, canvas.tumour, canvas.texture, canvas.inner
    paint(np.maximum(distance - 9 + 5 * texture, inner + 3), 0.72, blur=9, opacity=tumour.oedema)
    if tumour.kind == GLIOMA:
        paint(distance, tumour.brightness * (1 + 0.1 * texture + 0.12 * canvas.streaks), blur=2)
    else:
        paint(distance - 1.2, FLUID, opacity=0.6)  # cleft between tumour and brain
        paint(distance, tumour.brightness * (1 + 0.04 * texture), blur=1.5)
    if tumour.kind == MENINGIOMA:
        paint(np.maximum(np.abs(inner + 0.8) - 1.1, distance - 7), tumour.brightness, opacity=0.8)
    if tumour.core:
        size = min(tumour.radii)  # float64, and so is the core
        core = np.maximum(distance + size * (1 - tumour.core) + 0.1 * size * texture, distance + 3)
        paint(core, 0.45 + 0.05 * texture, blur=2.5)


def draw_section(head: Head, tumour: Tumour, plane: Field) -> tuple[Field, Field]:
    """Renders a section without noise.

    Args:
      head: the head.
      tumour: its tumour.
      plane: float32 (3, H, W), positions of the pixels in millimetres.

    Returns:
      The intensity, float32 (H, W), 0 to about 2.5, and the signed distance to the tumour, float32 (H, W).
    """
    canvas = Canvas(head, tumour, plane)
    _paint_outside(canvas, head)
    _paint_brain(canvas, head)
    _paint_vessels(canvas)
    _paint_tumour(canvas, tumour)
    return canvas.image, canvas.tumour
