"""The whole benchmark: every case on both sides, epochs, ceilings, and how cost grows."""

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from brainseg_jax.published import PUBLISHED_BATCH, PUBLISHED_START_FILTERS
from brainseg_jax.studies.benchmark import convolutions, ours, torch_sides
from brainseg_jax.studies.benchmark.case import Case
from brainseg_jax.studies.benchmark.timing import Side, Speed, measure_in_turns
from brainseg_jax.utils.provenance import describe_environment


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      start_filters: of each network.
      image_size: side of the pictures.
      repeats: turns of each measurement.
      seconds: of each program a turn, at least.
      ladder_seconds: after so long a ladder takes no further rung.
      batches, sides, datasets: rungs: multiples of the recipe's batch, sides, and slices.
      epoch_steps: batches of the epochs that are timed.
      torch_compile: whether torch.compile, which takes its time, is among PyTorch's settings.
    """

    start_filters: dict[str, int]
    image_size: int
    repeats: int
    seconds: float
    ladder_seconds: float
    batches: tuple[float, ...]
    sides: tuple[int, ...]
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
    say: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Measures everything, what matters most first.

    Args:
      plan: how much.
      say: told what was found, a line at a time.
      keep: given what was found so far, again and again.
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
        "ceilings": _measure_ceilings(plan, on_gpu, say),
        "rows": [],
        "epochs": [],
        "ladders": {"batch_size": [], "image_size": [], "dataset_slices": [], "devices": []},
        "convolutions": [],
        "left_out": [],
    }
    longest = 0.0
    for name, part in _parts(plan, found, on_gpu, say):
        begun = time.perf_counter()
        if found["rows"] and begun - started + longest > seconds:
            found["left_out"].append(name)
            say(f"left out, for want of time: {name}")
            continue
        part()
        longest = max(longest, time.perf_counter() - begun)
        keep(found)
    keep(found)  # with all that was left out
    return found


def _parts(
    plan: Plan, found: dict[str, Any], on_gpu: bool, say: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is measured, by name, in order of value; each part adds to `found`."""
    best_setting: dict[tuple[str, str], torch_sides.Setting] = {}
    recipes = {model: _recipe(model, plan, on_gpu) for model in PUBLISHED_START_FILTERS}

    def compare(case: Case) -> None:
        row, best = _compare(case, torch_sides.settings(compiled=plan.torch_compile), plan, found["ceilings"])
        best_setting[case.model, case.mode] = best
        found["rows"].append(row)
        say(_describe(row))

    def epoch(case: Case) -> None:
        found["epochs"].append(_measure_epoch(case, plan, case.batch_size * plan.epoch_steps))
        found["epoch"] = found["epochs"][0]
        say(f"{case.model}: the whole epoch at {found['epochs'][-1]['step_share']:.1%} of the bare step's speed")

    def batch_sizes(case: Case) -> None:
        # Multiples of the recipe's batch; what each side does best at, at whichever batch, makes a row of its own.
        sizes = (round(case.batch_size * factor) for factor in plan.batches)
        cases = (dataclasses.replace(case, batch_size=size) for size in sizes)
        rungs = list(_climb(cases, best_setting[case.model, case.mode], plan, found["ceilings"], say))
        found["ladders"]["batch_size"] += rungs
        found["rows"].append(_best_of(rungs))

    def image_sizes(case: Case) -> None:
        cases = (dataclasses.replace(case, image_size=side) for side in plan.sides)
        found["ladders"]["image_size"] += _climb(
            cases, best_setting[case.model, case.mode], plan, found["ceilings"], say
        )

    def datasets(case: Case) -> None:
        started = time.perf_counter()
        for rung, slices in enumerate(plan.datasets):
            if not rung or time.perf_counter() - started < plan.ladder_seconds:
                found["ladders"]["dataset_slices"].append(_measure_epoch(case, plan, slices, repeats=2))

    def devices(case: Case) -> None:
        found["ladders"]["devices"] += _climb_devices(case, plan, say)

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
            yield f"{model} by picture size", functools.partial(image_sizes, case)
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
    case: Case, settings: Iterable[torch_sides.Setting], plan: Plan, ceilings: dict[str, float]
) -> tuple[dict[str, Any], torch_sides.Setting]:
    """A row: ours against PyTorch's best setting; and which that was."""
    our_side = ours.make_side(case)
    theirs = {setting: torch_sides.make_side(case, setting) for setting in settings}
    for setting, side in theirs.items():
        if side.parameters != our_side.parameters:
            raise AssertionError(
                f"{case.model} has {our_side.parameters} parameters here and {side.parameters} in PyTorch ({setting})."
            )
    runs = {"ours": (our_side.run, our_side.slices)}
    runs |= {setting.name: (side.run, side.slices) for setting, side in theirs.items()}
    speeds = measure_in_turns(runs, repeats=plan.repeats, seconds=plan.seconds)
    best = max(theirs, key=lambda setting: speeds[setting.name].median)
    row = {
        "model": case.model,
        "start_filters": case.start_filters,
        "mode": case.mode,
        "image_size": case.image_size,
        "batch_size": case.batch_size,
        "batch": "recipe",
        "dtype": case.dtype,
        "parameters": our_side.parameters,
        **_speed("ours", speeds["ours"]),
        **_speed("torch", speeds[best.name]),
        "torch_setting": best.name,
        "ratio": speeds["ours"].median / speeds[best.name].median,
        "torch_settings": {setting.name: speeds[setting.name].median for setting in theirs},
        "ours_compile_seconds": our_side.compile_seconds,
        "torch_compile_seconds": theirs[best].compile_seconds,
        "ours_memory_bytes": our_side.memory_bytes,
        "torch_memory_bytes": theirs[best].memory_bytes,
        **_achieved(our_side, speeds["ours"], ceilings, case.dtype),
    }
    del our_side, theirs, runs
    gc.collect()
    return row, best


