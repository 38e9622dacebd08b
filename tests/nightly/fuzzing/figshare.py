"""The dataset's own files: `<id>.mat`, `cvind.mat`, and the zips that hold them."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from numpy.random import Generator

from brainseg_jax.data.figshare_brain_tumor import archives, mat_file
from brainseg_jax.data.image_files import read_slices
from tests.nightly.fuzzing.kind import Kind, read_all
from tests.nightly.fuzzing.mutations import damage_bytes, extreme
from tests.nightly.fuzzing.phantoms import phantoms

NAMES = (
    "1.mat",
    "2.mat",
    "../1.mat",
    "/1.mat",
    "a/1.mat",
    "1.MAT",
    "٣.mat",
    "0.mat",
    "999999999.mat",
    "cvind.mat",
    "x",
)
BOMB = 6000  # MiB that a member unpacks to


def _slices(_: Path) -> list[bytes]:
    slices, _ = phantoms()
    large = slices[1]
    wide = type(large)(**{**vars(large), "image": np.tile(large.image, (2, 2)), "mask": np.tile(large.mask, (2, 2))})
    return [mat_file.write_slice(slice_) for slice_ in (slices[0], wide)]  # the second in compressed chunks


def _damage_slice(rng: Generator, seeds: list[bytes], folder: Path) -> Path:
    data = seeds[int(rng.integers(len(seeds)))]
    data = _strange_hdf5(rng) if rng.random() < 0.2 else damage_bytes(rng, data)
    path = folder / "7.mat"
    path.write_bytes(data)
    return path


def _strange_hdf5(rng: Generator) -> bytes:
    """Returns a file with the fields of a slice, of which any is of another dtype, shape, storage or place."""
    good = {"label": np.ones((1, 1)), "PID": np.full((5, 1), 49, np.uint16)}
    good |= {"image": np.arange(64, dtype=np.int16).reshape(8, 8), "tumorMask": np.eye(8, dtype=np.uint8)}
    strange = rng.choice([*good, "cjdata"])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        if strange == "cjdata" and rng.random() < 0.5:
            file["cjdata"] = h5py.SoftLink(str(rng.choice(["/cjdata", "/", "/elsewhere"])))
            return buffer.getvalue()
        group = file.create_group("cjdata")
        for name, value in good.items():
            if name != strange:
                group[name] = value
                continue
            dtypes = ["f2", "f4", "f8", "i8", "u1", "S5", "O", "?", "c8", "V3", h5py.ref_dtype, h5py.string_dtype()]
            dtype = dtypes[int(rng.integers(len(dtypes)))]
            match rng.integers(7):
                case 0:
                    group[name] = h5py.ExternalLink("/etc/passwd", "/")
                case 1:
                    group.create_dataset(
                        name, shape=tuple(rng.choice([1, 8, 2**20, 2**31], 2)), dtype="i2", chunks=True
                    )
                case 2:
                    group.create_dataset(name, shape=(8, 8), dtype="i2", external=[("/etc/passwd", 0, 128)])
                case 3:
                    group.create_group(name)
                case 4:
                    group[name] = np.full((8, 8), rng.choice([np.nan, np.inf, -1, 1e300]))
                case 5:
                    group[name] = value.reshape(-1) if rng.random() < 0.5 else value[None]
                case _:
                    group.create_dataset(name, shape=(8, 8), dtype=dtype if dtype != "O" else h5py.vlen_dtype("i4"))
    return buffer.getvalue()


def _read_slice(path: Path) -> None:
    read_all(path, _check_slice, _check_image)


def _check_slice(path: Path) -> None:
    one = mat_file.read_slice(path.read_bytes(), slice_id=7, name=str(path))
    assert one.image.dtype == np.int16
    assert one.mask.dtype == np.uint8
    assert one.image.ndim == 2
    assert one.image.shape == one.mask.shape
    assert one.label in (1, 2, 3)
    assert one.patient_id
    assert {*np.unique(one.mask).tolist()} == {0, 1}


def _check_image(path: Path) -> None:
    """Checks what predict.py reads, which needs no mask."""
    (slice_,) = read_slices(path)
    assert slice_.image.ndim == 2
    assert np.isfinite(slice_.image).all()


def _folds(_: Path) -> bytes:
    return mat_file.write_folds(phantoms()[1])


def _damage_folds(rng: Generator, seed: bytes, folder: Path) -> Path:
    (folder / "cvind.mat").write_bytes(damage_bytes(rng, seed))
    return folder / "cvind.mat"


def _read_folds(path: Path) -> None:
    folds = mat_file.read_folds(path.read_bytes(), name=str(path))
    assert folds.ndim == 1
    assert folds.dtype == np.int64
    assert {*folds.tolist()} <= {1, 2, 3, 4, 5}


def _members(_: Path) -> tuple[list[bytes], bytes]:
    return [mat_file.write_slice(slice_) for slice_ in phantoms()[0][:3]], mat_file.write_folds(phantoms()[1])


def _damage_zip(rng: Generator, seeds: tuple[list[bytes], bytes], folder: Path) -> Path:
    slices, folds = seeds
    inner = _zip(rng, {f"{number}.mat": data for number, data in enumerate(slices, start=1)})
    if rng.random() < 0.3:
        inner = _zip(rng, {"part.zip": inner, "cvind.mat": folds})
    if rng.random() < 0.6:
        inner = _damage_directory(rng, inner) if rng.random() < 0.6 else damage_bytes(rng, inner)
    if rng.random() < 0.03:
        inner = _bomb(str(rng.choice(["1.mat", "part.zip", "cvind.mat"])), honest=rng.random() < 0.5)
    (folder / "part_1.zip").write_bytes(inner)
    if rng.random() < 0.8:
        (folder / "cvind.mat").write_bytes(folds)
    match rng.integers(12):
        case 0:
            (folder / "2.mat").symlink_to(folder / "nowhere")
        case 1:
            (folder / "2.mat").symlink_to(folder / "2.mat")
        case 2:
            (folder / "2.mat").mkdir()
        case 3:
            (folder / "2.mat").write_bytes(slices[int(rng.integers(3))])
        case 4:
            (folder / "part_2.zip").mkdir()
    return folder


def _zip(rng: Generator, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            name = str(rng.choice(NAMES)) if rng.random() < 0.15 else name
            info = zipfile.ZipInfo(name)
            info.compress_type = methods[int(rng.integers(4))]
            if rng.random() < 0.05:
                info.create_system, info.external_attr, data = 3, 0o120777 << 16, b"/etc/passwd"  # a symbolic link
            archive.writestr(info, data)
    return buffer.getvalue()


def _damage_directory(rng: Generator, data: bytes) -> bytes:
    """Sets a field of the central directory or of its end to an extreme, or one byte of a name."""
    places = [place for sign in (b"PK\1\2", b"PK\5\6") for place in _find_all(data, sign)]
    place = places[int(rng.integers(len(places)))]
    offset, size = [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4), (46, 1)][
        int(rng.integers(10))
    ]
    return data[: place + offset] + extreme(rng, size) + data[place + offset + size :]


def _find_all(data: bytes, sign: bytes) -> list[int]:
    places, place = [], data.find(sign)
    while place >= 0:
        places.append(place)
        place = data.find(sign, place + 1)
    return places


def _bomb(name: str, *, honest: bool) -> bytes:
    """Returns a zip of a few MB whose member unpacks to GBs; its directory says so or claims a small size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * BOMB + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    size = min(BOMB * 2**20, 2**32 - 2) if honest else 1000
    head = struct.pack("<HHHIIIIHH", 0, 8, 0, 0, 0, len(packed), size, len(name), 0)
    local = b"PK\3\4" + struct.pack("<H", 20) + head + name.encode() + packed
    central = b"PK\1\2" + struct.pack("<HH", 20, 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def _read_zip(folder: Path) -> None:
    before = {*os.listdir(folder)}
    source = archives.find_source(folder)
    slices = list(archives.read_slices(source.slices))
    assert [one.slice_id for one in slices] == [one.slice_id for one in source.slices]
    assert {*os.listdir(folder)} == before, "reading has written files"


KINDS = {
    "mat": Kind(_slices, _damage_slice, _read_slice),
    "cvind": Kind(_folds, _damage_folds, _read_folds),
    "zip": Kind(_members, _damage_zip, _read_zip, ("Slice ",)),
}
