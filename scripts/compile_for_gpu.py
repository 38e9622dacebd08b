"""Compiles our programs for a GPU without one: `python scripts/compile_for_gpu.py` (needs jax[cuda12])."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from absl import flags

from brainseg_jax import cli
from brainseg_jax.errors import InputError

GPU = flags.DEFINE_list("gpu", ["h100"], "Cards: h100, a100, rtx4090, rtx2070, t4.")
CONFIGS = flags.DEFINE_list(
    "configs", ["unet", "unet_strong", "linknet", "linknet_strong"], "Names of files in configs/."
)
TASKS = flags.DEFINE_list("tasks", ["train", "train_epoch", "evaluate", "predict"], "Programs of each config.")
DTYPES = flags.DEFINE_list("dtypes", ["bfloat16", "float32"], "Those of the computation.")
DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of GPUs that share a batch, each with the recipe's batch.")
OUTPUT = flags.DEFINE_string("output", "docs/results/gpu_program", "Folder for program.json and README.md.")
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Compiles one program after the other, prints a line for each, and rewrites the tables each time.

    Skips programs that program.json already has for this commit and these versions.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from brainseg_jax.config import load_config
    from brainseg_jax.studies.gpu_program import cards, compile, programs, report
    from brainseg_jax.utils.files import read_json
    from brainseg_jax.utils.provenance import describe_environment

    if unknown := set(TASKS.value) - set(programs.TASKS):
        raise InputError(f"--tasks names {min(unknown)}: choose from {', '.join(programs.TASKS)}.")
    if unknown := set(DTYPES.value) - set(compile.XLA_DTYPES):
        raise InputError(f"--dtypes names {min(unknown)}: choose from {', '.join(compile.XLA_DTYPES)}.")
    if missing := [name for name in CONFIGS.value if not (REPOSITORY / "configs" / f"{name}.py").exists()]:
        raise InputError(f"--configs names {missing[0]}: choose from the files in configs/, without .py.")
    if not all(number.isdecimal() and int(number) for number in DEVICES.value):
        raise InputError(f"--devices is {','.join(DEVICES.value)}: give numbers of GPUs, from 1.")
    chosen = {name: cards.find_card(name) for name in GPU.value}
    folder = Path(OUTPUT.value)
    content: dict[str, Any] = {**describe_environment(devices=0), "cards": {}, "programs": {}}
    if (folder / "program.json").exists():
        earlier = read_json(folder / "program.json")
        if all(earlier.get(name) == content[name] for name in ("commit", "versions")):
            content |= {name: earlier[name] for name in ("cards", "programs")}
    jax.config.update("jax_enable_compilation_cache", False)  # so that the measured time is that of a compilation
    for name, card in chosen.items():
        content["cards"][name] = dataclasses.asdict(card)
        for program in programs.list_programs(CONFIGS.value, TASKS.value, DTYPES.value, map(int, DEVICES.value)):
            title = f"{name}: {program.title}"
            if title in content["programs"] or program.dtype not in card.flops:
                continue
            config = load_config(REPOSITORY / "configs" / f"{program.config}.py")
            config.model.dtype = program.dtype
            entry = compile.measure(config, program.task, card, devices=program.devices)
            content["programs"][title] = entry
            print(f"{title}: {compile.describe(entry)}", flush=True)
            report.write_report(content, folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    cli.run(main)
