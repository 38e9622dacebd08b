"""Compiles programs for a GPU that is not there, and measures what they contain."""

import collections
import time
from typing import Any, NamedTuple

import ml_collections
from jax.experimental import topologies
from jax.sharding import Mesh

from brainseg_jax.errors import InputError, shorten
from brainseg_jax.studies.gpu_program.cards import Card
from brainseg_jax.studies.gpu_program.floor import count_floor
from brainseg_jax.studies.gpu_program.hlo import parse
from brainseg_jax.studies.gpu_program.kernels import Kernel, list_kernels
from brainseg_jax.studies.gpu_program.programs import make_program
from brainseg_jax.utils.sharding import AXIS

XLA_DTYPES = {"float32": "f32", "bfloat16": "bf16"}
LARGEST = 12  # kernels whose names are kept


class Compiled(NamedTuple):
    """A compiled program.

    Attributes:
      text: its HLO.
      seconds: of processor time that the compilation took, over all cores.
      memory: bytes on each device: `arguments`, `temporaries`, and `peak`, of both and the results together.
    """

    text: str
    seconds: float
    memory: dict[str, int]


def make_mesh(card: Card, *, devices: int) -> Mesh:
    """Describes devices that need not be there.

    Raises:
      InputError: this JAX has no compiler for NVIDIA GPUs.
    """
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=card.target_config(), topology=f"1x1x{devices}"
        )
    except Exception as error:
        raise InputError(
            f"this JAX cannot compile for {card.title} ({shorten(error)}): make an environment "
            "with pip install -e '.[cuda12]' and run this script with its Python."
        ) from error
    return topologies.make_mesh(topology, (devices,), (AXIS,))


def compile_program(function: Any, arguments: tuple[Any, ...]) -> Compiled:
    """Compiles a jitted function for the devices of its arguments' shardings."""
    lowered = function.trace(*arguments).lower(lowering_platforms=("cuda",))
    started = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - started
    stats = compiled.memory_analysis()
    arguments_bytes, temporaries = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    memory = {
        "arguments": arguments_bytes,
        "temporaries": temporaries,
        "peak": arguments_bytes + temporaries + results,
    }
    return Compiled(compiled.as_text(), seconds, memory)


def measure(config: ml_collections.ConfigDict, task: str, card: Card, *, devices: int) -> dict[str, Any]:
    """Compiles one of our programs for a card and describes it.

    Args:
      config: of the run.
      task: one of `programs.TASKS`.
      card: the GPU.
      devices: how many share the batch.

    Returns:
      The program's entry in docs/results/gpu_program/program.json; only `error` if XLA could not compile it.
    """
    mesh = make_mesh(card, devices=devices)
    function, arguments = make_program(config, task, mesh)
    floor = count_floor(function, *arguments)
    try:
        compiled = compile_program(function, arguments)
    except Exception as error:  # XLA's own errors, of a card or a shape that it cannot serve
        return {"error": shorten(error, characters=300)}
    kernels = list_kernels(parse(compiled.text))
    dtype = config.model.dtype
    rate = card.flops.get(dtype, 0)
    nbytes = sum(kernel.nbytes for kernel in kernels)
    return {
        "compile_cpu_seconds": round(compiled.seconds, 1),
        "memory": {**compiled.memory, "share_of_card": round(compiled.memory["peak"] / card.memory, 4)},
        "bytes": nbytes,
        # The FLOPs and bytes of the algorithm are those of all devices, the program is that of one.
        "floor": {"bytes": floor.nbytes // devices, "flops": floor.flops // devices},
        "least_milliseconds": {
            "bytes": 1e3 * nbytes / card.bandwidth,
            "floor_bytes": 1e3 * floor.nbytes / devices / card.bandwidth,
            "flops": 1e3 * floor.flops / devices / rate if rate else None,
        },
        **summarize(kernels, dtype=dtype),
    }


def describe(entry: dict[str, Any]) -> str:
    """Describes the result of `measure` in one line."""
    if "error" in entry:
        return f"not compiled: {entry['error']}"
    least = entry["least_milliseconds"]
    return (
        f"{entry['kernels']} kernels, {entry['bytes'] / 1e9:.2f} GB (floor {entry['floor']['bytes'] / 1e9:.2f}), at "
        f"least {least['bytes']:.2f} ms, {entry['memory']['peak'] / 1e9:.2f} GB of memory, compiled in "
        f"{entry['compile_cpu_seconds']:.0f} s of one core"
    )


def summarize(kernels: list[Kernel], *, dtype: str) -> dict[str, Any]:
    """Counts kernels and bytes by kind, and lists the convolutions that are not in the network's dtype.

    Args:
      kernels: see `list_kernels`.
      dtype: the network's, "float32" or "bfloat16".
    """
    kinds: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"kernels": 0, "bytes": 0})
    for kernel in kernels:
        entry = kinds[f"{kernel.kind}: {kernel.detail}" if kernel.detail else kernel.kind]
        entry["kernels"] += kernel.runs
        entry["bytes"] += kernel.nbytes
    total = sum(kernel.nbytes for kernel in kernels)
    largest = sorted(kernels, key=lambda kernel: -kernel.nbytes)[:LARGEST]
    return {
        "kernels": sum(kernel.runs for kernel in kernels),
        "kinds": {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: -kinds[kind]["bytes"])},
        "convolutions_in_another_dtype": sum(
            kernel.runs for kernel in kernels if kernel.kind == "convolution" and kernel.dtype != XLA_DTYPES[dtype]
        ),
        "largest": [
            {
                "kernel": f"{kernel.kind}: {kernel.detail}" if kernel.detail else kernel.kind,
                "from": kernel.op_name.split("compute_logits/")[-1],
                "shape": f"{kernel.shape.dtype}[{', '.join(map(str, kernel.shape.sides))}]",
                "bytes": kernel.nbytes,
                "share": round(kernel.nbytes / total, 4),
            }
            for kernel in largest
        ],
    }
