"""A step that reads what nobody declared is marked, and runs again exactly when that changes."""

import os
import runpy
import subprocess
import time

import pytest

from everloop.catalog import steps
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.witness import now, undeclared, watching

TEXT = """
import csv
import importlib
import warnings

HERE = Path(__file__).parent


def rates():
    with (HERE / "rates.csv").open() as file:
        return sum(int(row[0]) for row in csv.reader(file))


def listed():
    return sorted(path.name for path in (HERE / "parts").iterdir())


def setting():
    return os.environ.get("RATE", "none")


def plugged():
    import sys

    sys.path.insert(0, str(HERE))
    sys.modules.pop("plugin", None)  # in one process it may have been loaded by an earlier run
    return importlib.import_module("plugin").value()


def absent():
    return (HERE / "perhaps.txt").exists() or [one for one in (HERE / "perhaps.txt",) if _there(one)]


def _there(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def clean():
    inside = HERE / "scratch.txt"
    inside.write_text("made here")
    with __import__("tempfile").TemporaryDirectory() as folder:
        Path(folder, "a").write_text("1")
        names = [(one.name, one.read_text()) for one in Path(folder).iterdir()]
    copied = {**os.environ}
    __import__("json")
    return [inside.read_text(), len(Path("/proc/self/status").read_text()) > 0, "PATH" in copied]


def after(clean):
    return len(clean)


def tracked():
    from mlflow.utils.git_utils import get_git_commit

    return len(get_git_commit(str(HERE)))


ASSETS = [define(one) for one in (rates, listed, setting, plugged, absent, clean, after, tracked)]
"""


@pytest.fixture(params=["here", "apart"])
def go(request, author, tmp_path):
    """Run one step of the project, in this process and in a child; returns (its value's version, reused, leaks)."""
    root = tmp_path / "authored"
    (root / "parts").mkdir(parents=True)
    (root / "parts" / "a").write_text("")
    (root / "rates.csv").write_text("1\n2\n")
    (root / "plugin.py").write_text("def value():\n    return 1\n")
    apart = ProcessExecutor() if request.param == "apart" else None
    past = time.time() - 60

    def run(step):
        for path in (root / "rates.csv", root / "plugin.py"):
            os.utime(path, (past, past))
        time.sleep(0.02)  # a file that changes while a step runs is none of its inputs: clocks of files are coarse
        project = author(TEXT)
        made = project.run(step, **({"executor": apart} if apart else {}))
        done = made.steps[-1]
        return done.output, done.reused, set(done.leaks)

    run.root, run.apart = root, apart is not None
    yield run
    if apart:
        apart.close()


def test_a_file_that_was_read_is_a_part_of_the_key(go, context):
    first, reused, leaks = go("rates")
    assert (reused, leaks) == (False, {"file:rates.csv"})
    with context.read() as tx:
        assert steps.made(tx, context.project, [first])[first].status == "leaky"
    assert go("rates") == (first, True, leaks)
    (go.root / "rates.csv").write_text("1\n5\n")
    second, reused, _ = go("rates")
    assert second != first
    assert not reused
    (go.root / "rates.csv").write_text("1\n2\n")
    assert go("rates") == (first, True, leaks)  # as it was before: both are known
    (go.root / "rates.csv").unlink()
    with pytest.raises(Exception, match="No such file"):
        go("rates")


def test_the_names_in_a_folder_are(go):
    first, _, leaks = go("listed")
    assert leaks == {"folder:parts"}
    assert go("listed")[:2] == (first, True)
    (go.root / "parts" / "b").write_text("")
    assert go("listed")[:2] != (first, True)


def test_an_environment_variable_is_without_its_value(go, monkeypatch, context):
    monkeypatch.setenv("RATE", "0.05-secret")
    first, _, leaks = go("setting")
    assert leaks == {"environ:RATE"}
    with context.read() as tx:
        assert "0.05" not in str(tx.exec_driver_sql("select content from leaks").all())
    assert go("setting")[1]
    monkeypatch.setenv("RATE", "0.06")
    second, reused, _ = go("setting")
    assert (second == first, reused) == ((True, True) if go.apart else (False, False))  # a child does not see it


