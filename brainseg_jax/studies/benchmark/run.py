"""The whole benchmark: every case in both libraries, epochs, peaks of the device, and how cost grows."""

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from brainseg_jax.published import PUBLISHED_BATCH, PUBLISHED_START_FILTERS
from brainseg_jax.studies.benchmark import convolutions, ours, torch_programs
from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Program, Speed, measure_in_turns
from brainseg_jax.utils.provenance import describe_environment


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      start_filters: of each network.
      image_size: side of the images.
      repeats: turns of each measurement.
      seconds: of each program a turn, at least.
      sweep_seconds: after so long a sweep takes no further point.
      batches, image_sizes, datasets: points of the sweeps: multiples of the recipe's batch, sides in pixels, slices.
      epoch_steps: batches of the epochs that are timed.
      torch_compile: whether torch.compile, which takes its time, is among PyTorch's settings.
    """

    start_filters: dict[str, int]
    image_size: int
    repeats: int
    seconds: float
    sweep_seconds: float
    batches: tuple[float, ...]
    image_sizes: tuple[int, ...]
    datasets: tuple[int, ...]
    epoch_steps: int
    torch_compile: bool = True


PLANS = {
    "cpu": Plan(PUBLISHED_START_FILTERS, 128, 5, 0.5, 30, (1, 2, 4), (256,), (64,), 24),
    "gpu": Plan(
        PUBLISHED_START_FILTERS, 512, 7, 0.5, 40, (1, 2, 4, 8, 16), (128, 256, 512, 768), (256, 1024, 3064), 200
    ),
    "tiny": Plan({"unet": 2, "linknet": 2}, 64, 2, 0.01, 0, (1,), (64,), (16,), 3, torch_compile=False),
}


def run_benchmark(
    plan: Plan,
    *,
    log: Callable[[str], None],
    save: Callable[[dict[str, Any]], None] = lambda found: None,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Measures everything, what matters most first.

    Args:
      plan: how much.
      log: told what was found, a line at a time.
      save: given what was found so far, again and again.
      seconds: a part that would probably not end within so many seconds of the start is left out.

    Returns:
      What benchmark.json holds.
    """
    import torch

    started = time.perf_counter()
    on_gpu = jax.default_backend() == "gpu"
    environment = describe_environment(devices=jax.device_count())
    versions: Any = environment["versions"]
    found: dict[str, Any] = {
        **environment,
        "versions": {**versions, "torch": torch.__version__},
        "torch_threads": torch.get_num_threads(),
        "repeats": plan.repeats,
        "peaks": _measure_peaks(plan, on_gpu, log),
        "rows": [],
        "epochs": [],
        "sweeps": {"batch_size": [], "image_size": [], "dataset_slices": [], "devices": []},
        "convolutions": [],
        "left_out": [],
    }
    longest = 0.0
    for name, part in _parts(plan, found, on_gpu, log):
        begun = time.perf_counter()
        if found["rows"] and begun - started + longest > seconds:
            found["left_out"].append(name)
            log(f"left out, for want of time: {name}")
            continue
        part()
        longest = max(longest, time.perf_counter() - begun)
        save(found)
    save(found)  # with all that was left out
    return found


