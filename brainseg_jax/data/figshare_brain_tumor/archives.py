"""Downloads the dataset's files, finds them in a folder and reads their slices.

The folder may hold the four zips that figshare publishes, whatever they were renamed to, the zip of the whole article
with the four inside, unzipped `.mat` files, or some of each, and `cvind.mat`. A part of the dataset is enough.
"""

import collections
import concurrent.futures.process
import hashlib
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.errors import InputError, shorten

ARTICLE = "https://doi.org/10.6084/m9.figshare.1512427"


class PublishedFile(NamedTuple):
    """A file of the figshare article with figshare's id and MD5."""

    name: str
    figshare_id: int
    md5: str


PUBLISHED_FILES = (
    PublishedFile("brainTumorDataPublic_1-766.zip", 3381290, "74b949ad33f042e6e103523091cd1428"),
    PublishedFile("brainTumorDataPublic_767-1532.zip", 3381296, "7e8a875500d2c8a346f270538e29890e"),
    PublishedFile("brainTumorDataPublic_1533-2298.zip", 3381293, "8227bf6080cb71f15a88be8d25c79ae7"),
    PublishedFile("brainTumorDataPublic_2299-3064.zip", 3381302, "b378a80d6174e5317d59eb28430c6652"),
    PublishedFile("cvind.mat", 7005344, "5ea82eb3212c9fcb84290ccf0beb486d"),
    PublishedFile("README 2024.txt", 51340418, "4188f7c30957e9673c3611613071bd6e"),
)
MAX_BYTES = 2**30  # of an unpacked file; the largest zip within a zip has 2**28
CHUNK = 64  # slices that a process reads at a time
CHUNKS_AHEAD = 4  # chunks that processes read in advance
_SLICE_NAME = re.compile(r"(?:^|/)([0-9]{1,9})\.mat$")


class RawSliceFile(NamedTuple):
    """Location of one `<id>.mat` file.

    Attributes:
      slice_id: the id in its name.
      path: the file itself, or the zip that holds it.
      inner_zip: the zip inside `path` that holds it, or "".
      member: its name inside the zip, or "".
      checksum: CRC-32 of its bytes.
    """

    slice_id: int
    path: Path
    inner_zip: str
    member: str
    checksum: int

    @property
    def name(self) -> str:
        """The location as text, for messages."""
        return "/".join(part for part in (str(self.path), self.inner_zip, self.member) if part)


class Source(NamedTuple):
    """The slices that a folder holds.

    Attributes:
      slices: the slice files, by id.
      folds: (n,) official folds; entry i-1 belongs to the slice with id i.
      fingerprint: SHA-256 of ids, checksums and folds; it is the same for zips and unzipped files.
      changed_files: files with a published name whose MD5 is not the published one.
    """

    slices: tuple[RawSliceFile, ...]
    folds: np.ndarray
    fingerprint: str
    changed_files: tuple[str, ...]

    def fold_of(self, slice_id: int) -> int:
        """Returns the official fold, 1..5, of a slice."""
        return int(self.folds[slice_id - 1])


def find_source(manual_dir: Path) -> Source:
    """Lists the dataset's slices in a folder, in zips and as single files, without reading the images.

    Raises:
      InputError: the folder does not exist; holds no slice or no cvind.mat; holds two different files of an id or of
        cvind.mat; or holds an id beyond cvind.mat.
    """
    if not manual_dir.is_dir():
        raise InputError(f"manual_dir {manual_dir} is not a folder: name the folder with the dataset's zips.")
    paths = [path for path in sorted(manual_dir.iterdir()) if path.suffix.lower() == ".zip"]
    for path in (*paths, *sorted(manual_dir.rglob("*.mat"))):
        if not path.is_file():  # reading from a pipe would wait for ever
            raise InputError(f"{path} is no file but a folder, a pipe or a link to nothing: remove it.")
    zips = [(path, "") for path in paths]
    zips += [(path, inner) for path in paths for inner in sorted(_open_zip(path).namelist()) if inner.endswith(".zip")]
    found, fold_files = list[RawSliceFile](), dict[str, bytes]()
    for path, inner_zip in zips:
        archive = _open_zip(path, inner_zip)
        for member in archive.infolist():
            file = RawSliceFile(0, path, inner_zip, member.filename, member.CRC)
            if match := _SLICE_NAME.search(member.filename):
                found.append(file._replace(slice_id=int(match[1])))
            elif member.filename.split("/")[-1] == "cvind.mat":
                fold_files[file.name] = _read_member(archive, file)
    found += [
        RawSliceFile(int(path.stem), path, "", "", zlib.crc32(_read_file(path)))
        for path in sorted(manual_dir.rglob("*.mat"))
        if _SLICE_NAME.search(path.name)
    ]
    if not found:
        raise InputError(
            f"manual_dir {manual_dir} holds none of the dataset's zips and no <id>.mat file: put the four "
            f"brainTumorDataPublic_*.zip and cvind.mat of {ARTICLE} there."
        )
    by_id: dict[int, RawSliceFile] = {}
    for file in found:
        before = by_id.setdefault(file.slice_id, file)
        if before.checksum != file.checksum:
            raise InputError(
                f"Slice {file.slice_id} is there twice, as {before.name} and {file.name}, and they differ: remove one."
            )
    slices = tuple(by_id[slice_id] for slice_id in sorted(by_id))
    fold_files |= {str(path): _read_file(path) for path in sorted(manual_dir.rglob("cvind.mat"))}
    if not fold_files:
        raise InputError(
            f"manual_dir {manual_dir} holds no cvind.mat, which says the fold of each slice: fetch it from {ARTICLE}."
        )
    folds = _read_folds(fold_files)
    for file in slices:
        if not 1 <= file.slice_id <= folds.size:
            raise InputError(
                f"{file.name}: id {file.slice_id} is not among the {folds.size} of cvind.mat: remove the file, or "
                "fetch the cvind.mat that belongs to it."
            )
    content = "".join(f"{file.slice_id} {file.checksum} {folds[file.slice_id - 1]}\n" for file in slices)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    present = [(manual_dir / file.name, file) for file in PUBLISHED_FILES if (manual_dir / file.name).is_file()]
    changed_files = tuple(file.name for path, file in present if pooch.file_hash(str(path), alg="md5") != file.md5)
    return Source(slices, folds, fingerprint, changed_files)


