"""Downloads the dataset's files, finds them in a folder and reads their slices.

The folder may hold the four zips that figshare publishes, the zip of the whole article with the four inside, or
unzipped `.mat` files, together with `cvind.mat`. A part of the dataset is enough.
"""

import collections
import concurrent.futures.process
import contextlib
import hashlib
import io
import itertools
import multiprocessing
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainseg_jax.data.figshare_brain_tumor import mat_file
from brainseg_jax.errors import InputError

ARTICLE = "https://doi.org/10.6084/m9.figshare.1512427"
DOWNLOAD_URL = "https://ndownloader.figshare.com/files/{figshare_id}"


@dataclass(frozen=True)
class PublishedFile:
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
CHUNK = 64  # slices that a process reads at a time
_SLICE_NAME = re.compile(r"(?:^|/)(\d+)\.mat$")
_PACK_NAME = re.compile(r"(?:^|/)brainTumorDataPublic_[\d-]+\.zip$")


@dataclass(frozen=True)
class RawSliceFile:
    """Location of one `<id>.mat` file.

    Attributes:
      slice_id: the id in its name.
      path: the file itself, or the zip that holds it.
      pack: the zip inside `path` that holds it, or "".
      member: its name inside the zip, or "".
      checksum: CRC-32 of its bytes.
    """

    slice_id: int
    path: Path
    pack: str
    member: str
    checksum: int

    @property
    def name(self) -> str:
        """The location as text, for messages."""
        return "/".join(part for part in (str(self.path), self.pack, self.member) if part)


