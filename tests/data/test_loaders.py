"""Batches: their order depends on seed and epoch only, and both loaders give the same slices."""

import itertools

import jax
import numpy as np
import pytest

from brainseg_jax.data.loaders import (
    DeviceLoader,
    StreamingLoader,
    choose_steps_per_call,
    epoch_batches,
    make_loaders,
    padded_batches,
    round_up,
    scan_batches,
)
from brainseg_jax.data.packing import PackedSlices
from brainseg_jax.utils.sharding import make_mesh


@pytest.fixture(scope="module")
def slices():
    """Twenty slices; the pixels of each are its row number."""
    values = np.arange(20)
    images = np.broadcast_to(values[:, None, None], (20, 16, 16)).astype(np.uint16)
    masks = np.broadcast_to(values[:, None, None], (20, 16, 2)).astype(np.uint8)
    return PackedSlices(images, masks)


def values_of(loader, batches, steps_per_call):
    """The (K, B) row numbers of the slices of each StepBatches, read in a compiled function."""

    @jax.jit
    def look(step_batches):
        return scan_batches(lambda carry, of: (carry, (of.images[:, 3, 4], of.masks[:, 5, 1])), 0, step_batches)[1]

    found = [look(step_batches) for step_batches in loader.iterate(batches, steps_per_call=steps_per_call)]
    for images, masks in found:
        np.testing.assert_array_equal(images, masks)
    return [np.asarray(images) for images, _ in found]


@pytest.mark.parametrize("loader_class", [DeviceLoader, StreamingLoader])
@pytest.mark.parametrize(("steps_per_call", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5])])
def test_step_batches_hold_their_slices_in_order(slices, loader_class, steps_per_call, lengths):
    batches = epoch_batches(seed=0, epoch=1, slices=20, batch_size=4)
    loader = loader_class(slices, make_mesh(batch_size=4))
    assert len(loader) == 20
    found = values_of(loader, batches, steps_per_call)
    assert [len(step_batches) for step_batches in found] == lengths
    np.testing.assert_array_equal(np.concatenate(found), batches)


def test_slices_on_the_device_are_padded_to_few_sizes(slices):
    assert [round_up(count) for count in (1, 2, 3, 4, 5, 7, 1024, 1025, 1537)] == [1, 2, 3, 4, 6, 8, 1024, 1536, 2048]
    assert all(count <= round_up(count) < 1.5 * count for count in range(1, 4097))
    (step_batches,) = DeviceLoader(slices, make_mesh(batch_size=1)).iterate(np.zeros((1, 1), int), steps_per_call=1)
    assert step_batches.slices.images.shape == (24, 16, 16)


def test_streaming_reads_only_a_few_batches_ahead(slices):
    class Counting:
        """Images that count how many batches were gathered."""

        reads = 0
        images = slices.images

        def __getitem__(self, rows):
            Counting.reads += 1
            return self.images[rows]

        def __len__(self):
            return 20

    loader = StreamingLoader(PackedSlices(Counting(), slices.masks), make_mesh(batch_size=1))
    all_step_batches = loader.iterate(np.zeros((1000, 1), np.int32), steps_per_call=1)
    list(itertools.islice(all_step_batches, 10))
    assert Counting.reads < 100


def test_slices_that_do_not_fit_are_streamed(slices, monkeypatch):
    mesh = make_mesh(batch_size=1)

    def kinds(cache, splits=1):
        return {type(loader) for loader in make_loaders([slices] * splits, mesh, cache=cache)}

    assert kinds("device") == {DeviceLoader}
    assert kinds("stream") == {StreamingLoader}
    assert kinds("auto") == {DeviceLoader}
    # 20 slices are padded to 24: one split takes 1.2 · nbytes, within half of 3 · nbytes; two do not.
    monkeypatch.setattr("brainseg_jax.data.loaders.free_memory", lambda mesh: 3 * slices.nbytes)
    assert kinds("auto", splits=1) == {DeviceLoader}
    assert kinds("auto", splits=2) == {StreamingLoader}


def test_a_call_takes_one_step_on_a_cpu_and_an_epoch_on_a_gpu(slices, monkeypatch):
    mesh = make_mesh(batch_size=1)
    on_device, streamed = DeviceLoader(slices, mesh), StreamingLoader(slices, mesh)
    for loader in (on_device, streamed):
        assert choose_steps_per_call(0, loader, batches=100) == 1
        assert choose_steps_per_call(7, loader, batches=100) == 7
        assert choose_steps_per_call(700, loader, batches=100) == 100
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_steps_per_call(0, on_device, batches=100) == 100
    assert choose_steps_per_call(0, streamed, batches=100) == 8


def test_an_epoch_takes_every_slice_at_most_once_and_leaves_out_less_than_a_batch():
    batches = epoch_batches(seed=0, epoch=3, slices=103, batch_size=8)
    assert batches.shape == (12, 8)
    assert len(set(batches.ravel().tolist())) == 96
    assert batches.min() >= 0
    assert batches.max() < 103


def test_the_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        return epoch_batches(seed=seed, epoch=epoch, slices=64, batch_size=8)

    np.testing.assert_array_equal(order(0, 1), order(0, 1))
    assert (order(0, 1) != order(0, 2)).any()
    assert (order(0, 1) != order(1, 1)).any()
    assert (order(0, 1) != order(1, 0)).any()


@pytest.mark.parametrize(("slices", "batch_size"), [(7, 3), (6, 3), (2, 8)])
def test_padded_batches_weigh_every_slice_once(slices, batch_size):
    weighed = np.zeros(slices)
    for rows, weights in zip(*padded_batches(slices, batch_size), strict=True):
        assert rows.shape == weights.shape == (batch_size,)
        np.add.at(weighed, rows, weights)
    np.testing.assert_array_equal(weighed, 1)
