"""Training frames against hand-written DuckDB and Feast's DuckDB store, each in a process of its own.

Points: a million questions over two views of five million facts; the floor is an ASOF join, which ignores ties, doubles
and late facts. Windows: ten million facts, four windows, 200,000 questions. Feast is
in an environment of its own (`feast_peer`).

    python benchmarks/features_batch.py [--quick] [--no-peer]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from feast_peer import feast_python, quiet
from figure import Record, cpu, figure, finish

from everloop.core.clock import SECOND
from everloop.features import definitions as el
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.flows.observation.using import peak_memory

START = 1_356_998_400 * SECOND
DAYS = 365
WINDOWS = (el.mean("x", over="3h"), el.count(over="1h"), el.sum("x", over="7d"), el.max("x", over="1d"))
FEAST = """
import sys, time
from datetime import timedelta
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
home = sys.argv[1]
config = RepoConfig(project="p", provider="local", registry=home + "/registry.db", offline_store={"type": "duckdb"},
                    online_store={"type": "sqlite", "path": home + "/online.db"}, entity_key_serialization_version=3)
store = FeatureStore(config=config)
place = Entity(name="place", join_keys=["place"])
views = [FeatureView(name=n, entities=[place], ttl=timedelta(days=30), schema=[Field(name="x", dtype=Float64)],
                     source=FileSource(path=f"{home}/{n}_times.parquet", timestamp_field="event")) for n in "ab"]
store.apply([place, *views])
spine = pd.read_parquet(home + "/spine_times.parquet")
began = time.process_time()
frame = store.get_historical_features(entity_df=spine, features=["a:x", "b:x"], full_feature_names=True).to_df()
spent = time.process_time() - began
with open("/proc/self/status") as told:
    peak = next(int(line.split()[1]) for line in told if line.startswith("VmHWM:")) / 1024
print("SPENT", spent, peak, len(frame))
"""


def facts(rows: int, entities: int, seed: int) -> pl.DataFrame:
    """Facts known up to two hours after they happened."""
    rng = np.random.default_rng(seed)
    event = START + rng.integers(0, DAYS * 86_400, rows) * SECOND
    known = event + rng.integers(0, 7_200, rows) * SECOND
    place, x = rng.integers(0, entities, rows), rng.normal(0, 30, rows).round(3)
    return pl.DataFrame({"id": np.arange(rows), "place": place, "x": x, "event": event, "known": known})


def questions(rows: int, entities: int) -> pl.DataFrame:
    """Questions about the entities, over the same year."""
    rng = np.random.default_rng(9)
    at = START + rng.integers(0, DAYS * 86_400, rows) * SECOND
    return pl.DataFrame({"q": np.arange(rows), "place": rng.integers(0, entities, rows), "at": at})


def view(name: str, *features: el.Feature) -> FeatureViewDef:
    """A view over the dataset of its name."""
    return FeatureViewDef(name, name, "place", features, event_time="event", known_time="known", key="id")


def points(home: Path) -> int:
    """Our frame of two views with one point feature each."""
    service = FeatureServiceDef("points", [view(n, el.last("x", ttl="30d")) for n in "ab"])
    spine = pl.read_parquet(home / "spine.parquet")
    return len(history(service, spine, {n: home / f"{n}.parquet" for n in "ab"}, at="at"))


def asof(home: Path) -> int:
    """The same columns by an ASOF join a view, written by hand."""
    with duckdb.connect() as connection:
        for name in "ab":
            connection.execute(
                f"CREATE TABLE answer_{name} AS SELECT q, x FROM '{home}/spine.parquet' s ASOF LEFT JOIN "
                f"'{home}/{name}.parquet' f ON f.place = s.place AND s.at > f.known"
            )
    return 0


def windows(home: Path) -> int:
    """Our frame of four windows."""
    service = FeatureServiceDef("windows", [view("w", *WINDOWS)])
    return len(history(service, pl.read_parquet(home / "asked.parquet"), {"w": home / "w.parquet"}, at="at"))


def warm() -> None:
    """Load what a first frame loads, on one row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.parquet"
        facts(1, 1, 0).write_parquet(path)
        history(FeatureServiceDef("warm", [view("w", el.last("x"))]), questions(1, 1), {"w": path}, at="at")


MEASURED: dict[str, Callable[[Path], int]] = {"points": points, "asof": asof, "windows": windows}


def measured(name: str, home: Path) -> tuple[float, float]:
    """CPU seconds of all threads, and peak MB, of one act in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, str(home)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["cpu"], found["peak"]


def feast(home: Path) -> tuple[float, float] | None:
    """What Feast's DuckDB store takes for the two views; None when it cannot be installed."""
    for name in "ab":
        times = pl.read_parquet(home / f"{name}.parquet").with_columns(pl.from_epoch("event", "us"))
        times.drop("known").write_parquet(home / f"{name}_times.parquet")
    spine = pl.read_parquet(home / "spine.parquet").with_columns(event_timestamp=pl.from_epoch("at", "us"))
    spine.drop("at").write_parquet(home / "spine_times.parquet")
    python = feast_python()
    if python is None:
        return None
    done = subprocess.run([python, "-c", FEAST, str(home)], check=True, capture_output=True, text=True, env=quiet())
    line = next(line for line in done.stdout.splitlines() if line.startswith("SPENT"))
    cpu, peak = map(float, line.split()[1:3])
    return cpu, peak


def figures(home: Path, *, quick: bool, peer: bool) -> Iterator[Record]:
    """Make the data in `home`, measure."""
    scale = 10 if quick else 1
    entities, asked, rows = 20_000 // scale, 1_000_000 // scale, 5_000_000 // scale
    for seed, name in enumerate("ab"):
        facts(rows, entities, seed).write_parquet(home / f"{name}.parquet")
    questions(asked, entities).write_parquet(home / "spine.parquet")
    ours, peak = min(measured("points", home) for _ in range(2))
    floor, _ = min(measured("asof", home) for _ in range(2))
    what = f"frame: {asked} questions, 2 views of {rows} facts"
    by_hand = "ASOF join by hand"
    yield figure(what, "CPU s", ours, times=1 / 1.3, peer=by_hand, theirs=floor, floor=floor)
    yield figure(f"{what}: peak", "MB", peak, limit=1_500)
    theirs = feast(home) if peer else None
    if theirs is not None:
        yield figure(f"{what}, against Feast", "CPU s", ours, times=6, peer="Feast on DuckDB", theirs=theirs[0])
        yield figure(f"{what}: peak, against Feast", "MB", peak, peer="Feast on DuckDB", theirs=theirs[1])

    rows, asked = 10_000_000 // scale, 200_000 // scale
    facts(rows, 1_000, 5).write_parquet(home / "w.parquet")
    questions(asked, 1_000).write_parquet(home / "asked.parquet")
    ours, peak = measured("windows", home)
    what = f"frame: {asked} questions, {rows} facts, 4 windows"
    yield figure(what, "CPU s", ours, limit=20)
    yield figure(f"{what}: peak", "MB", peak, limit=2_000)


def act(name: str, home: Path) -> None:
    """Do one act in this process, and print what it took: what `measured` starts."""
    warm()
    spent = cpu(lambda: MEASURED[name](home))
    print(json.dumps({"cpu": spent, "peak": peak_memory() / 2**20}))


def main() -> None:
    """Measure, print, end with 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--no-peer", action="store_true", help="do not install and measure Feast")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        act(given.measure[0], Path(given.measure[1]))
        return
    with tempfile.TemporaryDirectory() as home:
        finish(figures(Path(home), quick=given.quick, peer=not given.no_peer))


if __name__ == "__main__":
    main()
