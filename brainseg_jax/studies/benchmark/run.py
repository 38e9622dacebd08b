"""Runs the whole benchmark, in order of value."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax

from brainseg_jax.studies.benchmark import convolutions, torch_programs
from brainseg_jax.studies.benchmark.case import Case, Plan
from brainseg_jax.studies.benchmark.measurements import (
    best_of,
    compare,
    describe_row,
    measure_devices,
    measure_epoch,
    measure_peaks,
    sweep,
)
from brainseg_jax.utils.provenance import describe_environment


def run_benchmark(
    plan: Plan,
    *,
    log: Callable[[str], None],
    save: Callable[[dict[str, Any]], None] = lambda report: None,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Measures everything, what matters most first.

    Args:
      plan: how much.
      log: called with each result, a line at a time.
      save: called with the report so far after each part.
      seconds: a part that would probably not end within so many seconds of the start is left out.

    Returns:
      The content of benchmark.json.
    """
    import torch

    started = time.perf_counter()
    on_gpu = jax.default_backend() == "gpu"
    environment = describe_environment(devices=jax.device_count())
    versions: Any = environment["versions"]
    report: dict[str, Any] = {
        **environment,
        "versions": {**versions, "torch": torch.__version__},
        "torch_threads": torch.get_num_threads(),
        "repeats": plan.repeats,
        "peaks": measure_peaks(plan, on_gpu=on_gpu),
        "rows": [],
        "epochs": [],
        "sweeps": {"batch_size": [], "image_size": [], "dataset_slices": [], "devices": []},
        "convolutions": [],
        "left_out": [],
    }
    log(", ".join(f"{name} {value:.3g}" for name, value in report["peaks"].items()))
    longest = 0.0
    for name, measure in _parts(plan, report, on_gpu, log):
        part_started = time.perf_counter()
        if report["rows"] and part_started - started + longest > seconds:
            report["left_out"].append(name)
            log(f"left out for lack of time: {name}")
            continue
        measure()
        longest = max(longest, time.perf_counter() - part_started)
        save(report)
    save(report)  # with all that was left out
    return report


def _parts(
    plan: Plan, report: dict[str, Any], on_gpu: bool, log: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields the name and the function of each part, in order of value; the function adds to `report`."""
    best_setting: dict[tuple[str, str], torch_programs.Setting] = {}
    sweeps, peaks = report["sweeps"], report["peaks"]

    def compare_recipe(case: Case) -> None:
        settings = torch_programs.settings(compiled=plan.torch_compile)
        row, best_setting[case.model, case.mode] = compare(case, settings, plan, peaks)
        report["rows"].append(row)
        log(describe_row(row))

    def epoch(case: Case) -> None:
        slices = case.batch_size * plan.epoch_steps
        report["epochs"].append(measure_epoch(case, slices=slices, repeats=plan.repeats))
        log(f"{case.model}: the whole epoch at {report['epochs'][-1]['step_share']:.1%} of the bare step's speed")

    def batch_sizes(case: Case) -> None:
        cases = (replace(case, batch_size=round(case.batch_size * factor)) for factor in plan.batches)
        points = list(sweep(cases, best_setting[case.model, case.mode], plan, peaks, log))
        sweeps["batch_size"] += points
        report["rows"].append(best_of(points))

    def image_sizes(case: Case) -> None:
        cases = (replace(case, image_size=size) for size in plan.image_sizes)
        sweeps["image_size"] += sweep(cases, best_setting[case.model, case.mode], plan, peaks, log)

    def datasets(case: Case) -> None:
        started = time.perf_counter()
        for point, slices in enumerate(plan.datasets):
            if not point or time.perf_counter() - started < plan.sweep_seconds:
                sweeps["dataset_slices"].append(measure_epoch(case, slices=slices, repeats=2))

    def devices(case: Case) -> None:
        rows = measure_devices(case, plan)
        sweeps["devices"] += rows
        for row in rows:
            log(f"{case.model}, {row['devices']} devices: {row['ours_slices_per_second']:.1f} slices/s")

    def profile_convolutions(case: Case) -> None:
        report["convolutions"] = convolutions.profile(case, repeats=3, seconds=min(plan.seconds, 0.05))

    recipes = plan.recipes(on_gpu=on_gpu)
    unet = recipes[0]
    cases = [replace(case, mode=mode) for mode in ("train", "inference") for case in recipes]
    for case in cases:
        yield f"{case.model} {case.mode}", functools.partial(compare_recipe, case)
    for case in recipes:
        yield f"{case.model} epochs", functools.partial(epoch, case)
    # Sweeps use PyTorch's best setting, which is unknown if the recipe was left out.
    for case in cases:
        if (case.model, case.mode) in best_setting:
            yield f"{case.model} {case.mode} by batch size", functools.partial(batch_sizes, case)
    yield "unet convolutions", functools.partial(profile_convolutions, unet)
    yield "unet epochs by dataset", functools.partial(datasets, unet)
    for case in recipes:
        if (case.model, "train") in best_setting:
            yield f"{case.model} by image size", functools.partial(image_sizes, case)
    for case in recipes:
        yield f"{case.model} by devices", functools.partial(devices, case)
