"""Generates synthetic head slices with tumours, in the file format of the figshare dataset.

The slices resemble contrast-enhanced T1 images closely enough for tests and demonstrations. They contain no person's
data and may be redistributed; scores on them say nothing about patients. The same arguments give the same slices.
"""

import contextlib
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainseg_jax.data.dataset_info import FOLDS
from brainseg_jax.data.figshare_brain_tumor.mat_file import RawSlice, write_folds, write_slice
from brainseg_jax.data.phantom.anatomy import GLIOMA, MENINGIOMA, PITUITARY, Head, Tumour
from brainseg_jax.data.phantom.rendering import Canvas, draw_section
from brainseg_jax.data.phantom.solids import Field
from brainseg_jax.errors import InputError

SLICE_IDS = 3064
IDS_PER_ARCHIVE = 766

# Scanners acquire about 256 lines and interpolate. Doing the same also renders four times faster.
ACQUIRED_SIZE = 256

# Number of examinations of successive persons with a glioma.
VISITS = (2, 1, 1, 1, 3, 1, 1)

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the coordinate that is constant in a view


class Camera:
    """A view of the head and the head's position in the scanner."""

    def __init__(self, rng: np.random.Generator, view: str) -> None:
        """Draws a slightly tilted and shifted position; `view` is a key of `AXES`."""
        self._view = view
        self._rotation = np.eye(3)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            # Heads nod (turn in the sagittal plane) more than they turn otherwise.
            angle = np.radians(rng.normal(0, 6 if (first, second) == (1, 2) else 3))
            turn = np.eye(3)
            turn[[first, second], [first, second]] = np.cos(angle)
            turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
            self._rotation = self._rotation @ turn
        self._shift = rng.normal(0, 4, 3)
        self._field_of_view = rng.uniform(222, 256)  # mm

    def plane(self, depth: float, size: int) -> Field:
        """Returns the points of the slice at `depth` mm along the view's axis: float32 (3, size, size)."""
        steps = ((np.arange(size) + 0.5) / size - 0.5) * self._field_of_view
        across, down = np.meshgrid(steps, steps)
        constant = np.full_like(across, depth)
        # The nose points up in axial slices and left in sagittal ones; elsewhere the top of the head is up.
        places = {
            "axial": (across, -12 - down, constant),
            "coronal": (across, constant, -14 - down),
            "sagittal": (constant, -6 - across, -14 - down),
        }[self._view]
        return (np.tensordot(self._rotation, np.stack(places), 1) + self._shift[:, None, None]).astype(np.float32)

    def tumour_depths(self, head: Head, tumour: Tumour, count: int) -> NDArray[np.float64]:
        """Returns evenly spaced depths of `count` slices that show enough of the tumour: float64 (count,)."""
        middle = (self._rotation.T @ (tumour.centre * head.scale - self._shift))[AXES[self._view]]
        offsets = np.linspace(-1.2, 1.2, 13) * max(tumour.radii)
        planes = (self.plane(middle + offset, 48) for offset in offsets)
        areas = np.array([(Canvas(head, tumour, plane).tumour < 0).mean() for plane in planes])
        large = offsets[areas > max(0.25 * areas.max(), 0.0018)]
        if not large.size:
            large = offsets[[areas.argmax()]]
        return middle + np.linspace(large[0], large[-1], count)


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
    return ndimage.zoom(image, size / image.shape[0], order=1, mode="nearest", grid_mode=True)


class _Patient(NamedTuple):
    """Plan of the slices of one patient id."""

    kind: int
    person: int  # index of the person among those with this kind of tumour
    visit: int  # index of the visit; every visit of a person has its own patient id
    fold: int
    slices: int  # number of slices

    @property
    def patient_id(self) -> str:
        if self.kind != GLIOMA:
            return f"{910000 + 20000 * (self.kind == PITUITARY) + self.person}"
        if self.person % len(VISITS) == 3:  # some gliomas have a plain number
            return f"{950000 + self.person}"
        return f"MR{900000 + self.person}{('', 'B', 'C')[self.visit]}"


