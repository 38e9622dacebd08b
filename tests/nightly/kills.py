"""Kills our commands at random moments, runs them again, and compares what they leave with an undisturbed run's.

`python -m tests.nightly.kills --tries=50 --seed=0 --out=kills.json`; .ci/run makes a few tries, .ci/nightly many. The
moment is uniform over the length of an undisturbed run, so that it hits imports, compilation, the writing of files and
the end; the signal is SIGKILL, SIGTERM or SIGINT. SIGINT goes to all processes of a command, as a terminal sends it.
"""

import argparse
import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from brainseg_jax.utils.files import write_json
from brainseg_jax.utils.provenance import describe_environment
from tests.nightly.outputs import same_dataset, same_masks, same_run, same_scores, write_images
from tests.quick_compilation import FLAGS

REPOSITORY = Path(__file__).resolve().parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TINY = {"train.epochs": 3, "data.image_size": 16, "model.start_filters": 1, "augmentation.flip": 0.5}
SAME = "the same as undisturbed"
TRACEBACK, BEGUN = "Traceback (most recent call last)", "cli.run(main)"
# Which commands are tried, in turn: those that take longer come less often.
TURNS = ("train", "predict", "prepare_data", "predict", "train", "evaluate", "train", "cross_validate", "evaluate")
# Names of files that are being written; none may be there when a command has ended by itself.
UNFINISHED = ("unfinished", "orbax-checkpoint-tmp", "incomplete")


class Case(NamedTuple):
    """A command and the function that lists how the folders that two runs of it wrote differ."""

    name: str
    arguments: tuple[str, ...]  # {out} stands for the folder to write to
    differences: Any


def cases(folder: Path) -> list[Case]:
    """Returns the commands; those after the first two read what the first two wrote in `folder`."""
    config, data = f"--config={REPOSITORY}/configs/quickstart.py", folder / "prepare_data"
    tiny = [f"--config.{name}={value}" for name, value in {**TINY, "data.data_dir": data}.items()]
    tuned = "--config.evaluation.tune_postprocessing=true"
    run = folder / "train"
    return [
        Case("prepare_data", ("--phantom=10", "--data_dir={out}"), same_dataset),
        Case("train", (config, *tiny, tuned, "--workdir={out}"), same_run),
        Case("predict", (f"--weights={run}", f"--input={folder}/images", "--output={out}"), same_masks),
        Case("evaluate", (f"--workdir={run}", "--examples=1", "--save_masks", "--output={out}"), same_scores),
        Case("cross_validate", (config, *tiny, "--config.train.epochs=1", "--workdir={out}"), same_scores),
    ]


class Ended(NamedTuple):
    """How a command ended; `code` is that of a shell, 128 and the signal's number where a signal ended it."""

    code: int
    errors: str  # what it wrote to standard error
    seconds: float
    left: list[str]  # processes of its own that outlived it


class Commands:
    """Runs commands as a terminal does, each in a group of processes of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        """Keeps what they compile and their temporary files in `folder`."""
        self.temporary, self._log = folder / "temporary", log
        self.temporary.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
        self._environment = kept | {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(self.temporary),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": FLAGS,
            "PYTHONPATH": str(REPOSITORY),
        }

    def run(self, case: Case, out: Path, *, number: signal.Signals | None = None, after: float = 0.0) -> Ended:
        """Runs a command; sends it the signal, if there is one, after so many seconds."""
        arguments = [argument.replace("{out}", str(out)) for argument in case.arguments]
        command = [sys.executable, str(REPOSITORY / "scripts" / f"{case.name}.py"), *arguments]
        with self._log.open("w+") as errors:
            start = time.monotonic()
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                # What a shell's background job ignores, its children would ignore too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            if number is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(after)
                if process.poll() is None:
                    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            code = process.wait(600)
            seconds = time.monotonic() - start
            errors.seek(0)
            return Ended(128 - code if code < 0 else code, errors.read(), seconds, self._left(process.pid))

    @staticmethod
    def _left(session: int) -> list[str]:
        """Returns the processes of a session that live five seconds after the command that began it."""
        deadline = time.monotonic() + 5
        while True:
            left = [one for one in psutil.process_iter(["status", "cmdline"]) if session_of(one) == session]
            left = [one for one in left if one.info["status"] != psutil.STATUS_ZOMBIE]
            if not left or time.monotonic() > deadline:
                return [" ".join(one.info["cmdline"] or ()) for one in left]
            time.sleep(0.1)


def session_of(process: psutil.Process) -> int:
    """Returns the number of a process's session, 0 if the process has ended."""
    try:
        return os.getsid(process.pid)
    except OSError:
        return 0