def _speed(name: str, speed: Speed) -> dict[str, Any]:
    return {
        f"{name}_slices_per_second": speed.median,
        f"{name}_slices_per_second_range": [speed.lowest, speed.highest],
    }


def _achieved(side: Side, speed: Speed, ceilings: dict[str, float], dtype: str) -> dict[str, Any]:
    """Rates, and the share of the ceiling that binds: the longer of the least times that arithmetic and memory need."""
    if not side.flops_per_slice or not side.bytes_per_slice:
        return {}
    by_arithmetic = side.flops_per_slice / ceilings[f"{dtype}_flops_per_second"]
    by_memory = side.bytes_per_slice / ceilings["bytes_per_second"]
    return {
        "flops_per_slice": side.flops_per_slice,
        "bytes_per_slice": side.bytes_per_slice,
        "flops_per_second": side.flops_per_slice * speed.median,
        "bytes_per_second": side.bytes_per_slice * speed.median,
        "binding_ceiling": "arithmetic" if by_arithmetic > by_memory else "memory",
        "share_of_ceiling": max(by_arithmetic, by_memory) * speed.median,
    }


def _climb(
    cases: Iterable[Case],
    setting: torch_sides.Setting,
    plan: Plan,
    ceilings: dict[str, float],
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows for one case after another, until the memory or the time of a ladder is used up."""
    started = time.perf_counter()
    shorter = dataclasses.replace(plan, repeats=max(2, plan.repeats // 2))
    for rung, case in enumerate(cases):
        if rung and time.perf_counter() - started > plan.ladder_seconds:
            return
        try:
            row, _ = _compare(case, [setting], shorter, ceilings)
        except (RuntimeError, MemoryError) as error:  # JAX and PyTorch each raise a RuntimeError of their own
            if "memory" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            say(f"out of memory: {case}")
            return
        say(_describe(row))
        yield row


def _best_of(rungs: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of each side at the batch size at which it is fastest."""
    our_best = max(rungs, key=lambda row: row["ours_slices_per_second"])
    their_best = max(rungs, key=lambda row: row["torch_slices_per_second"])
    theirs = {name: value for name, value in their_best.items() if name.startswith("torch_")}
    return {
        **our_best,
        **theirs,
        "batch": "best",
        "torch_batch_size": their_best["batch_size"],
        "ratio": our_best["ours_slices_per_second"] / their_best["torch_slices_per_second"],
    }


def _measure_epoch(case: Case, plan: Plan, slices: int, *, repeats: int = 0) -> dict[str, Any]:
    """An epoch's speeds, as shares of the bare step's."""
    sides = ours.make_epochs(case, slices=slices)
    runs = {name: (side.run, side.slices) for name, side in sides.items()}
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


def _climb_devices(case: Case, plan: Plan, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Training by one device, by two, … by all that can share the batch; ours alone."""
    counts = [count for count in range(1, jax.device_count() + 1) if case.batch_size % count == 0]
    sides = {count: ours.make_side(dataclasses.replace(case, devices=count)) for count in counts}
    runs = {str(count): (side.run, side.slices) for count, side in sides.items()}
    for count, speed in measure_in_turns(runs, repeats=plan.repeats, seconds=plan.seconds).items():
        say(f"{case.model}, {count} devices: {speed.median:.1f} slices/s")
        yield {"model": case.model, "devices": int(count), **_speed("ours", speed)}


def _measure_ceilings(plan: Plan, on_gpu: bool, say: Callable[[str], None]) -> dict[str, float]:
    # All of a CPU's cores, whatever number of devices a step uses: XLA gives a large product to all of them.
    runs = ours.ceilings(on_gpu=on_gpu)
    speeds = measure_in_turns(runs, repeats=plan.repeats, seconds=min(plan.seconds, 0.5))
    found = {
        f"{name}_flops_per_second" if name != "bytes" else "bytes_per_second": s.median for name, s in speeds.items()
    }
    say(", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return found


def _describe(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['mode']} {row['image_size']}×{row['image_size']}, batch {row['batch_size']}: "
        f"{row['ours_slices_per_second']:.1f} slices/s, PyTorch {row['torch_slices_per_second']:.1f} "
        f"({row['torch_setting']}), ratio {row['ratio']:.2f}"
    )
