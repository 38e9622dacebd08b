"""Gives damaged files to all of our readers: `python -m tests.nightly.fuzz --files=3000 --out=fuzz.json`.

A read must give a clean result or our own `InputError`, one sentence that names the file, within bounded time and
memory. The damage of a file comes from NumPy's generator, seeded with the file's number, which alone brings it back.
hypothesis would make finds smaller, but its driver does not outlive a crash of what it calls; here another process
reads, and is started anew.
"""

import argparse
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests import quick_compilation

SECONDS = 10.0  # for a file
SECONDS_FOR_SEEDS = 600.0
SHOWN = 8  # most frequent sentences of each kind


class Reader:
    """The process that reads; it is started anew when a file has killed it."""

    def __init__(self, folder: Path) -> None:
        """Keeps the folder of seeds and damaged files; nothing is started before the first file."""
        self._folder, self.log, self._process = folder, folder / "printed.log", None
        self._prepared: set[str] = set()

    def ask(self, name: str, seed: int, number: int) -> tuple[str, str]:
        """Damages and reads a file; returns "clean", "refused" or "find", and the sentence or what was wrong."""
        if self._process is None:
            self._start()
        if name not in self._prepared:
            self._prepared.add(name)
            kind, text = self._send(name, SECONDS_FOR_SEEDS)
            if kind == "find":
                raise RuntimeError(f"the seeds of {name} could not be made: {text}\n{self.log.read_text()[-3000:]}")
        return self._send((name, seed, number), SECONDS)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        from tests.nightly.fuzzing import worker

        self._process = context.Process(target=worker.serve, args=(theirs, self._folder, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self._prepared.clear()

    def _send(self, job: Any, seconds: float) -> tuple[str, str]:
        self.log.write_bytes(b"")
        try:
            self._connection.send(job)
            if self._connection.poll(seconds):
                return tuple(self._connection.recv())
            problem = f"took more than {seconds:g} seconds"
        except (EOFError, OSError):
            self._process.join()
            problem = f"the process died ({self._process.exitcode}): {self._last_frames()}"
        self.close()
        return "find", problem

    def _last_frames(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return " < ".join(line.strip() for line in lines if "File " in line or "Fatal" in line)[:400]

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def fuzz(kind: str, reader: Reader, *, seed: int, numbers: range, seconds: float, kept: Path) -> dict[str, Any]:
    """Tries files of a kind; finds are kept in a folder. Returns a row of the results."""
    outcomes, sentences, finds = Counter(), Counter(), {}
    end = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            break
        outcome, text = reader.ask(kind, seed, number)
        outcomes[outcome] += 1
        same = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", "#", text)
        if outcome == "refused":
            sentences[same[:160]] += 1
        elif outcome == "find":
            command = f"python -m tests.nightly.fuzz --kinds={kind} --seed={seed} --first={number} --files=1"
            find = finds.setdefault(same[:200], {"what": text, "times": 0, "again": command})
            if not find["times"]:
                print(f"FIND in {kind}: {text}\n  {command}", flush=True)
                shutil.rmtree(kept / f"{kind}_{number}", ignore_errors=True)
                shutil.copytree(reader._folder / "damaged", kept / f"{kind}_{number}", symlinks=True)
            find["times"] += 1
    return {
        "files": outcomes.total(),
        "clean": outcomes["clean"],
        "refused": outcomes["refused"],
        "finds": [*finds.values()],
        "sentences": dict(sentences.most_common(SHOWN)),
    }


def main() -> int:
    """Tries all kinds, writes the results and returns the exit code."""
    os.environ["JAX_PLATFORMS"], os.environ["XLA_FLAGS"] = "cpu", quick_compilation.FLAGS
    from brainseg_jax.utils.files import write_json
    from brainseg_jax.utils.provenance import describe_environment
    from tests.nightly.fuzzing.kinds import KINDS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, of all kinds together")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=Path("runs/fuzz"), help="folder for the files of finds")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    kinds, numbers = options.kinds.split(","), range(options.first, options.first + options.files)
    about = describe_environment(devices=1)  # now: the reader has the code of this moment
    rows, end = {}, time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        for place, kind in enumerate(kinds):
            seconds = (end - time.monotonic()) / (len(kinds) - place)  # what one kind leaves is for the others
            row = fuzz(kind, reader, seed=options.seed, numbers=numbers, seconds=seconds, kept=options.kept)
            rows[kind] = row
            counts = ", ".join(f"{row[name]} {name}" for name in ("files", "clean", "refused"))
            print(f"{kind}: {counts}, {len(row['finds'])} finds", flush=True)
        reader.close()
    if options.out:
        command = shlex.join(["python", "-m", "tests.nightly.fuzz", *sys.argv[1:]])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {"seed": options.seed, "kinds": rows, **about, "command": command})
    return int(any(row["finds"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
