"""Images to predict, of every format but MATLAB's."""

import contextlib
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import imagecodecs
import nibabel
import numpy as np
import pydicom
import tifffile
from numpy.random import Generator
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless

from brainseg_jax.data.image_files import read_slices
from tests.nightly.fuzzing.kind import Kind
from tests.nightly.fuzzing.mutations import EXTREMES, damage_bytes, extreme, set_field, strange_value
from tests.nightly.fuzzing.phantoms import grey

Seeds = list[tuple[str, bytes]]  # suffix and bytes
Change = Callable[[Generator, bytes], bytes]
# (offset, struct format) of the fields of a NIfTI-1 header.
NIFTI_FIELDS = [
    *((40 + 2 * axis, "<h") for axis in range(8)),
    *((0, "<i"), (70, "<h"), (72, "<h"), (108, "<f"), (112, "<f"), (116, "<f"), (123, "<b"), (252, "<h"), (254, "<h")),
    *((76 + 4 * axis, "<f") for axis in range(8)),
    *((offset, "<f") for offset in range(256, 328, 4)),
]
DICOM_FIELDS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "PhotometricInterpretation", "PlanarConfiguration", "RescaleSlope", "RescaleIntercept"),
    *("PixelSpacing", "Modality", "PixelData"),
)


def _damage(change: Change) -> Callable[[Generator, Seeds, Path], Path]:
    """Returns what damages a seed: by `change`, which knows the format, by `damage_bytes`, or by both."""

    def damage(rng: Generator, seeds: Seeds, folder: Path) -> Path:
        suffix, data = seeds[int(rng.integers(len(seeds)))]
        choice = rng.random()
        if choice < 0.7:
            data = change(rng, data)
        if choice > 0.5:
            data = damage_bytes(rng, data)
        path = folder / f"slice{suffix}"
        path.write_bytes(data)
        return path

    return damage


def _read(path: Path) -> None:
    for slice_ in read_slices(path):
        assert slice_.image.ndim == 2, slice_.image.shape
        assert slice_.image.size
        assert slice_.image.dtype.kind in "iufb", slice_.image.dtype
        assert np.isfinite(slice_.image).all()
        if slice_.spacing_mm:
            assert all(0 < side < np.inf for side in slice_.spacing_mm), f"spacing {slice_.spacing_mm}"


