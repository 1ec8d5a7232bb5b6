"""Capture against `cp` plus BLAKE3: MB of Parquet file per CPU second (user + system, all threads), best of several.

The peer copies the same file and hashes the copy: the least that anything can do which keeps and identifies bytes. We
also decode every value, digest it by its meaning, and record a version in the catalog.

    python benchmarks/capture.py [--quick]

Every shape has the same target, which most miss (docs/decisions/capture-cost.md has the figures and the reasons).
A workspace is warm before it is measured: one small table was captured into it, so that what counts is the work, not
the first use of the database. `profile` is off, as it is unless asked for: profiles are made on first use.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data import Files, SourceDef
from everloop.data.capturing import capture
from everloop.store import open_store

TARGET = 0.5


def floats(rows: int) -> pa.Table:
    """Eight columns of random numbers: nothing to compress."""
    chance = np.random.default_rng(0)
    return pa.table({f"x{i}": chance.random(rows) for i in range(8)})


def events(rows: int) -> pa.Table:
    """Ids, times, amounts, places."""
    chance = np.random.default_rng(1)
    return pa.table(
        {
            "id": chance.integers(0, 2**62, rows),
            "at": pa.array(np.sort(chance.integers(0, 2**50, rows)), pa.timestamp("us", "UTC")),
            "user": chance.integers(0, 10**6, rows),
            "amount": chance.lognormal(3, 1, rows),
            "lat": chance.uniform(-90, 90, rows),
            "lon": chance.uniform(-180, 180, rows),
        }
    )


def flights(rows: int) -> pa.Table:
    """Codes and small integers, which Parquet packs well."""
    chance = np.random.default_rng(2)
    carriers, tails = np.array(["UA", "AA", "DL", "B6"]), np.array([f"N{i:05d}" for i in range(4000)])
    return pa.table(
        {
            "id": np.arange(rows),
            "carrier": carriers[chance.integers(0, 4, rows)],
            "tail": tails[chance.integers(0, 4000, rows)],
            "hour": chance.integers(0, 24, rows),
            "delay": pa.array(chance.integers(-30, 300, rows), mask=chance.random(rows) < 0.03),
            "distance": chance.integers(10, 400, rows) * 10,
        }
    )


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the whole process, and what the work returned."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


def copy_and_hash(path: Path, folder: Path) -> bytes:
    """The peer."""
    target = folder / f"copy-{time.monotonic_ns()}"
    shutil.copyfile(path, target)
    digest = blake3().update_mmap(target).digest()
    target.unlink()
    return digest


def captured(path: Path, folder: Path, key: tuple[str, ...]) -> tuple[float, float]:
    """Capture into a fresh workspace; only the capture counts, not the making of the workspace."""
    home = Path(tempfile.mkdtemp(dir=folder))
    catalog = Catalog.open(home / "catalog.db")
    ctx = Context(Actor.of("bench"), "bench", SystemClock(), catalog, open_store(str(home / "objects")), home=home)
    source = SourceDef("t", Files(path.name), key=key)
    capture(ctx, SourceDef("warm", Files("warm.parquet")), root=path.parent)
    seconds, found = cpu(lambda: capture(ctx, source, root=path.parent))
    again, second = cpu(lambda: capture(ctx, source, root=path.parent))
    assert second.id == found.id
    assert not second.read
    catalog.close()
    shutil.rmtree(home)
    return seconds, again


def line(name: str, ours: float, theirs: float, floor: float) -> bool:
    """Print one figure; whether it met its target."""
    ratio = ours / theirs
    met = ratio >= TARGET
    record = {"name": name, "unit": "MB per CPU second", "ours": round(ours, 1), "peer": "cp + BLAKE3"}
    record |= {"theirs": round(theirs, 1), "floor": round(floor, 1), "ratio": round(ratio, 3)}
    print(json.dumps(record | {"target": TARGET, "met": met}), flush=True)
    return met


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="smaller tables, fewer repeats")
    quick = arguments.parse_args().quick
    rows, repeats = (1_000_000, 3) if quick else (4_000_000, 5)
    met = True
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pq.write_table(floats(10), place / "warm.parquet")
        for make, key in ((floats, ()), (events, ()), (flights, ()), (events, ("id",)), (flights, ("id",))):
            path = place / f"{make.__name__}.parquet"
            if not path.exists():
                pq.write_table(make(rows), path)
            size = path.stat().st_size / 1e6
            copies = [cpu(lambda p=path: copy_and_hash(p, place))[0] for _ in range(repeats)]
            ours = [captured(path, place, key) for _ in range(repeats)]
            hashing = min(cpu(lambda p=path: blake3().update_mmap(p).digest())[0] for _ in range(repeats))
            name = f"capture {make.__name__}{' by key' if key else ''}, {rows} rows, {size:.0f} MB"
            met &= line(name, size / min(o[0] for o in ours), size / min(copies), size / hashing)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
