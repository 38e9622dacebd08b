"""Splits are disjoint, complete and stable, and no patient is in two of them."""

import warnings

import numpy as np
import pytest

from brainseg_jax.data.dataset_info import LABELS, PUBLISHED_SLICES, families_of, family_of
from brainseg_jax.data.metadata import SliceMetadata, compare_with_published, describe_metadata
from brainseg_jax.data.splits import SPLITS, describe_splits, make_splits, overlaps
from brainseg_jax.errors import InputError

OPTIONS = {"fold": 1, "seed": 0, "validation_share": 0.15}


def make_metadata(patients):
    """Metadata from (patient_id, fold, slices)."""
    rows = [(patient_id, fold) for patient_id, fold, slices in patients for _ in range(slices)]
    patient_ids = [patient_id for patient_id, _ in rows]
    return metadata_of(patient_ids, [1 + index % 3 for index in range(len(rows))], [fold for _, fold in rows])


def metadata_of(patient_ids, labels, folds):
    return SliceMetadata(
        slice_ids=np.arange(1, len(patient_ids) + 1),
        patient_ids=tuple(patient_ids),
        families=families_of(patient_ids, dataset="figshare"),
        labels=np.array(labels),
        folds=np.array(folds),
        label_names=LABELS,
    )


@pytest.fixture
def metadata():
    lone = [(str(100000 + number), 1 + number % 5, 3) for number in range(60)]
    # A family of three visits in three folds, whose visit with a letter comes first, and a family of one visit.
    return make_metadata([*lone, ("MR000001B", 1, 4), ("MR000001", 2, 5), ("MR000001C", 3, 2), ("MR000002", 1, 3)])


def divide(metadata, protocol, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_splits(metadata, protocol=protocol, **{**OPTIONS, **changes})


def ids_of(metadata, slice_ids):
    return {metadata.patient_ids[int(slice_id) - 1] for slice_id in slice_ids}


@pytest.mark.parametrize(
    ("patient_id", "family"),
    [
        ("MR040240", "MR040240"),
        ("MR040240B", "MR040240"),
        ("MR040240b", "MR040240b"),
        ("MR040240BC", "MR040240BC"),
        ("100360", "100360"),
        ("100360B", "100360B"),
    ],
)
def test_only_a_single_capital_behind_mr_and_digits_names_a_visit(patient_id, family):
    assert family_of(patient_id) == family


@pytest.mark.parametrize("protocol", ["slice", "official", "family"])
def test_splits_are_disjoint_and_cover_the_dataset(metadata, protocol):
    splits = divide(metadata, protocol)
    assert tuple(splits) == SPLITS
    joined = np.concatenate(list(splits.values()))
    np.testing.assert_array_equal(np.sort(joined), metadata.slice_ids)
    for slice_ids in splits.values():
        assert (np.diff(slice_ids) > 0).all()


def test_slice_protocol_has_the_published_shares_follows_its_seed_and_warns(metadata):
    with pytest.warns(UserWarning, match="slices of one patient into several splits"):
        splits = make_splits(metadata, protocol="slice", **OPTIONS)
    total = len(metadata.slice_ids)
    assert [len(splits[split]) for split in SPLITS] == [round(0.7 * total), 39, 19]  # of 194
    np.testing.assert_array_equal(splits["test"], divide(metadata, "slice")["test"])
    assert set(splits["test"]) != set(divide(metadata, "slice", seed=1)["test"])


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_official_test_split_is_the_fold(metadata, fold):
    splits = divide(metadata, "official", fold=fold)
    np.testing.assert_array_equal(splits["test"], metadata.slice_ids[metadata.folds == fold])


def test_family_follows_the_fold_of_the_id_without_a_letter(metadata):
    family = {"MR000001", "MR000001B", "MR000001C"}
    assert family <= ids_of(metadata, divide(metadata, "family", fold=2)["test"])
    assert not family & ids_of(metadata, divide(metadata, "family", fold=1)["test"])
    assert not family & ids_of(metadata, divide(metadata, "family", fold=3)["test"])
    assert "MR000002" in ids_of(metadata, divide(metadata, "family", fold=1)["test"])


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_no_patient_is_in_two_splits(metadata, fold):
    official = overlaps(metadata, divide(metadata, "official", fold=fold))
    family = overlaps(metadata, divide(metadata, "family", fold=fold))
    assert not any(official["patient_ids"].values())
    assert not any(family["patient_ids"].values())
    assert not any(family["families"].values())


def test_overlaps_list_shared_ids_and_families(metadata):
    found = overlaps(metadata, divide(metadata, "official", fold=2))
    assert found["families"]["train+test"] == ["MR000001"]
    assert found["patient_ids"]["train+test"] == []
    lines = describe_splits(metadata, divide(metadata, "official", fold=2))
    assert "train and test share 0 ids and 1 families" in lines


@pytest.mark.parametrize("protocol", ["official", "family"])
def test_patients_keep_their_split_when_others_are_added(metadata, protocol):
    before = divide(metadata, protocol)
    names = [*zip(metadata.patient_ids, metadata.folds, strict=True)]
    more = make_metadata(
        [*((name, fold, 1) for name, fold in names), *((str(9000 + n), 1 + n % 5, 2) for n in range(40))]
    )
    after = divide(more, protocol)
    for split in SPLITS:
        assert ids_of(metadata, before[split]) <= ids_of(more, after[split])


def test_validation_takes_about_its_share_of_the_training_families():
    metadata = make_metadata([(str(number), 1 + number % 5, 2) for number in range(1000)])
    splits = divide(metadata, "family", validation_share=0.15)
    # 800 training families; three standard deviations of a binomial are 30.
    assert abs(len(ids_of(metadata, splits["validation"])) - 120) < 30


def test_one_of_few_families_is_in_validation():
    metadata = make_metadata([("1", 1, 2), ("2", 2, 2), ("3", 3, 2)])
    assert len(divide(metadata, "family", validation_share=1e-6)["validation"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "random"}, r"config\.split\.protocol is 'random'"),
        ({"fold": 6}, r"config\.split\.fold is 6"),
        ({"validation_share": 0.0}, r"config\.split\.validation_share is 0\.0"),
        ({"validation_share": 1.0}, r"config\.split\.validation_share is 1\.0"),
    ],
)
def test_bad_settings_are_refused_by_name(metadata, changes, message):
    with pytest.raises(InputError, match=message):
        divide(metadata, **{"protocol": "family", **changes})


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="leaves no slice for train"):
        divide(make_metadata([("1", 1, 2), ("2", 2, 2)]), "family")


