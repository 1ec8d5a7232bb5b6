"""An edit of a dataset by rows, from the version it starts at to the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.core.errors import Conflict, DataError, InvalidInput, NotFound
from everloop.core.ports import Blobs
from everloop.core.version import Version
from everloop.data.capturing import known_to
from everloop.data.codec import check_contract, part_paths, table_batches
from everloop.data.content.files import rows_of
from everloop.data.content.ordering import check_key, cut_size
from everloop.data.content.parts import (
    UNKEYED_ROWS,
    Stored,
    add_part,
    cut_by_count,
    data_version,
    store_table,
)
from everloop.data.content.predecessor import Predecessor
from everloop.data.content.schema import is_text, plain, plain_schema
from everloop.data.definitions import Contract, SourceDef
from everloop.data.editing import Mode
from everloop.data.editing.splice import Edit, Whole, spliced
from everloop.data.expect import Expectation, ExpectationResult
from everloop.data.failures import full_disk_is_storage_full
from everloop.data.heads import advance_head, head


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit made."""

    id: str
    number: int
    rows: int
    new: bool
    parts_kept: int
    parts_new: int
    results: tuple[ExpectationResult, ...] = ()


def edit(
    ctx: Context, name: str, rows: Any, mode: Mode, environment: str, *, contract: Contract | None = None
) -> Edited:
    """Append or upsert `rows` (any table), or delete the rows that have their keys; the head moves if it may.

    The edit starts at the environment's head (without one, at the newest version), which then moves to the result; the
    first append makes the dataset, by `contract`. An upsert replaces all rows of a key. Only parts in whose range a key
    lies are read and written.
    Raises `DataError` (columns, types), `InvalidInput` (no key, a dataset that a function makes), `NotFound`,
    `Conflict` when somebody else edited it meanwhile, `PolicyRefused` when a blocking expectation fails.
    """
    schema, batches = table_batches(rows, name)
    given = plain(pa.Table.from_batches(list(batches), schema))
    before = _before(ctx, name, environment)
    with full_disk_is_storage_full():
        if before is None:
            version, stored, kept = _first(ctx, name, given, mode, contract)
        else:
            version, stored, kept = _next(ctx, before, given, mode)
    number, new = _record(ctx, version, stored, before, mode)
    made = len(version.manifest["parts"]) - kept
    results = advance_head(ctx, environment, name, version.id, _expectations(ctx, name))
    return Edited(version.id, number, int(version.manifest["rows"]), new, kept, made, results)


def _before(ctx: Context, name: str, environment: str) -> versions.VersionRow | None:
    at = head(ctx, environment, name)
    with ctx.read() as tx:
        if versions.history(tx, ctx.project, "dataset", name, limit=1):
            raise InvalidInput(f"data/{name} is made by a function", hint="edit what it is made from, and build again")
        if at is not None:
            return versions.get(tx, ctx.project, at)
        return next(iter(versions.history(tx, ctx.project, "data", name, limit=1)), None)


def _first(
    ctx: Context, name: str, given: pa.Table, mode: Mode, contract: Contract | None
) -> tuple[Version, Stored, int]:
    if mode == "delete":
        raise NotFound(f"there is no data/{name}", hint="`everloop data list` shows what there is")
    contract = contract or _contract(ctx, name)
    given = _timed(given, [column for column in (contract.event_time, contract.known_time) if column])
    check_contract(given.schema, contract, name)
    key = contract.key
    stored = store_table(
        given.to_batches(), given.schema, key, ctx.store, scratch=ctx.home / "scratch", known=known_to(ctx)
    )
    return data_version(name, stored, contract), stored, 0


def _timed(given: pa.Table, times: Sequence[str]) -> pa.Table:
    """Times that came as text (rows in JSON) as times; what is none stays, and is refused by the contract."""
    for column in times:
        at = given.schema.get_field_index(column)
        if at >= 0 and is_text(given.schema.field(at).type):
            try:
                given = given.set_column(at, column, given[column].cast(pa.timestamp("us", "UTC")))
            except pa.ArrowInvalid:
                continue
    return given


def _contract(ctx: Context, name: str) -> Contract:
    found = _definition(ctx, name)
    return found.contract if found is not None else Contract.of()


def _definition(ctx: Context, name: str) -> SourceDef | None:
    with ctx.read() as tx:
        rows = versions.history(tx, ctx.project, "source", name, limit=1)
    return SourceDef.from_manifest(name, rows[0].manifest) if rows else None


def _expectations(ctx: Context, name: str) -> Sequence[Expectation]:
    found = _definition(ctx, name)
    return found.contract.expect if found is not None else ()


