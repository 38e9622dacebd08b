"""Finding the dataset in a folder: every packing gives the same source, and errors name the file."""

import concurrent.futures
import io
import multiprocessing
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pooch
import pytest

from brainseg_jax.data.figshare_brain_tumor import archives, mat_file
from brainseg_jax.errors import InputError


def zips_of(folder):
    return sorted(folder.glob("brainTumorDataPublic_*.zip"))


@pytest.fixture
def unzipped(tmp_path, phantom_archives):
    folder = tmp_path / "unzipped"
    for pack in zips_of(phantom_archives):
        with zipfile.ZipFile(pack) as archive:
            archive.extractall(folder / pack.stem)
    shutil.copy(phantom_archives / "cvind.mat", folder)
    return folder


@pytest.fixture
def article(tmp_path, phantom_archives):
    """The one zip of the whole article, with the four inside it, as figshare's "download all" gives."""
    folder = tmp_path / "article"
    folder.mkdir()
    with zipfile.ZipFile(folder / "1512427.zip", "w") as archive:
        for path in [*zips_of(phantom_archives), phantom_archives / "cvind.mat"]:
            archive.write(path, path.name)
    return folder


def test_all_forms_hold_the_same_slices(phantom_archives, unzipped, article):
    sources = [archives.find_source(folder) for folder in (phantom_archives, unzipped, article)]
    assert len({source.fingerprint for source in sources}) == 1
    expected = [archives.read_slices(source.slices[:3] + source.slices[-3:]) for source in sources]
    for one, two, three in zip(*expected, strict=True):
        assert one.slice_id == two.slice_id == three.slice_id
        for other in (two, three):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)


def test_cvind_is_not_taken_for_a_slice_and_gives_the_folds(unzipped):
    source = archives.find_source(unzipped)
    folds = mat_file.read_folds((unzipped / "cvind.mat").read_bytes(), name="cvind.mat")
    assert len(source.slices) == len(list(unzipped.rglob("*.mat"))) - 1
    assert [source.fold_of(entry.slice_id) for entry in source.slices] == [
        folds[entry.slice_id - 1] for entry in source.slices
    ]


def test_another_pixel_or_fold_gives_another_fingerprint(unzipped):
    before = archives.find_source(unzipped)
    entry = before.slices[0]
    (slice_,) = archives.read_slices((entry,))
    slice_.image[0, 0] += 1
    entry.path.write_bytes(mat_file.write_slice(slice_))
    after = archives.find_source(unzipped)
    assert after.fingerprint != before.fingerprint
    folds = before.folds.copy()
    folds[entry.slice_id - 1] = folds[entry.slice_id - 1] % 5 + 1
    (unzipped / "cvind.mat").write_bytes(mat_file.write_folds(folds))
    assert archives.find_source(unzipped).fingerprint != after.fingerprint


def test_a_published_name_with_another_md5_is_named(phantom_archives):
    changed = archives.find_source(phantom_archives).changed_files
    assert changed == tuple(file.name for file in archives.PUBLISHED_FILES if file.name != "README 2024.txt")


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        archives.find_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds none of the dataset's zips"):
        archives.find_source(tmp_path)


def test_a_missing_cvind_is_refused(unzipped):
    (unzipped / "cvind.mat").unlink()
    with pytest.raises(InputError, match=r"holds no cvind\.mat"):
        archives.find_source(unzipped)


def test_the_same_slice_twice_is_taken_once_and_different_ones_are_refused(unzipped):
    source = archives.find_source(unzipped)
    path = source.slices[0].path
    (unzipped / "again").mkdir()
    again = Path(shutil.copy(path, unzipped / "again"))
    assert archives.find_source(unzipped).fingerprint == source.fingerprint
    again.write_bytes(source.slices[1].path.read_bytes())
    with pytest.raises(InputError, match=f"Slice {path.stem} is there twice, as .*again.*{path.name}"):
        archives.find_source(unzipped)


def test_renamed_zips_and_unzipped_parts_are_all_taken(tmp_path, phantom_archives):
    first, *others = zips_of(phantom_archives)
    shutil.copy(first, tmp_path / "brainTumorDataPublic_1-766 (1).zip")
    shutil.copy(others[0], tmp_path / "download 2026-11-26.ZIP")
    for pack in others[1:]:
        with zipfile.ZipFile(pack) as archive:
            archive.extractall(tmp_path / pack.stem)
    shutil.copy(phantom_archives / "cvind.mat", tmp_path)
    whole = archives.find_source(phantom_archives)
    assert archives.find_source(tmp_path).fingerprint == whole.fingerprint
    folds = whole.folds.copy()
    folds[0] = folds[0] % 5 + 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cvind.mat").write_bytes(mat_file.write_folds(folds))
    with pytest.raises(InputError, match=r"cvind\.mat and .*other/cvind\.mat say different folds: remove the one"):
        archives.find_source(tmp_path)


def test_names_whose_number_is_none_are_no_slices(unzipped):
    slices = archives.find_source(unzipped).slices
    slices[0].path.with_name("²4.mat").write_bytes(b"")
    assert archives.find_source(unzipped).slices == slices


