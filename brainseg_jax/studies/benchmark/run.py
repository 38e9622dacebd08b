"""Runs the whole benchmark, the most valuable parts first."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import torch

from brainseg_jax.data.loaders import StreamingLoader
from brainseg_jax.models.compilation import has_onednn
from brainseg_jax.studies.benchmark import convolutions, ours, profile, torch_programs
from brainseg_jax.studies.benchmark.case import Case, Plan
from brainseg_jax.studies.benchmark.timing import Speed, measure_in_turns
from brainseg_jax.utils.provenance import describe_environment

Row = dict[str, Any]
# Name, the list of the report that takes the results, and the function that measures them; the points of a sweep share
# a name.
Part = tuple[str, list[Row], Callable[[], list[Row]]]
LOGGED = (
    *("image_size", "batch_size", "slices", "devices", "side", "channels", "features"),
    *("ours_slices_per_second", "torch_slices_per_second", "ratio", "step_share", "onednn", "speed"),
)


def run_benchmark(
    plan: Plan, *, log: Callable[[str], None], save: Callable[[dict[str, Any]], None], seconds: float = math.inf
) -> None:
    """Measures everything, the most important parts first; leaves out what does not fit into the memory.

    Args:
      plan: how much.
      log: called with each result, a line at a time.
      save: called with the content of benchmark.json so far after each part.
      seconds: a part that would probably end later than this many seconds after the start is left out.
    """
    started = time.perf_counter()
    environment = describe_environment(devices=jax.device_count())
    versions: Any = environment["versions"]
    report: dict[str, Any] = {
        **environment,
        "versions": {**versions, "torch": torch.__version__},
        "torch_threads": torch.get_num_threads(),
        "repeats": plan.repeats,
        "peaks": measure_peaks(plan),
        "rows": [],
        "epochs": [],
        "sweeps": {"batch_size": [], "image_size": [], "dataset_slices": [], "devices": []},
        "convolutions": [],
        "profile": [],
        "parts": [],
        "left_out": [],
    }
    log(", ".join(f"{name} {value:.3g}" for name, value in report["peaks"].items()))
    longest = 0.0
    for name, rows, measure in list_parts(plan, report):
        part_started = time.perf_counter()
        late = bool(report["rows"]) and part_started - started + longest > seconds
        if name in report["left_out"]:  # a larger point of a sweep
            continue
        if late or (measured := _measure(measure)) is None:
            report["left_out"].append(name)
            log(f"left out for lack of {'time' if late else 'memory'}: {name}")
            continue
        rows += measured
        for row in measured:
            log(", ".join([name, *(f"{key} {row[key]:.4g}" for key in LOGGED if key in row)]))
        longest = max(longest, time.perf_counter() - part_started)
        save(report)
    save(report)  # with all that was left out


def list_parts(plan: Plan, report: Mapping[str, Any]) -> Iterator[Part]:
    """Yields the parts in order of value; the sweeps follow from results of the parts before them in the report."""
    rows, sweeps, peaks = report["rows"], report["sweeps"], report["peaks"]
    settings = {dtype: torch_programs.list_settings(dtype, compiled=plan.torch_compile) for dtype in plan.dtypes}
    shorter = replace(plan, repeats=max(2, plan.repeats // 2))
    recipes = plan.recipes()
    cases = [replace(case, mode=mode) for mode in ("train", "inference") for case in recipes]
    in_all_dtypes = [replace(case, dtype=dtype) for dtype in plan.dtypes for case in cases]
    for case in in_all_dtypes:
        yield (
            f"{case.model} {case.mode} {case.dtype}",
            rows,
            partial(compare, case, settings[case.dtype], plan, peaks),
        )
    for case in recipes:
        slices = case.batch_size * plan.epoch_steps
        yield (f"{case.model} epochs", report["epochs"], partial(measure_epoch, case, slices, plan))
    if jax.default_backend() == "cpu":
        for case in recipes:
            yield (f"{case.model} profile", report["profile"], partial(profile.profile, case, runs=plan.repeats))
    if plan.parts_image_size:
        large = replace(recipes[0], image_size=plan.parts_image_size)  # U-Net's; batch norm needs the whole batch
        yield ("unet batch in parts", report["parts"], partial(measure_parts, large, plan))
    # Sweeps use PyTorch's best setting, which is unknown if the recipe was left out.
    best = {
        replace(case, dtype=row["dtype"]): {row["torch_setting"]: settings[row["dtype"]][row["torch_setting"]]}
        for row in rows
        for case in cases
        if (row["model"], row["mode"]) == (case.model, case.mode)
    }
    for case in [case for case in in_all_dtypes if case in best]:
        for size in plan.image_sizes:
            measure = partial(compare, replace(case, image_size=size), best[case], shorter, peaks)
            yield (f"{case.model} {case.mode} {case.dtype} by image size", sweeps["image_size"], measure)
    for factor in plan.batches:
        for case in [case for case in cases if case in best]:
            larger = replace(case, batch_size=case.batch_size * factor)
            measure = partial(compare, larger, best[case], shorter, peaks)
            yield (f"{case.model} {case.mode} by batch size", sweeps["batch_size"], measure)
    for case in cases:
        if points := [row for row in sweeps["batch_size"] if (row["model"], row["mode"]) == (case.model, case.mode)]:
            rows.append(best_of(points))
    measure = partial(convolutions.profile, recipes[0], repeats=3, seconds=min(plan.seconds, 0.05))
    yield ("unet convolutions", report["convolutions"], measure)
    for slices in plan.datasets:
        measure = partial(measure_epoch, recipes[0], slices, shorter)
        yield ("unet epochs by dataset", sweeps["dataset_slices"], measure)
    for case in recipes:
        yield (f"{case.model} by devices", sweeps["devices"], partial(measure_devices, case, plan))


def compare(case: Case, settings: torch_programs.Settings, plan: Plan, peaks: Mapping[str, float]) -> list[Row]:
    """Measures our program beside PyTorch's in several settings.

    Returns:
      A row: our program against PyTorch's fastest setting. `share_of_peak` is relative to the peak, of arithmetic or of
      memory, that bounds our program. `onednn_gain`, where jaxlib has oneDNN, is our speed with it divided by our speed
      without it, whichever of both we use (`onednn`).
    """
    program = ours.make_program(case)
    in_torch = {name: torch_programs.make_program(case, **setting) for name, setting in settings.items()}
    onednn = ours.uses_onednn(case)
    other = {} if onednn is None else {"other": ours.make_program(case, onednn=not onednn)}
    speeds = measure_in_turns({"ours": program, **other, **in_torch}, repeats=plan.repeats, seconds=plan.seconds)
    fastest = max(in_torch, key=lambda name: speeds[name].median)
    flops, moved = (count * speeds["ours"].median for count in (program.flops_per_slice, program.bytes_per_slice))
    shares = {
        "arithmetic": flops / peaks[f"{case.dtype}_flops_per_second"],
        "memory": moved / peaks["bytes_per_second"],
    }
    bound_by = max(shares, key=lambda name: shares[name])
    row = {
        **asdict(case),
        "batch": "recipe",
        "parameters": program.parameters,
        **_speed("ours", speeds["ours"]),
        **_speed("torch", speeds[fastest]),
        "torch_setting": fastest,
        "ratio": speeds["ours"].median / speeds[fastest].median,
        "torch_settings": {name: speeds[name].median for name in in_torch},
        "ours_compile_seconds": program.compile_seconds,
        "torch_compile_seconds": in_torch[fastest].compile_seconds,
        "ours_memory_bytes": program.memory_bytes,
        "torch_memory_bytes": in_torch[fastest].memory_bytes,
        "flops_per_slice": program.flops_per_slice,
        "bytes_per_slice": program.bytes_per_slice,
        "flops_per_second": flops,
        "bytes_per_second": moved,
        "bound_by": bound_by,
        "share_of_peak": shares[bound_by],
    }
    if other:
        gain = speeds["ours"].median / speeds["other"].median
        row |= {"onednn": onednn, "onednn_gain": gain if onednn else 1 / gain}
    return [row]


def best_of(points: Sequence[Row]) -> Row:
    """Returns a row of each library at the batch size at which it is fastest."""
    our_best, torch_best = (max(points, key=lambda row: row[f"{name}_slices_per_second"]) for name in ("ours", "torch"))
    return {
        **our_best,
        **{name: value for name, value in torch_best.items() if name.startswith("torch_")},
        "batch": "best",
        "torch_batch_size": torch_best["batch_size"],
        "ratio": our_best["ours_slices_per_second"] / torch_best["torch_slices_per_second"],
    }


def measure_epoch(case: Case, slices: int, plan: Plan) -> list[Row]:
    """Measures epochs of `slices` slices: a row with shares of the bare step's speed."""
    noise = ours.random_slices(slices, case.image_size)
    programs = {
        "bare": ours.make_program(case),
        "device": ours.make_epoch(case, noise),
        "augmented": ours.make_epoch(case, noise, augmented=True),
        "stream": ours.make_epoch(case, noise, StreamingLoader),
    }
    speeds = measure_in_turns(programs, repeats=plan.repeats, seconds=plan.seconds)
    bare, device, augmented, stream = (speeds[name].median for name in programs)
    row = {
        **asdict(case),
        "slices": slices,
        "bare_step_slices_per_second": bare,
        "epoch_slices_per_second": device,
        "step_share": device / bare,
        "step_share_augmented": augmented / bare,
        "stream_share_of_device": stream / device,
    }
    return [row]


