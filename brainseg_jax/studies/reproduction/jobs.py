"""Lists the jobs of a reproduction, the most valuable first."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from brainseg_jax.published import PUBLISHED_DICE, PUBLISHED_SIZE
from brainseg_jax.studies import ablation

# The minutes that each stage has in a call before the next stage gets its turn.
STAGES = {"correctness": 6.0, "published": 30.0, "benchmark": 6.0, "strong": 60.0, "folds": 60.0, "recipe": 60.0}
VARIANTS = {
    "ablation": tuple(name for name in ablation.VARIANTS if name not in (*ablation.SWEEPS, "recipe")),
    "filters_unet": ("filters_8", "filters_32", "filters_64"),
    "filters_linknet": ("filters_8", "filters_32"),
    "l2_linknet": ("l2_1e-5", "l2_1e-4", "l2_1e-3"),
}
TINY_VARIANTS = {"ablation": ("without_mirror",), "filters_unet": ("filters_8",)}


class Job(NamedTuple):
    """Commands that compute one result."""

    stage: str  # one of `STAGES`
    name: str  # of the result's folder
    result: str  # file in that folder; the result is complete when it exists
    commands: tuple[tuple[str, ...], ...]  # scripts of the repository with their flags, run in order
    min_seconds: float = 0.0  # it is not started with less time left
    needs: tuple[str, ...] = ()  # "gpu", "torch": what it cannot run without
    members: tuple[str, ...] = ()  # jobs whose checkpoints it reads
    restarts: bool = False  # whether it starts from the beginning after a stop instead of resuming
    environment: Mapping[str, str] = MappingProxyType({})  # environment variables in addition to those of all jobs
    published: float | None = None  # the published Dice


def list_jobs(*, tiny: bool, dataset: str, data_dir: Path, directory: Path) -> Iterator[Job]:
    """Yields all jobs.

    Args:
      tiny: whether all are miniatures.
      dataset: "figshare" or "phantom".
      data_dir: folder of the prepared dataset.
      directory: holds state/ (workdirs) and results/.
    """
    state, results = directory / "state", directory / "results"
    size, sweep_size, seeds = (64, 64, (0, 1)) if tiny else (PUBLISHED_SIZE, 256, (0, 1, 2))
    networks = ("unet",) if tiny else ("unet", "linknet")
    # One step a call: folds, which differ in their number of steps, then share one compiled program.
    common: dict[str, Any] = {"data.dataset": dataset, "data.data_dir": data_dir, "train.steps_per_call": 1}
    if tiny:
        common |= {"train.epochs": 1, "model.start_filters": 2, "optimizer.warmup_epochs": 0.5}
    bfloat16: dict[str, Any] = {} if tiny else {"model.dtype": "bfloat16"}
    long = {} if tiny else {"train.epochs": 100}  # as the weights in the package had
    tiny_flag = ("--tiny",) if tiny else ()

    def job(stage: str, name: str, result: str, *commands: tuple[str, ...], **options: Any) -> Job:
        defaults = {"min_seconds": 2.0, "needs": ()} if tiny else {"min_seconds": 60.0, "needs": ("gpu",)}
        return Job(stage, name, result, commands, **{**defaults, **options})

    def command(script: str, name: str, config: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        fields = (f"--config.{field}={value}" for field, value in {**common, **settings}.items())
        return (f"scripts/{script}.py", f"--config=configs/{config}.py", f"--workdir={state / name}", *fields)

    def train(stage: str, name: str, config: str, settings: Mapping[str, Any], **options: Any) -> Job:
        evaluate = ("scripts/evaluate.py", f"--workdir={state / name}", "--examples=0")
        return job(stage, name, "evaluation_test.json", command("train", name, config, settings), evaluate, **options)

    checks = ("scripts/check_device.py", f"--output={results / 'checks'}", *tiny_flag)
    yield job("correctness", "checks", "checks.json", checks, needs=())
    for seed in seeds:
        for network in ("unet", "linknet"):
            # Each seed splits the slices anew, as a repetition of the published work would.
            settings: dict[str, Any] = {"data.image_size": size, "seed": seed, "split.seed": seed}
            name = f"{network}_{size}_slice" + (f"_seed{seed}" if seed else "")
            published = None if tiny else PUBLISHED_DICE[network]
            yield train("published", name, network, settings, published=published)
    minutes = 0.4 if tiny else 4.0
    benchmark = ("scripts/benchmark.py", f"--output={results / 'benchmark'}", f"--minutes={minutes}", *tiny_flag)
    yield job("benchmark", "benchmark", "benchmark.json", benchmark, min_seconds=minutes * 60, needs=("torch",))
    strong_sides, protocols = ((64,), ("official",)) if tiny else ((256, 512), ("family", "official"))
    for stage, suffix, settings in (
        *(("strong", f"_strong_{side}_family", {"data.image_size": side, **bfloat16, **long}) for side in strong_sides),
        *(("folds", f"_{size}_{name}", {"data.image_size": size, "split.protocol": name}) for name in protocols),
    ):
        for network in networks:
            config = f"{network}_strong" if stage == "strong" else network
            flags = command("cross_validate", f"{network}{suffix}_cv", config, settings)
            yield job(stage, f"{network}{suffix}_cv", "evaluation_cv.json", flags)
    strong: dict[str, Any] = {"data.image_size": sweep_size, **bfloat16}
    first = f"time_to_dice_unet_{sweep_size}"
    # An empty compilation cache of its own, as in a first run.
    cold = {"JAX_COMPILATION_CACHE_DIR": str(state / first / "compiled")}
    yield train("recipe", first, "unet_strong", strong, restarts=True, environment=cold)
    members = [first, *(f"unet_strong_{sweep_size}_family_seed{seed}" for seed in seeds[1:])]
    for name, seed in zip(members[1:], seeds[1:], strict=True):
        yield train("recipe", name, "unet_strong", {**strong, "seed": seed})
    ensemble, workdirs = f"unet_strong_{sweep_size}_family_ensemble", ",".join(str(state / name) for name in members)
    evaluate = ("scripts/evaluate.py", f"--workdir={workdirs}", f"--output={state / ensemble}", "--examples=0")
    yield job("recipe", ensemble, "evaluation_test.json", evaluate, members=tuple(members))
    for name, variants in (TINY_VARIANTS if tiny else VARIANTS).items():
        config, settings = "unet_strong", strong
        if name != "ablation":  # a sweep of a published recipe
            config, settings = name.split("_")[1], {"data.image_size": sweep_size, "split.protocol": "family"}
        name = f"{name}_{sweep_size}"
        flags = (*command("ablate", name, config, settings), f"--variants={','.join(variants)}")
        yield job("recipe", name, "ablation.json", flags)
