"""Many devices, of one or many processes: one `Mesh` with one axis, along which the slices of a batch are divided.

Everything else (parameters, optimizer, statistics) is on every device. The compiled step is the same on one device and
on many; XLA adds the sums over devices, those of batch norm among them, so that its statistics are the whole batch's.
"""

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from brainseg_jax.errors import InputError

AXIS = "batch"


def is_primary() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def make_mesh(*, batch_size: int, count: int | None = None) -> Mesh:
    """All devices of all processes, which share every batch.

    Args:
      batch_size: slices per step, over all devices.
      count: take only this many devices, the first ones, of a single process; None for all.

    Raises:
      InputError: the devices cannot share the batch evenly.
    """
    devices = jax.devices()[:count]
    if batch_size % len(devices):
        below = batch_size // len(devices) * len(devices)
        sizes = " or ".join(str(size) for size in (below, below + len(devices)) if size)
        raise InputError(
            f"config.train.batch_size is {batch_size}, which {len(devices)} devices cannot share evenly: set it to "
            f"{sizes}, or to another multiple of {len(devices)}, or show fewer devices with CUDA_VISIBLE_DEVICES."
        )
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int) -> NamedSharding:
    """An array divided among the devices along `axis`."""
    return NamedSharding(mesh, PartitionSpec(*axis * [None], AXIS))


def shard(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays that every process holds in full → arrays on the devices; each process sends only its devices' parts."""
    with jax.transfer_guard_host_to_device("allow"):  # what is sent here is sent on purpose
        return jax.tree.map(lambda leaf: _shard_leaf(leaf, sharding), tree)


def shard_local(part: Any, sharding: NamedSharding) -> Any:
    """Arrays of which every process holds the part for its own devices → arrays on all devices."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), part)


def part_of_process(mesh: Mesh, batch_size: int) -> slice:
    """Which slices of a batch the devices of this process work on."""
    share = batch_size // mesh.size
    mine = [index for index, device in enumerate(mesh.devices) if device.process_index == jax.process_index()]
    return slice(mine[0] * share, (mine[-1] + 1) * share)


def _shard_leaf(leaf: Any, sharding: NamedSharding) -> Array:
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)