def measure_parts(case: Case, plan: Plan) -> list[Row]:
    """Measures training with smaller and smaller batches, with oneDNN's convolutions and without.

    This is how fast a batch in parts, whose gradients are summed, could be at most: each small batch here also has its
    own Adam step, which writes no more than a sum of the gradients would.

    Returns:
      A row for each: `batch_size`, `onednn` and `speed`, in slices, relative to the whole batch as we train it.
    """
    sizes = [size for size in range(case.batch_size, 0, -1) if case.batch_size % size == 0]
    programs = {
        (size, onednn): ours.make_program(replace(case, batch_size=size), onednn=onednn)
        for size in sizes
        for onednn in ((False, True) if has_onednn() else (False,))
    }
    speeds = measure_in_turns(programs, repeats=plan.repeats, seconds=plan.seconds)
    whole = speeds[case.batch_size, ours.uses_onednn(case) or False].median
    return [
        {**asdict(replace(case, batch_size=size)), "onednn": onednn, "speed": speed.median / whole}
        for (size, onednn), speed in speeds.items()
    ]


def measure_devices(case: Case, plan: Plan) -> list[Row]:
    """Measures our training on one device, on two, … on all that can share the batch: a row each."""
    counts = [count for count in range(1, jax.device_count() + 1) if case.batch_size % count == 0]
    cases = {str(count): replace(case, devices=count) for count in counts}
    programs = {name: ours.make_program(case) for name, case in cases.items()}
    speeds = measure_in_turns(programs, repeats=plan.repeats, seconds=plan.seconds)
    return [{**asdict(case), **_speed("ours", speeds[name])} for name, case in cases.items()]