def _parts(
    plan: Plan, found: dict[str, Any], on_gpu: bool, log: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is measured, by name, in order of value; each part adds to `found`."""
    best_setting: dict[tuple[str, str], torch_programs.Setting] = {}
    recipes = {model: _recipe(model, plan, on_gpu) for model in PUBLISHED_START_FILTERS}

    def compare(case: Case) -> None:
        row, best = _compare(case, torch_programs.settings(compiled=plan.torch_compile), plan, found["peaks"])
        best_setting[case.model, case.mode] = best
        found["rows"].append(row)
        log(_describe(row))

    def epoch(case: Case) -> None:
        found["epochs"].append(_measure_epoch(case, plan, case.batch_size * plan.epoch_steps))
        found["epoch"] = found["epochs"][0]
        log(f"{case.model}: the whole epoch at {found['epochs'][-1]['step_share']:.1%} of the bare step's speed")

    def batch_sizes(case: Case) -> None:
        # Multiples of the recipe's batch; what each side does best at, at whichever batch, makes a row of its own.
        sizes = (round(case.batch_size * factor) for factor in plan.batches)
        cases = (dataclasses.replace(case, batch_size=size) for size in sizes)
        points = list(_climb(cases, best_setting[case.model, case.mode], plan, found["peaks"], log))
        found["sweeps"]["batch_size"] += points
        found["rows"].append(_best_of(points))

    def image_sizes(case: Case) -> None:
        cases = (dataclasses.replace(case, image_size=size) for size in plan.image_sizes)
        found["sweeps"]["image_size"] += _climb(cases, best_setting[case.model, case.mode], plan, found["peaks"], log)

    def datasets(case: Case) -> None:
        started = time.perf_counter()
        for point, slices in enumerate(plan.datasets):
            if not point or time.perf_counter() - started < plan.sweep_seconds:
                found["sweeps"]["dataset_slices"].append(_measure_epoch(case, plan, slices, repeats=2))

    def devices(case: Case) -> None:
        found["sweeps"]["devices"] += _climb_devices(case, plan, log)

    def of_convolutions(case: Case) -> None:
        found["convolutions"] = convolutions.profile(case, repeats=3, seconds=min(plan.seconds, 0.05))

    cases = [dataclasses.replace(recipes[model], mode=mode) for mode in ("train", "inference") for model in recipes]
    for case in cases:
        yield f"{case.model} {case.mode}", functools.partial(compare, case)
    for model, case in recipes.items():
        yield f"{model} epochs", functools.partial(epoch, case)
    for case in cases:
        if (case.model, case.mode) in best_setting:
            yield f"{case.model} {case.mode} by batch size", functools.partial(batch_sizes, case)
    yield "unet convolutions", functools.partial(of_convolutions, recipes["unet"])
    yield "unet epochs by dataset", functools.partial(datasets, recipes["unet"])
    for model, case in recipes.items():
        if (model, "train") in best_setting:
            yield f"{model} by image size", functools.partial(image_sizes, case)
    for model, case in recipes.items():
        yield f"{model} by devices", functools.partial(devices, case)


def _recipe(model: str, plan: Plan, on_gpu: bool) -> Case:
    return Case(
        model=model,
        start_filters=plan.start_filters[model],
        mode="train",
        image_size=plan.image_size,
        batch_size=PUBLISHED_BATCH[model],
        dtype="bfloat16" if on_gpu else "float32",
        steps=20 if on_gpu else 1,
    )


def _compare(
    case: Case, settings: Iterable[torch_programs.Setting], plan: Plan, peaks: dict[str, float]
) -> tuple[dict[str, Any], torch_programs.Setting]:
    """A row: ours against PyTorch's best setting; and which that was."""
    our_program = ours.make_program(case)
    in_torch = {setting: torch_programs.make_program(case, setting) for setting in settings}
    for setting, program in in_torch.items():
        if program.parameters != our_program.parameters:
            raise AssertionError(
                f"{case.model} has {our_program.parameters} parameters here and {program.parameters} in PyTorch "
                f"({setting})."
            )
    runs = {"ours": (our_program.run, our_program.slices)}
    runs |= {setting.name: (program.run, program.slices) for setting, program in in_torch.items()}
    speeds = measure_in_turns(runs, repeats=plan.repeats, seconds=plan.seconds)
    best = max(in_torch, key=lambda setting: speeds[setting.name].median)
    row = {
        "model": case.model,
        "start_filters": case.start_filters,
        "mode": case.mode,
        "image_size": case.image_size,
        "batch_size": case.batch_size,
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
        **_achieved(our_program, speeds["ours"], peaks, case.dtype),
    }
    del our_program, in_torch, runs
    gc.collect()
    return row, best


def _speed(name: str, speed: Speed) -> dict[str, Any]:
    return {
        f"{name}_slices_per_second": speed.median,
        f"{name}_slices_per_second_range": [speed.lowest, speed.highest],
    }


def _achieved(program: Program, speed: Speed, peaks: dict[str, float], dtype: str) -> dict[str, Any]:
    """Rates, and the share of the ceiling that binds: the longer of the least times that arithmetic and memory need."""
    if not program.flops_per_slice or not program.bytes_per_slice:
        return {}
    by_arithmetic = program.flops_per_slice / peaks[f"{dtype}_flops_per_second"]
    by_memory = program.bytes_per_slice / peaks["bytes_per_second"]
    return {
        "flops_per_slice": program.flops_per_slice,
        "bytes_per_slice": program.bytes_per_slice,
        "flops_per_second": program.flops_per_slice * speed.median,
        "bytes_per_second": program.bytes_per_slice * speed.median,
        "binding_ceiling": "arithmetic" if by_arithmetic > by_memory else "memory",
        "share_of_ceiling": max(by_arithmetic, by_memory) * speed.median,
    }


def _climb(
    cases: Iterable[Case],
    setting: torch_programs.Setting,
    plan: Plan,
    peaks: dict[str, float],
    log: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows for one case after another, until the memory or the time of a sweep is used up."""
    started = time.perf_counter()
    shorter = dataclasses.replace(plan, repeats=max(2, plan.repeats // 2))
    for point, case in enumerate(cases):
        if point and time.perf_counter() - started > plan.sweep_seconds:
            return
        try:
            row, _ = _compare(case, [setting], shorter, peaks)
        except (RuntimeError, MemoryError) as error:  # JAX and PyTorch each raise a RuntimeError of their own
            if "memory" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            log(f"out of memory: {case}")
            return
        log(_describe(row))
        yield row


def _best_of(points: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of each side at the batch size at which it is fastest."""
    our_best = max(points, key=lambda row: row["ours_slices_per_second"])
    their_best = max(points, key=lambda row: row["torch_slices_per_second"])
    in_torch = {name: value for name, value in their_best.items() if name.startswith("torch_")}
    return {
        **our_best,
        **in_torch,
        "batch": "best",
        "torch_batch_size": their_best["batch_size"],
        "ratio": our_best["ours_slices_per_second"] / their_best["torch_slices_per_second"],
    }


def _measure_epoch(case: Case, plan: Plan, slices: int, *, repeats: int = 0) -> dict[str, Any]:
    """An epoch's speeds, as shares of the bare step's."""
    programs = ours.make_epochs(case, slices=slices)
    runs = {name: (program.run, program.slices) for name, program in programs.items()}
    speeds = measure_in_turns(runs, repeats=repeats or plan.repeats, seconds=0)
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


def _climb_devices(case: Case, plan: Plan, log: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Training by one device, by two, … by all that can share the batch; ours alone."""
    counts = [count for count in range(1, jax.device_count() + 1) if case.batch_size % count == 0]
    programs = {count: ours.make_program(dataclasses.replace(case, devices=count)) for count in counts}
    runs = {str(count): (program.run, program.slices) for count, program in programs.items()}
    for count, speed in measure_in_turns(runs, repeats=plan.repeats, seconds=plan.seconds).items():
        log(f"{case.model}, {count} devices: {speed.median:.1f} slices/s")
        yield {"model": case.model, "devices": int(count), **_speed("ours", speed)}


def _measure_peaks(plan: Plan, on_gpu: bool, log: Callable[[str], None]) -> dict[str, float]:
    # All of a CPU's cores, whatever number of devices a step uses: XLA gives a large product to all of them.
    runs = ours.peaks(on_gpu=on_gpu)
    speeds = measure_in_turns(runs, repeats=plan.repeats, seconds=min(plan.seconds, 0.5))
    found = {
        f"{name}_flops_per_second" if name != "bytes" else "bytes_per_second": s.median for name, s in speeds.items()
    }
    log(", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return found


def _describe(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['mode']} {row['image_size']}×{row['image_size']}, batch {row['batch_size']}: "
        f"{row['ours_slices_per_second']:.1f} slices/s, PyTorch {row['torch_slices_per_second']:.1f} "
        f"({row['torch_setting']}), ratio {row['ratio']:.2f}"
    )