def read_slices(
    files: tuple[RawSliceFile, ...], *, readers: concurrent.futures.Executor | None = None
) -> Iterator[mat_file.RawSlice]:
    """Reads and validates slices, in the order of `files`.

    Args:
      files: files of the slices.
      readers: processes that read; None reads in this process.

    Raises:
      InputError: see `mat_file.read_slice`; or a reader was killed.
    """
    chunks = [files[first : first + CHUNK] for first in range(0, len(files), CHUNK)]
    if readers is None:
        for chunk in chunks:
            yield from _read_chunk(chunk)
        return
    pending: collections.deque[concurrent.futures.Future[list[mat_file.RawSlice]]] = collections.deque()
    try:
        for chunk in chunks:
            pending.append(readers.submit(_read_chunk, chunk))
            if len(pending) == CHUNKS_AHEAD:
                yield from pending.popleft().result()
        for future in pending:
            yield from future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise InputError(
            "A process that read slices was killed, probably because memory ran out: free some and try again."
        ) from error


def download(directory: Path) -> None:
    """Downloads the article's six files from figshare; keeps files whose MD5 is right.

    Args:
      directory: folder for the files; made if missing.

    Raises:
      InputError: figshare refuses or cannot be reached, or a file's MD5 is not the published one.
    """
    for file in PUBLISHED_FILES:
        try:
            pooch.retrieve(
                url=f"https://ndownloader.figshare.com/files/{file.figshare_id}",
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=directory,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=60),
            )
        except Exception as error:  # requests, urllib3 and pooch each have their own error classes
            raise InputError(
                f"{file.name} could not be downloaded: open {ARTICLE} in a browser, download all files into one "
                f"folder and name it with --manual_dir ({shorten(error)})."
            ) from error


def _read_chunk(files: tuple[RawSliceFile, ...]) -> list[mat_file.RawSlice]:
    slices = []
    for (path, inner_zip), members in itertools.groupby(files, key=lambda file: (file.path, file.inner_zip)):
        archive = None if path.suffix == ".mat" else _open_zip(path, inner_zip)
        for file in members:
            data = _read_member(archive, file) if archive else _read_file(path)
            slices.append(mat_file.read_slice(data, slice_id=file.slice_id, name=file.name))
    return slices


def _open_zip(path: Path, inner_zip: str = "") -> zipfile.ZipFile:
    """Opens the zip `path`, or the zip inside it that `inner_zip` names."""
    name = f"{path}/{inner_zip}" if inner_zip else str(path)
    try:
        archive = zipfile.ZipFile(path)
        return zipfile.ZipFile(io.BytesIO(_unpack(archive, inner_zip))) if inner_zip else archive
    except Exception as error:  # zipfile and each compression have errors of their own for what is damaged
        raise InputError(
            f"{name} is not a zip file, is cut short, or cannot be read ({shorten(error)}): fetch it again."
        ) from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # a folder of that name, a link to nowhere, a file without rights
        raise InputError(f"{path} cannot be read ({error.strerror}): fetch it again, or remove it.") from error


def _read_member(archive: zipfile.ZipFile, file: RawSliceFile) -> bytes:
    try:
        return _unpack(archive, file.member)
    except Exception as error:  # zipfile and each compression have errors of their own for what is damaged
        raise InputError(
            f"{file.name} cannot be read ({shorten(error)}): fetch its zip again, or unzip it with the program that "
            "made it."
        ) from error


def _unpack(archive: zipfile.ZipFile, member: str) -> bytes:
    """Returns the bytes of a member, at most as many as the zip's directory says, which must be at most `MAX_BYTES`.

    Raises:
      ValueError: there are too many bytes; zipfile and each compression have further errors.
    """
    size = archive.getinfo(member).file_size
    if size > MAX_BYTES:
        raise ValueError(f"it says that it has {size} bytes, more than {MAX_BYTES}")
    with archive.open(member) as file:
        return file.read(size)


def _read_folds(files: Mapping[str, bytes]) -> np.ndarray:
    """Reads cvind.mat; `files` maps the names of one or more copies, which must agree, to their bytes."""
    (first, result), *others = ((name, mat_file.read_folds(data, name=name)) for name, data in files.items())
    for name, other in others:
        if not np.array_equal(result, other):
            raise InputError(f"{first} and {name} say different folds: remove the one that is not of your slices.")
    return result
