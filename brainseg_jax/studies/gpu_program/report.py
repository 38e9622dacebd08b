"""Writes what compiled programs contain: program.json and a page of tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainseg_jax.studies.gpu_program.programs import TRAINING_SLICES
from brainseg_jax.utils import markdown
from brainseg_jax.utils.files import read_json, write_json

# Counted in the table of contents: its column, and how the kinds of its kernels begin.
CONTENTS = {
    "Convolutions forward": "convolution: forward",
    "with bias and ReLU": "convolution: forward, bias and ReLU",
    "Input gradients": "convolution: input gradient",
    "Kernel gradients": "convolution: kernel gradient",
    "Matrix products": "matrix product",
    "Collectives": "collective",
}
SHARES = {
    "Convolutions": "convolution",
    "Matrix products": "matrix product",
    "Reductions": "reduction",
    "Elementwise": "elementwise",
    "Layout changes": "layout",
    "Other moves": "move",
}


def write_report(content: Mapping[str, Any], folder: Path) -> None:
    """Writes program.json and README.md.

    Args:
      content: of program.json; see scripts/compile_for_gpu.py.
      folder: where they go; made if missing. If it has a before.json (an earlier program.json), the programs in both
        are compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "program.json", content)
    before = read_json(folder / "before.json") if (folder / "before.json").exists() else None
    (folder / "README.md").write_text(_page(content, before))


def _page(content: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    good = {title: entry for title, entry in content["programs"].items() if "error" not in entry}
    bad = {title: entry["error"] for title, entry in content["programs"].items() if "error" in entry}
    times = [_time_row(title, entry) for title, entry in good.items()]
    calls = [
        (
            *(title, *(str(_sum(entry, kind, "kernels")) for kind in CONTENTS.values())),
            str(entry["convolutions_in_another_dtype"]),
        )
        for title, entry in good.items()
    ]
    shares = [
        (title, *(f"{_sum(entry, kind, 'bytes') / entry['bytes']:.1%}" for kind in SHARES.values()))
        for title, entry in good.items()
    ]
    lines = [
        "# What our programs are on a GPU",
        f"Written by `scripts/compile_for_gpu.py` at commit {content['commit']}, jax {content['versions']['jax']}, "
        "from programs that were compiled for a GPU without one. Nothing was run: times are the least that the card's "
        "data sheet allows, not measurements.",
        "Bytes are those that each kernel reads and writes, from the shapes in the compiled program; what caches save "
        "is not known. The floor is what convolutions and matrix products alone read and write. FLOPs are theirs. "
        f"Memory is that of one device, with the {TRAINING_SLICES:,} training slices of the published split in it "
        "and without the memory that cuDNN works in, which is chosen on the card. Programs are counted as a call runs "
        "them: that of an epoch has all its steps.",
        "## Time and memory",
        markdown.table(
            (
                *("Program", "Kernels", "GB", "Floor GB", "ms for the bytes", "ms for the floor", "ms for the FLOPs"),
                *("Peak memory GB", "of the card"),
            ),
            times,
        ),
        "## Convolutions and other calls",
        markdown.table(("Program", *CONTENTS, "Convolutions in another dtype"), calls),
        "## Where the bytes go",
        markdown.table(("Program", *SHARES), shares),
        *(_compare(good, before) if before else []),
    ]
    for title, entry in good.items():
        if ", train, bfloat16, 1 " in title:
            lines += [f"## Largest kernels: {title}", _largest(entry)]
    if bad:
        rows = [(title, error.replace("|", "\\|")) for title, error in bad.items()]
        lines += ["## Not compiled", markdown.table(("Program", "Why"), rows)]
    cards = [
        (
            *(name, card["title"], f"{card['memory'] / 1e9:.1f}", f"{card['bandwidth'] / 1e12:.2f}"),
            ", ".join(f"{dtype} {rate / 1e12:g}" for dtype, rate in card["flops"].items()),
            card["source"],
        )
        for name, card in content["cards"].items()
    ]
    header = ("`--gpu`", "Card", "Memory GB", "TB/s", "TFLOP/s", "Figures from")
    return "\n\n".join([*lines, "## Cards", markdown.table(header, cards)]) + "\n"


def _time_row(title: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    least, memory = entry["least_milliseconds"], entry["memory"]
    flops = "–" if least["flops"] is None else f"{least['flops']:.2f}"
    return (
        *(title, str(entry["kernels"]), f"{entry['bytes'] / 1e9:.2f}", f"{entry['floor']['bytes'] / 1e9:.2f}"),
        *(f"{least['bytes']:.2f}", f"{least['floor_bytes']:.2f}", flops),
        *(f"{memory['peak'] / 1e9:.2f}", f"{memory['share_of_card']:.0%}"),
    )


def _compare(good: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    rows = []
    for title, entry in good.items():
        earlier = before["programs"].get(title)
        if earlier and "error" not in earlier:
            pairs = [
                (earlier["bytes"] / 1e9, entry["bytes"] / 1e9, ".2f"),
                (earlier["least_milliseconds"]["bytes"], entry["least_milliseconds"]["bytes"], ".2f"),
                (earlier["memory"]["peak"] / 1e9, entry["memory"]["peak"] / 1e9, ".2f"),
                (earlier["kernels"], entry["kernels"], "d"),
            ]
            change = entry["bytes"] / earlier["bytes"] - 1
            rows.append((title, *(f"{old:{form}} → {new:{form}}" for old, new, form in pairs), f"{change:+.1%}"))
    header = ("Program", "GB", "ms for the bytes", "Peak memory GB", "Kernels", "Bytes")
    text = f"Before: commit {before['commit']}."
    return ["## Before and after", text, markdown.table(header, rows)] if rows else []


def _largest(entry: Mapping[str, Any]) -> str:
    rows = [
        (
            *(kernel["kernel"], f"`{kernel['from']}`", f"`{kernel['shape']}`"),
            *(f"{kernel['bytes'] / 1e6:.1f}", f"{kernel['share']:.1%}"),
        )
        for kernel in entry["largest"]
    ]
    return markdown.table(("Kernel", "From", "First result", "MB", "of all bytes"), rows)


def _sum(entry: Mapping[str, Any], kind: str, of: str) -> int:
    """Sums `kernels` or `bytes` over the kinds whose names begin with `kind`."""
    return sum(numbers[of] for name, numbers in entry["kinds"].items() if name.startswith(kind))