def test_a_module_that_was_loaded_by_its_name_is_by_meaning(go):
    first, _, leaks = go("plugged")
    assert leaks == {"module:plugin"}
    (go.root / "plugin.py").write_text('"""Said."""\n\n\ndef value():\n    return 1  # as before\n')
    assert go("plugged")[:2] == (first, True)


def test_a_file_that_was_missing_is(go):
    first, _, leaks = go("absent")
    assert leaks == {"file:perhaps.txt"}
    assert go("absent")[:2] == (first, True)
    (go.root / "perhaps.txt").write_text("now")
    os.utime(go.root / "perhaps.txt", (1, 1))
    assert go("absent")[1] is False


def test_what_a_step_wrote_itself_and_what_is_the_systems_are_not(go):
    assert go("clean")[2] == set()
    assert go("after")[1:] == (False, set())


def test_a_commit_that_mlflow_asks_for_is_not(go):
    """The repository is around the project's folder: what is committed beside the project re-runs nothing."""
    git = ["git", "-C", str(go.root.parent), "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "one"], check=True)
    first = go("tracked")
    assert first[1:] == (False, set())
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "two"], check=True)
    assert go("tracked") == (first[0], True, set())


def test_nothing_is_watched_when_no_step_runs(tmp_path):
    (tmp_path / "f").write_text("x")
    with watching(tmp_path) as watch:
        pass
    (tmp_path / "f").read_text()
    assert watch.reads == {}
    assert type(os.environ).__name__ == "_Environ"
    assert type(os.environ).__module__ == "os"


def test_what_is_there_now(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("x")
    (tmp_path / "m.py").write_text("x = 1\n")
    found = now({"file:f": "", "file:gone": "", "folder:.": "", "module:m": "", "environ:A": ""}, tmp_path, {"A": "1"})
    assert [name for name, digest in found.items() if digest] == ["file:f", "folder:.", "module:m", "environ:A"]
    assert undeclared({"module:m": "1", "module:n": "2", "file:f": "3"}, {"m:f": "", "module:k": ""}) == {
        "module:n": "2",
        "file:f": "3",
    }


def test_names_that_were_listed_are_no_copy_that_hides_later_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("RATE", "1")
    (tmp_path / "asks.py").write_text("import os\n\n\ndef asks():\n    return os.environ['RATE']\n")
    asks = runpy.run_path(str(tmp_path / "asks.py"))["asks"]
    with watching(tmp_path):
        list(os.environ)
    with watching(tmp_path) as watch:
        sorted(os.environ)
        asks()
    assert set(watch.reads) == {"environ:RATE"}


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_watches_that_overlap_in_any_order_see_all(tmp_path, monkeypatch, first):
    monkeypatch.setenv("RATE", "1")
    (tmp_path / "asks.py").write_text("import os\n\n\ndef asks():\n    return os.environ['RATE']\n")
    asks = runpy.run_path(str(tmp_path / "asks.py"))["asks"]
    one, other = watching(tmp_path), watching(tmp_path)
    kept = {"outer": one.__enter__(), "inner": other.__enter__()}
    (one if first == "outer" else other).__exit__(None, None, None)
    asks()
    (other if first == "outer" else one).__exit__(None, None, None)
    left = kept["inner" if first == "outer" else "outer"]
    assert set(left.reads) == {"environ:RATE"}
    assert type(os.environ) is os._Environ


ITEMS = """
from everloop.flows import control


def parts(count: int = 4):
    return list(range(count))


def worked(part):
    mark(str(part))
    return [part, os.environ["RATE"]]


ASSETS = [define(parts), define(worked, each=control.map("part", over="parts"))]
"""


def test_items_that_read_what_nobody_declared_are_reused_while_it_is_the_same(author, monkeypatch):
    project = author(ITEMS)
    monkeypatch.setenv("RATE", "1")
    project.run("worked")
    project.run("worked")
    assert len(project.marks()) == 4
    project.run("worked", params={"parts": {"count": 5}})
    assert len(project.marks()) == 5
    monkeypatch.setenv("RATE", "2")
    project.run("worked")
    assert len(project.marks()) == 9
