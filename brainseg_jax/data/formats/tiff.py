"""Reads TIFF files: one page or several, integers or floats of any depth, grey or colours."""

from pathlib import Path
from typing import Any

import numpy as np

from brainseg_jax.data.formats.grey_levels import to_grey, turn_upright
from brainseg_jax.data.formats.image_slice import MAX_VALUES, ImageSlice
from brainseg_jax.errors import InputError
from brainseg_jax.utils.extras import require

_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
_UNASSOCIATED_ALPHA = 2  # of ExtraSamples: an opacity that is not multiplied in yet


def read(path: Path) -> list[ImageSlice]:
    """Reads every page that is not a smaller copy of another one.

    Raises:
      InputError: tifffile is not installed, or a page is too large, damaged or no picture.
    """
    tifffile = require("tifffile", extra="formats", reason=f"{path}: reading TIFF files")
    with tifffile.TiffFile(path) as file:
        # By number: if the chain of pages is a loop, tifffile counts each page once but iterates for ever.
        pages = [file.pages[number].aspage() for number in range(len(file.pages))]
        pages = [page for page in pages if not page.subfiletype & _REDUCED]
        if sum(page.size for page in pages) > MAX_VALUES:
            raise InputError(f"{path} has more than {MAX_VALUES} values: save its pages as files of their own.")
        if any(count > file.filehandle.size for page in pages for count in page.databytecounts):
            raise InputError(
                f"{path} is not a readable TIFF image (a part of it is longer than the file): remove it from the "
                "input, or save it again."
            )
        if len(pages) == 1:
            return [ImageSlice(_read_page(path, pages[0]))]
        return [ImageSlice(_read_page(path, page), number) for number, page in enumerate(pages, start=1)]


def _read_page(path: Path, page: Any) -> np.ndarray:
    pixels = page.asarray()
    if page.axes == "SYX":  # channels in planes of their own
        pixels = np.moveaxis(pixels, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise InputError(f"{path} has a page with axes {page.axes}: save it as pages of rows and columns.")
    kind = page.photometric.name
    if kind == "PALETTE":
        pixels = np.moveaxis(page.colormap, 0, -1)[pixels]
    if kind == "SEPARATED":  # cyan, magenta, yellow and black
        light = 1 - pixels[..., :4].astype(np.float32) / np.iinfo(pixels.dtype).max
        pixels = light[..., :3] * light[..., 3:]
    grey = to_grey(_without_more_channels(pixels, page), has_alpha=_UNASSOCIATED_ALPHA in page.extrasamples)
    if kind == "MINISWHITE":
        grey = grey.max() - grey if grey.dtype != bool else ~grey
    return turn_upright(grey, page.tags.valueof("Orientation", 1))


def _without_more_channels(pixels: np.ndarray, page: Any) -> np.ndarray:
    """Leaves out all channels except the colours and an opacity that `to_grey` must multiply in."""
    if pixels.ndim == 2 or not page.extrasamples:
        return pixels
    colours = pixels.shape[-1] - len(page.extrasamples)
    kept = [*range(colours)]
    if _UNASSOCIATED_ALPHA in page.extrasamples:  # an associated one is multiplied in already
        kept.append(colours + page.extrasamples.index(_UNASSOCIATED_ALPHA))
    return pixels[..., kept]
