"""The queue of trainings: jobs run in order, once, by one process at a time; the status says how far they are."""

import json
import os
import signal
import threading
import time

import pytest

from brainseg_jax.errors import InputError
from brainseg_jax.studies.queue import describe_queue, read_queue, run_queue

# Adds its name and what it sees to a list, and writes so many epochs of 1,800 s each and its last file.
TRAINS = """
import json, os, pathlib, sys
name, epochs = sys.argv[1], int(sys.argv[2])
pathlib.Path(name).mkdir(exist_ok=True)
rows = [json.dumps({"epoch": epoch, "seconds": 1800.0}) + "\\n" for epoch in range(1, epochs + 1)]
pathlib.Path(name, "metrics.jsonl").write_text("".join(rows))
pathlib.Path(name, "done").write_text("x")
with open("order.jsonl", "a") as file:
    package = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    file.write(json.dumps([name, package, sorted(os.sched_getaffinity(0))]) + "\\n")
print("trained", name)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "trains.py").write_text(TRAINS)
    return tmp_path


def job(name, *, epochs=4, **changes):
    entry = {"name": name, "command": ["trains.py", name, str(epochs)], "workdir": name, "epochs": epochs}
    return {**entry, "done": f"{name}/done", **changes}


def queue_of(folder, *jobs):
    (folder / "queue.json").write_text(json.dumps(jobs))
    return folder / "queue.json"


def run(folder):
    run_queue(folder / "queue.json", repository=folder, environment=dict(os.environ))


def trained(folder):
    return [json.loads(line)[0] for line in (folder / "order.jsonl").read_text().splitlines()]


def test_jobs_run_in_order_and_are_skipped_when_done(folder):
    queue_of(folder, job("b"), job("a"))
    run(folder)
    run(folder)
    assert trained(folder) == ["b", "a"]
    queue_of(folder, job("b"), job("c"), job("a"))
    run(folder)
    assert trained(folder) == ["b", "a", "c"]
    assert (folder / "logs" / "a.log").read_text() == "trained a\n"


def test_a_job_runs_all_its_commands_in_its_checkout_on_its_cores(folder):
    other = folder / "other"
    other.mkdir()
    (other / "trains.py").write_text(TRAINS)
    core = min(os.sched_getaffinity(0))
    commands = [["trains.py", "first", "1"], ["trains.py", "a", "1"]]
    queue_of(folder, job("a", command=commands, checkout="other", cores=[core]))
    run(folder)
    found = [json.loads(line) for line in (other / "order.jsonl").read_text().splitlines()]
    assert found == [["first", str(other), [core]], ["a", str(other), [core]]]
    assert (folder / "logs" / "a.log").read_text() == "trained first\ntrained a\n"
    assert describe_queue(folder / "queue.json", repository=folder).startswith("a  ")


def test_a_failed_job_is_named_and_only_tried_again_by_the_next_call(folder):
    broken = job("broken", command=["-c", "print('so far'); raise SystemExit(3)"])
    nowhere, silent = job("nowhere", python="/nowhere/python"), job("silent", command=["-c", ""])
    queue_of(folder, broken, nowhere, silent, job("last"))
    for _ in range(2):
        with pytest.raises(InputError) as error:
            run(folder)
        assert "broken failed: -c ended with exit code 3, see" in str(error.value)
        assert "nowhere could not be started" in str(error.value)
        assert "silent failed: it ended without silent/done" in str(error.value)
        assert "last" not in str(error.value)
    assert trained(folder) == ["last"]
    assert (folder / "logs" / "broken.log").read_text() == "so far\n" * 2


def test_jobs_that_are_added_or_reordered_meanwhile_are_run(folder, capsys):
    changed = json.dumps([job("late"), job("first"), job("second")])
    (folder / "changed.json").write_text(changed)
    first = ["-c", "import os; os.replace('changed.json', 'queue.json'); os.mkdir('first'); open('first/done', 'w')"]
    queue_of(folder, job("first", command=first), job("second"))
    run(folder)
    assert trained(folder) == ["late", "second"]
    breaks = ["-c", "open('queue.json', 'w').write('['); os = __import__('os'); os.mkdir('x'); open('x/done', 'w')"]
    queue_of(folder, job("x", command=breaks), job("third"))
    run(folder)
    assert trained(folder) == ["late", "second", "third"]
    assert "warning: " in capsys.readouterr().out


def test_the_status_counts_epochs_and_hours_as_derived_by_hand(folder):
    path = queue_of(folder, job("a", epochs=4), job("b", epochs=10), job("c", epochs=7), job("folds", epochs=10))
    (folder / "a").mkdir()
    (folder / "a" / "done").write_text("")
    seconds = [9999.0, 360.0, 3600.0, 360.0, 7200.0, 720.0]  # of the last five the median is 720 s
    for name, values in (("b", seconds), ("folds/fold_1", [1800.0] * 5), ("folds/fold_2", [1800.0])):
        (folder / name).mkdir(parents=True)
        rows = [json.dumps({"epoch": epoch, "seconds": value}) for epoch, value in enumerate(values, 1)]
        (folder / name / "metrics.jsonl").write_text("\n".join(rows))
    lines = [" ".join(line.split()) for line in describe_queue(path, repository=folder).splitlines()]
    assert lines == [
        "a done 0 of 4 epochs, hours left: 0.0",
        "b waiting 6 of 10 epochs, hours left: 0.8",  # 4 × 720 s
        "c waiting 0 of 7 epochs, hours left: unknown",
        "folds waiting 6 of 10 epochs, hours left: 2.0",  # 4 × 1,800 s
        "1 of 4 jobs are done; hours left: 2.8, not counting 1 jobs without an epoch",
    ]


def test_a_second_process_is_refused_and_the_status_names_the_running_job(folder):
    looks = "import os, pathlib, time; pathlib.Path('began').touch()\nwhile not os.path.exists('go'): time.sleep(0.02)"
    path = queue_of(folder, job("slow", command=[["-c", looks], ["trains.py", "slow", "4"]]), job("last"))
    thread = threading.Thread(target=run, args=[folder])
    thread.start()
    try:
        while not (folder / "began").exists():
            assert thread.is_alive()
            time.sleep(0.02)
        assert "slow                         running" in describe_queue(path, repository=folder)
        with pytest.raises(InputError, match=r"queue\.json is being run by another process"):
            run(folder)
    finally:
        (folder / "go").touch()
        thread.join(20)
    assert trained(folder) == ["slow", "last"]
    assert "running" not in describe_queue(path, repository=folder)


@pytest.fixture
def interruptible():
    """Lets an interrupt through, which the background jobs of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_job_too_and_the_next_call_resumes(folder):
    interrupts = "import os, pathlib, signal, time; pathlib.Path('pid').write_text(str(os.getpid())); " + (
        "os.path.exists('again') or (os.kill(os.getppid(), signal.SIGINT), time.sleep(60))"
    )
    path = queue_of(folder, job("slow", command=[["-c", interrupts], ["trains.py", "slow", "4"]]))
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)
    assert "slow                         waiting" in describe_queue(path, repository=folder)
    (folder / "again").touch()
    run(folder)
    assert trained(folder) == ["slow"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a JSON list of jobs .*No such file"),
        ("[", "not a JSON list of jobs"),
        ("{}", None),
        ('["a"]', "not a JSON list of jobs"),
        (json.dumps([job("a", magic=1)]), "unexpected keyword argument 'magic'"),
        (json.dumps([{"name": "a"}]), "missing 4 required .*'command'"),
        (json.dumps([job("a"), job("a")]), "job name 'a' is used twice"),
        (json.dumps([job("a/b")]), "job name 'a/b' is .* not a file name"),
        (json.dumps([job("a", command="trains.py")]), "job a: command is a list"),
        (json.dumps([job("a", command=[])]), "job a: command is a list"),
        (json.dumps([job("a", command=["trains.py", 3])]), "job a: command is a list"),
        (json.dumps([{**job("a"), "epochs": "4"}]), "epochs an integer"),
        (json.dumps([job("a", cores=0)]), "cores a list"),
        (json.dumps([job("a", done=None)]), "all others strings"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(folder, text, message):
    path = folder / "queue.json"
    if text is not None:
        path.write_text(text)
    if message is None:
        assert read_queue(path, repository=folder) == []
        return
    with pytest.raises(InputError, match=message):
        read_queue(path, repository=folder)
