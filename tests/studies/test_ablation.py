"""Ablations: each variant differs as its name says, is scored on validation only, and is not trained twice."""

import json

import pytest

from brainseg_jax.config import flatten
from brainseg_jax.errors import InputError
from brainseg_jax.studies import ablation
from brainseg_jax.workdir.files import read_config, read_splits
from tests.helpers import load_recipe

CHOSEN = ("recipe", "without_mirror")


@pytest.fixture(scope="module")
def config(make_config):
    config = make_config(**{"train.epochs": 1, "train.batch_size": 16, "evaluation.tta_flip": True})
    config.evaluation.tune_postprocessing = True
    return config


def test_variants_are_trained_scored_and_shown_in_a_table(tmp_path, config, monkeypatch):
    ablation.ablate(config, tmp_path, CHOSEN[1:])
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert set(found["variants"]) == set(CHOSEN)
    assert found["variants"]["recipe"]["difference"]["difference"] == 0
    for name, row in found["variants"].items():
        run = tmp_path / name
        assert row["slices"] == len(read_splits(run)["validation"])
        assert not (run / "per_slice_test.csv").exists()
        settings, recipe = read_config(run), config.copy_and_resolve_references()
        recipe.evaluation.tune_postprocessing = False
        recipe.update_from_flattened_dict(dict(ablation.VARIANTS[name]))
        assert settings.to_dict() == recipe.to_dict()
    # Only the masks are made otherwise: the same training.
    assert (tmp_path / "without_mirror" / "metrics.jsonl").read_text() == (
        tmp_path / "recipe" / "metrics.jsonl"
    ).read_text()
    table = (tmp_path / "README.md").read_text()
    assert "| recipe | – | **" in table
    assert "| without_mirror | `evaluation.tta_flip=False` | **" in table

    monkeypatch.setattr(ablation, "train_and_evaluate", None)  # nothing is left to train
    ablation.ablate(config, tmp_path, ["prior_one_half"])  # which the recipe has: no variant of it
    assert json.loads((tmp_path / "ablation.json").read_text())["variants"] == found["variants"]
    other = config.copy_and_resolve_references()
    other.train.epochs = 2
    with pytest.raises(InputError, match=r"recipe/config\.json is of another recipe"):
        ablation.ablate(other, tmp_path, CHOSEN)


def test_every_variant_changes_the_strong_recipe():
    flat = flatten(load_recipe("unet_strong").to_dict())
    for name, changes in ablation.VARIANTS.items():
        assert changes.keys() <= flat.keys()
        of_linknet = name == "prior_one_half"  # whose recipe has another prior
        assert (name == "recipe" or of_linknet) == all(flat[field] == value for field, value in changes.items())
    switched_off = set().union(*(changes for changes in ablation.VARIANTS.values()))
    assert {f"augmentation.{name}" for name in ablation.WARPS + ablation.GREY_LEVELS} <= switched_off
