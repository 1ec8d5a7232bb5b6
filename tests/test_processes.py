"""What each process loads and how big it gets, read from real ones: Python itself can be told to list its imports."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

EVERLOOP = [sys.executable, "-m", "everloop"]
FLIGHTS = Path(__file__).parent.parent / "everloop" / "demo" / "project"
LISTED = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Every import writes a line to stderr, also one that happens late."""
ENGINES = {"datasketches", "duckdb", "mlflow", "pandas", "polars", "pyarrow", "scipy", "sklearn"}
SQL = {"alembic", "sqlalchemy"}
WEB = {"fastapi", "jinja2", "starlette"}
NEVER = {
    "everloop up": ENGINES | WEB | {"lmdb", "numpy", "uvicorn"},
    "supervisor": ENGINES | SQL | WEB | {"asyncio", "cryptography", "numpy", "pydantic", "rich", "typer", "uvicorn"},
    "gateway": ENGINES | SQL | WEB | {"pydantic", "rich", "typer"},
    "server": ENGINES | {"alembic", "lmdb", "rich", "typer"},
    "worker-0": ENGINES | WEB | {"alembic", "lmdb", "rich", "typer", "uvicorn"},
}
ALL_MEGABYTES, SUPERVISOR_MEGABYTES = 400, 40
_IMPORT = re.compile(r"^import time: +\d+ \| +\d+ \| *([\w.]+)$", re.MULTILINE)


def packages(listing: str) -> set[str]:
    """The top-level packages that a listing of imports names."""
    return {name.partition(".")[0] for name in _IMPORT.findall(listing)}


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("EVERLOOP_")} | more


@dataclass(frozen=True)
class Idle:
    """What was seen of `everloop up` while nobody asked anything but for its health."""

    loaded: dict[str, set[str]]
    megabytes: dict[str, float]


@pytest.fixture(scope="module")
def idle(tmp_path_factory) -> Idle:
    """Processes on a workspace that is there already, left alone for as long as each of their duties takes."""
    folder = tmp_path_factory.mktemp("idle")
    subprocess.run([*EVERLOOP, "init"], cwd=folder, env=environment(), check=True, capture_output=True)
    run = folder / ".everloop" / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    terminal = folder / "terminal.log"
    with terminal.open("wb") as output:
        process = subprocess.Popen(
            [*EVERLOOP, "up", "--port", str(port)], cwd=folder, env=environment(**LISTED), stdout=output, stderr=output
        )
    try:
        wait_until_healthy(process, port)
        time.sleep(2)
        pids = dict(line.split() for line in (run / "pids").read_text().splitlines())
        megabytes = {name: psutil.Process(int(pid)).memory_info().rss / 2**20 for name, pid in pids.items()}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    # the command line becomes the supervisor: the list starts again with its heading
    before, *after = terminal.read_text().split("import time: self [us]")[1:]
    loaded = {"everloop up": packages(before), "supervisor": packages("".join(after))}
    loaded |= {name: packages((run / f"{name}.log").read_text()) for name in ("gateway", "server", "worker-0")}
    return Idle(loaded, megabytes)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        assert process.poll() is None, "everloop up ended"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    pytest.fail("everloop up does not answer")


@pytest.mark.parametrize("process", NEVER)
def test_an_idle_process_has_loaded_no_engine(idle, process):
    assert "everloop" in idle.loaded[process]
    assert not idle.loaded[process] & NEVER[process]


def test_all_processes_together_stay_small(idle):
    assert set(idle.megabytes) == {"supervisor", "gateway", "server", "worker-0"}
    assert sum(idle.megabytes.values()) < ALL_MEGABYTES, idle.megabytes
    assert idle.megabytes["supervisor"] < SUPERVISOR_MEGABYTES


@pytest.mark.parametrize("words", [["version"], ["--help"]])
def test_the_command_line_loads_what_a_line_needs(words, tmp_path):
    done = subprocess.run(
        [*EVERLOOP, *words], cwd=tmp_path, env=environment(**LISTED), check=True, capture_output=True, text=True
    )
    assert "typer" in packages(done.stderr)
    assert not packages(done.stderr) & (ENGINES | SQL | WEB | {"cryptography", "httpx2", "numpy"})


@pytest.mark.parametrize("words", [("flows", "list"), ("runs", "list")])
def test_a_look_at_runs_loads_no_engine(words, tmp_path):
    subprocess.run([*EVERLOOP, "init"], cwd=tmp_path, env=environment(), check=True, capture_output=True)
    done = subprocess.run(
        [*EVERLOOP, *words], cwd=tmp_path, env=environment(**LISTED), check=True, capture_output=True, text=True
    )
    loaded = packages(done.stderr)
    assert "sqlalchemy" in loaded
    assert not loaded & (ENGINES | WEB)


def test_defining_a_project_loads_no_database_and_no_training(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import flights; flights.project.assets()"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(FLIGHTS), **LISTED),
        check=True,
        capture_output=True,
        text=True,
    )
    # its author writes Polars; nothing else is needed to say what a project is
    assert "flights" in packages(done.stderr)
    assert not packages(done.stderr) & (ENGINES - {"polars"} | SQL | WEB | {"cryptography", "numpy", "pydantic"})


def test_a_task_starts_without_engines_and_loads_what_its_kind_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import everloop.server.task"],
        cwd=tmp_path,
        env=environment(**LISTED),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "everloop" in packages(done.stderr)
    assert not packages(done.stderr) & (ENGINES | WEB)
