"""How programs end: interrupts wherever they come, and what a program cannot write to or read from."""

import os
import signal
import subprocess
import sys

import pytest

from brainseg_jax.utils import xla_setup
from tests.conftest import REPOSITORY

BEGIN = """
import os, signal, sys, time
from absl import flags
from brainseg_jax import cli
from brainseg_jax.utils import xla_setup

def interrupt():
    os.kill(os.getpid(), signal.{number})

class Ignored:
    def __del__(self):
        interrupt()
        time.sleep(0.01)

"""
PROGRAMS = {
    "while the restarted program imports": """
if xla_setup.RESTARTED in os.environ:
    interrupt()
def main(): ...
cli.run(main)
""",
    "in an import": """
open("module.py", "w").write("import __main__, time; __main__.interrupt(); time.sleep(9)")
sys.path.append(".")
def main():
    import module
cli.run(main)
""",
    "while flags are read": """
flags.DEFINE_integer("number", 0, "")
flags.register_validator("number", lambda _: interrupt() or time.sleep(9))
def main(): ...
cli.run(main)
""",
    "where Python ignores errors": """
def main():
    Ignored()
    time.sleep(9)
cli.run(main)
""",
    "in the program": """
def main():
    interrupt()
    time.sleep(9)
cli.run(main)
""",
    "while Python ends": """
import atexit
atexit.register(lambda: (interrupt(), time.sleep(9)))
def main(): ...
cli.run(main)
""",
}


def run(tmp_path, program, **options):
    environment = {name: value for name, value in os.environ.items() if name != xla_setup.RESTARTED}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    (tmp_path / "program.py").write_text(program)
    # What runs in the background of a shell ignores interrupts, and so would its children.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "program.py"]
    options |= {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True, "check": False}
    return subprocess.run(command, timeout=60, **options)


@pytest.mark.parametrize("place", PROGRAMS)
def test_an_interrupt_ends_a_program_wherever_it_comes(tmp_path, place):
    # Each place with one of both: they are handled alike.
    number = (signal.SIGTERM, signal.SIGINT)[[*PROGRAMS].index(place) % 2]
    finished = run(tmp_path, BEGIN.replace("{number}", number.name) + PROGRAMS[place])
    if place == "while Python ends":  # by the signal itself, of which a shell makes the same code
        assert (finished.returncode, finished.stderr) == (-number, "")
    else:
        assert finished.returncode == 128 + number
        assert finished.stderr.splitlines() == [
            "interrupted; what was complete is kept, and the same command goes on from there"
        ]


def test_a_reader_of_the_output_that_ends_is_told(tmp_path):
    program = "from brainseg_jax import cli\ndef main():\n for _ in range(10**5): print('line')\ncli.run(main)"
    script = tmp_path / "print.py"
    script.write_text(program)
    finished = subprocess.run(
        ["bash", "-c", f"{sys.executable} {script} | head -1"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "line\n"
    assert finished.stderr == (
        "error: the program that reads the output has ended: let it read to the end, or write to a file.\n"
    )


def test_a_full_disk_behind_standard_output_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        finished = run(tmp_path, "from brainseg_jax import cli\ncli.run(lambda: print('scores'))", stdout=full)
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: a file: No space left on device; name another place, or make room or rights there.\n"
    )


def test_a_config_that_is_no_file_is_refused(tmp_path, run_script):
    os.mkfifo(tmp_path / "pipe")
    finished = run_script("train", f"--config={tmp_path}/pipe", f"--workdir={tmp_path}/run")
    assert (finished.returncode, finished.stderr.count("\n")) == (1, 1)
    assert "pipe names no file: give one that is written as configs/unet.py is" in finished.stderr
