"""The results in docs/results: which files are saved, the curves over the published ones, and the tables."""

import importlib
import json

import pytest

from brainseg_jax.data.dataset_info import LABELS
from brainseg_jax.errors import InputError
from brainseg_jax.evaluation.scores import write_scores
from brainseg_jax.metrics.calibration import Calibration
from brainseg_jax.studies.results import save
from brainseg_jax.studies.results.save import RUN_FILES, draw_published_curves, is_published_recipe, save_run
from brainseg_jax.studies.results.tables import devices_table, peers_table, read_evaluations
from tests.conftest import REPOSITORY
from tests.evaluation.test_scores import score

ROW = {
    "train_loss": 0.5,
    "train_dice": 0.1,
    "validation_loss": 0.4,
    "validation_dice": 0.2,
    "learning_rate": 5e-4,
}


def config_of(name="unet", **changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def make_run(tmp_path):
    """A function that writes the files of a scored run of a config, with so many epochs."""

    def make(config, *, epochs=2, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(config.to_json())
        rows = [{**ROW, "epoch": epoch} for epoch in range(1, epochs + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for other in ("splits.json", "environment.json"):
            (folder / other).write_text("{}")
        write_scores(folder / "per_slice_test.csv", [score("glioma", 0.5), score("pituitary", 0.7, slice_id=2)])
        evaluation = {"calibration": Calibration.empty().describe(), "by_class": {label: {} for label in LABELS}}
        (folder / "evaluation_test.json").write_text(json.dumps(evaluation))
        return folder

    return make


@pytest.mark.parametrize("name", ["unet", "unet_low_rate", "linknet"])
def test_the_published_recipes_are_recognized(name):
    assert is_published_recipe(config_of(name, **{"data.image_size": 128, "split.protocol": "family", "seed": 3}))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.start_filters": 32},
        {"train.batch_size": 10},
        {"train.loss": "bce_dice"},
        {"optimizer.learning_rate": 2e-4},
    ],
)
def test_a_recipe_that_differs_in_one_number_is_not_published(changes):
    assert not is_published_recipe(config_of(**changes))


def test_a_saved_run_of_a_published_recipe_is_figures_over_the_published_curves(make_run, tmp_path):
    charts = {"learning_curves.png", "scores.png"}
    save_run(make_run(config_of(), name="published"), tmp_path / "results")
    save_run(make_run(config_of(**{"train.batch_size": 16}), name="other"), tmp_path / "results")
    saved = {folder.name: {path.name for path in folder.iterdir()} for folder in (tmp_path / "results").iterdir()}
    assert saved["published"] == {*RUN_FILES, *charts, "published_curves.png"}
    assert saved["other"] == {*RUN_FILES, *charts}


@pytest.mark.parametrize(("name", "lowest"), [("unet", 0.028571), ("unet_low_rate", 0.027182), ("linknet", 0.082412)])
def test_network_and_learning_rate_choose_the_published_run(make_run, tmp_path, monkeypatch, name, lowest):
    figures = []
    monkeypatch.setattr(save, "published_curves", lambda *curves, notes, **rest: figures.append((*curves, notes)))
    draw_published_curves(make_run(config_of(name, **{"data.image_size": 128})), tmp_path / "a.png")
    ((ours, theirs, path, notes),) = figures
    assert path == tmp_path / "a.png"
    assert min(theirs["validation_loss"]) == lowest
    assert (ours["validation_loss"], ours["train_dice"]) == ([0.4, 0.4], [0.1, 0.1])
    assert notes[0].startswith("Ours: 128×128, protocol slice,")
    assert notes[1].startswith("Published: 512×512, random slices,")


def test_a_run_without_epochs_or_without_a_published_run_is_refused(make_run, tmp_path):
    unknown = make_run(config_of(**{"optimizer.learning_rate": 3e-3}))
    with pytest.raises(
        InputError, match=r"config\.json has .*optimizer\.learning_rate = 0\.003, .* no run was published: name"
    ):
        draw_published_curves(unknown, tmp_path / "a.png")
    with pytest.raises(InputError, match=r"metrics\.jsonl has no epoch yet"):
        draw_published_curves(make_run(config_of(), epochs=0, name="young"), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_slices_of_the_published_test_families_have_a_row_of_their_own(tmp_path):
    rows = [
        score("meningioma", 1.0, patient_id="101305", slice_id=1),
        score("glioma", 0.0, patient_id="MR040240B", slice_id=2, tumour_pixels=20, predicted_pixels=40),
        score("glioma", 0.5, patient_id="MR000001", slice_id=3),
    ]
    for name, protocol in (("apart", "family"), ("by_ids", "official")):
        (tmp_path / name).mkdir()
        write_scores(tmp_path / name / "per_slice_cv.csv", rows)
        (tmp_path / name / "config.json").write_text(config_of(**{"split.protocol": protocol}).to_json())
        evaluation = {"split": "cv", "protocol": protocol}
        (tmp_path / name / "evaluation_cv.json").write_text(json.dumps(evaluation))
    lines = peers_table(tmp_path).splitlines()[2:]
    assert "| 436 (29) | **0.774** | 0.930 | 0.662 | 0.829 | – | – |" in lines[0]
    # Pooled: 10 shared of 10 + 10 and none of 60, then 5 of 10 + 10.
    assert lines[1:] == [
        "| [apart](apart), of these the 2 at hand | 2 (2) | **0.500** | 1.000 (1) | 0.000 (1) | – | 50.0% | 0.250 |",
        "| [apart](apart), all slices | 3 (3) | **0.500** | 1.000 (1) | 0.250 (2) | – | 33.3% | 0.300 |",
    ]


def test_checks_that_were_stopped_are_not_told_as_all(tmp_path):
    for device, complete in (("gpu", False), ("cpu", True)):
        (tmp_path / f"checks_{device}").mkdir()
        checks = [{"passed": True}, {"passed": False}, {"passed": None}]
        content = {"device": device, "versions": {"jax": "1.2"}, "complete": complete, "checks": checks}
        (tmp_path / f"checks_{device}" / "checks.json").write_text(json.dumps(content))
    shares = [line.split(" | ")[1] for line in devices_table(tmp_path).splitlines()[2:]]
    assert shares == ["1 of 2 passed", "1 of 2 passed, others not run"]


def test_the_saved_cross_validation_has_399_slices_of_the_published_test_families():
    table = peers_table(REPOSITORY / "docs" / "results")
    (line,) = [line for line in table.splitlines() if "unet_strong_64_family_cv), of these the 399 at hand" in line]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == "399 (25)"
    assert [cell[-5:] for cell in cells[4:7]] == [" (70)", "(198)", "(131)"]


def test_a_new_network_is_not_a_published_recipe():
    config = config_of()
    config.model.name = "mynet"
    assert not is_published_recipe(config)


def test_runs_are_sorted_by_protocol_network_recipe_and_size(tmp_path):
    runs = {
        "a": ("unet_strong", "family", 64),
        "b": ("linknet", "family", 64),
        "c": ("unet", "family", 128),
        "d": ("unet", "slice", 512),
        "e": ("unet", "family", 64),
    }
    for name, (recipe, protocol, size) in runs.items():
        (tmp_path / name).mkdir()
        config = config_of(recipe, **{"split.protocol": protocol, "data.image_size": size})
        (tmp_path / name / "config.json").write_text(config.to_json())
        (tmp_path / name / "evaluation_test.json").write_text("{}")
    assert list(read_evaluations(tmp_path)) == ["d", "e", "c", "a", "b"]
