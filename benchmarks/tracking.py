"""Tracking through the real MLflow client: Everloop and `mlflow server`, on this machine, in one run.

Both serve from their default SQLite: `everloop up` with all that it starts, and the `mlflow server` of the same version
as the client, with its default number of workers (`--workers` gives another), in a virtual environment that this
program makes once. Ratios of wall time are what a user feels. CPU seconds are those of all processes of a server.
`floor` is the same work of the client against a server that answers at once what Everloop answered, and keeps nothing:
nobody can be faster through this client. `most the client allows` is the ratio that such a server would have, and
`of what the client allows` is how much of it ours has; where that is near 1, the client is the bound. It changes
nothing about `met`, which is the ratio against the target as it stands.

Then a workspace of 100,000 runs and 50 million points, on SQLite and PostgreSQL (`tracking_scale.py`).

Prints a JSON object a line; exit status 1 when a target is missed.

    python benchmarks/tracking.py [--quick] [--peer VENV] [--workers N] [--only WORD] [--no-scale]
"""

import argparse
import gc
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tracking_null
import tracking_scale
import tracking_servers as servers
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

MLFLOW = version("mlflow-skinny")
_MB = 1 << 20
_KEYS, _WARM = 10, 24


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    batches: int = 60
    singles: int = 1000
    runs: int = 5000
    searches: int = 5
    points: int = 100_000
    reads: int = 3
    megabytes: int = 1024
    files: int = 1000
    settle: float = 5.0

    def shared(self, share: float) -> "Sizes":
        """A share of the work."""
        counted = ("batches", "singles", "runs", "points", "megabytes", "files")
        return (
            replace(self, **{name: max(10, round(getattr(self, name) * share)) for name in counted})
            if share < 1
            else self
        )


QUICK = Sizes(batches=8, singles=60, runs=120, searches=2, points=10_000, reads=1, megabytes=64, files=60, settle=1.0)


class Side:
    """A server with the client set to it, and the run that the client works on."""

    def __init__(self, server: servers.Server) -> None:
        """Connect the client."""
        self.server, self.name, self.url = server, server.name, server.url
        self.client = MlflowClient(server.url, server.url)
        self.run = ""


@dataclass(frozen=True)
class Spent:
    """What some work took."""

    wall: float
    server: float
    client: float

    @property
    def both(self) -> float:
        """CPU seconds of client and server."""
        return self.server + self.client


def spend(side: Side, work: Callable[[Side], Any]) -> Spent:
    """Do the work and see what it took."""
    gc.collect()
    server, client, began = side.server.cpu(), time.process_time(), time.perf_counter()
    work(side)
    wall, client = time.perf_counter() - began, time.process_time() - client
    time.sleep(0.05)  # a server may still tidy up
    return Spent(wall, side.server.cpu() - server, client)


