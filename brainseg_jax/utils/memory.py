"""The memory of the devices: how much is free, and whether an error says that it does not suffice."""

import jax
import psutil
from jax.sharding import Mesh


def free_memory(mesh: Mesh) -> int:
    """Returns the free bytes on one of the devices of this process; 0 where a device does not tell."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().available // len(mesh.local_devices)
    statistics = device.memory_stats() or {}  # some allocators give none
    return statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of XLA says that a program or its arrays do not fit into the memory of a device."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
    )