@dataclass(frozen=True)
class Source:
    """The slices that a folder holds.

    Attributes:
      slices: the slice files, by id.
      folds: (n,) official folds; entry i-1 belongs to the slice with id i.
      fingerprint: SHA-256 of ids, checksums and folds; it does not depend on the packing.
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
    """Lists the dataset's slices in a folder, without reading the images.

    Args:
      manual_dir: the folder.

    Returns:
      What it holds.

    Raises:
      InputError: the folder does not exist, holds no slice, no cvind.mat, an id twice or an id beyond cvind.mat.
    """
    if not manual_dir.is_dir():
        raise InputError(f"manual_dir {manual_dir} is not a folder: name the folder with the dataset's zips.")
    packs = sorted(path for path in manual_dir.iterdir() if _PACK_NAME.search(path.name))
    articles = [] if packs else [path for path in sorted(manual_dir.glob("*.zip")) if _holds_packs(path)]
    if packs:
        found = [entry for path in packs for entry in _list_zip(_open_zip(path, str(path)), path=path, pack="")]
    elif articles:
        found = [entry for path in articles for entry in _list_article(path)]
    else:
        found = [
            RawSliceFile(int(path.stem), path, "", "", zlib.crc32(path.read_bytes()))
            for path in sorted(manual_dir.rglob("*.mat"))
            if path.stem.isdigit()
        ]
    if not found:
        raise InputError(
            f"manual_dir {manual_dir} holds none of the dataset's zips and no <id>.mat file: put the four "
            f"brainTumorDataPublic_*.zip and cvind.mat of {ARTICLE} there."
        )
    slices = tuple(sorted(found, key=lambda entry: entry.slice_id))
    folds = _find_folds(manual_dir, articles)
    for before, entry in itertools.pairwise(slices):
        if before.slice_id == entry.slice_id:
            raise InputError(f"Slice {entry.slice_id} is there twice, as {before.name} and {entry.name}: remove one.")
    for entry in slices:
        if not 1 <= entry.slice_id <= folds.size:
            raise InputError(
                f"{entry.name}: id {entry.slice_id} is not among the {folds.size} of cvind.mat: remove the file, or "
                "fetch the cvind.mat that belongs to it."
            )
    content = "".join(f"{entry.slice_id} {entry.checksum} {folds[entry.slice_id - 1]}\n" for entry in slices)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    return Source(slices, folds, fingerprint, _changed_files(manual_dir))


def read_slices(
    files: tuple[RawSliceFile, ...], *, readers: concurrent.futures.Executor | None = None, ahead: int = 4
) -> Iterator[mat_file.RawSlice]:
    """Reads and validates slices, in the order of `files`.

    Args:
      files: files of the slices.
      readers: processes that read; None reads in this process.
      ahead: number of chunks of 64 slices that the readers read in advance.

    Raises:
      InputError: see `mat_file.read_slice`; or a reader was killed.
    """
    chunks = [files[first : first + CHUNK] for first in range(0, len(files), CHUNK)]
    if readers is None:
        for chunk in chunks:
            yield from _read_chunk(chunk)
        return
    running = collections.deque(readers.submit(_read_chunk, chunk) for chunk in chunks[:ahead])
    for index in range(len(chunks)):
        try:
            yield from running.popleft().result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise InputError(
                "A process that read slices was killed, probably because memory ran out: free some and try again."
            ) from error
        if index + ahead < len(chunks):
            running.append(readers.submit(_read_chunk, chunks[index + ahead]))


@contextlib.contextmanager
def reading_processes(count: int) -> Iterator[concurrent.futures.Executor]:
    """Starts processes for `read_slices` and ends them with the context; they are spawned, not forked.

    The program's main part must be guarded by `if __name__ == "__main__":`, as Python's multiprocessing asks.
    """
    pool = concurrent.futures.ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def download(directory: Path) -> None:
    """Downloads the article's six files from figshare; keeps files whose MD5 is right.

    Args:
      directory: folder for the files; made if missing.

    Raises:
      InputError: figshare refuses or cannot be reached, or a file's MD5 is not the published one.
    """
    import pooch  # Only a download needs it.

    for file in PUBLISHED_FILES:
        try:
            pooch.retrieve(
                url=DOWNLOAD_URL.format(figshare_id=file.figshare_id),
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=directory,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=60),
            )
        except Exception as error:  # requests, urllib3 and pooch each have their own families of errors
            raise InputError(
                f"{file.name} could not be downloaded ({' '.join(str(error).split())[:200]}): open {ARTICLE} in a "
                "browser, download all files into one folder and name it with --manual_dir."
            ) from error


def _read_chunk(files: tuple[RawSliceFile, ...]) -> list[mat_file.RawSlice]:
    slices = []
    opened: tuple[tuple[Path, str], zipfile.ZipFile] | None = None
    for entry in files:
        if not entry.member:
            data = entry.path.read_bytes()
        else:
            if opened is None or opened[0] != (entry.path, entry.pack):
                archive = _open_zip(entry.path, str(entry.path))
                if entry.pack:
                    archive = _open_zip(io.BytesIO(archive.read(entry.pack)), f"{entry.path}/{entry.pack}")
                opened = ((entry.path, entry.pack), archive)
            try:
                data = opened[1].read(entry.member)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise InputError(f"{entry.name} is damaged inside its zip ({error}): fetch the zip again.") from error
        slices.append(mat_file.read_slice(data, slice_id=entry.slice_id, name=entry.name))
    return slices


def _holds_packs(path: Path) -> bool:
    return any(_PACK_NAME.search(name) for name in _open_zip(path, str(path)).namelist())


def _list_article(path: Path) -> Iterator[RawSliceFile]:
    article = _open_zip(path, str(path))
    for pack in sorted(name for name in article.namelist() if _PACK_NAME.search(name)):
        yield from _list_zip(_open_zip(io.BytesIO(article.read(pack)), f"{path}/{pack}"), path=path, pack=pack)


def _list_zip(archive: zipfile.ZipFile, *, path: Path, pack: str) -> Iterator[RawSliceFile]:
    for member in archive.infolist():
        match = _SLICE_NAME.search(member.filename)
        if match:
            yield RawSliceFile(int(match[1]), path, pack, member.filename, member.CRC)


def _open_zip(file: Path | io.BytesIO, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise InputError(f"{name} is not a zip file, or it is cut short: fetch it again.") from error


def _find_folds(manual_dir: Path, articles: list[Path]) -> np.ndarray:
    for path in sorted(manual_dir.rglob("cvind.mat")):
        return mat_file.read_folds(path.read_bytes(), name=str(path))
    for path in articles:
        archive = _open_zip(path, str(path))
        for member in archive.namelist():
            if member.split("/")[-1] == "cvind.mat":
                return mat_file.read_folds(archive.read(member), name=f"{path}/{member}")
    raise InputError(
        f"manual_dir {manual_dir} holds no cvind.mat, which says the fold of each slice: download it from {ARTICLE}."
    )


def _changed_files(manual_dir: Path) -> tuple[str, ...]:
    changed = []
    for published in PUBLISHED_FILES:
        path = manual_dir / published.name
        if path.is_file():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() != published.md5:
                    changed.append(published.name)
    return tuple(changed)