def _saved(format_: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _pngs(_: Path) -> Seeds:
    deep, small = grey(), (grey() >> 4).astype(np.uint8)
    image = Image.fromarray(small)
    colours = np.stack([deep, deep[::-1], deep], -1)
    images = [
        *(_saved("PNG", one) for one in (image, Image.fromarray(deep), image.convert("P"), image.convert("1"))),
        *(_saved("PNG", image.convert(mode)) for mode in ("RGB", "RGBA", "LA")),
        imagecodecs.png_encode(colours),
    ]
    return [(".png", data) for data in images]


def _change_png(rng: Generator, data: bytes) -> bytes:
    """Changes a chunk of a PNG and makes its checksum right, so that the reader goes beyond it."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    number = int(rng.integers(len(chunks))) if rng.random() < 0.5 else 0
    name, content = chunks[number]
    if name == b"IHDR":
        content = set_field(rng, content, [(0, ">I"), (4, ">I"), *((offset, ">B") for offset in range(8, 13))])
    elif name == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(damage_bytes(rng, _decompress(content)))
    else:
        content = damage_bytes(rng, content or b"\0")
    chunks[number] = (name, content)
    if rng.random() < 0.2:
        chunks.insert(int(rng.integers(1, len(chunks) + 1)), chunks[int(rng.integers(len(chunks)))])
    written = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:8] + written


def _decompress(content: bytes) -> bytes:
    with contextlib.suppress(zlib.error):  # a second damage of the same chunk
        return zlib.decompressobj().decompress(content)
    return content


def _read_png(path: Path) -> None:
    _read(path)
    with path.open("rb") as file:
        head = file.read(24)
    if head[12:16] == b"IHDR" and path.read_bytes().count(b"IHDR") == 1:  # Pillow takes the last of several
        width, height = struct.unpack(">II", head[16:])
        (slice_,) = read_slices(path)
        assert slice_.image.shape in ((height, width), (width, height)), "another shape than the file says"


def _jpegs(_: Path) -> Seeds:
    image = Image.fromarray((grey() >> 4).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    options: list[dict[str, Any]] = [
        {},
        {"progressive": True},
        {"exif": exif},
        {"quality": 30, "restart_marker_blocks": 2},
    ]
    seeds = [(".jpg", _saved("JPEG", image, **one)) for one in options]
    return seeds + [(".jpeg", _saved("JPEG", image.convert(mode))) for mode in ("RGB", "CMYK")]


def _change_jpeg(rng: Generator, data: bytes) -> bytes:
    """Changes the bytes behind a random marker: mostly lengths, sizes and tables."""
    markers = [place for place in range(len(data) - 10) if data[place] == 0xFF and data[place + 1] not in (0, 0xFF)]
    place = markers[int(rng.integers(len(markers)))] + int(rng.integers(2, 12))
    changed = extreme(rng, int(rng.choice([1, 2])))
    return data[:place] + changed + data[place + len(changed) :]


def _films(_: Path) -> Seeds:
    frames = [Image.fromarray(((grey() >> 4) + shift).astype(np.uint8)) for shift in (0, 3, 9)]
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    seeds = [(".png", _saved("PNG", frames[0], **more)), (".png", _saved("GIF", frames[0], **more))]
    return [*seeds, (".png", _saved("GIF", frames[0])), (".jpg", _saved("MPO", frames[0].convert("RGB"), **more))]


def _tiffs(_: Path) -> Seeds:
    image = grey()
    colours = np.stack([image, image[::-1], image], -1)
    small = (image >> 4).astype(np.uint8)
    variants: list[tuple[np.ndarray, dict[str, Any]]] = [
        *((image, {"compression": name}) for name in (None, "lzw", "zlib", "packbits", "zstd", "lzma")),
        *((image, {"tile": (16, 16)}), (image, {"bigtiff": True}), (image, {"byteorder": ">"})),
        (image.astype(np.float32), {"compression": "zlib", "predictor": True}),
        (np.stack([image, image, image, image]), {"photometric": "minisblack"}),
        (colours, {"photometric": "rgb"}),
        (np.moveaxis(colours, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        *(
            (small, {"compression": "jpeg"}),
            (image, {"compression": "jpeg2000"}),
            (small, {"photometric": "miniswhite"}),
        ),
        (small, {"photometric": "palette", "colormap": np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))}),
        (np.concatenate([colours, image[..., None]], -1), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (small > 40, {"photometric": "minisblack"}),
    ]
    seeds = []
    for pixels, options in variants:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **options)
        seeds.append((".tif", buffer.getvalue()))
    return seeds


def _change_tiff(rng: Generator, data: bytes) -> bytes:
    """Changes tag, type, count or value of a random entry of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack(f"{order}H", data[2:4])[0] != 42:  # BigTIFF
        return damage_bytes(rng, data)
    (start,) = struct.unpack(f"{order}I", data[4:8])
    (count,) = struct.unpack(f"{order}H", data[start : start + 2])
    entry = start + 2 + 12 * int(rng.integers(count))
    return set_field(
        rng,
        data,
        [
            (entry, f"{order}H"),
            *((entry + at, f"{order}{code}") for at, code in ((2, "H"), (4, "I"), (8, "I"), (8, "H"))),
        ],
    )


def _dicoms(folder: Path) -> Seeds:
    image = grey()
    variants: list[tuple[np.ndarray, dict[str, Any]]] = [
        (image, {"RescaleSlope": 2, "RescaleIntercept": -100, "PixelSpacing": [0.5, 0.7]}),
        (image, {"PhotometricInterpretation": "MONOCHROME1"}),
        (np.stack([image, image[::-1]]), {"NumberOfFrames": 2}),
        (
            np.stack([(image >> 4).astype(np.uint8)] * 3, -1),
            {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
        ),
    ]
    seeds = []
    for number, (pixels, values) in enumerate(variants):
        plain = folder / f"{number}.dcm"
        _dicom(pixels, values).save_as(plain, enforce_file_format=True)
        seeds.append((".dcm", plain.read_bytes()))
        packed = pydicom.dcmread(plain)
        packed.compress(RLELossless, generate_instance_uid=False)
        packed.save_as(folder / "rle.dcm")
        seeds.append((".dcm", (folder / "rle.dcm").read_bytes()))
        for name in ("JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless"):
            reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
            reader.SetFileName(str(plain))
            assert reader.Read()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
            change.SetInput(reader.GetImage())
            assert change.Change(), name
            writer.SetFileName(str(folder / "packed.dcm"))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()
            seeds.append((".dcm", (folder / "packed.dcm").read_bytes()))
    return seeds


def _dicom(pixels: np.ndarray, values: dict[str, Any]) -> Dataset:
    dataset, dataset.file_meta = Dataset(), FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.3.5", "1.2.3.6", "MR"
    has_colours = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if has_colours else pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if has_colours else (1, "MONOCHROME2")
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    return dataset


def _change_dicom(rng: Generator, data: bytes) -> bytes:
    """Sets an element to a value that it should not have; bytes are changed where pydicom does not write that."""
    name = str(rng.choice(DICOM_FIELDS))
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if rng.random() < 0.2 and name in dataset:
            delattr(dataset, name)
        elif name == "PixelData":
            dataset.PixelData = damage_bytes(rng, dataset.PixelData)
        else:
            number = EXTREMES[int(rng.integers(len(EXTREMES)))]
            value = number if rng.random() < 0.7 else strange_value(rng)
            setattr(dataset, name, [value, value] if name == "PixelSpacing" else value)
        buffer = io.BytesIO()
        dataset.save_as(buffer)
    except Exception:
        return damage_bytes(rng, data)
    return buffer.getvalue()


def _volumes(_: Path) -> Seeds:
    levels = np.stack([grey()[:20, :16], grey()[20:40, :16]], -1)
    affine = np.diag([-0.5, 0.7, 3.0, 1.0])
    images = [nibabel.Nifti1Image(levels.astype(dtype), affine) for dtype in (np.int16, np.float32, np.uint8)]
    scaled = nibabel.Nifti1Image(levels.astype(np.int16), affine)
    scaled.header.set_slope_inter(2, -3)
    seeds = [(".nii", image.to_bytes()) for image in (*images, scaled)]
    seeds.append((".nii", nibabel.Nifti2Image(levels.astype(np.int16), affine).to_bytes()))
    return seeds + [(".nii.gz", gzip.compress(data, mtime=0)) for _, data in seeds]


def _change_nifti(rng: Generator, data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return set_field(rng, data, NIFTI_FIELDS)
    inner = gzip.decompress(data)
    return gzip.compress(
        set_field(rng, inner, NIFTI_FIELDS) if rng.random() < 0.8 else damage_bytes(rng, inner), mtime=0
    )


KINDS = {
    "png": Kind(_pngs, _damage(_change_png), _read_png),
    "jpeg": Kind(_jpegs, _damage(_change_jpeg), _read),
    "film": Kind(_films, _damage(damage_bytes), _read),
    "tiff": Kind(_tiffs, _damage(_change_tiff), _read),
    "dicom": Kind(_dicoms, _damage(_change_dicom), _read),
    "nifti": Kind(_volumes, _damage(_change_nifti), _read),
}
