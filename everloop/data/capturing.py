"""Capture: what a source holds now becomes a version. Unchanged input is not read; unchanged rows make no version."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import facts, placements, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.steps import StepRow
from everloop.core.errors import DataError, NotFound
from everloop.core.grants import SANDBOX
from everloop.core.ids import manifest_id
from everloop.core.ports import Source
from everloop.core.version import Version
from everloop.data.codec import check_contract
from everloop.data.content.files import layered_file
from everloop.data.content.logical import BLOCK, RULE, Digest, Hasher
from everloop.data.content.parts import UNKEYED_ROWS, Part, Stored, before_of, data_version, known_to, store_table
from everloop.data.content.schema import is_bytes, is_lists, is_text, plain_schema, plain_type
from everloop.data.definitions import SQL, Call, Files, Folder, Query, SourceDef, Table
from everloop.data.evolution.rules import captured_schema, evolved_batches
from everloop.data.expect import ExpectationResult
from everloop.data.failures import full_disk_is_storage_full
from everloop.data.heads import advance_head, find_version, head
from everloop.data.profiles import profile_of
from everloop.data.sensitive import scanning
from everloop.data.sources.call import CallSource
from everloop.data.sources.cursor import CursorSource
from everloop.data.sources.duck import DuckSource, is_duckdb
from everloop.data.sources.files import FileSource
from everloop.data.sources.incremental import Step, progress_of, step_on
from everloop.data.sources.sql import SqlSource
from everloop.data.sources.table import TableSource
from everloop.data.sources.warehouse import WarehouseSource
from everloop.data.streams.committing import begin
from everloop.data.streams.origins import Feed
from everloop.data.trees.source import FolderSource


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture made."""

    id: str
    number: int
    rows: int
    new: bool
    """Whether this content was not there before under this name."""
    read: bool
    """Whether the input was read; False when its fingerprint had not changed."""
    results: tuple[ExpectationResult, ...] = ()


def open_source(ctx: Context, source: SourceDef, root: Path | None = None) -> Source:
    """The reader of a source; `root` is the project's folder (default: the current one)."""
    origin = source.origin
    if isinstance(origin, Files):
        return FileSource((root or Path.cwd()).absolute(), origin, ctx.bindings, ctx.home / "scratch")
    if isinstance(origin, SQL):
        made = (DuckSource if is_duckdb(origin, ctx.bindings) else SqlSource)(origin, ctx.bindings)
        return CursorSource(made) if origin.cursor else made
    if isinstance(origin, Query):
        return WarehouseSource(source, origin, ctx.bindings)
    if isinstance(origin, Table):
        return TableSource(origin, source.name)
    if isinstance(origin, Folder):
        return FolderSource(ctx, origin, source.name, (root or Path.cwd()).absolute())
    assert isinstance(origin, Call)
    return CallSource(origin, ctx.now())


def capture(
    ctx: Context, source: SourceDef, environment: str = "", *, root: Path | None = None, profile: bool = False
) -> Captured:
    """Read a source into a version of kind `data`, and move the environment's head to it.

    The version's profile is made when somebody first asks for it (`profile_of`), for it costs more than all the rest;
    with `profile` it is made now. Nothing is recorded unless all of it is: on an error no version, no placement and no
    head has changed. Raises `DataError` (file and line where there are any), `InvalidInput` (no such binding),
    `NotFound` (no such file), `StorageFull`, `Unavailable` (the database does not answer), and `PolicyRefused` when a
    blocking expectation fails: then the version is kept for inspection and the head stays.
    """
    if isinstance(source.origin, Feed):
        return _fed(ctx, source, environment)
    began, cpu = time.perf_counter(), time.process_time()
    opened = open_source(ctx, source, root)
    definition = source.version()
    state = opened.state()
    recipe = manifest_id({"capture": definition.id, "state": dict(state), "rule": RULE})
    found = _unchanged(ctx, recipe) if state else None
    if found is None:
        with full_disk_is_storage_full():
            step = step_on(ctx, source, opened, state, environment) or _read(ctx, source, opened, state)
        version, stored = step.version, step.stored
        row = StepRow(
            recipe=recipe,
            step=definition.key,
            output=version.id,
            code=definition.id,
            runtime="",
            params=step.progress,
            inputs={},
            at=ctx.now(),
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu,
        )
        found = _record(ctx, opened, (definition, version), stored, row)
    scanning.scan_new(ctx, source.name, found.id)  # before the head moves: who reads it there finds the tags in force
    if profile:
        profile_of(ctx, found.id)
    if not environment:
        return found
    results = advance_head(ctx, environment, source.name, found.id, source.contract.expect)
    return Captured(found.id, found.number, found.rows, found.new, found.read, results)


def _fed(ctx: Context, source: SourceDef, environment: str) -> Captured:
    """What a feed brought so far: its consumer makes the versions.

    One that brought nothing yet is empty: what reads it can be built before its first event, which nobody could push
    otherwise. A protected environment has it as its head; a sandbox goes on to look for what comes elsewhere.
    """
    name, protected = source.name, bool(environment) and not environment.startswith(SANDBOX)
    if not protected or head(ctx, environment, name) is not None:
        try:
            row = find_version(ctx, f"data/{name}" if not environment else name, environment)
            return Captured(row.id, row.number, int(row.manifest["rows"]), new=False, read=False)
        except NotFound:
            pass
    made = begin(ctx, source, environment if protected else "")
    return Captured(made.id, made.number, made.rows, new=True, read=False)


