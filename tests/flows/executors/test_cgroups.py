"""Control groups, where this machine lets us make some; what holds a step otherwise is tested with the executors."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from everloop.core.errors import StepFailed
from everloop.flows.executors import cgroups
from everloop.flows.executors.forked import ForkedExecutor

GREEDY = "import sys; sys.stdin.readline(); held = b'1' * 400_000_000; print(len(held))"
BUSY = "import sys\nsys.stdin.readline()\nwhile True: pass"
FLOW = """
import subprocess, sys, time
from everloop.core.ports import Resources


def spread():
    # none of the three holds more than the limit, all of them together do; each has a session of its own
    eat = "import time; held = b'1' * 150_000_000; time.sleep(600)"
    several = [subprocess.Popen([sys.executable, "-c", eat], start_new_session=True) for _ in range(3)]
    mark(" ".join(str(one.pid) for one in several))
    codes = [one.wait() for one in several]
    raise ValueError(f"ended {codes}")


ASSETS = [define(spread, resources=Resources(memory=350_000_000))]
"""


def started(text, group):
    child = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    group.take(child.pid)
    child.stdin.write(b"\n")
    child.stdin.close()
    return child


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def folders():
    return list(Path("/sys/fs/cgroup").glob(f"**/everloop-{psutil.Process().pid}-*"))


def test_the_kernel_ends_what_takes_more_memory_than_its_group_has():
    group = cgroups.make(100_000_000, None)
    if group is None or "memory" not in group.holds:
        assert folders() == []
        return
    child = started(GREEDY, group)
    try:
        assert child.wait(60) == -9
        assert group.killed()
        assert 0 < group.peak() <= 100_000_000
    finally:
        child.kill()
        child.stdout.close()
        group.remove()
    assert folders() == []


def test_the_kernel_gives_no_more_cores_than_the_group_has():
    group = cgroups.make(None, 0.05)
    if group is None or "cpu" not in group.holds:
        assert folders() == []
        return
    child = started(BUSY, group)
    try:
        until = time.monotonic() + 120
        while group.throttled() < 3 and time.monotonic() < until:
            time.sleep(0.05)
        assert group.throttled() >= 3
        times = psutil.Process(child.pid).cpu_times()
        assert times.user + times.system < 60
    finally:
        group.remove()  # ends it
        assert child.wait(30) == -9
        child.stdout.close()
    assert folders() == []


def test_without_a_place_for_groups_there_is_none(tmp_path):
    assert cgroups.make(1 << 30, 1.0, tmp_path) is None
    assert cgroups.make(None, None) is None
    (tmp_path / "cgroup.controllers").write_text("cpu memory")  # version 2, and nothing is given on
    assert cgroups.make(1 << 30, 1.0, tmp_path) is None


def test_version_2_writes_what_its_files_take(tmp_path):
    own = tmp_path / cgroups._own().get("", "/").lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (own / "cgroup.subtree_control").write_text("cpu memory\n")
    group = cgroups.make(1 << 30, 1.5, tmp_path)
    (folder,) = own.glob("everloop-*")
    assert group.holds == {"cpu", "memory"}
    assert (folder / "memory.max").read_text() == str(1 << 30)
    assert (folder / "cpu.max").read_text() == "150000 100000"
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (folder / "memory.peak").write_text("77\n")
    assert group.killed()
    assert group.peak() == 77


@pytest.mark.parametrize("executor", ["forked", "processes"])
def test_a_step_is_stopped_for_what_all_it_started_hold_together(author, processes, executor):
    project = author(FLOW)
    group = cgroups.make(350_000_000, None)
    limits = group.holds if group is not None else ()
    if group is not None:
        group.remove()
    chosen = processes if executor == "processes" else ForkedExecutor()
    try:
        with pytest.raises(StepFailed) as caught:
            project.run("spread", executor=chosen)
    finally:
        chosen.close()
    assert "350 MB of memory" in str(caught.value) or "ended" in str(caught.value)
    assert folders() == []
    if "memory" in limits:  # without a group, what has a session of its own is only ended as the step sees it
        until = time.monotonic() + 30
        while any(alive(int(pid)) for pid in project.marks()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(alive(int(pid)) for pid in project.marks())
