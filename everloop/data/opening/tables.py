"""Opening versions as a table of another format, and keeping what an open table shows.

An open table is recorded: a pointer `opened/<table>/<number>` for each version that it shows, so that neither a
retention rule nor a removal takes their bytes, and a fact with all that is needed to write it again. Closing it
removes the pointers. An erasure writes every open table anew, for its files are others then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal, get_args
from urllib.parse import unquote
from uuid import UUID

import pyarrow as pa

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.catalog.versions import VersionRow
from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput, NotFound, Unavailable
from everloop.core.grants import SANDBOX
from everloop.core.ids import object_id
from everloop.data.content.schema import logical_type, type_named
from everloop.data.failures import full_disk_is_storage_full
from everloop.data.opening import placing
from everloop.data.opening.fields import agreeing
from everloop.data.opening.pieces import Contents, Piece, contents, schema_in, sizes
from everloop.data.opening.shown import MILLI, Columns, Files, Shown, Table
from everloop.data.sensitive.masking import in_force

Format = Literal["iceberg", "delta"]
OPENED, CLOSED = "data.opened", "data.closed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How versions are to be opened."""

    format: Format
    location: str
    """The table's folder: `file:///…` or `s3://bucket/prefix`."""
    history: int = 0
    """How many versions before the one that is named are shown too."""
    plain: bool = False
    """Whether parts that lack rows are written whole, for engines that know neither position deletes nor vectors."""
    without: tuple[str, ...] = ()
    """Columns that the table does not show."""
    store: str = ""
    """Where engines find the object store, when that is not its own URL."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A table that stands open."""

    table: str
    """Its UUID."""
    name: str
    wanted: Wanted
    shown: tuple[tuple[int, str], ...]
    """Number and id of each version that it shows, oldest first."""
    rows: int
    """Of the newest."""
    left_out: tuple[int, ...] = ()
    """Earlier versions that it cannot show: expired, or with columns that do not agree with the later ones'."""
    folded: int = 0
    """Parts that were written whole for it, since their columns lay in files of their own."""
    written: int = 0
    """Bytes of them."""
    files: Files | None = None
    """What belongs into its folder; None for one that is only listed."""
    generation: int = 1
    fingerprint: str = ""


def open_table(ctx: Context, row: VersionRow, wanted: Wanted) -> Opened:
    """Make a version, and others that the table shows already, into the files of a table, and record it.

    `placing.place` then puts the files there. Raises `InvalidInput` for a version without rows of its own or with
    columns that the format cannot hold, `NotFound` when its rows expired.
    """
    _checked(row, wanted)
    table = table_id(ctx, row.name, wanted)
    before = recorded(ctx, table)
    with full_disk_is_storage_full():
        found = _opened(ctx, row, wanted, before)
    with ctx.write() as tx:
        held = refs.all(tx, ctx.project, f"opened/{table}/")
        keep = {refs.opened_ref(table, number): identity for number, identity in found.shown}
        actor, at, why = ctx.actor.name, ctx.now(), wanted.location
        for name, identity in held.items():
            if keep.get(name) != identity:
                refs.delete(tx, ctx.project, name, old=identity, actor=actor, at=at, reason=why)
        for name, identity in keep.items():
            if held.get(name) != identity:
                refs.move(tx, ctx.project, name, old=None, new=identity, actor=actor, at=at, reason=why)
        if before is None or _payload(found) != _payload(before):
            facts.append(tx, ctx.project, ctx.fact(OPENED, f"opened/{table}", _payload(found)))
    return found


def opened(ctx: Context) -> list[Opened]:
    """The tables of the project that stand open."""
    with ctx.read() as tx:
        tables = {name.split("/")[1] for name in refs.all(tx, ctx.project, "opened/")}
    return [found for table in sorted(tables) if (found := recorded(ctx, table)) is not None]


