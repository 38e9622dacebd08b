"""Phantom slices are deterministic and valid, and resemble the published ones."""

import collections

import numpy as np
import pytest
from scipy import ndimage

from brainseg_jax.data.dataset_info import family_of
from brainseg_jax.data.figshare_brain_tumor import archives
from brainseg_jax.data.phantom import generate
from brainseg_jax.errors import InputError

PATIENTS = 20


@pytest.fixture(scope="module")
def drawn():
    """The pairs (slice, fold) of one seed."""
    return list(generate.phantom_slices(patients=PATIENTS, seed=3, size=96))


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("one", 5), ("two", 5), ("three", 6)):
        generate.write_archives(tmp_path / folder, patients=10, seed=seed, size=64)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(file.name for file in archives.PUBLISHED_FILES if file.name != "README 2024.txt")
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, three = (archives.find_source(tmp_path / folder) for folder in ("one", "three"))
    assert one.fingerprint != three.fingerprint


def test_written_slices_are_those_generated(tmp_path):
    generate.write_archives(tmp_path, patients=10, seed=5, size=64)
    source = archives.find_source(tmp_path)
    drawn = list(generate.phantom_slices(patients=10, seed=5, size=64))
    assert len(drawn) == len(source.slices)
    for read, (slice_, fold) in zip(archives.read_slices(source.slices), drawn, strict=True):
        assert (read.slice_id, read.patient_id, read.label) == (slice_.slice_id, slice_.patient_id, slice_.label)
        assert read.is_phantom
        assert source.fold_of(read.slice_id) == fold
        np.testing.assert_array_equal(read.image, slice_.image)
        np.testing.assert_array_equal(read.mask, slice_.mask)


def test_every_slice_is_valid(drawn):
    ids = [slice_.slice_id for slice_, _ in drawn]
    assert ids == sorted(set(ids))
    assert ids[0] >= 1
    assert ids[-1] <= 3064
    for slice_, _ in drawn:
        assert slice_.image.dtype == np.int16
        assert slice_.mask.dtype == np.uint8
        assert slice_.image.shape == slice_.mask.shape == (96, 96)
        assert set(np.unique(slice_.mask)) == {0, 1}
        assert slice_.image.min() >= 0


def test_patients_have_several_slices_one_fold_and_one_label(drawn):
    by_patient = collections.defaultdict(list)
    for slice_, fold in drawn:
        by_patient[slice_.patient_id].append((fold, slice_.label))
    assert len(by_patient) == PATIENTS
    assert all(6 <= len(rows) <= 10 and len(set(rows)) == 1 for rows in by_patient.values())
    assert {fold for rows in by_patient.values() for fold, _ in rows} == {1, 2, 3, 4, 5}
    assert {label for rows in by_patient.values() for _, label in rows} == {1, 2, 3}


def test_some_families_have_several_ids_in_several_folds(drawn):
    families = collections.defaultdict(set)
    for slice_, fold in drawn:
        families[family_of(slice_.patient_id)].add((slice_.patient_id, fold))
    several = [members for members in families.values() if len(members) > 1]
    assert several
    assert any(len({fold for _, fold in members}) > 1 for members in several)


def test_images_have_more_than_256_grey_levels():
    slice_, _ = next(generate.phantom_slices(patients=10, seed=0, size=256))
    assert len(np.unique(slice_.image)) > 256


def test_tumours_are_as_large_as_real_ones(drawn):
    shares = np.array([slice_.mask.mean() for slice_, _ in drawn])
    assert shares.min() > 0.0005  # real ones: 0.1 % to 9.7 %, median 1.3 %
    assert shares.max() < 0.15
    assert 0.007 < np.median(shares) < 0.03


def test_a_quarter_of_the_tumours_is_faint_or_small(drawn):
    hard = []
    for slice_, _ in drawn:
        tumour = slice_.mask.astype(bool)
        ring = ndimage.binary_dilation(tumour, iterations=4) & ~ndimage.binary_dilation(tumour)
        noise = slice_.image[ring].std()
        contrast = abs(slice_.image[tumour].mean() - np.median(slice_.image[ring])) / max(noise, 1)
        hard.append(contrast < 1.0 or tumour.mean() < 0.006)
    assert np.mean(hard) >= 0.25


def test_the_tumour_is_inside_the_head_and_the_corners_are_dark(drawn):
    for slice_, _ in drawn:
        bright = ndimage.gaussian_filter(slice_.image.astype(float), 2) > 0.08 * slice_.image.max()
        head = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=3))
        assert head[slice_.mask.astype(bool)].mean() > 0.95
        assert slice_.image[:6, :6].mean() < 0.1 * slice_.image.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 3}, "patients must be at least 10, not 3: choose"),
        ({"patients": 10, "seed": -1}, "seed must be at least 0, not -1"),
        ({"patients": 10, "size": 32}, "size must be at least 64"),
        ({"patients": 2000}, "slice ids of 3064"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        generate.write_archives(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
