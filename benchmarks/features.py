"""Features: training frames against hand-written DuckDB and Feast, look-ups and pushes against bare LMDB.

Frames are in `features_batch.py`. Floors of the online store move the same bytes without looking at them. Prints a
JSON object a line; exit status 1 when a target is missed.

    python benchmarks/features.py [--quick] [--no-peer]

It ends with `features_online.py`: LMDB, Redis and HTTP against Feast.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import features_batch
import numpy as np
import polars as pl
from figure import tell

from everloop.core.clock import SECOND
from everloop.features import definitions as el
from everloop.features.batch.filling import materialize
from everloop.features.definitions import Feature, FeatureServiceDef, FeatureViewDef
from everloop.features.online import OnlineService, lookup, push
from everloop.features.states.keys import entity_key
from everloop.features.stores.lmdb import LmdbStore

START = 1_356_998_400 * SECOND
ENTITIES = 1_000
missed = []


def report(name: str, unit: str, ours: float, floor: float | None, *, most: float | None = None, **target: Any) -> None:
    """Print one measurement; `most` bounds ours / floor, `at_most` and `at_least` bound ours."""
    ratio = None if not floor else ours / floor
    bound = next(iter(target.values()), most)
    met = ratio is None or most is None or ratio <= most
    met = met and ours <= target.get("at_most", ours) and ours >= target.get("at_least", ours)
    line = {"name": name, "unit": unit, "ours": ours, "peer": None, "theirs": None, "floor": floor, "ratio": ratio}
    print(json.dumps({k: _rounded(v) for k, v in line.items()} | {"target": bound, "met": met}), flush=True)
    if not met:
        missed.append(name)


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def facts(rows: int, days: int, seed: int) -> pl.DataFrame:
    """Facts known up to two hours after they happened."""
    rng = np.random.default_rng(seed)
    event = START + rng.integers(0, days * 86_400, rows) * SECOND
    known = event + rng.integers(0, 7_200, rows) * SECOND
    place, other = (rng.integers(0, ENTITIES, rows) for _ in range(2))
    columns = {"id": np.arange(rows), "place": place, "other": other, "x": rng.normal(0, 30, rows).round(3)}
    return pl.DataFrame(columns | {"event": event, "known": known})


def view(name: str, entity: str, *features: Feature) -> FeatureViewDef:
    """A view over the facts."""
    return FeatureViewDef(name, "facts", entity, features, event_time="event", known_time="known", key="id")


WINDOWS = features_batch.WINDOWS


def online(home: Path, *, quick: bool) -> None:
    """Look-ups of one entity of two views, pushes, and filling from Parquet."""
    rows, asked = (40_000, 2_000) if quick else (200_000, 20_000)
    arrived = facts(rows, 30, 3).sort("known")
    arrived.write_parquet(home / "arrived.parquet")
    kinds = {"windowed": WINDOWS, "point": (el.last("x", ttl="30d"),)}
    for kind, features in kinds.items():
        views = [view("a", "place", *features), view("b", "other", *features)]
        with_store(home / kind, kind, views, arrived, asked)


def with_store(path: Path, kind: str, views: list[FeatureViewDef], arrived: pl.DataFrame, asked: int) -> None:
    """Measure one kind of features."""
    store = LmdbStore(path)
    service = OnlineService.of("p", FeatureServiceDef("s", views), {"a": kind + "a", "b": kind + "b"})
    batches = [part.to_dict(as_series=False) for part in arrived.iter_slices(10_000)]
    began = time.process_time()
    for batch in batches:
        for prepared in service.views:
            push(store, prepared, batch)
    rate = 2 * len(arrived) / (time.process_time() - began)
    report(f"push, {kind}, batches of 10000", "facts/CPU s", rate, None, at_least=20_000)

    at = int(arrived["known"].max()) + 1  # type: ignore[arg-type]
    spent, bare = [], []
    for i in range(asked):
        place, other = i % ENTITIES, i * 7 % ENTITIES
        began = time.perf_counter_ns()
        lookup(store, service, [{"place": place, "other": other}], at)
        spent.append(time.perf_counter_ns() - began)
        began = time.perf_counter_ns()
        for prepared, entity in zip(service.views, (place, other), strict=True):
            store.read([(prepared.space, [b"s" + (entity_key([entity]) or b"")])])
        bare.append(time.perf_counter_ns() - began)
    for name, percentile, bound in (("p50", 50, 60 if kind == "windowed" else 30), ("p99", 99, None)):
        ours, floor = (float(np.percentile(times, percentile)) / 1000 for times in (spent, bare))
        limit = {} if bound is None else {"at_most": bound}
        report(f"look-up of one entity of two views, {kind}, {name}", "us", ours, floor, **limit)

    store.drop(service.views[0].space)
    began = time.process_time()
    materialize(store, service.views[0], path.parent / "arrived.parquet", at)
    rate = len(arrived) / (time.process_time() - began)
    report(f"materialise, {kind}", "facts/CPU s", rate, None, at_least=100_000)
    store.close()


def main() -> int:
    """Run all; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--no-peer", action="store_true", help="do not install Feast")
    arguments = parser.parse_args()
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as home:
        met = tell(features_batch.figures(Path(home), quick=quick, peer=not arguments.no_peer))
        online(Path(home), quick=quick)
    flags = [*(["--quick"] if quick else []), *(["--no-feast"] if arguments.no_peer else [])]
    beside = [sys.executable, str(Path(__file__).with_name("features_online.py")), *flags]
    return 1 if subprocess.run(beside, check=False).returncode or missed or not met else 0


if __name__ == "__main__":
    sys.exit(main())