def test_an_id_in_two_folds_is_refused_where_patients_must_be_apart():
    rows = make_metadata([("7", 1, 1), ("7", 2, 1), *((str(number), 1 + number % 5, 2) for number in range(100, 130))])
    with pytest.raises(InputError, match="'official' would put 7 into both"):
        divide(rows, "official")


def test_the_table_of_counts_adds_up(metadata):
    lines = describe_metadata(metadata).splitlines()
    assert lines[0].split() == ["fold", "slices", "meningioma", "glioma", "pituitary", "ids", "families"]
    counts = np.array([[int(number) for number in line.split()[1:]] for line in lines[1:6]])
    total = [int(number) for number in lines[6].split()[1:]]
    assert counts[:, :5].sum(0).tolist() == total[:5]
    assert total == [194, 65, 65, 64, 64, 62]


def test_an_incomplete_dataset_is_described_with_what_it_lacks(metadata):
    line = compare_with_published(metadata)
    assert "194 of 3064 slices (meningioma -643, glioma -1361, pituitary -866) and 64 of 233 ids" in line


def test_the_complete_dataset_is_described_as_complete():
    labels = np.repeat([1, 2, 3], list(PUBLISHED_SLICES.values()))
    whole = metadata_of([str(index % 233) for index in range(3064)], labels, np.ones(3064, np.int64))
    assert compare_with_published(whole).startswith("This is the whole dataset as published")


def test_leakage_is_measured_on_the_same_test_slices_with_as_many_to_train_on(metadata):
    honest, apart, leaked = (divide(metadata, name) for name in ("family", "family_apart", "family_leaked"))
    np.testing.assert_array_equal(apart["test"], leaked["test"])
    np.testing.assert_array_equal(apart["validation"], leaked["validation"])
    np.testing.assert_array_equal(apart["train"], honest["train"])
    assert len(apart["train"]) == len(leaked["train"]) == len(set(leaked["train"].tolist()))
    assert not set(leaked["train"].tolist()) & set(leaked["test"].tolist())
    # They differ in the other half of the test families' slices, which replaces as many others.
    moved = set(honest["test"].tolist()) - set(apart["test"].tolist())
    assert set(leaked["train"].tolist()) - set(apart["train"].tolist()) == moved
    families = np.array(metadata.families)
    for family in set(families[np.isin(metadata.slice_ids, honest["test"])]):
        members = metadata.slice_ids[families == family]
        tested = np.isin(members, apart["test"]).sum()
        assert tested == (len(members) + 1) // 2


def test_leaked_families_are_reported(metadata):
    pairs = {name: overlaps(metadata, divide(metadata, name))["families"] for name in ("family_apart", "family_leaked")}
    assert pairs["family_apart"]["train+test"] == []
    assert len(pairs["family_leaked"]["train+test"]) > 5
    assert pairs["family_leaked"]["validation+test"] == []