def try_once(
    commands: Commands, case: Case, whole: Ended, folder: Path, *, number: signal.Signals, share: float, seconds: float
) -> dict[str, Any]:
    """Kills a command at a share of its length, runs it again and says what was wrong, if anything was."""
    out = folder / "try"
    killed = commands.run(case, out, number=number, after=share * seconds)
    wrong = [f"{process} goes on" for process in killed.left]
    if killed.code == 0 and killed.seconds > share * seconds + 20:
        wrong.append("the signal was not heeded")
    # An interrupt before Python has read what the command imports first is Python's to tell.
    begun = number != signal.SIGINT or TRACEBACK not in killed.errors or BEGUN in killed.errors
    # A command that was done already ends with 0, and one that has not begun, or is ending, by the signal itself.
    if begun and killed.code not in (0, 128 + number):
        wrong.append(f"exit code {killed.code}: {killed.errors[-1000:]}")
    elif begun and TRACEBACK in killed.errors:
        wrong.append("a traceback: " + killed.errors[killed.errors.index(TRACEBACK) :])
    again = commands.run(case, out)
    if (again.code, again.errors) != (0, whole.errors):
        wrong.append(f"the second run ended with {again.code}: {again.errors[-1000:]}")
    else:
        wrong += case.differences(folder / case.name, out)
    wrong += [f"{path} is left" for path in unfinished(out, commands.temporary)]
    for path in (out, commands.temporary):
        shutil.rmtree(path, ignore_errors=True)
    commands.temporary.mkdir()
    row = {"command": case.name, "signal": number.name, "moment": round(share, 3), "exit_code": killed.code}
    row["begun"] = begun
    return row | {"outcome": "; ".join(wrong) or SAME}


def unfinished(*folders: Path) -> Iterator[Path]:
    """Yields files and folders that something began to write and did not end."""
    out, temporary = folders
    yield from (path for path in sorted(out.rglob("*")) if any(word in path.name for word in UNFINISHED))
    yield from sorted(temporary.iterdir())


def main() -> None:
    """Makes the tries, writes the table and ends with 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=5, help="spread over the commands")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--out", type=Path, help="a JSON file with a row for each try")
    options = parser.parse_args()
    draw, environment = np.random.default_rng(options.seed), describe_environment(devices=1)
    environment["command"] = f"python -m tests.nightly.kills {shlex.join(sys.argv[1:])}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = Commands(folder, folder / "errors.txt")
        write_images(folder / "images")
        whole = {}
        chosen = [name for _, name in zip(range(options.tries), itertools.cycle(TURNS), strict=False)]
        known = {case.name: case for case in cases(folder)}
        for case in (known[name] for name in known if name in {*chosen, "prepare_data", "train"}):
            whole[case.name] = commands.run(case, folder / case.name)
            if whole[case.name].code:
                sys.exit(f"{case.name}, undisturbed: {whole[case.name].errors}")
        seconds = {name: ended.seconds for name, ended in whole.items()}
        rows = []
        for case in (known[name] for name in chosen):
            share, number = float(draw.uniform()), SIGNALS[int(draw.integers(len(SIGNALS)))]
            length = seconds[case.name]
            rows.append(try_once(commands, case, whole[case.name], folder, number=number, share=share, seconds=length))
            if rows[-1]["exit_code"] == 0:  # it was done before: what it compiles is kept by now
                seconds[case.name] = share * length
            print(*rows[-1].values(), sep="\t", flush=True)
            bad = [row for row in rows if row["outcome"] != SAME]
            if options.out:  # after each, so that this may be killed too
                options.out.parent.mkdir(parents=True, exist_ok=True)
                facts = {"tries": len(rows), "wrong": len(bad), "seed": options.seed, **environment}
                write_json(options.out, {**facts, "rows": rows})
    print(f"{len(rows)} tries, {len(bad)} wrong")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
