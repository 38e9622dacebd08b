"""The GPUs that programs are compiled for: what XLA must know about a card, and its speed by its maker's data sheet."""

import dataclasses

from brainseg_jax.errors import InputError

# The library versions to tell XLA: those that jax[cuda12] 0.12 installs.
CUDNN, CUDA = (9, 10), (12, 9)


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
      title: its name in tables.
      capability: compute capability.
      cores: streaming multiprocessors.
      lanes: float32 units in each.
      threads: threads that each holds at most.
      shared_memory, shared_memory_per_block: bytes of shared memory of each, and what a block may ask for.
      l2_cache, memory: bytes.
      bandwidth: bytes per second to and from its memory.
      clock: GHz.
      flops: FLOP/s of matrix products and convolutions by dtype of the network, dense; float32 as JAX computes it by
        default: with TF32 where the card has it. A dtype that the card lacks is left out.
      source: where the figures are from.
    """

    title: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared_memory: int
    shared_memory_per_block: int
    l2_cache: int
    memory: int
    bandwidth: float
    clock: float
    flops: dict[str, float]
    source: str

    def target_config(self) -> str:
        """Describes the card to XLA: the text of a GpuTargetConfigProto."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {self.threads}
              shared_memory_per_block: 49152 shared_memory_per_block_optin: {self.shared_memory_per_block}
              shared_memory_per_core: {self.shared_memory}
              core_count: {self.cores} fpus_per_core: {self.lanes} clock_rate_ghz: {self.clock}
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              memory_bandwidth: {self.bandwidth:.0f} l2_cache_size: {self.l2_cache} device_memory_size: {self.memory}
              cuda_compute_capability {{ major: {major} minor: {minor} }}
            }}
            platform_name: "CUDA" device_description_str: "{self.title}"
            dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}
            runtime_version {{ major: {CUDA[0]} minor: {CUDA[1]} }}"""


CARDS = {
    "h100": Card(
        title="NVIDIA H100 80GB HBM3 (SXM)",
        capability=(9, 0),
        cores=132,
        lanes=128,
        threads=2048,
        shared_memory=233472,
        shared_memory_per_block=232448,
        l2_cache=52428800,
        memory=84942979072,
        bandwidth=3.35232e12,
        clock=1.98,
        flops={"bfloat16": 989e12, "float32": 494e12},
        source="XLA's h100_sxm.txtpb; NVIDIA H100 data sheet (without sparsity)",
    ),
    "a100": Card(
        title="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        lanes=64,
        threads=2048,
        shared_memory=167936,
        shared_memory_per_block=166912,
        l2_cache=41943040,
        memory=85100068864,
        bandwidth=2.03904e12,
        clock=1.41,
        flops={"bfloat16": 312e12, "float32": 156e12},
        source="XLA's a100_sxm_80.txtpb; NVIDIA A100 data sheet (without sparsity)",
    ),
    "rtx4090": Card(
        title="NVIDIA GeForce RTX 4090",
        capability=(8, 9),
        cores=128,
        lanes=128,
        threads=1536,
        shared_memory=102400,
        shared_memory_per_block=101376,
        l2_cache=75497472,
        memory=25_757_220_864,
        bandwidth=1.008e12,
        clock=2.52,
        flops={"bfloat16": 165.2e12, "float32": 82.6e12},
        source="NVIDIA Ada GPU architecture paper, appendix A; CUDA programming guide, compute capabilities",
    ),
    "rtx2070": Card(
        title="NVIDIA GeForce RTX 2070 (8 GB)",
        capability=(7, 5),
        cores=36,
        lanes=64,
        threads=1024,
        shared_memory=65536,
        shared_memory_per_block=65536,
        l2_cache=4194304,
        memory=8_589_934_592,
        bandwidth=448e9,
        clock=1.62,
        flops={"float32": 7.5e12},
        source="NVIDIA Turing GPU architecture paper, appendix A; CUDA programming guide, compute capabilities",
    ),
    "t4": Card(
        title="NVIDIA T4 (16 GB)",
        capability=(7, 5),
        cores=40,
        lanes=64,
        threads=1024,
        shared_memory=65536,
        shared_memory_per_block=65536,
        l2_cache=4194304,
        memory=15_843_721_216,
        bandwidth=320e9,
        clock=1.59,
        flops={"float32": 8.1e12},
        source="NVIDIA T4 data sheet; CUDA programming guide, compute capabilities",
    ),
}


def find_card(name: str) -> Card:
    """Returns a card by its key in `CARDS`.

    Raises:
      InputError: there is no card of that name.
    """
    if name not in CARDS:
        raise InputError(f"--gpu is {name!r}: set it to one of {', '.join(CARDS)}.")
    return CARDS[name]