def _unchanged(ctx: Context, recipe: str) -> Captured | None:
    with ctx.read() as tx:
        row = steps.lookup(tx, ctx.project, recipe)
        if row is None or row.output is None:
            return None
        try:
            version = versions.get(tx, ctx.project, row.output)
        except NotFound:
            return None
    return Captured(version.id, version.number, int(version.manifest["rows"]), new=False, read=False)


def _record(ctx: Context, opened: Source, made: tuple[Version, Version], stored: Stored, row: StepRow) -> Captured:
    version = made[1]
    rows, placed = int(version.manifest["rows"]), stored.placements
    with ctx.write() as tx:
        if isinstance(opened, FolderSource):
            opened.record(tx)
        placements.put(tx, ctx.project, placed)
        placements.rest(tx, ctx.project, stored.rests)
        actor, at = ctx.actor.name, ctx.now()
        _, numbered = versions.put_many(tx, ctx.project, list(made), actor=actor, at=at)
        steps.record(tx, ctx.project, row)
        if numbered.new:
            payload = {"version": version.id, "number": numbered.number, "rows": rows, "new_parts": len(placed)}
            facts.append(tx, ctx.project, ctx.fact("data.captured", version.key, payload))
    if isinstance(opened, FolderSource):
        opened.remember()
    return Captured(version.id, numbered.number, rows, numbered.new, read=True)


def _read(ctx: Context, source: SourceDef, opened: Source, state: Mapping[str, Any]) -> Step:
    """All that the source holds."""
    if isinstance(opened, WarehouseSource) and opened.query.keep == "warehouse":
        return Step(opened.pinned(), Stored(pa.schema([]), 0))
    if isinstance(opened, FileSource) and opened.files.only_new and state:
        opened = opened.narrowed([name for name, *_ in state["files"]])  # those that the progress tells of
    if isinstance(opened, FileSource) and opened.in_place and not source.key and opened.files.format == "parquet":
        stored = _store_files(ctx, source, opened)
    else:
        stored = _store_rows(ctx, source, opened)
    version = data_version(source.name, stored, source.contract, (("source", source.version().id),))
    return Step(version, stored, progress_of(opened, state))


def _store_rows(ctx: Context, source: SourceDef, opened: Source) -> Stored:
    with ExitStack() as stack:
        batches = iter(opened.read())
        if isinstance(batches, Generator):
            stack.callback(batches.close)  # what it keeps on the disk goes when the capture fails
        return _store_batches(ctx, source, batches)


def _store_batches(ctx: Context, source: SourceDef, batches: Iterator[pa.RecordBatch]) -> Stored:
    first = next(batches, None)
    if first is None:
        raise DataError(
            f"{source.name}: the source gives no rows and no columns", hint="it needs at least column names"
        )
    schema = _schema_now(ctx, source, first.schema)
    given: Iterator[pa.RecordBatch] = chain([first], batches)
    if not schema.equals(plain_schema(first.schema)):
        given = evolved_batches(given, schema, source.evolution)
    return store_table(
        given,
        schema,
        source.contract.key,
        ctx.store,
        scratch=ctx.home / "scratch",
        known=known_to(ctx),
        before=before_of(ctx, source.name),
        unique=True,
    )


def _schema_now(ctx: Context, source: SourceDef, given: pa.Schema) -> pa.Schema:
    """The columns in which rows of `given` are stored, by those of the version before and what its definition tells."""
    with ctx.read() as tx:
        newest = versions.history(tx, ctx.project, "data", source.name, limit=1)
    before = newest[0].manifest.get("schema_fields", ()) if newest else ()
    schema = captured_schema(before, given, source.evolution, source.name)
    check_contract(schema, source.contract, source.name)
    return schema


def _store_files(ctx: Context, source: SourceDef, opened: FileSource) -> Stored:
    """Parquet files of a table without a key: each is a part as it is, its bytes copied, its content digested.

    Nothing is encoded again, so this costs a copy, two digests and one decoding. Files whose layout readers would not
    agree on (timestamps in milliseconds, dictionaries) take the ordinary way.
    """
    paths = opened.paths()
    schemas = [_schema_of(path) for path in paths]
    unlike = any(not s.equals(schemas[0]) for s in schemas) or not all(_settled(f.type) for f in schemas[0])
    if unlike or any(layered_file(path) for path in paths):  # kept as it is, a file made to look like one would be one
        return _store_rows(ctx, source, opened)
    schema = _schema_now(ctx, source, schemas[0])
    if not schema.equals(plain_schema(schemas[0])):
        return _store_rows(ctx, source, opened)
    stored = Stored(schema, UNKEYED_ROWS)
    for path in paths:
        before = _stamp(path)
        identity = ctx.store.put_file(path)
        part = Part(_file_digest(path))
        if _stamp(path) != before:
            raise DataError(f"{path} was written to while it was read", hint="capture it when its writer is done")
        stored.parts.append(part)
        stored.placements[part.digest.logical] = identity
    return stored


def _schema_of(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file: {error}",
            hint="the file is broken or was cut off while it was written; write it again",
        ) from error


def _settled(type_: pa.DataType) -> bool:
    """Whether every reader gives the plain type for this one."""
    if is_lists(type_):
        return _settled(type_.value_type)
    return bool(is_text(type_) or is_bytes(type_) or type_.equals(plain_type(type_)))


def _stamp(path: Path) -> tuple[int, int, int, int]:
    s = path.stat()
    return s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _file_digest(path: Path) -> Digest:
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            hasher = Hasher(file.schema_arrow)
            for batch in file.iter_batches(BLOCK, use_threads=False):
                hasher.update(batch)
            return hasher.digest()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file: {error}",
            hint="the file is broken or was cut off while it was written; write it again",
        ) from error
