"""What a training shows in TensorBoard: a scalar for each column of metrics.jsonl, and predictions on validation."""

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax import Array
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from brainseg_jax.data.packing import PackedSlices, unpack
from brainseg_jax.models import Network
from brainseg_jax.plots.overlays import difference
from brainseg_jax.training.state import TrainState

SHOWN = 8  # slices of the grid, in rows of four
COLUMNS = 4


class TensorBoard:
    """Writes the files of TensorBoard in tensorboard/ of a workdir; use as a context manager.

    The calling thread writes them: tensorboardX's own queue uses another thread, which a full disk ends with a
    traceback, and then blocks for ever.
    """

    def __init__(self, directory: Path, *, first_epoch: int) -> None:
        """Opens the files; hides what an interrupted call wrote for `first_epoch` and later epochs."""
        folder = directory / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(first_epoch, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the last flush has reported a full disk
            self._writer.close()

    def add_row(self, row: Mapping[str, float], *, epoch: int) -> None:
        """Writes a scalar for each value of a row of metrics.jsonl."""
        for name, value in row.items():
            self._write(epoch, summary=summary.scalar(name, value))
        self._writer.flush()

    def add_predictions(self, model: Network, state: TrainState, slices: PackedSlices, *, epoch: int) -> None:
        """Writes a picture of the predictions of the first `SHOWN` slices, in the colours of `difference`."""
        images, masks = unpack(jax.tree.map(lambda leaf: leaf[:SHOWN], slices))
        predicted = np.asarray(_predict(model, state.variables, images))
        pictures = [
            difference(np.asarray(image)[..., 0], np.asarray(mask)[..., 0], of_image[..., 0])
            for image, mask, of_image in zip(images, masks, predicted, strict=True)
        ]
        pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
        rows = [np.concatenate(pictures[first : first + COLUMNS], axis=1) for first in range(0, len(pictures), COLUMNS)]
        grid = np.concatenate(rows, axis=0)
        self._write(epoch, summary=summary.image("validation_predictions", grid, dataformats="HWC"))
        self._writer.flush()

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


@functools.partial(jax.jit, static_argnums=0)
def _predict(model: Network, variables: Any, images: Array) -> Array:
    """Returns the masks, (B, S, S, 1) bool, at a threshold of one half."""
    logits: Any = model.apply(variables, images, train=False)
    return logits > 0
