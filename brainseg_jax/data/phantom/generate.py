"""Generates synthetic head slices with tumours, in the file format of the figshare dataset.

The slices resemble contrast-enhanced T1 images closely enough for tests and demonstrations. They contain no person's
data and may be redistributed; scores on them say nothing about patients. The same arguments give the same slices.
"""

import contextlib
import dataclasses
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainseg_jax.data.figshare_brain_tumor.mat_file import RawSlice, write_folds, write_slice
from brainseg_jax.data.phantom.anatomy import (
    GLIOMA,
    MENINGIOMA,
    PITUITARY,
    Head,
    Tumour,
    random_head,
    random_tumour,
)
from brainseg_jax.data.phantom.rendering import draw_section, tumour_areas
from brainseg_jax.data.phantom.solids import Field
from brainseg_jax.errors import InputError

ARCHIVE_RANGES = ((1, 766), (767, 1532), (1533, 2298), (2299, 3064))
SLICE_IDS = 3064
FOLDS = 5
MIN_PATIENTS = 10
MIN_SIZE = 64

# Scanners acquire about 256 lines and interpolate. Doing the same also renders four times faster.
ACQUIRED_SIZE = 256

# Number of examinations of successive persons with a glioma.
VISITS = (2, 1, 1, 1, 3, 1, 1)

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the coordinate that is constant in a view


@dataclasses.dataclass(frozen=True)
class Camera:
    """The view and the patient's position in the scanner."""

    view: str  # a key of AXES
    rotation: NDArray[np.float64]  # (3, 3)
    shift: NDArray[np.float64]  # (3,), millimetres
    field_of_view: float  # millimetres

    def plane(self, depth: float, size: int) -> Field:
        """Returns the points of the slice at `depth` mm along the view's axis: float32 (3, size, size)."""
        steps = ((np.arange(size) + 0.5) / size - 0.5) * self.field_of_view
        across, down = np.meshgrid(steps, steps)
        constant = np.full_like(across, depth)
        # The nose points up in axial slices and left in sagittal ones; elsewhere the top of the head is up.
        places = {
            "axial": (across, -12 - down, constant),
            "coronal": (across, constant, -14 - down),
            "sagittal": (constant, -6 - across, -14 - down),
        }[self.view]
        return (np.tensordot(self.rotation, np.stack(places), 1) + self.shift[:, None, None]).astype(np.float32)

    def depth(self, point: NDArray[np.float64]) -> float:
        """Returns the depth of the slice through a point (3,)."""
        return float((self.rotation.T @ (point - self.shift))[AXES[self.view]])


def random_camera(rng: np.random.Generator, view: str) -> Camera:
    """Draws a slightly tilted and shifted position of the head."""
    rotation = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Heads nod (turn in the sagittal plane) more than they turn otherwise.
        angle = np.radians(rng.normal(0, 6 if (first, second) == (1, 2) else 3))
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return Camera(view, rotation, rng.normal(0, 4, 3), rng.uniform(222, 256))


def slice_depths(head: Head, tumour: Tumour, camera: Camera, count: int) -> NDArray[np.float64]:
    """Returns evenly spaced depths of `count` slices in which the tumour is large enough: float64 (count,)."""
    middle = camera.depth(np.multiply(tumour.centre, head.scale))
    offsets = np.linspace(-1.2, 1.2, 13) * max(tumour.radii)
    areas = np.array(tumour_areas(head, tumour, (camera.plane(middle + offset, 48) for offset in offsets)))
    usable = offsets[areas > max(0.25 * areas.max(), 0.0018)]
    if not len(usable):
        usable = offsets[[int(areas.argmax())]]
    return middle + np.linspace(usable[0], usable[-1], count)


