"""What the published work reports: its code, logs and report are at `PUBLICATION`."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PUBLICATION = "https://github.com/mhagglun/Image-Segmentation-of-Brain-Tumors"

# Mean Dice of its test slices, a random tenth of all slices, at 512×512.
PUBLISHED_DICE = {"unet": 0.703, "linknet": 0.715}
PUBLISHED_SIZE = 512
PUBLISHED_START_FILTERS = {"unet": 16, "linknet": 64}
PUBLISHED_BATCH = {"unet": 8, "linknet": 10}
# U-Net was trained twice: the published README shows the first run, the report the second.
PUBLISHED_LEARNING_RATES = {"unet": (5e-4, 1e-4), "linknet": (5e-4,)}
PUBLISHED_LOSS = "bce"

# The best published result on new patients that we found: https://github.com/G9YzNDN/DLMED, a U-Net whose encoder is a
# ResNet-34 pretrained on ImageNet, 256×256, mean of three seeds, on the 29 families of its test part.
PEER_NAME = "[DLMED](https://github.com/G9YzNDN/DLMED): U-Net, ResNet-34 pretrained on ImageNet, 256×256, three seeds"
PEER_DICE = 0.774
PEER_DICE_BY_CLASS = {"meningioma": 0.930, "glioma": 0.662, "pituitary": 0.829}
# Its test families of which we have slices: 399 of its 436 test slices.
_AT_HAND = """
101305 102669 102818 103673 104558 105936 106442 107505 108479 108514 108858 109411 110537 111710 112746 113554 92897
95142 97374 98871 MR034694 MR040240 MR051586 MR051796 MR052550
"""
PEER_FAMILIES = frozenset(_AT_HAND.split())


@dataclass(frozen=True)
class PublishedRun:
    """One published training of 30 epochs at 512×512, as its own log records it.

    Attributes:
      network: "unet" or "linknet".
      learning_rate: Adam's, at the start.
      test_dice: mean Dice of the test slices.
      seconds_per_epoch: on an NVIDIA RTX 2070.
      curves: values per epoch, in [0, ∞) or [0, 1], named as in metrics.jsonl: validation_loss, validation_dice and,
        where the log of the training part could be read, train_loss, train_dice and learning_rate. Dice is computed as
        Keras does: over all pixels of a batch, then the mean over the batches.
    """

    network: str
    learning_rate: float
    test_dice: float
    seconds_per_epoch: float
    curves: Mapping[str, Sequence[float]]


@functools.cache
def published_runs() -> tuple[PublishedRun, ...]:
    """Reads the published runs, those of `PUBLISHED_LEARNING_RATES`, from published_curves.json."""
    found = json.loads(Path(__file__).with_name("published_curves.json").read_text())
    return tuple(PublishedRun(**run) for run in found["runs"])


def find_published_run(network: str, *, learning_rate: float) -> PublishedRun | None:
    """Finds the published run of a network at a learning rate; None where there is none."""
    return next((run for run in published_runs() if (run.network, run.learning_rate) == (network, learning_rate)), None)
