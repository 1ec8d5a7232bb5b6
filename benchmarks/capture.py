"""Capture against `cp` plus BLAKE3: CPU seconds (user + system, all threads) a GB of Parquet, best of several.

The peer copies the same file and hashes the copy: the least that anything can do which keeps and identifies bytes. We
also decode every value, digest it by its meaning, and record a version in the catalog.

    python benchmarks/capture.py [--quick]

Every shape has the same target, which most miss (docs/decisions/capture-cost.md has the figures and the reasons).
A workspace is warm before it is measured: one small table was captured into it, so that what counts is the work, not
the first use of the database. `profile` is off, as it is unless asked for: profiles are made on first use.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from figure import Record, cpu, figure, finish

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


def copy_and_hash(path: Path, folder: Path) -> bytes:
    """The peer."""
    target = folder / f"copy-{time.monotonic_ns()}"
    shutil.copyfile(path, target)
    digest = blake3().update_mmap(target).digest()
    target.unlink()
    return digest


def captured(path: Path, folder: Path, key: tuple[str, ...]) -> float:
    """CPU seconds of a capture into a fresh workspace, without the making of the workspace."""
    home = Path(tempfile.mkdtemp(dir=folder))
    catalog = Catalog.open(home / "catalog.db")
    ctx = Context(Actor.of("bench"), "bench", SystemClock(), catalog, open_store(str(home / "objects")), home=home)
    source = SourceDef("t", Files(path.name), key=key)
    capture(ctx, SourceDef("warm", Files("warm.parquet")), root=path.parent)
    found: list[Any] = []
    seconds = cpu(lambda: found.append(capture(ctx, source, root=path.parent)))
    found.append(capture(ctx, source, root=path.parent))
    first, second = found
    assert second.id == first.id
    assert not second.read
    catalog.close()
    shutil.rmtree(home)
    return seconds


def figures(*, quick: bool) -> Iterator[Record]:
    """Every shape, with and without a key."""
    rows, repeats = (1_000_000, 3) if quick else (4_000_000, 5)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pq.write_table(floats(10), place / "warm.parquet")
        for make, key in ((floats, ()), (events, ()), (flights, ()), (events, ("id",)), (flights, ("id",))):
            path = place / f"{make.__name__}.parquet"
            if not path.exists():
                pq.write_table(make(rows), path)
            size = path.stat().st_size / 1e9
            copies = min(cpu(lambda p=path: copy_and_hash(p, place)) for _ in range(repeats))
            ours = min(captured(path, place, key) for _ in range(repeats))
            hashing = min(cpu(lambda p=path: blake3().update_mmap(p).digest()) for _ in range(repeats))
            name = f"capture {make.__name__}{' by key' if key else ''}, {rows} rows, {size * 1e3:.0f} MB"
            yield figure(
                name,
                "CPU s a GB",
                ours / size,
                times=TARGET,
                peer="cp + BLAKE3",
                theirs=copies / size,
                floor=hashing / size,
            )


def main() -> None:
    """Measure, print, end with 1 when a target was missed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="smaller tables, fewer repeats")
    finish(figures(quick=arguments.parse_args().quick))


if __name__ == "__main__":
    main()