def recorded(ctx: Context, table: str) -> Opened | None:
    """What is recorded of an open table; None when it is not open."""
    with ctx.read() as tx:
        found = redactions.latest(tx, ctx.project, (OPENED, CLOSED), f"opened/{table}")
    if found is None or found[0] == CLOSED:
        return None
    p = found[1]
    wanted = Wanted(**{**p["wanted"], "without": tuple(p["wanted"]["without"])})
    shown = tuple((int(number), str(identity)) for number, identity in p["shown"])
    return Opened(table, p["name"], wanted, shown, p["rows"], generation=p["generation"], fingerprint=p["fingerprint"])


def close(ctx: Context, table: str) -> Opened:
    """Forget an open table, so that nothing is kept for it any more; raises `NotFound`.

    Its files are for the caller to `withdraw`.
    """
    found = recorded(ctx, table)
    if found is None:
        raise NotFound(f"no open table is {table}", hint="`everloop data opened` lists them")
    with ctx.write() as tx:
        for name, identity in refs.all(tx, ctx.project, f"opened/{table}/").items():
            refs.delete(tx, ctx.project, name, old=identity, actor=ctx.actor.name, at=ctx.now(), reason="closed")
        facts.append(tx, ctx.project, ctx.fact(CLOSED, f"opened/{table}", {"name": found.name}))
    return found


def refresh(ctx: Context) -> int:
    """Write every open table anew, as after an erasure; one whose folder is gone is closed. Returns how many were."""
    count = 0
    for one in opened(ctx):
        here = placing.inventory(placing.open_place(one.wanted.location))
        if here is None or here["table"] != one.table:
            close(ctx, one.table)
            continue
        with ctx.read() as tx:
            row = versions.get(tx, ctx.project, one.shown[-1][1])
        again = open_table(ctx, replace(row, number=one.shown[-1][0], name=one.name), replace(one.wanted, history=0))
        assert again.files is not None
        placing.place(again.wanted.location, again.files, again.table, ctx.store)
        count += 1
    return count


def table_id(ctx: Context, name: str, wanted: Wanted) -> str:
    """The UUID of a table: it follows from what it shows and where it lies."""
    told = canonical_json([ctx.project, name, wanted.format, wanted.location])
    return str(UUID(bytes=bytes.fromhex(object_id(told).removeprefix("b3:"))[:16]))


def _checked(row: VersionRow, wanted: Wanted) -> None:
    if wanted.format not in get_args(Format):
        raise InvalidInput(f"{wanted.format!r} is no format of tables", hint="iceberg or delta")
    if row.kind != "data" or "parts" not in row.manifest:
        where = row.manifest.get("external", {}).get("binding")
        raise InvalidInput(
            f"{row.kind}/{row.name} has no rows of its own to open",
            hint=f"it lies in the warehouse {where!r}: read it there" if where else "name a version of a table",
        )
    names = [name for name, _ in row.manifest["schema_fields"]]
    if unknown := next((name for name in wanted.without if name not in names), None):
        raise InvalidInput(f"{row.name} has no column {unknown!r}", hint="columns: " + ", ".join(names))
    if set(wanted.without) >= set(names):
        raise InvalidInput("no column would be left", hint="leave fewer out")


def _opened(ctx: Context, row: VersionRow, wanted: Wanted, before: Opened | None) -> Opened:
    rows, left_out = rows_shown(ctx, row, wanted, before), []
    shown: list[Shown] = []
    folded = written = 0
    for one in rows:
        try:
            found = contents(ctx, one.manifest, plain=wanted.plain)
        except NotFound:
            if one.id == row.id:
                raise
            left_out.append(one.number)
            continue
        folded, written = folded + found.folded, written + found.written
        shown.append(_shown(ctx, one, found, wanted, shown[-1].at if shown else 0))
    agreed = agreeing(shown) if wanted.format == "iceberg" else tuple(shown)
    left_out += [one.number for one in shown[: len(shown) - len(agreed)]]
    table = Table(
        table_id(ctx, row.name, wanted),
        row.name,
        _raw(wanted.location),
        _raw(wanted.store or ctx.store.url),  # type: ignore[attr-defined]
        agreed,
        sizes(ctx, [piece.object for one in agreed for piece in one.pieces]),
        before.generation if before else 1,
    )
    files, fingerprint = _files(table, wanted)
    if before is not None and before.fingerprint != fingerprint:
        table = replace(table, generation=before.generation + 1)
        files, fingerprint = _files(table, wanted)
    numbers = tuple((one.number, one.id) for one in agreed)
    told = (tuple(sorted(left_out)), folded, written, files, table.generation, fingerprint)
    return Opened(table.identity, row.name, wanted, numbers, agreed[-1].rows, *told)


