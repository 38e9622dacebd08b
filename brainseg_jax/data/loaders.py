"""Batches for the compiled steps: their order, and how they come to the devices.

A call of a compiled step takes several batches at once, a `StepBatches`. Either all slices lie in device memory and it
names rows of them, or it brings its slices along, gathered by grain's threads and sent ahead of their use. Both give
the same batches in the same order.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import grain
import jax
import numpy as np
import psutil
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from brainseg_jax.data.packing import PackedSlices
from brainseg_jax.utils.sharding import batch_sharding, part_of_process, replicated, shard, shard_local

CACHES = ("auto", "device", "stream")
# The rest of the device's memory is for the network: its feature maps take far more than the slices of a batch.
SHARE_FOR_SLICES = 0.5
READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
Carry = TypeVar("Carry")


class StepBatches(NamedTuple):
    """What one call of a compiled step works on: K batches of B slices.

    Attributes:
      slices: all slices (N, S, S), on every device; or these batches' own (K, B, S, S), divided among the devices.
      rows: (K, B) int32, which of all slices; None where they have their own.
    """

    slices: PackedSlices
    rows: Array | None


class SliceLoader(Protocol):
    """Slices, handed out in batches."""

    def __len__(self) -> int:
        """The number of slices."""

    def iterate(self, batches: np.ndarray, *, steps_per_call: int) -> Iterator[StepBatches]:
        """Batches (E, B) of rows `steps_per_call` of them at a time; the last one may be shorter."""


class DeviceLoader:
    """All slices in the memory of every device: nothing but row numbers travels during an epoch."""

    def __init__(self, slices: PackedSlices, mesh: Mesh) -> None:
        """Sends the slices."""
        self._mesh, self._count = mesh, len(slices.images)
        filled = jax.tree.map(lambda leaf: _fill_up(leaf, round_up(self._count)), slices)
        self._slices: PackedSlices = shard(filled, replicated(mesh))

    def __len__(self) -> int:  # noqa: D105
        return self._count

    def iterate(self, batches: np.ndarray, *, steps_per_call: int) -> Iterator[StepBatches]:
        """See `SliceLoader`."""
        for rows in _chunks(batches, steps_per_call):
            yield StepBatches(self._slices, shard(rows, batch_sharding(self._mesh, axis=1)))


class StreamingLoader:
    """Slices in the host's memory or on its disk; each process sends the part of a batch that its devices work on."""

    def __init__(self, slices: PackedSlices, mesh: Mesh) -> None:
        """Keeps the slices where they are."""
        self._mesh, self._slices = mesh, slices

    def __len__(self) -> int:  # noqa: D105
        return len(self._slices.images)

    def iterate(self, batches: np.ndarray, *, steps_per_call: int) -> Iterator[StepBatches]:
        """See `SliceLoader`."""
        mine = batches[:, part_of_process(self._mesh, batches.shape[1])]
        chunks = list(_chunks(mine, steps_per_call))
        gathered = (
            grain.MapDataset.range(len(chunks))
            .map(lambda index: jax.tree.map(lambda leaf: leaf[chunks[index]], self._slices))
            .to_iter_dataset(READ_AHEAD)
        )
        sharding = batch_sharding(self._mesh, axis=1)
        sent: Iterator[StepBatches] = (StepBatches(shard_local(part, sharding), None) for part in gathered)
        # The next batches are on their way while these are worked on.
        ahead = list(itertools.islice(sent, 1))
        for step_batches in sent:
            ahead.append(step_batches)
            yield ahead.pop(0)
        yield from ahead


