"""Writes phantom slices as a user's own files: 16-bit PNGs with odd names, masks, and a table."""

import csv

import numpy as np
from PIL import Image

from brainseg_jax.data.phantom import generate

CLASSES = {1: "type B", 2: "a, b", 3: "größer"}  # in the order of their names: 2, 1, 3
WITHOUT_TUMOUR = 5  # each fifth slice has no mask


def write_files(folder, *, patients=10, size=64, seed=0, **columns):
    """Writes images/, masks/ and table.csv.

    Args:
      folder: where to.
      patients: see `phantom_slices`; each has 6 to 10 slices.
      size: of the images.
      seed: of the phantoms.
      **columns: further columns of the table: a function of the phantom slice and its fold to the cell.

    Returns:
      The rows of the table, and for each its image, uint16, and its mask.
    """
    rows, pairs = [], []
    for number, (slice_, fold) in enumerate(generate.phantom_slices(patients=patients, seed=seed, size=size)):
        name = f"sub {number}/Bild-{slice_.slice_id}.ä.png"
        image = 20 * slice_.image.astype(np.uint16)  # beyond int16
        row = {"image": name, "mask": f"m_{number}.PNG", "patient": slice_.patient_id}
        mask = slice_.mask
        if number % WITHOUT_TUMOUR == 0:
            row["mask"], mask = "", np.zeros_like(mask)
        for path in ((folder / "images" / name), (folder / "masks" / "m")):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / name)
        if row["mask"]:
            Image.fromarray(255 * mask if number % 2 else mask).save(folder / "masks" / row["mask"])
        rows.append(row | {column: value(slice_, fold) for column, value in columns.items()})
        pairs.append((image, mask))
    write_table(folder / "table.csv", rows)
    return rows, pairs


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
