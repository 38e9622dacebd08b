"""Holds facts about the figshare dataset: classes, folds, spacing, counts, families of patient ids."""

import re
from collections.abc import Iterable

LABELS = ("meningioma", "glioma", "pituitary")
FOLDS = (1, 2, 3, 4, 5)

# The article gives 0.49 mm × 0.49 mm for the images of 512×512 and nothing for the 15 of 256×256.
PIXEL_SPACING_MM = {(512, 512): 0.49}

PUBLISHED_SLICES = {"meningioma": 708, "glioma": 1426, "pituitary": 930}
PUBLISHED_IDS = 233

_VISIT = re.compile(r"^(MR\d+)[A-Z]$")


def family_of(patient_id: str) -> str:
    """Returns the family of a patient id: "MR040240" for "MR040240B"; other ids are their own family."""
    match = _VISIT.match(patient_id)
    return match[1] if match else patient_id


def families_of(patient_ids: Iterable[str], *, dataset: str) -> tuple[str, ...]:
    """Returns the family of each patient id.

    Args:
      patient_ids: any number.
      dataset: `config.data.dataset`; in "folder", a user's own slices, each patient is a family.
    """
    return tuple(patient_ids) if dataset == "folder" else tuple(map(family_of, patient_ids))
