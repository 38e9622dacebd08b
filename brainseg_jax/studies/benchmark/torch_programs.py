"""Makes PyTorch's programs for the same tasks, eager and in its faster settings."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Program
from brainseg_jax.studies.benchmark.torch_networks import NETWORKS

Settings = Mapping[str, Mapping[str, bool]]


def list_settings(dtype: str, *, compiled: bool) -> Settings:
    """Returns arguments of `make_program` to try for our dtype, by name; torch.compile among them if `compiled`."""
    name = "channels-last, bf16" if dtype == "bfloat16" else "channels-last"
    settings = {"eager": {}, name: {"fast": True}, f"{name}, compiled": {"fast": True, "compiled": True}}
    return {name: setting for name, setting in settings.items() if compiled or "compiled" not in setting}


def make_program(case: Case, *, fast: bool = False, compiled: bool = False) -> Program:
    """Makes PyTorch's training step (binary cross-entropy, Adam) or inference and runs it once.

    Args:
      case: what to do.
      fast: feature maps and kernels in NHWC order and, where ours are, convolutions in bfloat16.
      compiled: through torch.compile.
    """
    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.backends.cudnn.benchmark = True  # the fastest algorithm for each shape
    torch.set_float32_matmul_precision("high")  # TF32, as XLA does
    memory_format = torch.channels_last if fast else torch.contiguous_format
    network = NETWORKS[case.model](case.start_filters).train(case.mode == "train").to(device)
    network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    shape = (case.batch_size, 1, case.image_size, case.image_size)
    images = torch.rand(shape, device=device).contiguous(memory_format=memory_format)
    masks = (torch.rand(shape, device=device) > 0.9).float()
    torch.compiler.reset()
    function = torch.compile(network, dynamic=False) if compiled else network

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast and case.dtype == "bfloat16"):
            return function(images)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.binary_cross_entropy_with_logits(forward().float(), masks).backward()
        optimizer.step()

    work = train if case.mode == "train" else torch.inference_mode()(forward)

    def run() -> None:
        for _ in range(case.steps):
            work()
        synchronize()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    memory_bytes = torch.cuda.max_memory_allocated() if on_gpu else None
    return Program(run, case.batch_size * case.steps, seconds, memory_bytes)


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
