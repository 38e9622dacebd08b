"""Makes PyTorch's programs for the same tasks, eager and in its faster settings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Program
from brainseg_jax.studies.benchmark.torch_networks import NETWORKS


@dataclass(frozen=True)
class Setting:
    """A way to run PyTorch.

    Attributes:
      name: as tables show it.
      channels_last: feature maps and kernels in NHWC order.
      autocast: convolutions in bfloat16.
      compiled: through torch.compile.
    """

    name: str
    channels_last: bool = False
    autocast: bool = False
    compiled: bool = False


def settings(*, compiled: bool) -> tuple[Setting, ...]:
    """Returns the settings to try on this machine, eager first; torch.compile among them if `compiled`."""
    if torch.cuda.is_available():
        fast = Setting("channels-last, bf16", channels_last=True, autocast=True)
    else:
        fast = Setting("channels-last", channels_last=True)
    variants = [replace(fast, name=f"{fast.name}, compiled", compiled=True)] if compiled else []
    return (Setting("eager"), fast, *variants)


def make_program(case: Case, setting: Setting) -> Program:
    """Makes PyTorch's training step (binary cross-entropy, Adam) or inference for a case and runs it once."""
    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.backends.cudnn.benchmark = True  # the fastest algorithm for each shape
    torch.set_float32_matmul_precision("high")  # TF32, as XLA does
    memory_format = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = NETWORKS[case.model](case.start_filters).to(device)
    network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
    shape = (case.batch_size, 1, case.image_size, case.image_size)
    images = torch.rand(shape, device=device).contiguous(memory_format=memory_format)
    masks = (torch.rand(shape, device=device) > 0.9).float()
    torch.compiler.reset()
    function: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False) if setting.compiled else network

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.autocast):
            return function(images)

    if case.mode == "train":
        optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)

        def work() -> None:
            optimizer.zero_grad(set_to_none=True)
            functional.binary_cross_entropy_with_logits(forward().float(), masks).backward()
            optimizer.step()

    else:
        network.eval()

        def work() -> None:
            with torch.inference_mode():
                forward()

    def run() -> None:
        for _ in range(case.steps):
            work()
        if on_gpu:
            torch.cuda.synchronize()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return Program(
        run=run,
        slices=case.batch_size * case.steps,
        compile_seconds=seconds,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
    )
