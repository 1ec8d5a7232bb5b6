"""Parts: the pieces of a table that are stored and shared between versions, and the manifest that lists them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.core.ports import Blobs
from everloop.core.version import Version
from everloop.data.content.encoding import Encoding
from everloop.data.content.keys import key_text
from everloop.data.content.logical import RULE, Digest, digest
from everloop.data.content.ordering import MEMORY, check_key, cut, cut_size, distinct, ordered
from everloop.data.content.predecessor import Predecessor
from everloop.data.content.schema import plain, plain_schema, schema_fields
from everloop.data.definitions import Contract

UNKEYED_ROWS = 131_072
"""Rows of a part of a table without a key: cut from the front, so that appended rows leave the older parts alone."""
COLUMN_DIGITS = 16
"""Digits of a column's digest in a manifest: enough to say which columns differ; the part's logical id is whole."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a version."""

    digest: Digest
    first: tuple[str, ...] = ()
    """The key of the first row and, in `last`, of the last, as text; empty without a key."""
    last: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """What a `data` manifest says of it."""
        found: dict[str, Any] = {
            "logical": self.digest.logical,
            "rows": self.digest.rows,
            "nulls": list(self.digest.nulls),
            "columns": [column[:COLUMN_DIGITS] for column in self.digest.columns],
        }
        if self.first:
            found |= {"key_min": list(self.first), "key_max": list(self.last)}
        return found


@dataclass(slots=True)
class Stored:
    """Parts of a table, all of whose bytes are in the store."""

    schema: pa.Schema
    cut: int
    parts: list[Part] = field(default_factory=list)
    placements: dict[str, str] = field(default_factory=dict)
    """Object of every part that was written now; parts that were stored before are not written again."""

    rests: dict[str, str] = field(default_factory=dict)
    """Base of every object that was written as layers."""

    encoding: "Encoding | None" = None
    """How parts are written, settled by the first that is."""

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.digest.rows for part in self.parts)


Known = Callable[[str], bool]
"""Whether a part of that logical id is stored already."""


def nothing_known(_logical: str) -> bool:
    """Every part is new."""
    return False


def store_table(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    key: Sequence[str],
    blobs: Blobs,
    *,
    scratch: Path,
    known: Known = nothing_known,
    before: Predecessor | None = None,
    memory: int = MEMORY,
    unique: bool = False,
) -> Stored:
    """Order, cut, digest and store rows that stream in batches of `schema`; above `memory` bytes by way of the disk.

    Only parts that are not `known` are encoded and written, as layers on those of the version `before` where that
    takes few bytes. With `unique` two rows of one key are refused. Raises `DataError` and `StorageFull`.
    """
    target = plain_schema(schema)
    if key:
        check_key(target, key)
        rows, tables = ordered(batches, target, key, scratch=scratch, memory=memory)
        mean = cut_size(rows)
        pieces = cut(distinct(tables, key) if unique else tables, key, mean)
    else:
        mean = UNKEYED_ROWS
        pieces = cut_by_count((plain(pa.Table.from_batches([b])) for b in batches), target, mean)
    stored = Stored(target, mean)
    for table in pieces:
        add_part(stored, table, key, blobs, known=known, before=before)
    return stored


def add_part(
    stored: Stored,
    table: pa.Table,
    key: Sequence[str],
    blobs: Blobs,
    *,
    known: Known = nothing_known,
    before: Predecessor | None = None,
) -> None:
    """Digest one part and write it unless it is known."""
    found = digest(table)
    first, last = (_key_at(table, key, 0), _key_at(table, key, table.num_rows - 1)) if table.num_rows else ((), ())
    stored.parts.append(Part(found, first, last))
    if found.logical in stored.placements or known(found.logical):
        return
    layers = before.layers(table, found.logical, list(key), (first, last)) if before is not None else None
    if layers is not None:
        base, content = layers
        stored.placements[found.logical] = identity = blobs.put(content)
        stored.rests[identity] = base
        return
    if stored.encoding is None or not stored.encoding.settled(table):
        stored.encoding = Encoding.of(table, key)
    stored.placements[found.logical] = blobs.put(stored.encoding.encode(table))


def known_to(ctx: Context) -> Known:
    """Whether a part's bytes are stored already, by the catalog and the store."""

    def known(logical: str) -> bool:
        with ctx.read() as tx:
            placed = placements.resolve(tx, ctx.project, [logical])
        return logical in placed and ctx.store.has(placed[logical])

    return known


def before_of(ctx: Context, name: str) -> Predecessor | None:
    """The newest version of a dataset, for the next one to rest on."""
    with ctx.read() as tx:
        newest = versions.history(tx, ctx.project, "data", name, limit=1)
        if not newest or "parts" not in newest[0].manifest:
            return None
        manifest = newest[0].manifest
        placed = placements.resolve(tx, ctx.project, [part["logical"] for part in manifest["parts"]])
    return Predecessor(manifest, placed, ctx.store, ctx.home / "cache")


def cut_by_count(tables: Iterable[pa.Table], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """Cut rows, as they come, into parts of `size` rows; there is always a part, if an empty one."""
    held: list[pa.Table] = []
    rows, first = 0, True
    for table in tables:
        rest = table
        while rest.num_rows:
            piece = rest.slice(0, size - rows)
            rest = rest.slice(piece.num_rows)
            held.append(piece)
            rows += piece.num_rows
            if rows == size:
                yield pa.concat_tables(held)
                held, rows, first = [], 0, False
    if rows or first:
        yield pa.concat_tables(held) if held else schema.empty_table()


def _key_at(table: pa.Table, key: Sequence[str], row: int) -> tuple[str, ...]:
    return tuple(key_text(table[name][row].as_py()) for name in key)


def data_version(
    name: str, stored: Stored, contract: Contract, inputs: Sequence[tuple[str, str]] = (), **more: Any
) -> Version:
    """The version of kind `data`: its id follows from schema, contract's key, times and tags, and the parts."""
    manifest: Mapping[str, Any] = {
        "rule": RULE,
        "schema_fields": schema_fields(stored.schema),
        "key": list(contract.key),
        "event_time": contract.event_time,
        "known_time": contract.known_time,
        "tags": dict(contract.tags),
        "cut": stored.cut,
        "rows": stored.rows,
        "parts": [part.manifest() for part in stored.parts],
        **contract.lineage(),
        **more,
    }
    return Version("data", name, manifest, tuple(inputs))