def peer_environment(place: Path) -> Path:
    """The virtual environment with the whole `mlflow`; made when it is not there."""
    command = place / "bin" / "mlflow"
    if not command.exists():
        sys.stderr.write(f"installing mlflow {MLFLOW} into {place}\n")
        wanted = f"mlflow=={MLFLOW}"
        if shutil.which("uv"):
            subprocess.run(["uv", "venv", "-q", "-p", sys.executable, str(place)], check=True)
            subprocess.run(["uv", "pip", "install", "-q", "-p", str(place), wanted], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            subprocess.run([str(place / "bin" / "pip"), "install", "-q", wanted], check=True)
    return command


class Bench:
    """Everloop, MLflow and a server that only answers, side by side; `met` gathers the verdicts."""

    def __init__(self, ours: Side, theirs: Side, folder: Path, sizes: Sizes, only: str) -> None:
        """`only` is a word that the names of the measures to take hold."""
        self.ours, self.theirs, self.folder, self.sizes, self.only = ours, theirs, folder, sizes, only
        self.met: list[bool] = []
        self.nobody = ""
        """The run of the server that only answers."""

    def wanted(self, name: str) -> bool:
        """Whether to measure it."""
        return self.only in name

    def line(self, name: str, unit: str, figures: tuple[float, float], target: float | None, floor: float = 0) -> None:
        """Print one ratio, theirs by ours; where the bound is the client, what the client allows."""
        ours, theirs = figures
        ratio = theirs / max(ours, 0.001)
        told = {
            "name": name,
            "unit": unit,
            "ours": round(ours, 3),
            "peer": f"mlflow server {MLFLOW}",
            "theirs": round(theirs, 3),
            "floor": round(floor, 3) or None,
            "ratio": round(ratio, 2),
            "target": target,
            "met": target is None or ratio >= target,
        }
        if floor:
            told |= {
                "most the client allows": round(theirs / floor, 2),
                "of what the client allows": round(floor / ours, 2),
            }
        print(json.dumps(told), flush=True)
        self.met.append(bool(told["met"]))

    def compare(
        self,
        name: str,
        work: Callable[[Side], Any],
        target: float,
        *,
        cpu: float | None = None,
        answers: Callable[[], dict[str, bytes]] | None = None,
        repeats: int = 1,
    ) -> None:
        """The same work on both; the best of some repeats. `answers` are what the null server says, by path."""
        if not self.wanted(name):
            return
        best = {side.name: min((spend(side, work) for _ in range(repeats)), key=lambda s: s.wall) for side in self.both}
        floor = Spent(0.0, 0.0, 0.0)
        if answers is not None:
            self.nobody = uuid.uuid4().hex  # the client remembers by a run where its artifacts are, and servers go
            with tracking_null.answering(answers(), self.folder) as (url, process):
                null = Side(servers.Server("null", url, process))
                null.run = self.nobody
                floor = min((spend(null, work) for _ in range(repeats)), key=lambda s: s.wall)
        ours, theirs = best[self.ours.name], best[self.theirs.name]
        self.line(name, "s", (ours.wall, theirs.wall), target, floor.wall)
        # what the wall would show on a machine that does nothing else: these callers wait for each answer
        self.line(f"{name}, CPU of client and server", "CPU s", (ours.both, theirs.both), None, floor.client)
        self.line(f"{name}, server CPU", "CPU s", (ours.server, theirs.server), cpu)

    @property
    def both(self) -> tuple[Side, Side]:
        """Ours and theirs."""
        return (self.ours, self.theirs)


def batch(number: int) -> list[Metric]:
    """A thousand points: ten metrics, a hundred steps of each."""
    steps = range(number * 100, number * 100 + 100)
    return [
        Metric(f"metric_{key}", step * 0.5 + key, 1_700_000_000_000 + step, step)
        for step in steps
        for key in range(_KEYS)
    ]


def writing(bench: Bench) -> None:
    """Points in batches, points one by one, and whole runs."""
    sizes, canned = bench.sizes, dict[str, bytes]
    batches = [batch(number) for number in range(sizes.batches)]

    def log_batches(side: Side) -> None:
        run = side.client.create_run("0").info.run_id if side.name != "null" else side.run
        for metrics in batches:
            side.client.log_batch(run, metrics=metrics)

    def log_singles(side: Side) -> None:
        for step in range(sizes.singles):
            side.client.log_metric(side.run, "loss", 1 / (step + 1), step=step)

    for side in bench.both:
        side.run = side.client.create_run("0").info.run_id
        for step in range(_WARM):  # every worker of theirs loads what it needs
            side.client.log_metric(side.run, "warm", 0.0, step=step)
            side.client.log_batch(side.run, metrics=[Metric("warmer", 0.0, 0, step)])
            side.client.search_runs(["0"], max_results=1)
    bench.compare("points through log_batch", log_batches, 5, cpu=10, answers=canned)
    bench.compare("synchronous log_metric calls", log_singles, 6, answers=canned)


def make_runs(sizes: Sizes) -> Callable[[Side], None]:
    """Runs with ten parameters and ten metrics each."""

    def work(side: Side) -> None:
        for number in range(sizes.runs):
            run = side.client.create_run("0", run_name=f"run {number}").info.run_id
            params = [Param(f"param_{key}", str((number * 7919 + key) % 100)) for key in range(_KEYS)]
            metrics = [Metric(f"score_{key}", (number * 7919 % 10007) / (key + 1), 1, 0) for key in range(_KEYS)]
            side.client.log_batch(run, metrics=metrics, params=params)

    return work


def many_runs(bench: Bench) -> None:
    """Runs made, and searched."""
    if not (bench.wanted("runs created") or bench.wanted("search_runs")):
        return
    sizes = bench.sizes

    def made() -> dict[str, bytes]:
        run = bench.ours.client.get_run(bench.ours.run)
        info = {"run_id": run.info.run_id, "run_uuid": run.info.run_id, "experiment_id": "0", "status": "RUNNING"}
        return {"/api/2.0/mlflow/runs/create": json.dumps({"run": {"info": info, "data": {}}}).encode()}

    name = f"{sizes.runs} runs created, 10 parameters and 10 metrics"
    bench.only, only = ("", bench.only) if bench.wanted("search_runs") else (bench.only, bench.only)
    bench.compare(name, make_runs(sizes), 6, answers=made)
    bench.only = only

    def search(side: Side) -> None:
        for _ in range(sizes.searches):
            found = side.client.search_runs(["0"], order_by=["metrics.score_0 DESC"], max_results=100)
            assert len(found) == 100, len(found)

    asked = {"experiment_ids": ["0"], "order_by": ["metrics.score_0 DESC"], "max_results": 100}
    path = "/api/2.0/mlflow/runs/search"
    answer = lambda: {path: raw(bench.ours.url, "POST", path, json.dumps(asked).encode())}  # noqa: E731
    bench.compare("search_runs by a metric, page of 100", search, 20, answers=answer)


def raw(url: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """One request, without a client's ado."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content[:500]
    return content


def reading(bench: Bench) -> None:
    """A long history, through the client and raw."""
    if not bench.wanted("history"):
        return
    sizes = bench.sizes
    for side in bench.both:
        side.run = side.client.create_run("0").info.run_id
        for start in range(0, sizes.points, 1000):
            metrics = [
                Metric("long", step * 0.25, 1_700_000_000_000 + step, step)
                for step in range(start, min(start + 1000, sizes.points))
            ]
            side.client.log_batch(side.run, metrics=metrics)

    def whole(side: Side) -> None:
        found = side.client.get_metric_history(side.run, "long")
        assert len(found) == sizes.points

    def path(side: Side) -> str:
        return f"/api/2.0/mlflow/metrics/get-history?run_id={side.run}&run_uuid={side.run}&metric_key=long"

    def bare(side: Side) -> None:
        raw(side.url, "GET", path(side))

    answer = lambda: {"/api/2.0/mlflow/metrics/get-history": raw(bench.ours.url, "GET", path(bench.ours))}  # noqa: E731
    name = f"history of {sizes.points} points"
    bench.compare(f"{name}, client", whole, 4, answers=answer, repeats=sizes.reads)
    bench.compare(f"{name}, raw HTTP", bare, 10, repeats=sizes.reads)


def artifacts(bench: Bench) -> None:
    """One large file, and many small ones."""
    if not bench.wanted("artifact"):
        return
    sizes = bench.sizes
    large = bench.folder / "large.bin"
    with large.open("wb") as file:
        for _ in range(sizes.megabytes):
            file.write(os.urandom(_MB))
    small = bench.folder / "small"
    small.mkdir(exist_ok=True)
    for number in range(sizes.files):
        (small / f"{number}.json").write_text(json.dumps({"number": number}))

    def up(side: Side) -> None:
        side.client.log_artifact(side.run, str(large))

    def down(side: Side) -> None:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            path = side.client.download_artifacts(side.run, "large.bin", folder)
            assert Path(path).stat().st_size == sizes.megabytes * _MB

    def many(side: Side) -> None:
        side.client.log_artifacts(side.run, str(small), "small")

    for side in bench.both:
        side.run = side.client.create_run("0").info.run_id

    def canned() -> dict[str, bytes]:
        run = f"/api/2.0/mlflow/runs/get?run_uuid={bench.ours.run}&run_id={bench.ours.run}"
        told = raw(bench.ours.url, "GET", run).replace(bench.ours.run.encode(), bench.nobody.encode())
        return {"/api/2.0/mlflow/runs/get": told, tracking_null.FILE: str(large).encode()}

    bench.compare(f"artifact of {sizes.megabytes} MB up", up, 4, answers=canned)
    bench.compare(f"artifact of {sizes.megabytes} MB down", down, 2, answers=canned)
    bench.compare(f"{sizes.files} small artifacts up", many, 3, answers=canned)


def idle(bench: Bench) -> None:
    """Start and memory; the targets are absolute."""
    for name, unit, ours, theirs, most in (
        ("start until it answers", "s", bench.ours.server.start, bench.theirs.server.start, 3.0),
        ("idle memory of everything", "MB", bench.ours.server.memory(), bench.theirs.server.memory(), 400.0),
    ):
        if bench.wanted(name):
            told = {"name": name, "unit": unit, "ours": round(ours, 2), "peer": f"mlflow server {MLFLOW}"}
            rest = {"theirs": round(theirs, 2), "floor": None, "ratio": round(theirs / ours, 2), "target": most}
            print(json.dumps({**told, **rest, "met": ours <= most}), flush=True)
            bench.met.append(ours <= most)


def main() -> int:
    """Start both, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little work: a check that it runs, no measure")
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir()) / f"everloop-bench-mlflow-{MLFLOW}")
    parser.add_argument("--workers", type=int, default=0, help="of the mlflow server; 0 is its default")
    parser.add_argument("--only", default="", help="measure what has this word in its name")
    parser.add_argument("--share", type=float, default=1.0, help="of the work, where the machine is slow")
    parser.add_argument("--no-scale", action="store_true", help="leave out the workspace of 100,000 runs")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes().shared(arguments.share)
    mlflow = peer_environment(arguments.peer)
    met: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as name:
        folder, sides = Path(name), list[Side]()
        try:
            port = servers.free_port()
            up = [sys.executable, "-m", "everloop", "up", "--port", str(port)]
            sides.append(Side(servers.started("everloop", up, folder / "ours", f"http://127.0.0.1:{port}")))
            port = servers.free_port()
            workers = ["--workers", str(arguments.workers)] if arguments.workers else []
            server = [str(mlflow), "server", "--port", str(port), *workers]
            sides.append(Side(servers.started("mlflow", server, folder / "theirs", f"http://127.0.0.1:{port}")))
            time.sleep(sizes.settle)
            bench = Bench(sides[0], sides[1], folder, sizes, arguments.only)
            idle(bench)
            for part in (writing, many_runs, reading, artifacts):
                part(bench)
            met += bench.met
        finally:
            for side in sides:
                servers.stopped(side.server)
    if not arguments.no_scale and arguments.only in "scale":
        met += tracking_scale.measure(tracking_scale.QUICK if arguments.quick else tracking_scale.Scale())
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
