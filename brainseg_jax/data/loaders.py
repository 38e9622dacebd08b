"""Makes batches for the compiled steps, in their order, and sends them to the devices.

A call of a compiled step takes several batches at once, a `StepBatches`. With `DeviceLoader` all slices are in device
memory and a call gets only row numbers; with `StreamingLoader` it gets the slices, which grain's threads gather and
which are sent one call ahead. Both give the same batches in the same order.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import grain
import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from brainseg_jax.data.packing import PackedSlices
from brainseg_jax.utils.memory import free_memory
from brainseg_jax.utils.sharding import batch_sharding, part_of_process, replicated, shard, shard_local

CACHES = ("auto", "device", "stream")
SHARE_FOR_SLICES = 0.5  # of the free device memory; the rest is for the network's feature maps
READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
Carry = TypeVar("Carry")


class StepBatches(NamedTuple):
    """The K batches of B slices that one call of a compiled step works on.

    Attributes:
      slices: either all slices of the split, (N, S, S), on every device; or only those of these batches,
        (K, B, S, S), divided among the devices.
      rows: (K, B) int32, the rows of `slices` that make up the batches; None if `slices` has only these batches.
    """

    slices: PackedSlices
    rows: Array | None


class DeviceLoader:
    """Keeps all slices in the memory of every device; only row numbers are sent during an epoch."""

    def __init__(self, slices: PackedSlices, mesh: Mesh) -> None:
        """Sends the slices."""
        self._mesh, self._count = mesh, len(slices.images)
        margin = round_up(self._count) - self._count
        padded = jax.tree.map(lambda leaf: np.pad(leaf, [(0, margin), *[(0, 0)] * (leaf.ndim - 1)]), slices)
        self._slices: PackedSlices = shard(padded, replicated(mesh))

    def __len__(self) -> int:
        """Returns the number of slices."""
        return self._count

    def iterate(self, batches: np.ndarray, *, steps_per_call: int) -> Iterator[StepBatches]:
        """Yields batches, (E, B) rows, `steps_per_call` of them at a time; the last time there may be fewer."""
        for first in range(0, len(batches), steps_per_call):
            rows = batches[first : first + steps_per_call]
            yield StepBatches(self._slices, shard(rows, batch_sharding(self._mesh, axis=1)))


class StreamingLoader:
    """Leaves the slices in host memory or on disk; each process sends the slices that its devices work on."""

    def __init__(self, slices: PackedSlices, mesh: Mesh) -> None:
        """Keeps a reference to the slices."""
        self._mesh, self._slices = mesh, slices

    def __len__(self) -> int:
        """Returns the number of slices."""
        return len(self._slices.images)

    def iterate(self, batches: np.ndarray, *, steps_per_call: int) -> Iterator[StepBatches]:
        """See `DeviceLoader.iterate`."""
        rows = batches[:, part_of_process(self._mesh, batches.shape[1])]
        gathered = (
            grain.MapDataset.range(0, len(rows), steps_per_call)
            .map(lambda first: jax.tree.map(lambda leaf: leaf[rows[first : first + steps_per_call]], self._slices))
            .to_iter_dataset(READ_AHEAD)
        )
        sharding = batch_sharding(self._mesh, axis=1)
        sent = (StepBatches(shard_local(slices, sharding), None) for slices in gathered)
        # Taking pairs sends the next batches before the compiled step works on the current ones; the last has no next.
        sent_and_none: Iterator[Any] = itertools.chain(sent, [None])
        for current, _ in itertools.pairwise(sent_and_none):
            yield current


SliceLoader = DeviceLoader | StreamingLoader


def make_loaders(splits: Sequence[PackedSlices], mesh: Mesh, *, cache: str) -> list[SliceLoader]:
    """Makes a loader for each split; all are of one kind, in all processes.

    Args:
      splits: the slices of each split, as NumPy arrays.
      mesh: the devices.
      cache: "device", "stream", or "auto": "device" if all splits fit in half of the free memory of a device.
    """
    if cache == "auto":
        needed = sum(slices.nbytes * round_up(len(slices.images)) // len(slices.images) for slices in splits)
        fits = needed <= SHARE_FOR_SLICES * free_memory(mesh)
        if jax.process_count() > 1:
            fits = bool(multihost_utils.process_allgather(np.array(fits)).all())
        cache = "device" if fits else "stream"
    loader_class = DeviceLoader if cache == "device" else StreamingLoader
    return [loader_class(slices, mesh) for slices in splits]


def round_up(count: int) -> int:
    """Rounds up to 2^k or 3 · 2^k.

    Arrays are padded to this length, so that folds, which differ by a few slices, share a compiled program.
    """
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= count else power


def choose_steps_per_call(wanted: int, loader: SliceLoader, *, batches: int) -> int:
    """Chooses how many batches a call of a compiled step takes.

    Args:
      wanted: `config.train.steps_per_call`; 0 for the best number.
      loader: the slices.
      batches: batches of an epoch.

    Returns:
      `wanted`, if it is not 0. Otherwise 1 on a CPU, where XLA runs convolutions inside a loop about ten times slower;
      on a GPU all batches, or 8 if their slices are streamed and must fit in its memory.
    """
    best = 1 if jax.default_backend() == "cpu" else batches if isinstance(loader, DeviceLoader) else 8
    return min(wanted or best, batches)


def scan_batches(
    step: Callable[..., tuple[Carry, Any]], carry: Carry, step_batches: StepBatches, *others: Array
) -> tuple[Carry, Any]:
    """Runs a step over several batches, inside a compiled function.

    Args:
      step: `step(carry, slices, *others)`: the next carry and the results of a batch of B slices.
      carry: the first carry.
      step_batches: K batches.
      others: arrays (K, ...); the step gets the row of its batch.

    Returns:
      The last carry and the results of all batches, stacked along a first axis of length K.
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
    """Draws the batches of an epoch; they depend on the arguments only.

    Args:
      seed: the run's seed.
      epoch: number of the epoch, from 1.
      slices: number of slices.
      batch_size: slices in a batch.

    Returns:
      (slices // batch_size, batch_size) int32 rows, each at most once. The rest of the permutation is left out in this
      epoch, so that all batches have one shape and batch norm sees no padding.
    """
    order = np.random.default_rng((seed, epoch)).permutation(slices).astype(np.int32)
    return order[: slices // batch_size * batch_size].reshape(-1, batch_size)


def padded_batches(slices: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides all slices, in order, into batches of one shape.

    Returns:
      rows (E, batch_size) int32 and weights (E, batch_size) float32, 0 for the padding of the last batch, otherwise 1.
    """
    rows = np.arange(-(-slices // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    return np.minimum(rows, slices - 1), (rows < slices).astype(np.float32)
