"""What is computed, in order of value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainseg_jax.published import PUBLISHED_DICE, PUBLISHED_SIZE
from brainseg_jax.studies import ablation
from brainseg_jax.studies.reproduction.jobs import ABLATION, BENCHMARK, CHECKS, FOLDS, RUN, Job

INGREDIENTS = tuple(name for name in ablation.VARIANTS if name not in (*ablation.SWEEPS, "recipe"))
FILTERS = {"unet": ("filters_8", "filters_32", "filters_64"), "linknet": ("filters_8", "filters_32")}
PENALTIES = ("l2_1e-5", "l2_1e-4", "l2_1e-3")


@dataclass(frozen=True)
class Plan:
    """How much is computed.

    Attributes:
      published_size: side of the images of the published recipes.
      strong_sizes: sides of those of the strong recipes.
      sweep_size: side of those of ablations, sweeps and further seeds.
      seeds: of the published recipes and of the ensemble; the first is the one that all others use.
      published, strong, folds: networks of these stages.
      ingredients, filters, penalties: variants of the ablation and the sweeps.
      settings: fields of every config that are not the recipe's.
      strong_settings: likewise of the strong recipes only.
      needs: what trainings cannot do without.
      tiny: whether checks and benchmark are in miniature.
      benchmark_minutes: cap of the benchmark.
      minutes: of each stage in a call, before the later ones get their turn.
      least_seconds: with less time than this no training is started.
    """

    published_size: int
    strong_sizes: tuple[int, ...]
    sweep_size: int
    seeds: tuple[int, ...]
    published: tuple[str, ...]
    strong: tuple[str, ...]
    folds: tuple[str, ...]
    ingredients: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    penalties: tuple[str, ...]
    settings: Mapping[str, Any]
    strong_settings: Mapping[str, Any]
    needs: tuple[str, ...]
    tiny: bool
    benchmark_minutes: float
    minutes: Mapping[str, float]
    least_seconds: float


NETWORKS = ("unet", "linknet")
FULL = Plan(
    published_size=PUBLISHED_SIZE,
    strong_sizes=(256, 512),
    sweep_size=256,
    seeds=(0, 1, 2),
    published=NETWORKS,
    strong=NETWORKS,
    folds=NETWORKS,
    ingredients=INGREDIENTS,
    filters=FILTERS,
    penalties=PENALTIES,
    # A call a step: then folds, which differ in their number of steps, share one compiled program.
    settings={"train.steps_per_call": 1},
    strong_settings={"model.dtype": "bfloat16"},
    needs=("gpu",),
    tiny=False,
    benchmark_minutes=4.0,
    minutes={"correctness": 6, "published": 30, "benchmark": 6, "strong": 60, "folds": 60, "recipe": 60},
    least_seconds=60.0,
)
TINY = Plan(
    published_size=64,
    strong_sizes=(64,),
    sweep_size=64,
    seeds=(0, 1),
    published=NETWORKS,
    strong=("unet",),
    folds=("unet",),
    ingredients=("without_mirror",),
    filters={"unet": ("filters_8",), "linknet": ()},
    penalties=("l2_1e-4",),
    settings={"train.epochs": 1, "model.start_filters": 2, "train.steps_per_call": 1, "optimizer.warmup_epochs": 0.5},
    strong_settings={},
    needs=(),
    tiny=True,
    benchmark_minutes=0.4,
    minutes=dict.fromkeys(FULL.minutes, 5),
    least_seconds=2.0,
)


@dataclass(frozen=True)
class Stage:
    """Jobs that belong together.

    Attributes:
      name: as `--stages` names it.
      minutes: its share of a call, before the later stages get their turn.
      jobs: in order.
    """

    name: str
    minutes: float
    jobs: tuple[Job, ...]


NAMES = tuple(FULL.minutes)


def make_stages(plan: Plan, *, dataset: str, data_dir: str, state: Path, results: Path) -> tuple[Stage, ...]:
    """All stages.

    Args:
      plan: how much.
      dataset: "figshare" or "phantom".
      data_dir: the prepared dataset.
      state: folder of the workdirs.
      results: folder of the results.
    """
    maker = _Maker(plan, {"data.dataset": dataset, "data.data_dir": data_dir, **plan.settings}, state, results)
    jobs = {
        "correctness": maker.correctness(),
        "published": maker.published(),
        "benchmark": maker.benchmark(),
        "strong": maker.strong(),
        "folds": maker.folds(),
        "recipe": maker.recipe(),
    }
    return tuple(Stage(name, plan.minutes[name], tuple(of_stage)) for name, of_stage in jobs.items())


@dataclass(frozen=True)
class _Maker:
    plan: Plan
    common: Mapping[str, Any]
    state: Path
    results: Path

    def correctness(self) -> Iterator[Job]:
        command = ("scripts/check_device.py", f"--output={self.results / 'checks'}", *self._tiny())
        yield Job("checks", CHECKS, (command,), self.plan.least_seconds)

    def published(self) -> Iterator[Job]:
        size = self.plan.published_size
        for seed in self.plan.seeds:
            for network in self.plan.published:
                # Each seed divides the slices anew, as a repetition of the published work would.
                settings = {"data.image_size": size, "seed": seed, "split.seed": seed}
                name = f"{network}_{size}_slice" + (f"_seed{seed}" if seed else "")
                yield self._run(name, network, settings, published=None if self.plan.tiny else PUBLISHED_DICE[network])

    def benchmark(self) -> Iterator[Job]:
        minutes = self.plan.benchmark_minutes
        flags = (f"--output={self.results / 'benchmark'}", f"--minutes={minutes}", *self._tiny())
        yield Job("benchmark", BENCHMARK, (("scripts/benchmark.py", *flags),), minutes * 60, needs=("torch",))

    def strong(self) -> Iterator[Job]:
        for size in self.plan.strong_sizes:
            for network in self.plan.strong:
                settings = {"data.image_size": size, **self.plan.strong_settings}
                yield self._folds(f"{network}_strong_{size}_family_cv", f"{network}_strong", settings)

    def folds(self) -> Iterator[Job]:
        size = self.plan.published_size
        for protocol in ("family", "official"):
            for network in self.plan.folds:
                settings = {"data.image_size": size, "split.protocol": protocol}
                yield self._folds(f"{network}_{size}_{protocol}_cv", network, settings)

    def recipe(self) -> Iterator[Job]:
        size = self.plan.sweep_size
        strong = {"data.image_size": size, **self.plan.strong_settings}
        published = {"data.image_size": size, "split.protocol": "family"}
        name = f"time_to_dice_unet_{size}"
        # A compilation cache of its own, empty as that of a first run is.
        cold = {"JAX_COMPILATION_CACHE_DIR": str(self.state / name / "compiled")}
        yield self._run(name, "unet_strong", strong, restarts=True, environment=cold)
        # The run above is the one of the first seed.
        members = [name, *(f"unet_strong_{size}_family_seed{seed}" for seed in self.plan.seeds[1:])]
        for seed, member in zip(self.plan.seeds[1:], members[1:], strict=True):
            yield self._run(member, "unet_strong", {**strong, "seed": seed})
        name = f"unet_strong_{size}_family_ensemble"
        workdirs = ",".join(str(self.state / member) for member in members)
        command = ("scripts/evaluate.py", f"--workdir={workdirs}", f"--output={self.state / name}", "--examples=0")
        yield Job(name, RUN, (command,), self.plan.least_seconds, needs=self.plan.needs, members=tuple(members))
        yield self._ablation(f"ablation_{size}", "unet_strong", strong, self.plan.ingredients)
        for network, variants in self.plan.filters.items():
            if variants:
                yield self._ablation(f"filters_{network}_{size}", network, published, variants)
        yield self._ablation(f"l2_linknet_{size}", "linknet", published, self.plan.penalties)

    def _run(self, name: str, config: str, settings: Mapping[str, Any], **options: Any) -> Job:
        train = ("scripts/train.py", *self._flags(name, config, settings))
        evaluate = ("scripts/evaluate.py", f"--workdir={self.state / name}", "--examples=0")
        return Job(name, RUN, (train, evaluate), self.plan.least_seconds, needs=self.plan.needs, **options)

    def _folds(self, name: str, config: str, settings: Mapping[str, Any]) -> Job:
        command = ("scripts/cross_validate.py", *self._flags(name, config, settings))
        return Job(name, FOLDS, (command,), self.plan.least_seconds, needs=self.plan.needs)

    def _ablation(self, name: str, config: str, settings: Mapping[str, Any], variants: tuple[str, ...]) -> Job:
        flags = (*self._flags(name, config, settings), f"--variants={','.join(variants)}")
        return Job(name, ABLATION, (("scripts/ablate.py", *flags),), self.plan.least_seconds, needs=self.plan.needs)

    def _flags(self, name: str, config: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        fields = {**self.common, **settings}
        of_config = (f"--config.{field}={value}" for field, value in fields.items())
        return (f"--config=configs/{config}.py", f"--workdir={self.state / name}", *of_config)

    def _tiny(self) -> tuple[str, ...]:
        return ("--tiny",) if self.plan.tiny else ()
