"""Children of a warm process: as isolated as an interpreter each, and no slower to start than a fork."""

import os
import signal
import threading
import time

import pytest

from everloop.catalog import versions
from everloop.core.errors import Cancelled, StepFailed, Unavailable
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.value import codec

STEPS = """
import sys, time, subprocess, random
import numpy
from everloop.core.ports import Resources

COUNT = []


def here():
    COUNT.append(1)
    print("said by the step")
    return {"env": dict(os.environ), "parent": os.getppid(), "pid": os.getpid(), "count": len(COUNT),
            "cwd": os.getcwd(), "draws": [random.random(), numpy.random.rand()]}


def again(here, n: int = 0):
    COUNT.append(1)
    return [len(COUNT), os.getppid(), hash("text")]


def raises():
    raise ValueError("the label has one class only")


def dies():
    os.kill(os.getpid(), 9)


def slow():
    child = subprocess.Popen(["sleep", "60"])
    mark(str(child.pid))
    time.sleep(60)


def greedy():
    held = numpy.ones(200_000_000)
    time.sleep(30)
    return float(held[0])


def spins():
    while True:
        pass


def maps():
    import mmap
    held = mmap.mmap(-1, 800_000_000)
    for place in range(0, len(held), 4096):
        held[place] = 1
    time.sleep(30)


ASSETS = [define(here), define(again), define(raises), define(dies),
          define(slow, resources=Resources(seconds=50)), define(spins, resources=Resources(seconds=1.5)),
          define(greedy, resources=Resources(memory=600_000_000)),
          define(maps, resources=Resources(memory=600_000_000))]
"""


@pytest.fixture
def forked():
    executor = ForkedExecutor()
    yield executor
    executor.close()


def value(project, identity):
    with project.ctx.read() as tx:
        return codec.load(versions.get(tx, project.ctx.project, identity).manifest, project.ctx.store, {})


def gone(pid):
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_steps_run_in_children_of_one_server_and_share_nothing(author, forked, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    project = author(STEPS)
    said = []
    done = project.run("again", executor=forked, said=lambda step, line: said.append((step, line.text)))
    first, second = value(project, done.outputs["value/here"]), value(project, done.outputs["value/again"])
    assert (first["count"], second[0]) == (1, 1)
    assert first["parent"] == second[1] != os.getpid()
    assert first["pid"] != first["parent"]
    assert first["cwd"] == str(project.root)
    assert "SECRET_OF_THE_PARENT" not in first["env"]
    assert first["env"]["PYTHONHASHSEED"] == "0"
    assert said == [("value/here", "said by the step")]
    (server,) = forked._servers.values()
    forked.close()
    assert gone(server._process.pid)


def test_the_same_comes_out_as_of_a_fresh_interpreter(author, forked, processes):
    project = author(STEPS)
    made = []
    for executor in (forked, processes):
        made.append(value(project, project.run("here", executor=executor, cached=False).outputs["value/here"]))
        made[-1]["env"].pop("_", None)
    assert made[0]["draws"] == made[1]["draws"]
    assert made[0]["env"] == made[1]["env"]


def test_errors_and_ends_are_told(author, forked):
    project = author(STEPS)
    with pytest.raises(StepFailed, match="one class only") as caught:
        project.run("raises", executor=forked)
    assert "flow.py" in caught.value.details["traceback"]
    with pytest.raises(Unavailable, match="was ended by SIGKILL"):
        project.run("dies", executor=forked)
    assert project.run("here", executor=forked).outputs


@pytest.mark.parametrize(
    ("step", "message", "kind"),
    [
        ("spins", "took longer than 1.5 s", "TimeoutError"),
        ("greedy", "MemoryError|memory", "MemoryError"),
        ("maps", "took more than its 600 MB of memory", "MemoryError"),
    ],
)
def test_limits_end_a_step_and_the_error_says_which(author, forked, step, message, kind):
    project = author(STEPS)
    began = time.monotonic()
    with pytest.raises(StepFailed, match=message) as caught:
        project.run(step, executor=forked)
    assert time.monotonic() - began < 25
    assert kind in (caught.value.details["exception"], *caught.value.details["kinds"])


def test_closing_ends_children_and_what_they_started(author, forked):
    project = author(STEPS)
    caught = []

    def go():
        try:
            project.run("slow", executor=forked)
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    while not project.marks():
        time.sleep(0.02)
    forked.close()
    thread.join(10)
    assert caught
    assert gone(int(project.marks()[0]))


def test_a_server_that_dies_is_replaced(author, forked):
    project = author(STEPS)
    project.run("here", executor=forked)
    (server,) = forked._servers.values()
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    assert project.run("again", executor=forked, cached=False).outputs


def test_code_that_changed_is_imported_anew(author, forked):
    project = author(STEPS)
    project.run("here", executor=forked)
    time.sleep(0.01)
    changed = author(STEPS.replace("return [len(COUNT)", "return ['changed', len(COUNT)"))
    assert value(changed, changed.run("again", executor=forked).outputs["value/again"])[0] == "changed"


def test_a_project_that_starts_threads_is_not_forked(author, forked):
    text = """
import threading, time

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def here():
    return os.getppid()


ASSETS = [define(here)]
"""
    project = author(text)
    done = project.run("here", executor=forked)
    assert value(project, done.outputs["value/here"]) == os.getpid()
    assert forked.refused == {"flow"}


def test_a_project_of_tables_is_forked_and_its_children_compute(author, forked):
    text = """
import pandas
import polars
import pyarrow.compute
from sklearn.ensemble import HistGradientBoostingRegressor


def numbers():
    table = polars.DataFrame({"x": range(3000), "y": [i % 7 for i in range(3000)]})
    grouped = table.lazy().group_by("y").agg(polars.col("x").sum()).sort("y").collect()
    model = HistGradientBoostingRegressor(max_iter=5).fit(table.select("x").to_numpy(), table["y"].to_numpy())
    arrow = pyarrow.compute.sum(table.to_arrow()["x"]).as_py()
    return [os.getppid(), grouped.height, arrow, int(pandas.Series([1, 2]).sum()), len(model.predict([[1.0]]))]


ASSETS = [define(numbers)]
"""
    project = author(text)
    done = project.run("numbers", executor=forked)
    parent, *rest = value(project, done.outputs["value/numbers"])
    assert rest == [7, 4498500, 3, 1]
    assert forked.refused == set()
    assert parent != os.getpid()
