"""Writes the card of trained weights: what they are, how good they are, and what they must not be used for."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from brainseg_jax.inference.postprocessing import Postprocessing
from brainseg_jax.utils.markdown import table
from brainseg_jax.workdir.files import describe_run

_HEAD = """---
license: apache-2.0
library_name: brainseg_jax
pipeline_tag: image-segmentation
tags: [mri, brain-tumor, jax, flax, {network}]
metrics: [dice]
---
"""
_PHANTOMS = "\n**It was trained on synthetic slices (phantoms) only: it knows nothing about patients.**\n"
_LIMITS = """## What it is not for

It is not a medical device and must not inform the care of a patient. {}
"""
_LIMITS_FIGSHARE = """Every slice of its dataset has a tumour, of one of
three classes, in T1 contrast-enhanced MRI from two hospitals: on a slice without a tumour, another sequence, another
scanner or another disease its masks mean little. Gliomas are found and outlined far worse than the other two classes.
`docs/MODEL_CARD.md` of the project says more."""
_LIMITS_OWN = """It was trained on slices of
its user's own: on another sequence, another scanner or another disease its masks mean little."""


def model_card(
    name: str, config: ml_collections.ConfigDict, evaluation: Mapping[str, Any], postprocessing: Postprocessing
) -> str:
    """Returns the card, in Markdown with the head that the Hugging Face hub reads.

    Args:
      name: of the weights.
      config: of their training.
      evaluation: content of the run's evaluation_test.json.
      postprocessing: how its probabilities become masks.
    """
    intervals = evaluation["intervals"]
    rows = [_row("all", evaluation, intervals)]
    rows += [_row(label, scores, intervals["by_class"][label]) for label, scores in evaluation["by_class"].items()]
    return f"""{_HEAD.format(network=config.model.name)}
# {name}

{describe_run(config)}, epoch {evaluation["checkpoint_epoch"]}.
Input: one grey slice (H, W) of any size and range, upright. Output: the probability of each pixel to be tumour.
A pixel is tumour above {postprocessing.threshold}; components below {postprocessing.min_component_fraction:.2%} of the
image are left out.
{_PHANTOMS if evaluation["trained_on"] == "phantom" else ""}
```python
from brainseg_jax import Predictor

[mask] = Predictor.from_pretrained("{name}").masks([image])
```

## How good it is

On its test split of the {evaluation["dataset"]} dataset (protocol `{evaluation["protocol"]}`, slices in `splits.json`),
with 95 % intervals by bootstrap over families of patients. "Missed" is the share of slices with Dice 0.

{table(("Class", "Slices", "Families", "Dice", "Missed"), rows)}

Trained at commit {evaluation["trained_with"]["commit"]}, scored at {evaluation["commit"]}.

{_LIMITS.format(_LIMITS_OWN if evaluation["trained_on"] == "folder" else _LIMITS_FIGSHARE)}"""


def _row(label: str, scores: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[str]:
    cells = [label, str(scores["slices"]), str(scores["families"])]
    for name, form in (("dice", ".3f"), ("share_missed", ".1%")):
        ends = intervals[name]  # None where there are too few families
        interval = f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends else ""
        cells.append("–" if scores[name] is None else f"{scores[name]:{form}}{interval}")
    return cells
