"""Operations that load an engine, in a process beside the server."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from everloop.catalog import versions
from everloop.catalog.context import Actor
from everloop.catalog.operation import find_operation, invoke, operations
from everloop.core.errors import NotFound, PermissionDenied
from everloop.core.settings import Settings
from everloop.data.definitions import Files, SourceDef
from everloop.server.engines.asking import Engines
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

SMALL = """
import json, sys
from starlette.testclient import TestClient
from everloop.core.settings import Settings
from everloop.server.app import build_app
from everloop.workspace.opened import Workspace
from pathlib import Path

with Workspace.open(Settings(home=Path(sys.argv[1]), project="shop")) as workspace:
    app = build_app(workspace)
    client = TestClient(app, base_url="http://127.0.0.1:5050")
    statuses = {path: client.get(path).status_code for path in sys.argv[2:]}
    app.state.engines.close()
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"statuses": statuses, "loaded": sorted(loaded)}))
"""
ENGINES = {"datasketches", "duckdb", "mlflow", "pandas", "polars", "pyarrow", "scipy", "sklearn"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with a captured table."""
    load_operations()
    folder = tmp_path_factory.mktemp("engines")
    settings = Settings(home=folder / ".everloop", project="shop")
    initialise(settings, "ada", "solo", folder)
    (folder / "rows.csv").write_text("id,score\n" + "".join(f"{n},{n / 7}\n" for n in range(50)))
    with Workspace.open(settings) as opened:
        ctx = opened.context(Actor.of("ada", "contributor"))
        source = SourceDef("rows", Files(str(folder / "rows.csv")), key="id", tags={"score": "secret"})
        with ctx.write() as tx:
            versions.put(tx, "shop", source.version(), actor="ada", at=1)
        op = find_operation("data.capture")
        invoke(ctx, op, op.command(source="rows"))
        yield opened


@pytest.fixture(scope="module")
def engines(workspace):
    made = Engines(workspace.settings)
    yield made
    made.close()


@pytest.fixture
def ctx(workspace, engines):
    plain = workspace.context(Actor.of("ada", "contributor"))
    return replace(plain, ports={**plain.ports, "engines": engines})


def ask(ctx, name, **fields):
    op = find_operation(name)
    return invoke(ctx, op, op.command(**fields))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("data.show", {"version": "rows"}),
        ("data.sample", {"version": "rows", "rows": 3}),
        ("data.expect", {"version": "rows"}),
    ],
)
def test_the_answer_is_that_of_the_operation(workspace, ctx, name, fields):
    here = workspace.context(ctx.actor)
    assert ask(ctx, name, **fields) == ask(here, name, **fields)


def test_refusals_and_errors_are_those_of_the_operation(workspace, ctx, engines):
    with pytest.raises(NotFound, match="nothing"):
        ask(ctx, "data.show", version="data/nothing")
    engines.close()
    with pytest.raises(PermissionDenied):
        ask(replace(ctx, actor=Actor.of("stranger")), "data.show", version="rows")
    assert engines.pid is None  # who may not ask starts no process


def test_one_that_died_is_started_again(ctx, engines):
    ask(ctx, "data.sample", version="rows")
    first = engines.pid
    os.kill(first, signal.SIGKILL)
    while engines.pid == first:
        time.sleep(0.01)
    assert ask(ctx, "data.sample", version="rows").columns == ["id", "score"]
    assert engines.pid != first


def test_it_ends_with_the_server(ctx, engines):
    ask(ctx, "data.sample", version="rows")
    (child,) = engines._running
    child.stdin.close()
    assert child.wait(20) == 0


def test_every_operation_that_runs_there_only_reads():
    there = {name for name, op in operations().items() if op.engine}
    assert there >= {"data.show", "data.sample", "data.compare", "data.expect", "runs.head"}
    assert all(op.reads for op in operations().values() if op.engine)


def test_the_server_loads_no_engine_for_any_page(workspace):
    paths = ["", "/runs", "/models", "/data", "/data/rows", "/features", "/endpoints", "/alarms", "/changes"]
    asked = [f"/shop{path}" for path in paths]
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(workspace.home), *asked], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert told["statuses"] == dict.fromkeys(asked, 200)
    assert not set(told["loaded"]) & ENGINES
