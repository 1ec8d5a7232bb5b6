"""The files that make a version, as other engines see it: whole Parquet files, and the rows of them that are gone.

A part that is stored whole is one file. A layered part (`content.layers`) is two: its base without the rows that are
gone, and the layered object itself, which is a Parquet file of the rows that are new. No other table format knows
columns that lie in a file of their own: a part with such a layer is folded once into a whole object, which takes the
layers' place for every reader.
"""

import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import placements
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.core.errors import DataError, NotFound
from everloop.data.content.encoding import Encoding
from everloop.data.content.files import folded, local_object
from everloop.data.content.layers import Layers

Rows = np.ndarray[Any, np.dtype[np.int64]]
_AT_ONCE = 16


def _none() -> Rows:
    return np.array([], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One Parquet file of a version."""

    object: str
    rows: int
    """All that the file holds, those that are gone included."""
    deleted: Rows = field(default_factory=_none)
    """Numbers of the rows that are gone, ascending."""
    part: Mapping[str, Any] | None = None
    """What the manifest says of a part that is this whole file and nothing else; None where it need not be so."""
    extra: tuple[tuple[str, pa.DataType], ...] = ()
    """Columns that the file has and the version does not."""
    copy: int = 0
    """Which time the same file comes: two parts of a table without a key may hold the same rows."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A version in pieces."""

    pieces: tuple[Piece, ...]
    folded: int
    """Parts that had to be written whole for it."""
    written: int
    """Bytes of them."""


def contents(ctx: Context, manifest: Mapping[str, Any], *, plain: bool = False) -> Contents:
    """The pieces of a version; with `plain` no piece lacks rows, for engines that cannot leave rows out.

    Raises `NotFound` when rows expired or never came here.
    """
    placed = _placed(ctx, manifest)
    with ctx.read() as tx:
        exact = not redactions.of_manifest(tx, ctx.project, manifest)
        rests = placements.rests_of(tx, ctx.project)
    names = {name for name, _ in manifest["schema_fields"]}
    found: list[Piece] = []
    count = written = 0
    for part in manifest["parts"]:
        identity = placed[part["logical"]]
        if identity not in rests:
            rows = int(part["rows"]) if exact else rows_in(ctx, identity)
            found.append(Piece(identity, rows, part=part if exact else None))
            continue
        layers = Layers.decode(local_object(ctx.store, identity, ctx.home / "cache").read_bytes())
        if (plain and len(layers.deleted)) or not _expressible(ctx, layers):
            whole = _fold(ctx, part["logical"], identity, manifest)
            count, written = count + 1, written + int(ctx.store.size(whole))  # type: ignore[attr-defined]
            found.append(Piece(whole, rows_in(ctx, whole), part=part if exact else None))
            continue
        base = _footer(ctx, layers.base)
        others = tuple((f.name, f.type) for f in base.schema_arrow if f.name not in names)
        found.append(Piece(layers.base, int(base.metadata.num_rows), layers.deleted, extra=others))
        if layers.patch is not None:
            found.append(Piece(identity, layers.patch.num_rows))
    return Contents(tuple(_once(found)), count, written)


def sizes(ctx: Context, identities: Iterable[str]) -> dict[str, int]:
    """Bytes of objects, asked for several at a time."""
    wanted = list(dict.fromkeys(identities))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(ctx.store.size, wanted), strict=True))  # type: ignore[attr-defined]


def rows_in(ctx: Context, identity: str) -> int:
    """Rows of the Parquet file in an object, from its footer alone."""
    return int(_footer(ctx, identity).metadata.num_rows)


def schema_in(ctx: Context, identity: str) -> pa.Schema:
    """Columns of the Parquet file in an object, from its footer alone."""
    return _footer(ctx, identity).schema_arrow


def _footer(ctx: Context, identity: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(_Ranged(ctx.store, identity))
    except pa.ArrowException as error:
        raise DataError(
            f"object {identity} is no Parquet file: {error}", hint="`everloop verify` tells what is damaged"
        ) from error


def _placed(ctx: Context, manifest: Mapping[str, Any]) -> dict[str, str]:
    logicals = [part["logical"] for part in manifest["parts"]]
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, logicals)
    if missing := next((logical for logical in logicals if logical not in placed), None):
        raise NotFound(f"the bytes of part {missing} are not here", hint="they expired, or never came here")
    return placed


def _expressible(ctx: Context, layers: Layers) -> bool:
    """Whether a base and a file of new rows tell it all: the layer of columns holds nulls under names new to the base.

    A column that a file lacks reads as nulls everywhere.
    """
    if layers.columns is None:
        return True
    known = set(schema_in(ctx, layers.base).names)
    return all(
        name not in known and layers.columns[name].null_count == layers.columns.num_rows
        for name in layers.columns.column_names
    )


def _fold(ctx: Context, logical: str, identity: str, manifest: Mapping[str, Any]) -> str:
    """Write a layered part whole, and place it there; what it was goes with the next sweep."""
    table = folded(ctx.store, local_object(ctx.store, identity, ctx.home / "cache"), ctx.home / "cache", manifest)
    whole = ctx.store.put(Encoding.of(table, list(manifest["key"])).encode(table))
    with ctx.write() as tx:
        if placements.resolve(tx, ctx.project, [logical]) != {logical: identity}:
            raise NotFound(
                f"part {logical} moved meanwhile", hint="it was erased or opened by somebody else: try again"
            )
        placements.replace(tx, ctx.project, logical, old=identity, new=whole)
        placements.raise_unplaced(tx, ctx.project, identity)
    return whole


def _once(found: list[Piece]) -> Iterable[Piece]:
    """Each file once where that can be: parts that a base was cut into are together the base without what all lack."""
    same: dict[str, list[Piece]] = {}
    for piece in found:
        same.setdefault(piece.object, []).append(piece)
    for pieces in same.values():
        first = pieces[0]
        if len(pieces) == 1:
            yield first
            continue
        kept = sum(piece.rows - len(piece.deleted) for piece in pieces)
        gone = first.deleted
        for piece in pieces[1:]:
            gone = np.intersect1d(gone, piece.deleted, assume_unique=True)
        if kept == first.rows - len(gone):
            yield replace(first, deleted=gone, part=None)
        else:
            yield from (replace(piece, copy=number) for number, piece in enumerate(pieces))


class _Ranged(io.RawIOBase):
    """An object as a file of which only what is read is fetched."""

    def __init__(self, blobs: Any, identity: str) -> None:
        self._blobs, self._identity = blobs, identity
        self._size, self._at = int(blobs.size(identity)), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, target: Any) -> int:
        room = memoryview(target)
        count = max(min(len(room), self._size - self._at), 0)
        if count:
            room[:count] = self._blobs.read_range(self._identity, self._at, count)
        self._at += count
        return count
