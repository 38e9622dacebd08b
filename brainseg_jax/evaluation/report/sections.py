"""Makes the sections of a report from what evaluate.py and train.py wrote. All text from the data is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from brainseg_jax.config import flatten
from brainseg_jax.data.splits import SPLITS
from brainseg_jax.evaluation.report import charts
from brainseg_jax.evaluation.report.page import Section
from brainseg_jax.evaluation.scores import SliceScore
from brainseg_jax.evaluation.seen_slices import warn_of_seen
from brainseg_jax.metrics.slice_metrics import METRICS
from brainseg_jax.workdir.files import SPLIT_PAIRS

_TITLES = {
    "dice": "Dice",
    "iou": "Intersection over union",
    "precision": "Precision",
    "recall": "Recall",
    "hd95_mm": "Hausdorff distance, 95 % (mm)",
    "assd_mm": "Mean surface distance (mm)",
    "nsd_2mm": "Surface Dice at 2 mm",
    "dice_patient_mean": "Dice, mean over patients",
}
_PROVENANCE = ("command", "commit", "device", "devices", "cores", "python")


def summary_section(evaluation: Mapping[str, Any]) -> Section:
    """Shows the main numbers with their intervals; `evaluation` is the content of evaluation_<split>.json."""
    ends = evaluation["intervals"]
    tiles = (
        ("Mean Dice", _number(evaluation["dice"]), _interval(ends["dice"])),
        ("Median Dice", _number(evaluation["dice_median"]), ""),
        ("Missed (Dice 0)", _share(evaluation["share_missed"]), _interval(ends["share_missed"], share=True)),
        *_false_alarms(evaluation),
        (
            "Slices",
            evaluation["slices"],
            f"{evaluation['families']} families, {evaluation['patients']} patient ids",
        ),
    )
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_cell(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    names = [name for name in (*METRICS, "dice_patient_mean") if name in evaluation]
    rows = [(_TITLES.get(name, name), _number(evaluation[name]), _interval(ends[name], word="")) for name in names]
    table = _table(("Metric, mean over the slices", "Mean", "95 % interval"), rows)
    note = (
        "Intervals are bootstraps over families of patient ids; none is given where there are too few. Masks are "
        f"scored at the slices’ own size, as {_describe_masks(evaluation)}."
    )
    if warning := warn_of_seen(evaluation):
        note = f"{warning}. {note}"
    return Section("summary", "Summary", f'<dl class="tiles">{shown}</dl>\n{table}\n{_note(note)}')


def _false_alarms(evaluation: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Returns the tile of the slices without a tumour, where there are some."""
    if "false_alarm_share" not in evaluation:
        return []
    note = f"of {evaluation['slices_without_tumour']} slices without a tumour"
    return [("False alarms", _share(evaluation["false_alarm_share"]), note)]


def run_section(
    evaluation: Mapping[str, Any], config: Mapping[str, Any] | None, splits: Mapping[str, Any] | None
) -> Section:
    """Shows what was run: settings, split and provenance.

    Args:
      evaluation: content of evaluation_<split>.json.
      config: content of config.json; None if the file is missing.
      splits: content of splits.json; None if the file is missing.
    """
    facts = {
        "Split": f"{evaluation['split']}: {evaluation['slices']} slices",
        "Dataset": f"{evaluation['dataset']} (trained on {evaluation['trained_on']})",
        "Protocol": evaluation["protocol"] + (f", fold {evaluation['fold']}" if evaluation["fold"] else ""),
        "Network": f"{evaluation['network']}, {evaluation['start_filters']} filters in the first level",
        "Resolution": f"{evaluation['image_size']} × {evaluation['image_size']} pixels",
        "Seed": str(evaluation["seed"]),
        "Masks": _describe_masks(evaluation),
        "Epoch of the checkpoint": evaluation.get("checkpoint_epoch"),
        "Members": ", ".join(evaluation.get("members", [])),
    }
    parts = [_table(("", ""), [(name, value) for name, value in facts.items() if value], long=True)]
    if by_fold := evaluation.get("by_fold"):
        keys = ("slices", "families", "dice", "threshold", "min_component_fraction", "checkpoint_epoch")
        head = ("Fold", "Slices", "Families", "Mean Dice", "Threshold", "Smallest component", "Epoch")
        parts.append(
            _table(head, [(fold, *(of[key] for key in keys)) for fold, of in by_fold.items()], caption="Folds")
        )
    elif splits:
        patients = splits.get("patient_ids", {})
        counts = [(name, len(splits["splits"][name]), len(patients[name]) if patients else None) for name in SPLITS]
        parts.append(_table(("Split", "Slices", "Patient ids"), counts, caption="Splits of the run"))
        if shared := splits.get("overlaps"):
            kinds = ("patient_ids", "families")
            pairs = [(pair.replace("+", " and "), *(len(shared[kind][pair]) for kind in kinds)) for pair in SPLIT_PAIRS]
            parts.append(_table(("Shared by", "Patient ids", "Families"), pairs, caption="What two splits share"))
    both = {"Training": evaluation["trained_with"], "Evaluation": evaluation}
    provenance = [(name, *(of.get(name) for of in both.values())) for name in _PROVENANCE]
    versions = [of.get("versions", {}) for of in both.values()]
    provenance += [(name, *(of.get(name) for of in versions)) for name in dict.fromkeys([*versions[0], *versions[1]])]
    parts.append(_table(("", *both), provenance, caption="Provenance", long=True))
    if config:
        settings = _table(("Field", "Value"), list(flatten(config).items()), long=True)
        parts.append(f"<details><summary>All settings (config.json)</summary>{settings}</details>")
    else:
        parts.append(_note("config.json is not in the folder of the scores: the settings are not shown."))
    return Section("run", "What was run", "\n".join(parts))


