"""Tasks in forked processes: real ones, their ends told, their libraries learned, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from everloop.server.warm import Warm

MODULE = """
import json, os, signal, sys, time
from everloop.server import warm

def main(arguments):
    if arguments[0] == "fail":
        raise SystemExit(3)
    if arguments[0] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments[0] == "sleep":
        time.sleep(60)
    before = "sklearn.utils" in sys.modules
    import numpy, sklearn.utils
    print(json.dumps({"pid": os.getpid(), "parent": os.getppid(), "before": before, "args": arguments,
                      "drawn": numpy.random.random()}))
    return 0

if __name__ == "__main__":
    sys.exit(warm.serve(main, sys.argv[1:]))
"""


@pytest.fixture
def warm(tmp_path, monkeypatch):
    (tmp_path / "warmed.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    held = Warm("warmed", idle_seconds=1.5)
    yield held
    held.end()


def done(warm, *arguments):
    with tempfile.TemporaryFile() as output:
        warm.start(arguments, output)
        status = ended(warm)
        output.seek(0)
        text = output.read()
    return status, json.loads(text) if text else None


def ended(warm):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status = warm.poll()
        if status is not None:
            return status
        time.sleep(0.01)
    raise AssertionError("the task does not end")


def test_each_task_has_a_process_and_finds_what_others_imported(warm):
    (one, first), (other, second) = done(warm, "task", "ü"), done(warm, "task", "2")
    assert (one, other) == (0, 0)
    assert first["args"] == ["task", "ü"]
    assert first["parent"] == second["parent"]
    assert first["pid"] != second["pid"]
    assert (first["before"], second["before"]) == (False, True)
    assert first["drawn"] != second["drawn"]


def test_how_a_task_ended_is_told(warm):
    assert done(warm, "fail") == (3, None)
    assert done(warm, "die") == (-signal.SIGKILL, None)
    assert done(warm, "task")[0] == 0


def test_after_a_while_without_work_it_ends_and_the_next_task_has_another(warm):
    _, first = done(warm, "task")
    psutil.Process(first["parent"])
    until = time.monotonic() + 20
    while warm._process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert warm._process.returncode == 0
    status, second = done(warm, "task")
    assert status == 0
    assert second["parent"] != first["parent"]


def test_a_task_whose_warm_process_is_killed_has_ended_and_is_gone(warm):
    with tempfile.TemporaryFile() as output:
        warm.start(("sleep",), output)
        child = _child_of(warm)
        os.kill(warm._process.pid, signal.SIGKILL)
        assert ended(warm) == -signal.SIGKILL
        child.wait(10)
    assert done(warm, "task")[0] == 0


def test_one_that_was_killed_while_it_waited_costs_no_task(warm):
    _, first = done(warm, "task")
    os.kill(first["parent"], signal.SIGKILL)
    assert done(warm, "task")[0] == 0


def test_one_that_cannot_start_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_warm.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    held = Warm("broken_warm")
    assert done(held, "task") == (7, None)
    held.end()


def test_ending_ends_the_task_too(warm):
    with tempfile.TemporaryFile() as output:
        warm.start(("sleep",), output)
        child = _child_of(warm)
        warm.end()
        child.wait(10)
    assert warm.poll() == -signal.SIGKILL


def test_nothing_outlives_a_worker_that_is_killed(warm, tmp_path):
    code = (
        "import sys, tempfile, time\nfrom everloop.server.warm import Warm\n"
        "warm = Warm('warmed')\nwarm.start(('sleep',), tempfile.TemporaryFile())\ntime.sleep(60)\n"
    )
    worker = psutil.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while len(worker.children(recursive=True)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    left = worker.children(recursive=True)
    assert len(left) == 2
    worker.kill()
    worker.wait(10)
    assert psutil.wait_procs(left, 15)[1] == []


def _child_of(warm):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = psutil.Process(warm._process.pid).children()
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no child")
