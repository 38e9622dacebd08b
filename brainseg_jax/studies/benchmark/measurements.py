"""Measurements of the benchmark: cases in both libraries, sweeps, epochs, devices and the peaks of the device."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from brainseg_jax.studies.benchmark import ours, torch_programs
from brainseg_jax.studies.benchmark.case import Case, Plan
from brainseg_jax.studies.benchmark.timing import Program, Speed, measure_in_turns


def compare(
    case: Case, settings: Iterable[torch_programs.Setting], plan: Plan, peaks: dict[str, float]
) -> tuple[dict[str, Any], torch_programs.Setting]:
    """Measures our program beside PyTorch's in several settings.

    Returns:
      A row of benchmark.json, ours against the fastest setting; and that setting.
    """
    our_program = ours.make_program(case)
    in_torch = {setting: torch_programs.make_program(case, setting) for setting in settings}
    for setting, program in in_torch.items():
        if program.parameters != our_program.parameters:
            raise AssertionError(
                f"{case.model} has {our_program.parameters} parameters here and {program.parameters} in PyTorch "
                f"({setting})."
            )
    programs = {"ours": our_program, **{setting.name: program for setting, program in in_torch.items()}}
    speeds = measure_in_turns(_runs(programs), repeats=plan.repeats, seconds=plan.seconds)
    best = max(in_torch, key=lambda setting: speeds[setting.name].median)
    row = {
        **{key: getattr(case, key) for key in ("model", "start_filters", "mode", "image_size", "batch_size")},
        "batch": "recipe",
        "dtype": case.dtype,
        "parameters": our_program.parameters,
        **_speed("ours", speeds["ours"]),
        **_speed("torch", speeds[best.name]),
        "torch_setting": best.name,
        "ratio": speeds["ours"].median / speeds[best.name].median,
        "torch_settings": {setting.name: speeds[setting.name].median for setting in in_torch},
        "ours_compile_seconds": our_program.compile_seconds,
        "torch_compile_seconds": in_torch[best].compile_seconds,
        "ours_memory_bytes": our_program.memory_bytes,
        "torch_memory_bytes": in_torch[best].memory_bytes,
        **_share_of_peak(our_program, speeds["ours"], peaks, case.dtype),
    }
    del our_program, in_torch, programs, program
    gc.collect()  # the next case needs the memory
    return row, best


def sweep(
    cases: Iterable[Case],
    setting: torch_programs.Setting,
    plan: Plan,
    peaks: dict[str, float],
    log: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yields a row for one case after another, until the memory or the time of a sweep is used up."""
    started = time.perf_counter()
    shorter = dataclasses.replace(plan, repeats=max(2, plan.repeats // 2))
    for point, case in enumerate(cases):
        if point and time.perf_counter() - started > plan.sweep_seconds:
            return
        try:
            row, _ = compare(case, [setting], shorter, peaks)
        except (RuntimeError, MemoryError) as error:  # JAX and PyTorch each raise a RuntimeError of their own
            if "memory" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            log(f"out of memory: {case}")
            return
        log(describe_row(row))
        yield row


def best_of(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a row of each library at the batch size at which it is fastest."""
    our_best = max(points, key=lambda row: row["ours_slices_per_second"])
    torch_best = max(points, key=lambda row: row["torch_slices_per_second"])
    return {
        **our_best,
        **{name: value for name, value in torch_best.items() if name.startswith("torch_")},
        "batch": "best",
        "torch_batch_size": torch_best["batch_size"],
        "ratio": our_best["ours_slices_per_second"] / torch_best["torch_slices_per_second"],
    }


def measure_epoch(case: Case, *, slices: int, repeats: int) -> dict[str, Any]:
    """Measures epochs of so many slices, as shares of the bare step's speed."""
    speeds = measure_in_turns(_runs(ours.make_epochs(case, slices=slices)), repeats=repeats, seconds=0)
    bare = speeds["bare"].median
    return {
        "model": case.model,
        "image_size": case.image_size,
        "batch_size": case.batch_size,
        "slices": slices,
        "bare_step_slices_per_second": bare,
        "epoch_slices_per_second": speeds["device"].median,
        "step_share": speeds["device"].median / bare,
        "step_share_augmented": speeds["augmented"].median / bare,
        "stream_share_of_device": speeds["stream"].median / speeds["device"].median,
    }


def measure_devices(case: Case, plan: Plan) -> list[dict[str, Any]]:
    """Measures our training on one device, on two, … on all that can share the batch."""
    counts = [count for count in range(1, jax.device_count() + 1) if case.batch_size % count == 0]
    programs = {str(count): ours.make_program(dataclasses.replace(case, devices=count)) for count in counts}
    speeds = measure_in_turns(_runs(programs), repeats=plan.repeats, seconds=plan.seconds)
    return [{"model": case.model, "devices": int(count), **_speed("ours", speed)} for count, speed in speeds.items()]


def measure_peaks(plan: Plan, *, on_gpu: bool) -> dict[str, float]:
    """Measures the peak rates of the device.

    All of a CPU's cores, whatever number of devices a step uses: XLA gives a large product to all of them.
    """
    speeds = measure_in_turns(ours.peaks(on_gpu=on_gpu), repeats=plan.repeats, seconds=min(plan.seconds, 0.5))
    names = {"bytes": "bytes_per_second"}
    return {names.get(name, f"{name}_flops_per_second"): speed.median for name, speed in speeds.items()}


def describe_row(row: dict[str, Any]) -> str:
    """Returns a row as one line."""
    return (
        f"{row['model']} {row['mode']} {row['image_size']}×{row['image_size']}, batch {row['batch_size']}: "
        f"{row['ours_slices_per_second']:.1f} slices/s, PyTorch {row['torch_slices_per_second']:.1f} "
        f"({row['torch_setting']}), ratio {row['ratio']:.2f}"
    )


def _runs(programs: dict[str, Program]) -> dict[str, tuple[Callable[[], None], int]]:
    return {name: (program.run, program.slices) for name, program in programs.items()}


def _speed(name: str, speed: Speed) -> dict[str, Any]:
    return {
        f"{name}_slices_per_second": speed.median,
        f"{name}_slices_per_second_range": [speed.lowest, speed.highest],
    }


def _share_of_peak(program: Program, speed: Speed, peaks: dict[str, float], dtype: str) -> dict[str, Any]:
    """Computes the rates of a program and its share of the peak that bounds it: of arithmetic or of memory."""
    if not program.flops_per_slice or not program.bytes_per_slice:
        return {}
    arithmetic_seconds = program.flops_per_slice / peaks[f"{dtype}_flops_per_second"]
    memory_seconds = program.bytes_per_slice / peaks["bytes_per_second"]
    return {
        "flops_per_slice": program.flops_per_slice,
        "bytes_per_slice": program.bytes_per_slice,
        "flops_per_second": program.flops_per_slice * speed.median,
        "bytes_per_second": program.bytes_per_slice * speed.median,
        "bound_by": "arithmetic" if arithmetic_seconds > memory_seconds else "memory",
        "share_of_peak": max(arithmetic_seconds, memory_seconds) * speed.median,
    }