def curves_section(runs: Sequence[Sequence[Mapping[str, float]]]) -> Section:
    """Draws the learning curves of one or more runs, from the rows of metrics.jsonl."""
    if not runs:
        content = _note("metrics.jsonl is not at hand: there are no learning curves.")
    else:
        figures = (charts.learning_curve(runs, quantity) for quantity in ("loss", "dice", "learning_rate"))
        content = f'<div class="charts">{"".join(figures)}</div>'
        if len(runs) > 1:
            content += _note(f"The curves of {len(runs)} trainings lie over each other.")
    return Section("curves", "Learning curves", content)


def dice_section(scores: Sequence[SliceScore], evaluation: Mapping[str, Any]) -> Section:
    """Shows Dice by class and by tumour size."""
    drawn = (
        f'<div class="charts">{charts.dice_by_class(scores, evaluation)}{charts.dice_by_size(scores, evaluation)}</div>'
    )
    head = ("Slices", "Families", "Mean Dice", "95 % interval", "Median", "Missed")
    tables = []
    for kind, first in (("by_class", "Class"), ("by_size", "Tumour’s share of the image")):
        rows = [
            (
                name,
                of["slices"],
                of["families"],
                _number(of["dice"]),
                _interval(evaluation["intervals"][kind][name]["dice"], word=""),
                _number(of["dice_median"]),
                _share(of["share_missed"]),
            )
            for name, of in evaluation[kind].items()
        ]
        tables.append(_table((first, *head), rows))
    return Section("dice", "Dice by class and size", drawn + "".join(tables))


def calibration_section(evaluation: Mapping[str, Any]) -> Section:
    """Shows how well probabilities fit the share of tumour pixels."""
    of = evaluation["calibration"]
    errors = f"Mean gap between probability and share: {_number(of['expected_error'], 4)} over all pixels"
    if of["expected_error_uncertain"] is not None:
        errors += f", {_number(of['expected_error_uncertain'])} over the uncertain ones (0.05 to 0.95)"
    content = f'<div class="charts">{charts.calibration_chart(of)}</div>\n<p>{escape(errors)}.</p>'
    return Section("calibration", "Calibration", content)


def _describe_masks(evaluation: Mapping[str, Any]) -> str:
    if "threshold" not in evaluation:
        return "pixels above the threshold of each fold"
    text = f"pixels above {evaluation['threshold']}"
    if smallest := evaluation["min_component_fraction"]:
        text += f", without components under {100 * smallest:g} % of the image"
    return text + (", averaged over image and mirror image" if evaluation.get("tta_flip") else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", long: bool = False) -> str:
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    heading = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    lines = [
        f'<tr><th scope="row">{_cell(first)}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    ]
    start = '<table class="long">' if long else "<table>"
    return f'<div class="scroll">{start}{title}{heading}<tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not known" if value is None else escape(str(value))


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(ends: Sequence[float] | None, *, share: bool = False, word: str = "95 % interval ") -> str:
    if not ends:
        return "" if word else "–"
    low, high = (_share(end) if share else _number(end) for end in ends)
    return f"{word}{low} to {high}"
