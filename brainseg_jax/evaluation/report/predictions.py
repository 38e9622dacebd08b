"""The report of predicted slices, whose true masks are not known."""

import heapq
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.formats.image_slice import ImageSlice
from brainseg_jax.data.preprocessing import scale_image
from brainseg_jax.evaluation.report.gallery import encode_slice
from brainseg_jax.evaluation.report.page import Section, report_path, write_report
from brainseg_jax.inference.postprocessing import Postprocessing

MAX_SLICES = 200  # in the gallery


class PredictionReport:
    """Gathers predicted slices for report.html; if there are many, keeps those with the largest masks."""

    def __init__(self, folder: Path, postprocessing: Postprocessing) -> None:
        """Checks that the report may be written.

        Args:
          folder: the folder for report.html.
          postprocessing: how the probabilities become masks.

        Raises:
          InputError: there is a report.html of another program.
        """
        self.path, self._postprocessing = report_path(folder), postprocessing
        self._kept, self._files = list[tuple[int, int, dict[str, Any]]](), set[Path]()
        self._slices = self._marked = 0

    def add(self, path: Path, slice_: ImageSlice, probabilities: np.ndarray) -> None:
        """Adds a slice of the file `path` with its probabilities, (H, W)."""
        pixels = int(self._postprocessing.mask(probabilities).sum())
        encoded = encode_slice(
            scale_image(slice_.image),
            probabilities,
            self._postprocessing,
            name=path.name + ("" if slice_.number is None else f", slice {slice_.number}"),
            label="tumour marked" if pixels else "nothing marked",
        )
        heapq.heappush(self._kept, (pixels, -self._slices, encoded))
        if len(self._kept) > MAX_SLICES:
            heapq.heappop(self._kept)
        self._files.add(path)
        self._slices, self._marked = self._slices + 1, self._marked + bool(pixels)

    def write(self, *, network: str) -> Path:
        """Writes the report and returns its path; `network` names the network, plain text."""
        counts = f"{self._slices} slices of {len(self._files)} files; a tumour is marked in {self._marked} of them."
        warning = "Research software: not for the care of patients. Nobody has checked these masks."
        html = f"<p>{escape(counts)}</p>\n<p>Network: {escape(network)}</p>\n<p>{warning}</p>"
        shown = sorted(self._kept, key=lambda kept: -kept[1])  # in the order in which they were added
        note = (
            f"All {self._slices} slices." if self._slices <= MAX_SLICES else f"The {MAX_SLICES} with the largest masks."
        )
        write_report(
            self.path,
            title="Predicted masks",
            sections=[Section("summary", "Summary", html)],
            slices=[encoded for *_, encoded in shown],
            note=f"{note} This file holds the images: keep it as you keep those.",
        )
        return self.path
