"""Tables: speed of a capture, bytes of a change, a diff of many rows, memory at a hundred million rows.

Run by `data.py`. Figures of ours and of the peers are of the work alone, without the start of a process; a peer works
in its own environment and prints its CPU seconds.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from figure import Record, cpu, figure

from everloop import data
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.data import Files, SourceDef
from everloop.data.capturing import capture
from everloop.data.differences import compare
from everloop.data.editing import edit
from everloop.data.heads import find_version
from everloop.flows.observation.using import peak_memory
from everloop.store import open_store

HERE = "sandbox/bench/x"
MEMORY = 2 * 2**30
_STEP = 61_803_399
"""Coprime to the numbers of rows: multiples of it, modulo these, are each number once, in no order."""
_DVC = """
import json, os, resource, shutil, sys, tempfile
os.chdir(sys.argv[1])
def add():
    os.environ["DVC_SITE_CACHE_DIR"] = known = tempfile.mkdtemp()  # else it knows the file's hash the second time
    from dvc.repo import Repo
    repo = Repo.init(".", no_scm=True)
    repo.add("warm.parquet")  # what it loads on first use does not count, on neither side
    before = resource.getrusage(resource.RUSAGE_SELF)
    repo.add("t.parquet")
    after = resource.getrusage(resource.RUSAGE_SELF)
    repo.close()
    for folder in (".dvc", known):
        shutil.rmtree(folder)
    for file in ("t.parquet.dvc", "warm.parquet.dvc"):
        os.unlink(file)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps(min(add() for _ in range(2))))
"""
_DELTA = """
import json, os, sys
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
place, base, changed, how = sys.argv[1:]
def size():
    return sum(os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(place) for n in names)
write_deltalake(place, pq.read_table(base))
before = size()
merge = DeltaTable(place).merge(pq.read_table(changed), "t.id = s.id", source_alias="s", target_alias="t")
if how == "delete":
    merge.when_matched_delete().execute()
else:
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
print(json.dumps((size() - before) / before))
"""


def figures(quick: bool, peers: Path) -> Iterator[Record]:
    """Every figure of tables."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        yield from captures(place, peers, megabytes=200 if quick else 2_000)
        yield from changes(place, peers, rows=120_000 if quick else 2_000_000)
        yield difference(place, rows=2_000_000 if quick else 20_000_000)
        yield memory(place, rows=2_000_000 if quick else 100_000_000)


def workspace(folder: Path) -> Context:
    """A fresh one."""
    home = Path(tempfile.mkdtemp(dir=folder))
    catalog = Catalog.open(f"sqlite:///{home / 'catalog.db'}")
    actor = Actor.of("bench", grants=["* */*@*#*"])
    return Context(actor, "bench", SystemClock(), catalog, open_store(str(home / "objects")), home=home)


def stored(ctx: Context) -> int:
    """Bytes of all objects."""
    return sum(ctx.store.size(identity) for identity in ctx.store.ids())


def asked(python: Path, script: str, *arguments: str) -> float:
    """The number that a peer's script prints."""
    done = subprocess.run([python, "-c", script, *arguments], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def events(start: int, rows: int) -> pa.Table:
    """Ids, amounts, places: most of it does not compress."""
    chance = np.random.default_rng(start)
    numbers = np.arange(start, start + rows, dtype=np.int64)
    return pa.table(
        {
            "id": numbers * 3,
            "amount": chance.lognormal(3, 1, rows),
            "lat": chance.uniform(-90, 90, rows),
            "user": chance.integers(0, 10**6, rows),
        }
    )


def captures(place: Path, peers: Path, megabytes: int) -> Iterator[Record]:
    """One Parquet file against `dvc add` of it, and against the least: copy and hash."""
    folder = place / "capture"
    folder.mkdir()
    path = folder / "t.parquet"
    with pq.ParquetWriter(path, events(0, 1).schema) as writer:
        rows = 0
        while rows == 0 or path.stat().st_size < megabytes * 10**6:
            writer.write_table(events(rows, 1_000_000))
            rows += 1_000_000
    size = path.stat().st_size / 1e6
    pq.write_table(events(0, 10), folder / "warm.parquet")

    def ours() -> float:
        ctx = workspace(place)
        capture(ctx, SourceDef("warm", Files("warm.parquet")), root=folder)
        spent = cpu(lambda: capture(ctx, SourceDef("t", Files("t.parquet")), root=folder))
        ctx.catalog.close()
        shutil.rmtree(ctx.home)
        return spent

    def copy_and_hash() -> None:
        shutil.copyfile(path, folder / "copy")
        blake3().update_mmap(folder / "copy").digest()
        (folder / "copy").unlink()

    spent = min(ours() for _ in range(2))
    floor = min(cpu(copy_and_hash) for _ in range(2))
    theirs = asked(peers, _DVC, str(folder))
    name = f"capture of a table, {rows} rows, {size:.0f} MB"
    yield figure(name, "CPU seconds", spent, times=5, peer="dvc add", theirs=theirs, floor=floor)
    yield figure(f"{name}, to copy and hash", "times", spent / floor, limit=1.5, floor=1)
    shutil.rmtree(folder)


def flights(rows: int) -> pl.DataFrame:
    """Codes, numbers, notes; ids with room between them."""
    chance = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": np.arange(rows) * 3,
            "tail": [f"N{i:05d}" for i in chance.integers(0, 4000, rows)],
            "delay": chance.normal(10, 30, rows),
            "distance": chance.integers(50, 5000, rows),
        }
    )


