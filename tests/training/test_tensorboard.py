"""What TensorBoard gets: every column of metrics.jsonl, and a picture of predictions."""

import io
import struct

import numpy as np
from PIL import Image
from tensorboardX.proto import event_pb2

from brainseg_jax.plots.overlays import DIFFERENCE_COLORS
from tests.helpers import rows_of


def events_of(workdir):
    """Reads the records of a run's event files: length, checksum, content, checksum."""
    for path in (workdir / "tensorboard").iterdir():
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


def test_scalars_and_a_picture_of_validation(trained):
    values = [(event.step, value) for event in events_of(trained) for value in event.summary.value]
    rows = rows_of(trained)
    norms = {step: value.simple_value for step, value in values if value.tag == "gradient_norm"}
    assert norms.keys() == {row["epoch"] for row in rows}
    np.testing.assert_allclose([norms[row["epoch"]] for row in rows], [row["gradient_norm"] for row in rows], rtol=1e-6)
    assert min(norms.values()) > 0
    assert {"slices_per_second", "validation_dice", "learning_rate"} <= {value.tag for _, value in values}
    pictures = {step: value.image for step, value in values if value.tag == "validation_predictions"}
    assert max(pictures) == len(rows)
    grid = np.asarray(Image.open(io.BytesIO(pictures[len(rows)].encoded_image_string)))
    assert grid.shape == (2 * 32, 4 * 32, 3)
    coloured = grid[np.ptp(grid.astype(int), axis=-1) > 60]  # the rest is grey
    assert len(coloured) > 20
    # Each coloured pixel is near one of the three colours, which are blended with the grey below.
    distances = [np.abs(coloured.astype(int) - color).max(axis=-1) for color in DIFFERENCE_COLORS.values()]
    assert np.min(distances, axis=0).max() < 0.16 * 255
