import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from everloop.catalog import versions
from everloop.core.errors import Cancelled, DefinitionError, StepFailed, Unavailable
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.value import codec

STEPS = """
import sys, time, subprocess
from everloop.core.ports import Resources


def here():
    print("said by the step")
    print("and to the other stream", file=sys.stderr)
    return {"env": dict(os.environ), "argv": len(sys.argv), "modules": sorted(sys.modules), "cwd": os.getcwd()}


def beside(here, wait: float = 0.0):
    time.sleep(wait)
    return hash("text")


def raises():
    raise ValueError("the label has one class only")


def dies():
    os.kill(os.getpid(), 9)


def exits():
    os._exit(3)


def slow():
    child = subprocess.Popen(["sleep", "60"])
    mark(str(child.pid))
    time.sleep(60)


def greedy():
    return len(bytearray(3_000_000_000))


def leaves_a_child():
    subprocess.Popen(["sleep", "30"], close_fds=False)
    return 1


ASSETS = [
    define(here), define(beside), define(raises), define(dies), define(exits), define(leaves_a_child),
    define(slow, resources=Resources(seconds=3.0)),
    define(greedy, resources=Resources(memory=1_500_000_000)),
]
"""


def value(project, identity):
    with project.ctx.read() as tx:
        return codec.load(versions.get(tx, project.ctx.project, identity).manifest, project.ctx.store, {})