def test_a_zip_that_python_cannot_unpack_is_named(tmp_path, phantom_archives):
    pack = zips_of(phantom_archives)[0]
    for path in (pack, phantom_archives / "cvind.mat"):
        shutil.copy(path, tmp_path)
    data = bytearray(pack.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.infolist()[0]
    place = data.index(b"PK\x01\x02")  # the entry of the first member in the directory at the end
    for flag, method, message in ((0, 9, "method is not supported"), (1, 8, "encrypted")):  # 9 is Windows' Deflate64
        data[place + 8], data[place + 10] = flag, method
        data[member.header_offset + 6], data[member.header_offset + 8] = flag, method
        (tmp_path / pack.name).write_bytes(data)
        with pytest.raises(InputError, match=rf"{member.filename} cannot be read \(.*{message}.*\): fetch its zip"):
            list(archives.read_slices(archives.find_source(tmp_path).slices))


def test_an_id_beyond_cvind_is_refused(unzipped):
    path = archives.find_source(unzipped).slices[0].path
    path.rename(path.with_name("3065.mat"))
    with pytest.raises(InputError, match=r"3065\.mat: id 3065 is not among the 3064 of cvind\.mat"):
        archives.find_source(unzipped)


def test_several_processes_read_the_same_slices_in_the_same_order(tmp_path, phantom_archives, monkeypatch):
    monkeypatch.setattr(archives, "CHUNK", 10)
    files = archives.find_source(phantom_archives).slices[::-1]
    alone = list(archives.read_slices(files))
    monkeypatch.setattr(archives, "CHUNKS_AHEAD", 2)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as readers:
        together = list(archives.read_slices(files, readers=readers))
        broken = tmp_path / "broken.zip"
        broken.write_bytes(b"no zip")
        missing = files[5]._replace(path=broken, inner_zip="")
        with pytest.raises(InputError, match=r"broken\.zip is not a zip file"):
            list(archives.read_slices((*files, missing), readers=readers))
    assert [slice_.slice_id for slice_ in together] == [entry.slice_id for entry in files]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_a_cut_zip_and_a_damaged_member_are_named(tmp_path, phantom_archives):
    pack = zips_of(phantom_archives)[0]
    for path in (*zips_of(phantom_archives), phantom_archives / "cvind.mat"):
        shutil.copy(path, tmp_path)
    data = bytearray(pack.read_bytes())
    (tmp_path / pack.name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=f"{pack.name} is not a zip file, is cut short"):
        archives.find_source(tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.infolist()[0]
    start = member.header_offset + 3000
    data[start : start + 50] = bytes(byte ^ 255 for byte in data[start : start + 50])
    (tmp_path / pack.name).write_bytes(data)
    source = archives.find_source(tmp_path)
    with pytest.raises(InputError, match=f"{pack.name}/{member.filename} cannot be read"):
        list(archives.read_slices(source.slices))


def test_the_published_files_are_those_of_the_article():
    assert {file.figshare_id for file in archives.PUBLISHED_FILES} == {
        3381290,
        3381296,
        3381293,
        3381302,
        7005344,
        51340418,
    }
    assert {len(file.md5) for file in archives.PUBLISHED_FILES} == {32}


def test_a_download_checks_the_published_md5s(tmp_path, monkeypatch):
    asked = []

    def retrieve(*, url, known_hash, fname, path, downloader):
        asked.append((url, known_hash, fname, path))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    archives.download(tmp_path)
    assert asked[1] == (
        "https://ndownloader.figshare.com/files/3381296",
        "md5:7e8a875500d2c8a346f270538e29890e",
        "brainTumorDataPublic_767-1532.zip",
        tmp_path,
    )
    assert len(asked) == 6


def test_a_download_with_another_md5_is_refused(tmp_path, monkeypatch):
    def write_something_else(url, output_file, downloader):
        output_file.write(b"something else") if hasattr(output_file, "write") else open(output_file, "wb").close()

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda self, *arguments: write_something_else(*arguments))
    with pytest.raises(InputError, match=r"brainTumorDataPublic_1-766\.zip could not be downloaded: .*--manual_dir"):
        archives.download(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_any_compression_is_named(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "1.zip", "w", method) as archive:
        archive.writestr("cvind.mat", mat_file.write_folds(np.ones(300)))
    content = bytearray((tmp_path / "1.zip").read_bytes())
    content[60:80] = b"\xff" * 20
    (tmp_path / "1.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"1\.zip/cvind\.mat cannot be read"):
        archives.find_source(tmp_path)


def test_loose_files_that_cannot_be_read_are_named(unzipped):
    place = unzipped / "99999.mat"
    for damage in (lambda: place.symlink_to(unzipped / "nowhere"), lambda: place.symlink_to(place), place.mkdir):
        damage()
        with pytest.raises(InputError, match=r"99999\.mat is no file but .*: remove it"):
            archives.find_source(unzipped)
        place.rmdir() if place.is_dir() else place.unlink()


@pytest.mark.parametrize("claimed", [None, 1000])
def test_what_unpacks_to_more_than_memory_is_refused_before(tmp_path, monkeypatch, claimed):
    """A member that says how large it is, and one that says less."""
    monkeypatch.setattr(archives, "MAX_BYTES", 2**16)
    with zipfile.ZipFile(tmp_path / "1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.mat", bytes(2**24))
        archive.writestr("cvind.mat", mat_file.write_folds(np.ones(3)))
        if claimed:
            archive.getinfo("1.mat").file_size = claimed
    source = archives.find_source(tmp_path)
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"1\.zip/1\.mat cannot be read \((it says that it has 16777216 bytes|Bad CRC)"
    ):
        list(archives.read_slices(source.slices))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_what_is_damaged_is_quoted_in_short(tmp_path):
    with zipfile.ZipFile(tmp_path / "1.zip", "w") as archive:
        archive.writestr("cvind.mat", mat_file.write_folds(np.ones(300)))
    content = bytearray((tmp_path / "1.zip").read_bytes())
    content[26:28] = (2000).to_bytes(2, "little")  # the length of the name in the member's own head
    (tmp_path / "1.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"1\.zip/cvind\.mat cannot be read \(File name in directory") as refused:
        archives.find_source(tmp_path)
    assert len(str(refused.value)) < len(str(tmp_path)) + 400
