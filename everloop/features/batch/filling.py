"""Backfill: filling the online store from a dataset version, part by part, incremental and resumable.

The parts of a dataset are files that never change. The view's space in the store says of each part up to which known
time its facts have been pushed: a run that died goes on where it stopped, and a new version reads only the parts that
are new, and of the others what became known since. A part is read in the order of its entities (DuckDB sorts, on disk
where it must), so that the facts of one entity are merged into its state together.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import duckdb
from blake3 import blake3

from everloop.core.clock import Micros
from everloop.core.ports import OnlineStore
from everloop.features.batch.scan import Paths, Scan, column_types, engine, listed, parquet
from everloop.features.online import OnlineView, Pushed, advance, push_facts

_PART, _DIGEST = b"p", 16
_WORD = struct.Struct("<q")


def materialize(
    store: OnlineStore,
    view: OnlineView,
    paths: Paths,
    up_to: Micros,
    *,
    again: bool = False,
    threads: int | None = None,
    memory: str = "1GB",
) -> Pushed:
    """Push every fact of the Parquet files that was known before `up_to`, then move the watermark there.

    May be repeated, may overlap with `push` and may stop half-way: facts that are there already change nothing, and
    parts that were pushed are passed over (`again` reads them all the same, for a store that lost values).
    Returns the facts read, how many were new, and entities touched, summed over batches.
    """
    read = new = touched = 0
    with engine(threads, memory) as connection:
        parts = _parts(connection, view, listed(paths))
        keys = [_key(part) for part in parts]
        marks = store.read([(view.space, keys)])[0] if keys else []
        for part, key, mark in zip(parts, keys, marks, strict=True):
            since = None if mark is None or again else int(_WORD.unpack(mark)[0])
            if since is not None and since >= up_to:
                continue
            for facts, columns in Scan(connection, view.view, part).known(up_to, since=since):
                done = push_facts(store, view, facts, columns)
                read, new, touched = read + done.facts, new + done.new, touched + done.entities
            store.write(view.space, [(key, _WORD.pack(up_to))])
    advance(store, view, up_to)
    return Pushed(read, new, touched)


def _parts(connection: duckdb.DuckDBPyConnection, view: OnlineView, paths: Sequence[str]) -> list[tuple[str, ...]]:
    """What is read at a time: one file, or all where one lacks a column that others have."""
    needed = set(view.view.columns)
    if all(needed <= column_types(connection, parquet(path)).keys() for path in paths):
        return [(path,) for path in paths]
    return [tuple(paths)] if paths else []


def _key(part: Sequence[str]) -> bytes:
    """Names a part by path, size and time of its files: another file in its place is another part."""
    said = []
    for path in part:
        status = Path(path).stat()
        said.append(f"{path}\0{status.st_size}\0{status.st_mtime_ns}")
    return _PART + blake3("\0".join(said).encode()).digest(_DIGEST)
