"""The jobs of a reproduction, in order of value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainseg_jax.published import PUBLISHED_DICE, PUBLISHED_SIZE
from brainseg_jax.studies import ablation

# Minutes of each stage in a call before the later stages get their turn.
STAGES = {"correctness": 6.0, "published": 30.0, "benchmark": 6.0, "strong": 60.0, "folds": 60.0, "recipe": 60.0}
VARIANTS = {
    "ablation": tuple(name for name in ablation.VARIANTS if name not in (*ablation.SWEEPS, "recipe")),
    "filters_unet": ("filters_8", "filters_32", "filters_64"),
    "filters_linknet": ("filters_8", "filters_32"),
    "l2_linknet": ("l2_1e-5", "l2_1e-4", "l2_1e-3"),
}
TINY_VARIANTS = {"ablation": ("without_mirror",), "filters_unet": ("filters_8",), "l2_linknet": ("l2_1e-4",)}


@dataclass(frozen=True)
class Job:
    """Commands that compute one result.

    Attributes:
      stage: one of `STAGES`.
      name: of the result's folder.
      result: file in that folder that says that the result is complete.
      commands: scripts of the repository with their flags, run one after the other.
      min_seconds: with less time left it is not started.
      needs: "gpu" or "torch" if it cannot run without.
      members: jobs whose checkpoints it reads.
      restarts: whether it starts anew after a stop instead of resuming.
      environment: additional environment variables.
      published: the Dice that others report for it.
    """

    stage: str
    name: str
    result: str
    commands: tuple[tuple[str, ...], ...]
    min_seconds: float = 0.0
    needs: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    restarts: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    published: float | None = None


def list_jobs(*, tiny: bool, dataset: str, data_dir: Path, directory: Path) -> Iterator[Job]:
    """Yields all jobs.

    Args:
      tiny: whether everything is in miniature.
      dataset: "figshare" or "phantom".
      data_dir: the prepared dataset.
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

    def cross_validate(stage: str, name: str, config: str, settings: Mapping[str, Any]) -> Job:
        return job(stage, name, "evaluation_cv.json", command("cross_validate", name, config, settings))

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
    for side in (64,) if tiny else (256, 512):
        for network in networks:
            settings = {"data.image_size": side, **bfloat16}
            yield cross_validate("strong", f"{network}_strong_{side}_family_cv", f"{network}_strong", settings)
    for protocol in ("family", "official"):
        for network in networks:
            settings = {"data.image_size": size, "split.protocol": protocol}
            yield cross_validate("folds", f"{network}_{size}_{protocol}_cv", network, settings)
    strong: dict[str, Any] = {"data.image_size": sweep_size, **bfloat16}
    first = f"time_to_dice_unet_{sweep_size}"
    # An empty compilation cache of its own, as in a first run.
    cold = {"JAX_COMPILATION_CACHE_DIR": str(state / first / "compiled")}
    yield train("recipe", first, "unet_strong", strong, restarts=True, environment=cold)
    others = {f"unet_strong_{sweep_size}_family_seed{seed}": seed for seed in seeds[1:]}
    for name, seed in others.items():
        yield train("recipe", name, "unet_strong", {**strong, "seed": seed})
    ensemble, members = f"unet_strong_{sweep_size}_family_ensemble", (first, *others)
    workdirs = ",".join(str(state / name) for name in members)
    evaluate = ("scripts/evaluate.py", f"--workdir={workdirs}", f"--output={state / ensemble}", "--examples=0")
    yield job("recipe", ensemble, "evaluation_test.json", evaluate, members=members)
    for name, variants in (TINY_VARIANTS if tiny else VARIANTS).items():
        config, settings = "unet_strong", strong
        if name != "ablation":  # a sweep of a published recipe
            config, settings = name.split("_")[1], {"data.image_size": sweep_size, "split.protocol": "family"}
        name = f"{name}_{sweep_size}"
        flags = (*command("ablate", name, config, settings), f"--variants={','.join(variants)}")
        yield job("recipe", name, "ablation.json", flags)