def _next(ctx: Context, before: versions.VersionRow, given: pa.Table, mode: Mode) -> tuple[Version, Stored, int]:
    manifest = before.manifest
    key = list(manifest["key"])
    if mode != "append" and not key:
        raise InvalidInput(f"data/{before.name} has no key: rows cannot be told apart", hint="append, or declare a key")
    logicals = [part["logical"] for part in manifest["parts"]]
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, logicals)
    cache = ctx.home / "cache"

    def read(number: int) -> pa.Table:
        only = {**manifest, "parts": manifest["parts"][number : number + 1]}
        return rows_of(part_paths(only, ctx.store, placed, cache)[0])

    first = part_paths({**manifest, "parts": manifest["parts"][:1]}, ctx.store, placed, cache)[0]
    schema = plain_schema(pq.read_schema(first))
    stored = Stored(schema, int(manifest["cut"]))
    shelf = Predecessor(manifest, placed, ctx.store, cache)
    parts: list[Mapping[str, Any]] = []
    whole = Whole(manifest["parts"], key, schema, stored.cut, read, ctx.home / "scratch")
    kept = 0
    for piece in _pieces(whole, _wanted(given, schema, key, mode, before.name), mode):
        if isinstance(piece, int):
            parts.append(manifest["parts"][piece])
            kept += 1
        else:
            add_part(stored, piece, key, ctx.store, known=known_to(ctx), before=shelf)
            parts.append(stored.parts[-1].manifest())
    rows = sum(part["rows"] for part in parts)
    cut = cut_size(rows) if key else stored.cut
    changed = {**manifest, "cut": cut, "rows": rows, "parts": parts}
    return Version("data", before.name, changed, (("before", before.id),)), stored, kept


def _pieces(whole: Whole, given: pa.Table, mode: Mode) -> Any:
    if whole.key:
        keys = given.select(list(whole.key))
        nothing = keys.slice(0, 0)
        rows = whole.schema.empty_table() if mode == "delete" else given
        return spliced(whole, Edit(rows, nothing if mode == "append" else keys))
    return _appended(whole, given)


def _appended(whole: Whole, given: pa.Table) -> Any:
    """Without a key: rows fill the last part, as a capture of them all would have cut them, then make new ones."""
    last = len(whole.parts) - 1
    full = all(part["rows"] == UNKEYED_ROWS for part in whole.parts[:-1])
    fill = full and whole.parts[last]["rows"] < UNKEYED_ROWS
    yield from range(last if fill else last + 1)
    if fill or given.num_rows:
        yield from cut_by_count([whole.read(last), given] if fill else [given], whole.schema, UNKEYED_ROWS)


def _wanted(given: pa.Table, schema: pa.Schema, key: list[str], mode: Mode, name: str) -> pa.Table:
    """`given` in the dataset's columns and types; for a deletion its key alone."""
    wanted = pa.schema([schema.field(column) for column in key]) if mode == "delete" else schema
    missing = [column for column in key if column not in given.column_names]
    extra = [column for column in given.column_names if column not in schema.names]
    if missing or extra:
        what = f"have no column {missing[0]!r}" if missing else f"have a column {extra[0]!r} that it has not"
        hint = "columns of the dataset: " + ", ".join(schema.names)
        raise DataError(f"the rows for data/{name} {what}", hint=hint)
    columns = []
    for column in wanted:
        if column.name not in given.column_names:
            columns.append(pa.nulls(given.num_rows, column.type))
            continue
        try:
            columns.append(given[column.name].cast(column.type))
        except (pa.ArrowException, ValueError) as error:
            hint = f"it is of type {column.type} in the dataset"
            raise DataError(f"column {column.name!r} of the rows for data/{name}: {error}", hint=hint) from error
    table = pa.Table.from_arrays(columns, schema=wanted)
    check_key(wanted, key)
    for column_name in key:
        if table[column_name].null_count:
            raise DataError(f"the rows for data/{name} hold a null in the key {column_name!r}", hint="fill the key")
    return table


def _record(
    ctx: Context, version: Version, stored: Stored, before: versions.VersionRow | None, mode: Mode
) -> tuple[int, bool]:
    with ctx.write() as tx:
        newest = next(iter(versions.history(tx, ctx.project, "data", version.name, limit=1)), None)
        if before is None and newest is not None:
            raise Conflict(f"somebody else made data/{version.name} meanwhile", hint="edit again")
        placements.put(tx, ctx.project, stored.placements)
        placements.rest(tx, ctx.project, stored.rests)
        numbered = versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        if numbered.new:
            payload = {"version": version.id, "mode": mode, "rows": int(version.manifest["rows"])}
            facts.append(tx, ctx.project, ctx.fact("data.edited", version.key, payload))
    return numbered.number, numbered.new


def rows_of_object(ctx: Context, identity: str) -> pa.Table:
    """The table in an object of the store: Parquet, or an Arrow IPC file; raises `NotFound`, `DataError`."""
    content = ctx.store.get(identity)
    try:
        if content[:4] == b"PAR1":
            return pq.read_table(pa.BufferReader(content))
        return pa.ipc.open_file(pa.BufferReader(content)).read_all()
    except pa.ArrowException as error:
        raise DataError(f"object {identity} is no table: {error}", hint="Parquet, or an Arrow IPC file") from error


def rows_of_json(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The table of rows as JSON gives them: columns in the order in which they first appear; raises `DataError`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"the rows are no table: {error}", hint="each column holds values of one type") from error


def put_table(blobs: Blobs, table: pa.Table) -> str:
    """Store a table as an object that `rows_of_object` reads; returns its id."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return blobs.put(bytes(sink.getvalue()))
