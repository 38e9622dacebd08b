"""Reads and writes the dataset's files: `<id>.mat`, one slice, and `cvind.mat`, the official folds.

The files are MATLAB v7.3: HDF5 after a 512-byte user block. MATLAB stores arrays column by column, so an HDF5 reader
sees images and masks transposed; here they are upright, (rows, columns).
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from brainseg_jax.data.dataset_info import FOLDS
from brainseg_jax.errors import InputError

_HEADER = "MATLAB 7.3 MAT-file, Platform: {platform}, HDF5 schema 1.00 ."
_PHANTOM = "brainseg_jax phantom"
MAX_VALUES = 2**26  # of one field; the largest image of the dataset has 2**18


@dataclass(frozen=True)
class RawSlice:
    """One slice of the dataset.

    Attributes:
      slice_id: 1..3064, the file's name.
      patient_id: the patient's id.
      label: 1 meningioma, 2 glioma, 3 pituitary tumour.
      image: (H, W) int16, upright; the intensity range differs between slices.
      mask: (H, W) uint8, 1 inside the tumour, 0 outside.
      is_phantom: whether the slice is a phantom slice, according to the file's header.
    """

    slice_id: int
    patient_id: str
    label: int
    image: np.ndarray
    mask: np.ndarray
    is_phantom: bool


def read_slice(data: bytes, *, slice_id: int, name: str) -> RawSlice:
    """Reads and validates one slice.

    Args:
      data: the bytes of a `<id>.mat` file.
      slice_id: the id in the file's name.
      name: the file's path, for messages.

    Raises:
      InputError: the file is not MATLAB v7.3, or a field is missing or has a wrong dtype, shape or value.
    """
    with _open(data, name) as file:
        fields = ("label", "PID", "image", "tumorMask")
        label, codes, image, mask = (_field(file, f"cjdata/{field}", name) for field in fields)
    if label.shape != (1, 1) or label.dtype.kind not in "fiu" or label[0, 0] not in (1, 2, 3):
        raise _bad(name, "cjdata/label", f"is {label.ravel()[:3]}, not 1, 2 or 3")
    if codes.dtype != np.uint16 or codes.ndim != 2:
        raise _bad(name, "cjdata/PID", f"has dtype {codes.dtype} and {codes.ndim} dimensions, not MATLAB characters")
    patient_id = "".join(map(chr, codes.ravel())).replace("\0", "").strip()
    if not patient_id:
        raise _bad(name, "cjdata/PID", "is empty")
    if image.dtype != np.int16 or image.ndim != 2 or not image.size:
        raise _bad(name, "cjdata/image", f"has dtype {image.dtype} and shape {image.shape}, not int16 (W, H)")
    if mask.dtype != np.uint8 or mask.shape != image.shape:
        raise _bad(name, "cjdata/tumorMask", f"has dtype {mask.dtype} and shape {mask.shape}, not uint8 {image.shape}")
    if mask.max() != 1:
        raise _bad(name, "cjdata/tumorMask", "is empty" if not mask.any() else "has values other than 0 and 1")
    if image.min() == image.max():
        raise _bad(name, "cjdata/image", "has one value everywhere")
    return RawSlice(
        slice_id=slice_id,
        patient_id=patient_id,
        label=int(label[0, 0]),
        image=np.ascontiguousarray(image.T),
        mask=np.ascontiguousarray(mask.T),
        is_phantom=_PHANTOM.encode() in data[:116],
    )


def read_image(data: bytes, *, name: str) -> np.ndarray:
    """Reads `cjdata/image`, (H, W), upright, in the file's dtype; the file needs no mask, label or patient id.

    Args:
      data: the bytes of a MATLAB v7.3 file.
      name: the file's path, for messages.

    Raises:
      InputError: the file is not MATLAB v7.3 or holds no two-dimensional, finite image.
    """
    with _open(data, name) as file:
        image = _field(file, "cjdata/image", name)
    if image.ndim != 2 or not image.size or image.dtype.kind not in "iuf" or not np.isfinite(image).all():
        raise _bad(name, "cjdata/image", f"has dtype {image.dtype} and shape {image.shape}, not finite numbers (W, H)")
    return np.ascontiguousarray(image.T)


def read_folds(data: bytes, *, name: str) -> np.ndarray:
    """Reads `cvind.mat`.

    Returns:
      (n,) int64; entry i-1 is the official fold, 1..5, of the slice with id i.

    Raises:
      InputError: the file is not MATLAB v7.3, or `cvind` is not a vector of folds 1..5.
    """
    with _open(data, name) as file:
        folds = _field(file, "cvind", name).ravel()
    if not folds.size or not np.isin(folds, FOLDS).all():
        raise _bad(name, "cvind", "has values other than the folds 1 to 5")
    return folds.astype(np.int64)


def write_slice(slice_: RawSlice) -> bytes:
    """Encodes a slice as the bytes of an `<id>.mat` file for `read_slice` (without `tumorBorder`)."""
    fields = {
        "PID": (np.array([[ord(character)] for character in slice_.patient_id], np.uint16), "char"),
        "image": (np.ascontiguousarray(slice_.image.T), "int16"),
        "label": (np.array([[float(slice_.label)]]), "double"),
        "tumorMask": (np.ascontiguousarray(slice_.mask.T), "logical"),
    }
    return _matlab_file(fields, struct="cjdata", platform=_PHANTOM if slice_.is_phantom else "brainseg_jax")


def write_folds(folds: np.ndarray) -> bytes:
    """Encodes folds, (n,) integers 1..5, as the bytes of a `cvind.mat` file for `read_folds`."""
    return _matlab_file({"cvind": (folds.astype(np.float64)[None, :], "double")}, platform="brainseg_jax")


def _open(data: bytes, name: str) -> h5py.File:
    try:
        return h5py.File(io.BytesIO(data), "r")
    except Exception as error:  # h5py has errors of many classes for files that are damaged
        raise InputError(
            f"{name} is not a MATLAB v7.3 (HDF5) file, or it is cut short: fetch it again, or save it in MATLAB with "
            "save(..., '-v7.3')."
        ) from error


def _field(file: h5py.File, field: str, name: str) -> np.ndarray:
    """Reads a whole array that lies in the file itself, after checking what the file declares about it."""
    try:
        item: Any = file
        for part in field.split("/"):
            link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
            if link is not None and not isinstance(link, h5py.HardLink):
                raise _bad(name, field, "is a link to another place")
            item = None if link is None else item[part]
        if not isinstance(item, h5py.Dataset):
            raise InputError(
                f"{name} has no field {field}: it is not a file of this dataset, or it is damaged; fetch it again."
            )
        if item.external or item.is_virtual:
            raise _bad(name, field, "has its values in other files")
        if item.dtype.kind not in "iuf":
            raise _bad(name, field, f"has dtype {item.dtype}, not numbers")
        if item.shape is None or item.size > MAX_VALUES:
            raise _bad(name, field, f"has shape {item.shape}, more than {MAX_VALUES} values or none")
        if _is_incomplete(item):
            raise _bad(name, field, "lacks a part of its values")
        return np.asarray(item[()])
    except InputError:
        raise
    except Exception as error:
        raise _bad(name, field, "cannot be read") from error


def _is_incomplete(item: h5py.Dataset) -> bool:
    """Whether a part of an array was never written or was lost: HDF5 would read zeros there."""
    if item.chunks is None:
        return bool(item.id.get_storage_size() < item.nbytes)
    chunks = math.prod(-(-side // chunk) for side, chunk in zip(item.shape, item.chunks, strict=True))
    return bool(item.id.get_num_chunks() < chunks)


def _bad(name: str, field: str, what: str) -> InputError:
    return InputError(f"{name}: field {field} {what}; fetch the file again, or leave it out.")


def _matlab_file(fields: dict[str, tuple[np.ndarray, str]], *, struct: str = "", platform: str) -> bytes:
    """Encodes arrays with their MATLAB classes, as variables or as the fields of a struct."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        group = file
        if struct:
            group = file.create_group(struct)
            group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, (value, matlab_class) in fields.items():
            packed = {"compression": "gzip", "compression_opts": 1} if value.size > 4096 else {}
            # Without time stamps, and with each field closed before the next, the same slice gives the same bytes.
            field = group.create_dataset(name, data=value, track_times=False, **packed)
            field.attrs["MATLAB_class"] = np.bytes_(matlab_class)
            del field
    data = bytearray(buffer.getvalue())
    # 116 bytes of text, 8 of subsystem offset, version 0x0200 and "IM" for little endian: MATLAB's own header.
    data[:512] = _HEADER.format(platform=platform).encode().ljust(116) + bytes(8) + b"\x00\x02IM" + bytes(384)
    return bytes(data)