def expose(rng: np.random.Generator, intensity: Field, plane: Field, noise: float) -> Field:
    """Applies an uneven coil sensitivity and Rician noise: float32 (H, W) → (H, W)."""
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in intensity.shape)
    slope = rng.normal(0, 0.12, 5).astype(np.float32)
    bias = np.exp(
        (slope[0] * rows + slope[1] * rows * rows)[:, None]
        + (slope[2] * columns + slope[3] * columns * columns)[None]
        + slope[4] * rows[:, None] * columns[None]
    )
    bias /= 1 + np.exp(-(plane[2] + 105) / 12)  # the head coil ends at the neck
    real, imaginary = rng.standard_normal((2, *intensity.shape), dtype=np.float32) * np.float32(noise)
    return np.hypot(intensity * bias + real, imaginary)


def enlarge(image: Field, size: int) -> Field:
    """Enlarges by bilinear interpolation: (H, W) → (size, size)."""
    if image.shape[0] == size:
        return image
    return ndimage.zoom(image, size / image.shape[0], order=1, mode="nearest", grid_mode=True)


def draw_patient(
    rng: np.random.Generator, *, head: Head, tumour: Tumour, count: int, size: int
) -> list[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    """Draws the slices of one examination.

    Args:
      rng: draws the views, the positions, the exposure and the noise.
      head: the patient's head.
      tumour: the patient's tumour.
      count: number of slices; in about a third of the examinations the last three are in another view.
      size: height and width of the images.

    Returns:
      `count` pairs (image, mask), each (size, size): int16 from 0 to between 600 and 3000, and uint8 0 or 1.
    """
    views = rng.permutation(list(AXES))
    in_second = 3 if rng.random() < 0.35 else 0
    noise = rng.uniform(0.012, 0.05)
    peak = rng.uniform(700, 2600)
    images = []
    for view, number in zip(views, (count - in_second, in_second), strict=False):
        camera = random_camera(rng, str(view))
        for depth in slice_depths(head, tumour, camera, number):
            plane = camera.plane(depth, min(size, ACQUIRED_SIZE))
            intensity, distance = draw_section(head, tumour, plane)
            image = enlarge(expose(rng, intensity, plane, noise), size)
            image *= peak * rng.uniform(0.87, 1.15) / image.max()
            images.append((np.rint(image).astype(np.int16), (enlarge(distance, size) < 0).astype(np.uint8)))
    return images


@dataclasses.dataclass(frozen=True)
class _Patient:
    """Plan of the slices of one patient id."""

    kind: int
    nth: int  # index of the person among those with this kind of tumour
    visit: int  # index of the visit; every visit of a person has its own patient id
    fold: int
    count: int  # slices

    @property
    def patient_id(self) -> str:
        if self.kind != GLIOMA:
            return f"{910000 + 20000 * (self.kind == PITUITARY) + self.nth}"
        if self.nth % len(VISITS) == 3:  # some gliomas have a plain number
            return f"{950000 + self.nth}"
        return f"MR{900000 + self.nth}{('', 'B', 'C')[self.visit]}"


def _plan(patients: int, seed: int) -> list[_Patient]:
    """Plans the patients, in the order of their slices' ids."""
    rng = np.random.default_rng(seed)
    gliomas, meningiomas = round(0.4 * patients), round(0.3 * patients)
    counts = {GLIOMA: gliomas, MENINGIOMA: meningiomas, PITUITARY: patients - gliomas - meningiomas}
    # Folds take turns: each gets as many ids of each kind, and the visits of a person are in different folds.
    folds = itertools.cycle(int(fold) for fold in rng.permutation(FOLDS) + 1)
    plan = []
    for kind, count in counts.items():
        visits = itertools.cycle(VISITS if kind == GLIOMA else (1,))
        members = [(nth, visit) for nth, times in zip(range(count), visits, strict=False) for visit in range(times)]
        for nth, visit in members[:count]:
            plan.append(_Patient(kind, nth, visit, next(folds), int(rng.integers(6, 11))))
    return [plan[index] for index in rng.permutation(patients)]


def _examine(patient: _Patient, seed: int, size: int) -> list[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    """Draws the slices of a patient id; all visits of a person show the same head."""
    person = np.random.default_rng((seed, patient.kind, patient.nth))
    head = random_head(person)
    # A third of the tumours is faint or small, at regular intervals, so that few patients suffice to include some.
    tumour = random_tumour(person, patient.kind, faint=patient.nth % 6 == 1, small=patient.nth % 6 == 3)
    breadth, length, height = np.multiply(tumour.radii, (1.0, 1.2, 0.85)[patient.visit])  # it grows, then shrinks
    tumour = dataclasses.replace(tumour, radii=(breadth, length, height))
    rng = np.random.default_rng((seed, patient.kind, patient.nth, patient.visit + 1))
    return draw_patient(rng, head=head, tumour=tumour, count=patient.count, size=size)


def phantom_slices(*, patients: int, seed: int = 0, size: int = 512) -> Iterator[tuple[RawSlice, int]]:
    """Yields slices of synthetic patients.

    Args:
      patients: number of patient ids, 10 to about 380; 40 % have a glioma, 30 % each of the other tumours.
      seed: at least 0; determines the patients.
      size: height and width of the images, at least 64.

    Yields:
      (slice, fold), by ascending slice id within 1..3064; each patient id has 6 to 10 slices, all in one fold 1..5.

    Raises:
      InputError: an argument is out of range.
    """
    if patients < MIN_PATIENTS:
        raise InputError(
            f"The number of phantom patients must be at least {MIN_PATIENTS}, not {patients}: ask for more patients."
        )
    if seed < 0:
        raise InputError(f"The phantom seed must not be negative, but is {seed}: set it to 0 or more.")
    if size < MIN_SIZE:
        raise InputError(f"The phantom size must be at least {MIN_SIZE} pixels, not {size}: ask for larger images.")
    plan = _plan(patients, seed)
    total = sum(patient.count for patient in plan)
    if total > SLICE_IDS:
        raise InputError(f"{patients} phantom patients need {total} slice ids of {SLICE_IDS}: ask for fewer patients.")
    number = 0
    for patient in plan:
        for image, mask in _examine(patient, seed, size):
            slice_id = 1 + number * SLICE_IDS // total
            yield RawSlice(slice_id, patient.patient_id, patient.kind, image, mask, is_phantom=True), patient.fold
            number += 1


def write_archives(out_dir: Path, *, patients: int, seed: int = 0, size: int = 512) -> None:
    """Writes phantom slices in the files of the figshare dataset; the same arguments write the same bytes.

    Writes brainTumorDataPublic_{1-766,767-1532,1533-2298,2299-3064}.zip with the <id>.mat files, and cvind.mat with a
    fold for every id from 1 to 3064, used or not. `out_dir` is made if missing; existing files are overwritten.

    Raises:
      InputError: see `phantom_slices`.
    """
    slices = phantom_slices(patients=patients, seed=seed, size=size)
    first = next(slices)  # raises for wrong arguments before any file is written
    folds = np.arange(SLICE_IDS) % FOLDS + 1
    out_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        archives = {}
        for low, high in ARCHIVE_RANGES:
            path = out_dir / f"brainTumorDataPublic_{low}-{high}.zip"
            archives[range(low, high + 1)] = stack.enter_context(zipfile.ZipFile(path, "w"))
        for slice_, fold in itertools.chain([first], slices):
            folds[slice_.slice_id - 1] = fold
            (archive,) = (archive for ids, archive in archives.items() if slice_.slice_id in ids)
            # A fixed date keeps the bytes the same.
            archive.writestr(zipfile.ZipInfo(f"{slice_.slice_id}.mat", (2017, 4, 1, 0, 0, 0)), write_slice(slice_))
    (out_dir / "cvind.mat").write_bytes(write_folds(folds))