def make_loaders(parts: Sequence[PackedSlices], mesh: Mesh, *, cache: str) -> list[SliceLoader]:
    """Chooses where the slices wait: all in one way, and all processes alike.

    Args:
      parts: NumPy arrays.
      mesh: the devices.
      cache: "device", "stream", or "auto": on the devices if all of them fit in half of what is free there.
    """
    if cache == "auto":
        needed = sum(part.nbytes * round_up(len(part.images)) // len(part.images) for part in parts)
        fits = needed <= SHARE_FOR_SLICES * _free_memory(mesh)
        if jax.process_count() > 1:
            fits = bool(multihost_utils.process_allgather(np.array(fits)).all())
        cache = "device" if fits else "stream"
    loader_class = DeviceLoader if cache == "device" else StreamingLoader
    return [loader_class(part, mesh) for part in parts]


def round_up(count: int) -> int:
    """The least number of the form 2^k or 3 · 2^k that is not below `count`.

    Arrays are filled up to it, so that folds, which differ by a few slices, share a compiled program.
    """
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= count else power


def choose_steps_per_call(wanted: int, loader: SliceLoader, *, batches: int) -> int:
    """How many batches a call of a compiled step takes.

    Args:
      wanted: `config.train.steps_per_call`; 0 to choose.
      loader: where the slices wait.
      batches: batches of an epoch.

    Returns:
      `wanted`, or: on a CPU 1, where a compiled loop over steps is some ten times slower than the steps (XLA runs its
      convolutions badly inside loops); on a GPU all, or 8 where the slices are streamed and must fit.
    """
    if wanted:
        return min(wanted, batches)
    if jax.default_backend() == "cpu":
        return 1
    return batches if isinstance(loader, DeviceLoader) else min(8, batches)


def scan_batches(
    step: Callable[..., tuple[Carry, Any]], carry: Carry, step_batches: StepBatches, *others: Array
) -> tuple[Carry, Any]:
    """Runs `step(carry, slices, *others)` over several batches, inside a compiled function.

    Args:
      step: takes the carry, the B slices of a batch, and what belongs to the batch of each of `others`; gives the next
        carry and the batch's results.
      carry: the first carry.
      step_batches: K batches.
      others: arrays whose first axis is K long.

    Returns:
      The last carry and the results of all batches, stacked along a first axis of K.
    """

    def body(carry: Carry, batch: Any) -> tuple[Carry, Any]:
        chosen, *rest = batch
        slices = chosen if step_batches.rows is None else jax.tree.map(lambda leaf: leaf[chosen], step_batches.slices)
        return step(carry, slices, *rest)

    batches = (step_batches.slices if step_batches.rows is None else step_batches.rows, *others)
    if jax.tree.leaves(batches)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, batches)
    carry, results = body(carry, jax.tree.map(lambda leaf: leaf[0], batches))
    return carry, jax.tree.map(lambda leaf: leaf[None], results)


def epoch_batches(*, seed: int, epoch: int, slices: int, batch_size: int) -> np.ndarray:
    """The batches of an epoch, from the seed and the epoch alone.

    Args:
      seed: the run's seed.
      epoch: 1 for the first.
      slices: how many there are.
      batch_size: slices a batch.

    Returns:
      (slices // batch_size, batch_size) int32 rows, each at most once: the rest of the permutation sits this epoch
      out, so that every batch has one shape and batch norm sees no filling.
    """
    order = np.random.default_rng((seed, epoch)).permutation(slices).astype(np.int32)
    return order[: slices // batch_size * batch_size].reshape(-1, batch_size)


def padded_batches(slices: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All slices in order, in batches of one shape.

    Returns:
      rows (E, batch_size) int32 and weights (E, batch_size) float32, 0 where the last batch is filled up.
    """
    rows = np.arange(-(-slices // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    return np.minimum(rows, slices - 1), (rows < slices).astype(np.float32)


def _fill_up(leaf: np.ndarray, count: int) -> np.ndarray:
    filled = np.zeros((count, *leaf.shape[1:]), leaf.dtype)
    filled[: len(leaf)] = leaf
    return filled


def _chunks(batches: np.ndarray, length: int) -> Iterator[np.ndarray]:
    for first in range(0, len(batches), length):
        yield batches[first : first + length]


def _free_memory(mesh: Mesh) -> int:
    """Bytes that are free on one of the devices of this process."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().available // len(mesh.local_devices)
    statistics = device.memory_stats() or {}  # nothing under some allocators: then slices are streamed
    return statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0)
