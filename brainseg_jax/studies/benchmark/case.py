"""What is measured: a network, its work, and sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One piece of work that both sides do.

    Attributes:
      model: "unet" or "linknet".
      start_filters: channels of the first level.
      mode: "train" (forward, backward, Adam) or "inference".
      image_size: side of the images.
      batch_size: slices a step.
      dtype: our dtype of the computation.
      devices: how many share a batch; PyTorch takes one.
      steps: steps a run; ours do them in one compiled call on a GPU.
    """

    model: str
    start_filters: int
    mode: str
    image_size: int
    batch_size: int
    dtype: str
    devices: int = 1
    steps: int = 1
