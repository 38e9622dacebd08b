"""Defines the cases of the benchmark and how much is measured on each kind of machine."""

import dataclasses

import jax

from brainseg_jax.published import PUBLISHED_BATCH, PUBLISHED_START_FILTERS


@dataclasses.dataclass(frozen=True)
class Case:
    """One task that both libraries run.

    Attributes:
      model: "unet" or "linknet".
      start_filters: channels of the first level.
      mode: "train" (forward, backward, Adam) or "inference".
      image_size: side of the images.
      batch_size: slices per step.
      dtype: dtype of our computation.
      devices: how many share a batch; PyTorch uses one.
      steps: steps per run; on a GPU our program takes them in one compiled call.
    """

    model: str
    start_filters: int
    mode: str
    image_size: int
    batch_size: int
    dtype: str
    devices: int = 1
    steps: int = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """The extent of the measurements.

    Attributes:
      start_filters: of each network.
      dtypes: of our computation; the sweeps over batches, slices and devices use the first.
      image_size: side of the images.
      repeats: turns of each measurement.
      seconds: minimum duration of each program per turn.
      batches, image_sizes, datasets: points of the sweeps: multiples of the recipe's batch, sides in pixels, slices.
      epoch_steps: batches of the epochs that are timed.
      parts_image_size: side of the images at which a batch in parts is timed; 0: it is not.
      torch_compile: whether torch.compile, which compiles slowly, is among PyTorch's settings.
    """

    start_filters: dict[str, int]
    dtypes: tuple[str, ...]
    image_size: int
    repeats: int
    seconds: float
    batches: tuple[int, ...]
    image_sizes: tuple[int, ...]
    datasets: tuple[int, ...]
    epoch_steps: int
    parts_image_size: int = 0
    torch_compile: bool = True

    def recipes(self) -> list[Case]:
        """Returns the training of each published network, in the first dtype."""
        steps = 20 if jax.default_backend() == "gpu" else 1
        return [
            Case(model, self.start_filters[model], "train", self.image_size, batch, self.dtypes[0], steps=steps)
            for model, batch in PUBLISHED_BATCH.items()
        ]


PLANS = {
    "cpu": Plan(PUBLISHED_START_FILTERS, ("float32", "bfloat16"), 128, 5, 0.5, (1, 2, 4), (256,), (64,), 24, 512),
    "gpu": Plan(
        PUBLISHED_START_FILTERS,
        ("bfloat16",),
        512,
        7,
        0.5,
        (1, 2, 4, 8, 16),
        (128, 256, 512, 768),
        (256, 1024, 3064),
        200,
    ),
    # A narrower LinkNet has transposed convolutions of one channel, where PyTorch 2.13 corrupts memory channels-last.
    "tiny": Plan({"unet": 2, "linknet": 8}, ("float32",), 64, 2, 0.01, (1,), (64,), (16,), 3, 32, torch_compile=False),
}
