"""Backfill: filling the online store from a dataset version, part by part, incremental and resumable.

The parts of a dataset are files that never change. The view's space in the store says of each part up to which known
time its facts have been pushed: a run that died goes on where it stopped, and a new version reads only the parts that
are new, and of the others what became known since. A part is read in the order of its entities (DuckDB sorts, on disk
where it must), so that the facts of one entity are merged into its state together.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from blake3 import blake3

from everloop.core.clock import Micros
from everloop.core.ports import OnlineStore
from everloop.features.batch.history import rows_with_reads
from everloop.features.batch.reading import Wanted, known_early
from everloop.features.batch.scan import Paths, Scan, column_types, engine, listed, parquet
from everloop.features.online import OnlineView, Pushed, advance, push_facts
from everloop.features.reading import LATE_READS, reach

_PART, _DIGEST = b"p", 16
_FILLED = b"f"
"""Of a view that reads views: up to when it was filled, and from which files."""
_WORD = struct.Struct("<q")


def materialize(
    store: OnlineStore,
    view: OnlineView,
    paths: Paths,
    up_to: Micros,
    *,
    others: Mapping[str, Paths] | None = None,
    again: bool = False,
    threads: int | None = None,
    memory: str = "1GB",
) -> Pushed:
    """Push every fact of the Parquet files that was known before `up_to`, then move the watermark there.

    `others` gives the files of the datasets that the views read which this one reads; see `_with_reads`.

    May be repeated, may overlap with `push` and may stop half-way: facts that are there already change nothing, and
    parts that were pushed are passed over (`again` reads them all the same, for a store that lost values).
    Returns the facts read, how many were new, and entities touched, summed over batches.
    """
    if view.view.reads:
        sources = {view.view.source: paths, **(others or {})}
        return _with_reads(store, view, sources, up_to, again=again, threads=threads, memory=memory)
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


def _with_reads(
    store: OnlineStore,
    view: OnlineView,
    sources: Mapping[str, Paths],
    up_to: Micros,
    *,
    again: bool,
    threads: int | None,
    memory: str,
) -> Pushed:
    """`materialize` for a view that reads views: what became known since the last filling, or all of it anew.

    Anew where a new file of any dataset that it needs holds a row which was known before that, or where facts came late
    while rows were pushed: then earlier rows had other features than batch gives them now.
    """
    definition = view.view
    files = {_key((path,)): (name, path) for name, paths in sources.items() for path in listed(paths)}
    read = new = touched = 0
    with engine(threads, memory) as connection, TemporaryDirectory(prefix="everloop-fill-") as folder:
        since = None if again else _goes_on(store, view, files, connection)
        if since is not None and since >= up_to:
            return Pushed(0, 0, 0)
        if since is None:
            store.drop(view.space)
        wanted = Wanted(up_to, known_since=since)
        paths = rows_with_reads(connection, definition, sources, wanted, Path(folder), threads=threads, memory=memory)
        for facts, columns in Scan(connection, definition, paths).known(up_to) if paths else ():
            done = push_facts(store, view, facts, columns)
            read, new, touched = read + done.facts, new + done.new, touched + done.entities
    store.write(view.space, [(_FILLED, _WORD.pack(up_to) + b"".join(files))])
    reach(store, view, up_to)
    advance(store, view, up_to)
    return Pushed(read, new, touched)


def _goes_on(
    store: OnlineStore,
    view: OnlineView,
    files: Mapping[bytes, tuple[str, str]],
    connection: duckdb.DuckDBPyConnection,
) -> Micros | None:
    """From which known time on a filling goes on where the last one stopped; None when it begins anew."""
    found, late = store.read([(view.space, [_FILLED, LATE_READS])])[0]
    if found is None or late is not None:
        return None
    before, size = int(_WORD.unpack_from(found)[0]), len(_PART) + _DIGEST
    seen = {found[i : i + size] for i in range(_WORD.size, len(found), size)}
    fresh: dict[str, list[str]] = {}
    for key, (name, path) in files.items():
        if key not in seen:
            fresh.setdefault(name, []).append(path)
    past = any(known_early(connection, view.view, name, paths, before) for name, paths in fresh.items())
    return None if past else before


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
