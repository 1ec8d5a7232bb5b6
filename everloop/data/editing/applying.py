"""An edit of a dataset by rows, from the version it starts at to the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.core.errors import Conflict, DataError, InvalidInput, NotFound
from everloop.core.ports import Blobs
from everloop.core.version import Version
from everloop.data.codec import check_contract, part_paths, table_batches
from everloop.data.content.files import rows_of
from everloop.data.content.ordering import check_key, cut_size
from everloop.data.content.parts import (
    UNKEYED_ROWS,
    Stored,
    add_part,
    cut_by_count,
    data_version,
    known_to,
    store_table,
)
from everloop.data.content.predecessor import Predecessor
from everloop.data.content.schema import is_text, plain, plain_schema
from everloop.data.definitions import Contract, SourceDef
from everloop.data.editing import Mode
from everloop.data.editing.splice import Edit, Whole, spliced
from everloop.data.evolution import UNCHANGED, Evolution
from everloop.data.evolution.rewriting import Shelf, contract_then, rewritten
from everloop.data.evolution.rules import converted, edited_schema
from everloop.data.expect import Expectation, ExpectationResult
from everloop.data.failures import full_disk_is_storage_full
from everloop.data.heads import advance_head, head
from everloop.data.sensitive import scanning


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
    ctx: Context,
    name: str,
    rows: Any,
    mode: Mode,
    environment: str,
    *,
    contract: Contract | None = None,
    evolution: Evolution = UNCHANGED,
) -> Edited:
    """Append or upsert `rows` (any table), or delete the rows that have their keys; the head moves if it may.

    The edit starts at the environment's head (without one, at the newest version), which then moves to the result; the
    first append makes the dataset, by `contract`. An upsert replaces all rows of a key. Only parts in whose range a key
    lies are read and written, unless columns change: they do by the rules of `data.evolution`.
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
            version, stored, kept = next_version(ctx, before, given, mode, evolution)
    number, new = _record(ctx, version, stored, before, mode)
    scanning.scan_new(ctx, version.name, version.id)
    made = len(version.manifest["parts"]) - kept
    results = advance_head(ctx, environment, name, version.id, _expectations(ctx, name))
    return Edited(version.id, number, int(version.manifest["rows"]), new, kept, made, results)


def evolve(ctx: Context, name: str, environment: str, evolution: Evolution) -> Edited:
    """Change the columns of a dataset as told, and no row; raises what `edit` raises."""
    before = _before(ctx, name, environment)
    if before is None:
        raise NotFound(f"there is no data/{name}", hint="`everloop data list` shows what there is")
    if not evolution:
        raise InvalidInput("nothing is told to change", hint="drop, rename or retype a column")
    schema = pa.schema([field for field in _Table.of(ctx, before.manifest).schema if evolution.name(field.name)])
    return edit(ctx, name, schema.empty_table(), "append", environment, evolution=evolution)


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


def next_version(
    ctx: Context, before: versions.VersionRow, given: pa.Table, mode: Mode, evolution: Evolution = UNCHANGED
) -> tuple[Version, Stored, int]:
    """The version that an edit of `before` by rows in plain layout makes, its parts, and how many of them were kept.

    Parts are stored, and nothing is recorded. Raises `DataError`, `InvalidInput`.
    """
    if "external" in before.manifest:
        raise InvalidInput(f"data/{before.name} stays in a warehouse", hint="change it there, and capture it again")
    if mode != "append" and not before.manifest["key"]:
        raise InvalidInput(f"data/{before.name} has no key: rows cannot be told apart", hint="append, or declare a key")
    table = _Table.of(ctx, before.manifest)
    rows = given.slice(0, 0).select([]) if mode == "delete" else given
    target = edited_schema(table.schema, rows, evolution, before.name)
    renamed = list(contract_then(before.manifest, evolution)["key"])
    wanted = _wanted(_named(given, evolution), target, renamed, mode, before.name)
    made = Stored(target, int(before.manifest["cut"]))
    if not target.equals(table.schema):
        store = Shelf(ctx.store, table.read, table.shelf(), known_to(ctx), ctx.home / "scratch")
        then, made = rewritten(table.manifest, table.schema, target, evolution, store)
        table = _Table.of(ctx, then, made.placements)
    manifest, key = table.manifest, list(table.manifest["key"])
    stored = Stored(table.schema, int(manifest["cut"]), placements=made.placements, rests=made.rests)
    shelf = table.shelf()
    parts: list[Mapping[str, Any]] = []
    whole = Whole(manifest["parts"], key, table.schema, stored.cut, table.read, ctx.home / "scratch")
    for piece in _pieces(whole, wanted, mode):
        if isinstance(piece, int):
            parts.append(manifest["parts"][piece])
        else:
            add_part(stored, piece, key, ctx.store, known=known_to(ctx), before=shelf)
            parts.append(stored.parts[-1].manifest())
    count = sum(part["rows"] for part in parts)
    cut = cut_size(count) if key else stored.cut
    changed = {**manifest, "cut": cut, "rows": count, "parts": parts}
    were = {part["logical"] for part in before.manifest["parts"]}
    kept = sum(part["logical"] in were for part in parts)
    return Version("data", before.name, changed, (("before", before.id),)), stored, kept


@dataclass(frozen=True, slots=True)
class _Table:
    """A version that is edited."""

    ctx: Context
    manifest: Mapping[str, Any]
    placed: Mapping[str, str]
    schema: pa.Schema

    @classmethod
    def of(cls, ctx: Context, manifest: Mapping[str, Any], placed: Mapping[str, str] = MappingProxyType({})) -> Self:
        """Parts lie where the catalog says, or as `placed` says of those that it does not know yet."""
        logicals = [part["logical"] for part in manifest["parts"]]
        with ctx.read() as tx:
            found = {**placed, **placements.resolve(tx, ctx.project, logicals)}
        first = part_paths({**manifest, "parts": manifest["parts"][:1]}, ctx.store, found, ctx.home / "cache")[0]
        return cls(ctx, manifest, found, plain_schema(pq.read_schema(first)))

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part, or some of its columns."""
        only = {**self.manifest, "parts": self.manifest["parts"][number : number + 1]}
        return rows_of(part_paths(only, self.ctx.store, self.placed, self.ctx.home / "cache")[0], columns)

    def shelf(self) -> Predecessor:
        """Its parts, for others to rest on."""
        return Predecessor(self.manifest, self.placed, self.ctx.store, self.ctx.home / "cache")


def _named(given: pa.Table, evolution: Evolution) -> pa.Table:
    """Rows by the new names of their columns, without those that go."""
    kept = [column for column in given.column_names if evolution.name(column) is not None]
    return given.select(kept).rename_columns([str(evolution.name(column)) for column in kept])


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
    if missing:
        hint = "columns of the dataset: " + ", ".join(schema.names)
        raise DataError(f"the rows for data/{name} have no column {missing[0]!r}", hint=hint)
    columns = []
    for column in wanted:
        if column.name not in given.column_names:
            columns.append(pa.nulls(given.num_rows, column.type))
            continue
        try:
            columns.append(converted(given[column.name], column.type))
        except DataError as error:
            hint = f"it is of type {column.type} in the dataset"
            raise DataError(f"column {column.name!r} of the rows for data/{name} {error.message}", hint=hint) from error
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