def measure_peaks(plan: Plan) -> dict[str, float]:
    """Measures the peak rates of the device by large matrix products and a large copy.

    On a CPU this uses all cores, however many devices a step uses, since XLA spreads a large product over all of them.
    """
    on_gpu = jax.default_backend() == "gpu"
    size = 8192 if on_gpu else 2048
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    values = jax.random.normal(jax.random.key(0), (2**28 if on_gpu else 2**25,))
    programs = {
        f"{dtype}_flops_per_second": ours.jit_program(lambda a: a @ a, matrix.astype(dtype), units=2 * size**3)
        for dtype in ("float32", "bfloat16")
    }
    programs["bytes_per_second"] = ours.jit_program(lambda a: a + 1.0, values, units=2 * values.nbytes)
    speeds = measure_in_turns(programs, repeats=plan.repeats, seconds=plan.seconds)
    return {name: speed.median for name, speed in speeds.items()}


def _measure(measure: Callable[[], list[Row]]) -> list[Row] | None:
    """Measures a part; None if it does not fit into the memory."""
    gc.collect()  # frees the memory of the earlier programs
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:  # JAX and PyTorch each raise a RuntimeError of their own
        if "memory" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _speed(name: str, speed: Speed) -> Row:
    return {
        f"{name}_slices_per_second": speed.median,
        f"{name}_slices_per_second_range": [speed.lowest, speed.highest],
    }
