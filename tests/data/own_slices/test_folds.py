"""Folds keep patients whole and are as even as whole patients allow."""

import numpy as np

from brainseg_jax.data.own_slices.folds import make_folds


def test_patients_are_whole_and_folds_differ_by_no_more_than_the_smallest_patient():
    generator = np.random.default_rng(0)
    patient_ids = [f"p{number}" for number, count in enumerate(generator.integers(1, 12, 60)) for _ in range(count)]
    generator.shuffle(patient_ids)
    folds = make_folds(patient_ids, seed=0)
    assert len(set(zip(patient_ids, folds, strict=True))) == len(set(patient_ids))
    counts = np.bincount(folds, minlength=6)[1:]
    assert counts.sum() == len(patient_ids)
    assert counts.max() - counts.min() <= 1  # the last patients have one slice each


def test_folds_follow_from_patients_and_seed_alone():
    patient_ids = [str(number % 40) for number in range(200)]
    folds = make_folds(patient_ids, seed=3)
    assert make_folds(patient_ids[::-1], seed=3) == folds[::-1]
    assert make_folds(patient_ids, seed=4) != folds
    assert make_folds(["b", "a", "a"], seed=0) == [2, 1, 1]  # the largest first