def _plan_patients(patients: int, seed: int) -> list[_Patient]:
    """Plans the patients, in the order of their slices' ids."""
    rng = np.random.default_rng(seed)
    gliomas, meningiomas = round(0.4 * patients), round(0.3 * patients)
    counts = {GLIOMA: gliomas, MENINGIOMA: meningiomas, PITUITARY: patients - gliomas - meningiomas}
    # Folds take turns: each gets as many ids of each kind, and the visits of a person are in different folds.
    folds = itertools.cycle(rng.permutation(FOLDS).tolist())
    plan = []
    for kind, count in counts.items():
        visits = itertools.cycle(VISITS if kind == GLIOMA else (1,))
        members = ((person, visit) for person, times in enumerate(visits) for visit in range(times))
        for person, visit in itertools.islice(members, count):
            plan.append(_Patient(kind, person, visit, next(folds), int(rng.integers(6, 11))))
    return [plan[index] for index in rng.permutation(patients)]


def _draw_slices(patient: _Patient, seed: int, size: int) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    """Draws the slices of a patient id; all visits of a person show the same head.

    Yields:
      Pairs (image, mask), each (size, size): int16 from 0 to between 600 and 3000, and uint8 0 or 1.
    """
    person = np.random.default_rng((seed, patient.kind, patient.person))
    head = Head(person)
    growth = (1.0, 1.2, 0.85)[patient.visit]
    # A third of the tumours is faint or small, at regular intervals, so that few patients suffice to include some.
    faint, small = patient.person % 6 == 1, patient.person % 6 == 3
    tumour = Tumour(person, patient.kind, growth=growth, faint=faint, small=small)
    rng = np.random.default_rng((seed, patient.kind, patient.person, patient.visit + 1))
    views = rng.permutation(list(AXES))
    in_second_view = 3 if rng.random() < 0.35 else 0  # the last three slices of some examinations
    noise = rng.uniform(0.012, 0.05)
    peak = rng.uniform(700, 2600)
    for view, count in zip(views, (patient.slices - in_second_view, in_second_view), strict=False):
        camera = Camera(rng, view)
        for depth in camera.tumour_depths(head, tumour, count):
            plane = camera.plane(depth, min(size, ACQUIRED_SIZE))
            intensity, distance = draw_section(head, tumour, plane)
            image = enlarge(expose(rng, intensity, plane, noise), size)
            image *= peak * rng.uniform(0.87, 1.15) / image.max()
            yield np.rint(image).astype(np.int16), (enlarge(distance, size) < 0).astype(np.uint8)


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
    for name, value, least in (("patients", patients, 10), ("seed", seed, 0), ("size", size, 64)):
        if value < least:
            raise InputError(f"Phantom slices: {name} must be at least {least}, not {value}: choose a larger number.")
    plan = _plan_patients(patients, seed)
    total = sum(patient.slices for patient in plan)
    if total > SLICE_IDS:
        raise InputError(f"{patients} phantom patients need {total} slice ids of {SLICE_IDS}: ask for fewer patients.")
    slices = ((patient, *pair) for patient in plan for pair in _draw_slices(patient, seed, size))
    for number, (patient, image, mask) in enumerate(slices):
        slice_id = 1 + number * SLICE_IDS // total
        yield RawSlice(slice_id, patient.patient_id, patient.kind, image, mask, is_phantom=True), patient.fold


def write_archives(out_dir: Path, *, patients: int, seed: int = 0, size: int = 512) -> None:
    """Writes phantom slices in the files of the figshare dataset; the same arguments write the same bytes.

    Writes brainTumorDataPublic_{1-766,767-1532,1533-2298,2299-3064}.zip with the <id>.mat files, and cvind.mat with a
    fold for every id from 1 to 3064, used or not. `out_dir` is made if missing; existing files are overwritten.

    Raises:
      InputError: see `phantom_slices`.
    """
    slices = phantom_slices(patients=patients, seed=seed, size=size)
    first_slice = next(slices)  # raises for wrong arguments before any file is written
    folds = np.resize(FOLDS, SLICE_IDS)
    out_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        archives = []
        for last in range(IDS_PER_ARCHIVE, SLICE_IDS + 1, IDS_PER_ARCHIVE):
            path = out_dir / f"brainTumorDataPublic_{last - IDS_PER_ARCHIVE + 1}-{last}.zip"
            archives.append(stack.enter_context(zipfile.ZipFile(path, "w")))
        for slice_, fold in itertools.chain([first_slice], slices):
            folds[slice_.slice_id - 1] = fold
            # A fixed date keeps the bytes the same.
            member = zipfile.ZipInfo(f"{slice_.slice_id}.mat", (2017, 4, 1, 0, 0, 0))
            archives[(slice_.slice_id - 1) // IDS_PER_ARCHIVE].writestr(member, write_slice(slice_))
    (out_dir / "cvind.mat").write_bytes(write_folds(folds))