def _files(table: Table, wanted: Wanted) -> tuple[Files, str]:
    try:
        module = import_module(f"everloop.data.opening.{wanted.format}")
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"tables of the format {wanted.format} need {error.name}, which is not installed",
            hint='pip install "everloop[lake]"',
        ) from error
    files: Files = module.files_of(table)
    told = {name: object_id(content) for name, content in files.contents.items()}
    return files, object_id(canonical_json({"files": told, "links": dict(files.links)}))


def _raw(url: str) -> str:
    """A URL as engines write it: Iceberg takes the text of a path as it is, a percent sign for a percent sign."""
    return (unquote(url) if url.startswith("file:") else url).rstrip("/")


def rows_shown(ctx: Context, row: VersionRow, wanted: Wanted, before: Opened | None) -> list[VersionRow]:
    """The versions to be shown, oldest first: those that the table shows already and some earlier ones, and `row`."""
    found: dict[int, VersionRow] = {row.number: row}
    with ctx.read() as tx:
        if wanted.history > 0:
            earlier = versions.history(tx, ctx.project, row.kind, row.name, limit=wanted.history, before=row.number)
            found.update((one.number, one) for one in earlier)
        for number, identity in before.shown if before else ():
            if number < row.number and number not in found:
                found[number] = replace(versions.get(tx, ctx.project, identity), number=number, name=row.name)
    return [found[number] for number in sorted(found)]


def _shown(ctx: Context, row: VersionRow, found: Contents, wanted: Wanted, after: int) -> Shown:
    every = _columns(ctx, row.manifest, found.pieces)
    columns = tuple(column for column in every if column[0] not in wanted.without)
    pieces = found.pieces
    if wanted.without:  # what the manifest says of a part is in the order of all columns
        others = tuple(column for column in every if column[0] in wanted.without)
        pieces = tuple(replace(piece, part=None, extra=(*piece.extra, *others)) for piece in pieces)
    key = tuple(row.manifest["key"])
    with ctx.read() as tx:
        heads = refs.all(tx, ctx.project, "head/")
    names = (name.removeprefix("head/").removesuffix(f"/{row.name}") for name, at in heads.items() if at == row.id)
    return Shown(
        row.number,
        row.id,
        max(row.at, after + MILLI),
        columns,
        pieces,
        key,
        bounded=bool(key) and key[0] not in in_force(ctx, row.id),
        heads=tuple(sorted(name for name in names if not name.startswith(SANDBOX))),
    )


def _columns(ctx: Context, manifest: Mapping[str, Any], pieces: Sequence[Piece]) -> Columns:
    """Names and types; the name of a nested type does not tell it all, so it is read off a file that has it."""
    found: list[tuple[str, pa.DataType]] = []
    for name, told in manifest["schema_fields"]:
        type_ = type_named(told)
        found.append((name, type_ if type_ is not None else _nested(ctx, name, told, pieces)))
    return tuple(found)


def _nested(ctx: Context, name: str, told: str, pieces: Sequence[Piece]) -> pa.DataType:
    for piece in pieces:
        schema = schema_in(ctx, piece.object)
        if name in schema.names and logical_type(schema.field(name).type) == told:
            return schema.field(name).type
    raise InvalidInput(f"no file tells the type of the column {name!r} ({told})", hint=f"open it --without {name}")


def _payload(one: Opened) -> dict[str, Any]:
    wanted = {name: getattr(one.wanted, name) for name in ("format", "location", "plain", "store")}
    return {
        "name": one.name,
        "wanted": {**wanted, "without": list(one.wanted.without)},
        "shown": [list(pair) for pair in one.shown],
        "rows": one.rows,
        "generation": one.generation,
        "fingerprint": one.fingerprint,
    }