def changes(place: Path, peers: Path, rows: int) -> Iterator[Record]:
    """New bytes for a change of one percent, as a share of version 1, against a Delta merge."""
    base = flights(rows)
    new = flights(rows // 100)
    picked = pl.Series(np.random.default_rng(1).random(rows) < 0.01)
    near = base.slice(rows // 3, rows // 100)
    scattered = base.filter(picked).with_columns(delay=pl.lit(1.25), distance=pl.lit(77, pl.Int64))
    cases = {
        "contiguous": (0.03, near.with_columns(delay=pl.lit(0.5)), "upsert"),
        "insert": (0.03, new.with_columns(id=pl.col("id") + rows + 1), "upsert"),
        "delete": (0.04, near, "delete"),
        "append": (0.015, new.with_columns(id=pl.col("id") + 3 * rows), "upsert"),
        "scattered in two columns": (0.08, scattered, "upsert"),
        "scattered deletes": (0.02, base.filter(picked), "delete"),
    }
    plain = place / "base.parquet"
    pq.write_table(base.to_arrow(), plain)
    for number, (name, (target, rows_, mode)) in enumerate(cases.items()):
        ctx = workspace(place)
        edit(ctx, "t", base, "append", HERE, contract=data.Contract.of("id"))
        first = stored(ctx)
        if not number:
            yield figure("base size, to one plain Parquet file", "times", first / plain.stat().st_size, limit=1.1)
        edit(ctx, "t", rows_.select("id") if mode == "delete" else rows_, mode, HERE)
        share = (stored(ctx) - first) / first
        pq.write_table(rows_.to_arrow(), place / "changed.parquet")
        delta = place / f"delta-{number}"
        theirs = asked(peers, _DELTA, str(delta), str(plain), str(place / "changed.parquet"), mode)
        told = f"new bytes for 1 %: {name}"
        yield figure(told, "share of version 1", share, limit=target, peer="deltalake merge", theirs=theirs)
        ctx.catalog.close()
        shutil.rmtree(ctx.home)
        shutil.rmtree(delta)


def many(folder: Path, rows: int, *, scattered: bool = False) -> SourceDef:
    """A source of so many rows, in files of five million; in the order of their keys, or in none."""
    folder.mkdir()
    for start in range(0, rows, 5_000_000):
        table = events(start, min(5_000_000, rows - start))
        if scattered:
            places = np.arange(start, start + table.num_rows, dtype=np.int64) * _STEP % rows
            table = table.set_column(0, "id", pa.array(places * 3))
        pq.write_table(table, folder / f"{start:012d}.parquet")
    return SourceDef("t", Files("*.parquet"), key=("id",))


def one_percent(rows: int) -> pl.DataFrame:
    """Rows at random places, with another amount."""
    chance, step = np.random.default_rng(7), 1_000_000  # in steps: what is drawn counts as memory of the process
    picked = np.concatenate([at + np.flatnonzero(chance.random(step) < 0.01) for at in range(0, rows, step)])
    return pl.DataFrame({"id": picked * 3, "amount": np.full(len(picked), 0.5), "lat": 0.0, "user": np.int64(5)})


def difference(place: Path, rows: int) -> Record:
    """Counts by key of two versions, one percent changed at random places."""
    folder = place / "many"
    source = many(folder, rows)
    ctx = workspace(place)
    old = capture(ctx, source, HERE, root=folder).id
    come = one_percent(rows)
    new = edit(ctx, "t", come, "upsert", HERE).id
    began = time.perf_counter()
    used = cpu(lambda: compare(ctx, old, new, examples=False))
    seconds = time.perf_counter() - began
    found = compare(ctx, old, new, examples=False)
    assert (found.added, found.removed, found.changed) == (0, 0, come.height)
    shutil.rmtree(folder)
    return figure(f"diff of {rows} rows, 1 % changed", "seconds", seconds, limit=1, cpu_seconds=round(used, 3))


def memory(place: Path, rows: int) -> Record:
    """Peak memory of a process that captures, changes, diffs and reads so many rows."""
    many(place / "hundred", rows, scattered=True)
    done = subprocess.run(
        [sys.executable, __file__, str(place / "hundred"), str(rows)], check=True, capture_output=True
    )
    shutil.rmtree(place / "hundred")
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"capture, edit, diff and read of {rows} rows"
    return figure(name, "bytes of memory", max(found["peaks"].values()), limit=MEMORY, **found)


def main() -> None:
    """The process whose memory is measured: the highest so far after each piece of work."""
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    spent, peaks = {}, {}

    def measured(name: str, work: Callable[[], Any]) -> None:
        spent[name] = round(cpu(work), 1)
        peaks[name] = peak_memory()

    with tempfile.TemporaryDirectory(dir=folder.parent) as home:
        ctx = workspace(Path(home))
        source = SourceDef("t", Files("*.parquet"), key=("id",))
        measured("start", lambda: None)
        measured("capture", lambda: capture(ctx, source, HERE, root=folder))
        measured("edit", lambda: edit(ctx, "t", one_percent(rows), "upsert", HERE))
        old, new = find_version(ctx, "t@1").id, find_version(ctx, "t@2").id
        measured("diff", lambda: compare(ctx, old, new))
        seen = 0

        def read() -> None:
            nonlocal seen
            for table in data.read(ctx, "t", "batches", seed=1):
                seen += table.num_rows

        measured("read", read)
        assert seen == rows
    print(json.dumps({"peaks": peaks, "cpu_seconds": spent}))


if __name__ == "__main__":
    main()
