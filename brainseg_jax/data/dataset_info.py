"""Facts of the figshare dataset: classes, folds, spacing, counts, and ids that look like one patient."""

import re

LABELS = ("meningioma", "glioma", "pituitary")


FOLDS = (1, 2, 3, 4, 5)


# The article gives 0.49 mm × 0.49 mm for its images of 512×512; of the 15 of 256×256 it does not speak.
PIXEL_SPACING_MM = {(512, 512): 0.49}


PUBLISHED_SLICES = {"meningioma": 708, "glioma": 1426, "pituitary": 930}


PUBLISHED_IDS = 233


_VISIT = re.compile(r"^(MR\d+)[A-Z]$")


def family_of(patient_id: str) -> str:
    """The family of a patient id: "MR040240B" is of family "MR040240"; an id without a trailing letter is its own."""
    match = _VISIT.match(patient_id)
    return match[1] if match else patient_id