def ends(pid):
    """Whether the process is gone soon: the kernel takes a moment after the signal."""
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_has_a_clean_fixed_environment(author, processes, monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    project = author(STEPS)
    done = project.run("beside", executor=processes, environ=lambda step, run: {"TOKEN": f"for {step}"})
    seen = value(project, done.outputs["value/here"])
    assert "SECRET_OF_OURS" not in seen["env"]
    assert seen["env"]["TOKEN"] == "for value/here"
    assert seen["env"]["PYTHONHASHSEED"] == "0"
    assert seen["env"]["OMP_NUM_THREADS"] == seen["env"]["OPENBLAS_NUM_THREADS"] == "1"
    assert (seen["env"]["TZ"], seen["cwd"]) == ("UTC", str(project.root))
    heavy = {"sqlalchemy", "mlflow", "polars", "sklearn", "duckdb", "pyarrow", "scipy", "everloop.catalog"}
    assert not heavy.intersection(seen["modules"])
    again = project.run("beside", executor=processes, cached=False, environ=lambda step, run: {"TOKEN": "x"})
    assert again.outputs["value/beside"] == done.outputs["value/beside"]
    with project.ctx.read() as tx:
        assert versions.get(tx, project.ctx.project, done.runtime).manifest["threads"]["OMP_NUM_THREADS"] == "1"


def test_what_the_author_raises_comes_back_as_said(author, processes):
    project = author(STEPS)
    with pytest.raises(StepFailed) as caught:
        project.run("raises", executor=processes)
    assert caught.value.message == "value/raises failed: ValueError: the label has one class only"
    assert "flow.py" in caught.value.details["traceback"]
    assert "everloop/flows" not in caught.value.details["traceback"]


def test_a_child_that_dies_is_unavailable_not_failed(author, processes):
    project = author(STEPS)
    with pytest.raises(Unavailable, match="was ended by SIGKILL"):
        project.run("dies", executor=processes)
    with pytest.raises(Unavailable, match=r"exit code 3"):
        project.run("exits", executor=processes)


def test_time_and_memory_are_limited_and_the_group_ends(author, processes):
    project = author(STEPS)
    began = time.monotonic()
    with pytest.raises(StepFailed, match="longer than 3 s"):
        project.run("slow", executor=processes)
    assert time.monotonic() - began < 30
    assert ends(int(project.marks()[0]))
    with pytest.raises(StepFailed, match="MemoryError") as caught:
        project.run("greedy", executor=processes)
    assert "memory limit" in caught.value.hint


def test_a_process_left_behind_does_not_hold_the_step(author, processes):
    began = time.monotonic()
    author(STEPS).run("leaves_a_child", executor=processes)
    assert time.monotonic() - began < 25


def test_cancel_and_close(author):
    executor = ProcessExecutor()
    project = author(STEPS.replace("seconds=3.0", "seconds=50.0"))
    caught = []

    def go():
        try:
            project.run("slow", executor=executor)
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    while not project.marks():
        time.sleep(0.02)
    assert executor.cancel("b3:unknown") is False
    executor.close()
    thread.join(10)
    assert "was cancelled" in caught[0].message
    assert ends(int(project.marks()[0]))
    with pytest.raises(Unavailable, match="closed"):
        project.run("here", executor=executor)


def test_a_project_that_does_not_import_in_the_child_says_where(author, processes):
    project = author(STEPS)
    (project.root / "flow.py").write_text("import no_such_module\n" + (project.root / "flow.py").read_text())
    asset = project.assets["value/here"]
    with pytest.raises(StepFailed, match="ModuleNotFoundError") as caught:
        processes.run(_job(project, asset))
    assert "flow.py:1" in caught.value.details["traceback"]
    (project.root / "flow.py").write_text("x = 1\n")
    with pytest.raises(DefinitionError, match="defines 0 projects"):
        processes.run(_job(project, asset))


def _job(project, asset):
    from everloop.core.ports import Job

    return Job(
        step=asset.key,
        root=project.root,
        module="flow",
        inputs={},
        manifests={},
        placements={},
        params={},
        blobs=project.ctx.store.url,
        codecs={"value": "everloop.flows.value:codec"},
        recipe="b3:" + "1" * 64,
    )


def test_steps_run_beside_each_other(author, processes):
    text = """
import time


def meet(mine, other):
    Path(__file__).with_name(f"{mine}.ignored").touch()
    until = time.monotonic() + 20
    while not Path(__file__).with_name(f"{other}.ignored").exists():
        if time.monotonic() > until:
            raise TimeoutError("the other never came")
        time.sleep(0.02)
    return mine


def left():
    return meet("left", "right")


def right():
    return meet("right", "left")


def both(left, right):
    return [left, right]


ASSETS = [define(left), define(right), define(both)]
"""
    project = author(text)
    done = project.run("both", executor=processes, workers=2)
    assert value(project, done.outputs["value/both"]) == ["left", "right"]


KILLED = """
import time
def one():
    mark("one")
    return 1
def two(one):
    mark("two")
    if not Path(__file__).with_name("go.ignored").exists():
        time.sleep(60)
    return one + 1
def three(two):
    mark("three")
    return two + 1
ASSETS = [define(one), define(two), define(three)]
"""


def test_a_killed_run_taken_up_again_repeats_only_the_step_in_flight(author, processes):
    project = author(KILLED)
    script = project.root.parent / "runner.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from everloop.catalog.context import Actor, Context
        from everloop.catalog.engine import Catalog
        from everloop.core.clock import SystemClock
        from everloop.flows.assets import plan
        from everloop.flows.engine import Origin, run
        from everloop.flows.executors.process import ProcessExecutor
        from everloop.store import open_store
        root = Path({str(project.root)!r})
        sys.path.insert(0, str(root))
        import flow
        ctx = Context(Actor("ada"), {project.ctx.project!r}, SystemClock(), Catalog.open({project.ctx.catalog.url!r}),
                      open_store({project.ctx.store.url!r}), home=Path({str(project.ctx.home)!r}))
        run(ctx, plan(flow.project.assets(), ["three"]), origin=Origin(root, "flow"), executor=ProcessExecutor(),
            codecs={{"value": "everloop.flows.value:codec"}})
        """)
    )
    runner = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + 30
        while "two" not in project.marks():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    (project.root / "go.ignored").touch()
    done = project.run("three", executor=processes)
    assert project.marks() == ["one", "two", "two", "three"]
    assert [s.reused for s in done.steps] == [True, False, False]
    time.sleep(0.2)
    children = [p for p in Path("/proc").glob("[0-9]*") if _is_child_of(project, p)]
    assert children == []


def _is_child_of(project, process):
    try:
        return (
            "everloop.flows.child" in (process / "cmdline").read_text() and (process / "cwd").readlink() == project.root
        )
    except OSError:
        return False
