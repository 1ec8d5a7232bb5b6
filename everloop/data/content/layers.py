"""Layers: a part written as what differs from one that is stored already, so that a small change costs few bytes.

A layered part is one object: a base (another object, a whole Parquet file), the rows of the base that are gone, the
columns that are new or differ nearly everywhere, and the rows that are new or differ. A part's identity is its logical
id, whichever way it is stored; a layered part is written only after it was folded again and gave that id. Bases are
always whole: layers never rest on layers, so reading one costs two files and no chain grows.

The object is a Parquet file of the new rows, which other engines may read as it is (`data.opening`). Between its pages
and its footer, where no reader of Parquet looks, lie the deleted rows (gaps between their numbers as unsigned 32-bit
integers, deflated), the columns (a Parquet file), the header in JSON, its length (unsigned, 4 bytes, little-endian) and
`ELP2`. Without new rows the footer is empty.
"""

import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from everloop.core.errors import DataError
from everloop.data.content.encoding import Encoding
from everloop.data.content.ordering import key_hashes

MAGIC = b"ELP2"
_PARQUET = b"PAR1"
_EMPTY = _PARQUET + bytes(4) + _PARQUET
"""What stands for a Parquet file of no rows."""
_LARGEST_HEADER = 1 << 24
WORTH = 0.3
"""Share of a column's rows that may differ before all of it is written."""
ROWS_WORTH = 0.7
"""Share of the rows that may lie in the patch: where a cut went, one part's rows join another's."""
COLUMNS_WORTH = 0.75
"""Share of the columns that may be written whole."""

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Figures:
    """How a layered part differs from its base, by the key; its header says it, so that a diff reads nothing else."""

    added: int
    removed: int
    changed: int
    """Rows of one key with other values, in the columns that both have in one type."""
    columns: Mapping[str, int] = field(default_factory=dict)
    """By column, how many rows changed there."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What makes a part of its base."""

    base: str
    """Object id of a Parquet file."""
    deleted: Rows
    """Rows of the base that are not in the part, ascending."""
    columns: pa.Table | None = None
    """Columns in the place of the base's, or beside them: a row for each row of the base."""
    patch: pa.Table | None = None
    """Rows that the base does not have, all columns, in order of the key."""
    figures: Figures | None = None
    """None where they are not known: without a key, for nested columns, in objects of older writers."""

    def encode(self) -> bytes:
        """The object."""
        gaps = np.diff(self.deleted, prepend=-1).astype("<u4")
        sections = [zlib.compress(gaps.tobytes(), 6), _parquet(self.columns)]
        header: dict[str, Any] = {"base": self.base, "sections": [len(section) for section in sections]}
        if self.figures is not None:
            header["figures"] = asdict(self.figures)
        text = json.dumps(header).encode()
        rows = _parquet(self.patch) or _EMPTY
        at = len(rows) - 8 - int.from_bytes(rows[-8:-4], "little")
        return b"".join([rows[:at], *sections, text, len(text).to_bytes(4, "little"), MAGIC, rows[at:]])

    @classmethod
    def decode(cls, content: bytes) -> "Layers":
        """Read an object that `encode` made; raises `DataError` for another."""
        try:
            found = _header(io.BytesIO(content))
            if found is None:
                raise DataError("an object is no layered part", hint="it does not end as one")
            header, end = found
            start, middle = _sections(header, end)
            gaps = np.frombuffer(zlib.decompress(content[start:middle]), "<u4")
            return cls(
                str(header["base"]),
                np.cumsum(gaps.astype(np.int64)) - 1,
                _table(content[middle:end]),
                None if content[-8:-4] == bytes(4) else _table(content),
                _figures(header),
            )
        except (ValueError, KeyError, TypeError, zlib.error, pa.ArrowException, OSError) as error:
            raise _damaged(error) from error

    def fold(self, base: pa.Table, names: list[str], key: list[str]) -> pa.Table:
        """The part's rows, with the columns `names` in that order, sorted by `key`. `base` is in plain layout."""
        table = base
        for name in self.columns.column_names if self.columns is not None else ():
            assert self.columns is not None
            at = table.schema.get_field_index(name)
            column = self.columns[name]
            table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
        table = table.select(names)
        if len(self.deleted):
            kept = np.ones(table.num_rows, bool)
            kept[self.deleted] = False
            table = table.filter(pa.array(kept))
        if self.patch is not None:
            table = pa.concat_tables([table, self.patch.select(names)])
            table = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in key]))
        return table.combine_chunks()


def outline(path: Path) -> tuple[str, Figures | None] | None:
    """Base and figures of the layered part in a file, from its header alone; None for another object."""
    try:
        with path.open("rb") as file:
            found = _header(file)
        return None if found is None else (str(found[0]["base"]), _figures(found[0]))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(error) from error


def _header(file: BinaryIO) -> tuple[dict[str, Any], int] | None:
    """The header of a layered part and the place where it begins; None for another object."""
    size = file.seek(0, io.SEEK_END)
    if size < len(_EMPTY) + 8:
        return None
    file.seek(size - 8)
    ending = file.read(8)
    before = size - 16 - int.from_bytes(ending[:4], "little")
    if ending[4:] != _PARQUET or before < len(_PARQUET):
        return None
    file.seek(before)
    told = file.read(8)
    if told[4:] != MAGIC:
        return None
    length = int.from_bytes(told[:4], "little")
    if length > min(before, _LARGEST_HEADER):
        raise ValueError("its header is longer than itself")
    file.seek(before - length)
    return dict(json.loads(file.read(length))), before - length


def _figures(header: Mapping[str, Any]) -> Figures | None:
    return Figures(**header["figures"]) if "figures" in header else None


def _damaged(error: Exception) -> DataError:
    return DataError(f"an object is no layered part: {error}", hint="`everloop verify` tells what is damaged")


def _sections(header: Mapping[str, Any], end: int) -> tuple[int, int]:
    """Where the deleted rows begin, and where the columns do."""
    deleted, columns = (int(length) for length in header["sections"])
    if min(deleted, columns) < 0 or end - columns - deleted < len(_PARQUET):
        raise ValueError("its sections are longer than itself")
    return end - columns - deleted, end - columns


def is_layered(file: BinaryIO) -> bool:
    """Whether the object in an open file is a layered part."""
    try:
        return _header(file) is not None
    except (ValueError, TypeError):
        return True  # a damaged one, as whoever reads it will be told


def layered(table: pa.Table, base: pa.Table, key: list[str], identity: str) -> Layers | None:
    """How to make `table` of `base` (both in plain layout; with a key, sorted by it), whose object is `identity`.

    None when it is not worth it: another number of rows and no key, keys that repeat, or too much that differs.
    """
    matched = _matched(table, base, key)
    if matched is None:
        return None
    here, there = matched
    found = _differences(table, base, here, there)
    whole, changed = found.whole, found.changed
    if len(whole) > COLUMNS_WORTH * table.num_columns:
        return None
    inserted = np.ones(table.num_rows, bool)
    inserted[here] = False
    inserted[here[changed]] = True
    if inserted.sum() > ROWS_WORTH * table.num_rows or (inserted.any() and not key):
        return None
    gone = np.ones(base.num_rows, bool)
    gone[there[~changed]] = False
    columns = None
    if whole:
        places = np.full(base.num_rows, -1, np.int64)
        places[there] = here
        columns = table.select(whole).take(pa.array(places, mask=places < 0))
    patch = table.filter(pa.array(inserted)) if inserted.any() else None
    figures = None
    if key and found.rows is not None:
        figures = Figures(table.num_rows - len(here), base.num_rows - len(here), found.rows, found.columns)
    return Layers(identity, np.flatnonzero(gone), columns, patch, figures)


def _matched(table: pa.Table, base: pa.Table, key: list[str]) -> tuple[Rows, Rows] | None:
    """Rows of both that have one key, in order: numbers in `table`, numbers in `base`."""
    if not key:
        rows = np.arange(table.num_rows)
        return (rows, rows) if table.num_rows == base.num_rows else None
    if any(name not in base.column_names or base[name].type != table[name].type for name in key):
        return None
    ours, theirs = key_hashes(table, key), key_hashes(base, key)
    here, there = np.argsort(ours), np.argsort(theirs)
    ours, theirs = ours[here], theirs[there]
    if (ours[1:] == ours[:-1]).any() or (theirs[1:] == theirs[:-1]).any():
        return None  # keys repeat (or their hashes meet): rows cannot be told apart by them
    if len(ours) == len(theirs) and (ours == theirs).all():
        places = np.arange(len(ours))
    else:
        places = np.searchsorted(theirs, ours)
        both = places < len(theirs)
        both[both] = theirs[places[both]] == ours[both]
        here, places = here[both], places[both]
    found = np.full(table.num_rows, -1, np.int64)  # by row of the table, its row in the base
    found[here] = there[places]
    here = np.flatnonzero(found >= 0)
    there = found[here]
    return (here, there) if np.all(np.diff(there) > 0) else None


@dataclass(frozen=True, slots=True)
class _Differences:
    whole: list[str]
    """Columns to be written whole."""
    changed: np.ndarray[Any, Any]
    """Which of the matched rows differ in another column."""
    rows: int | None
    """How many of them differ in any column that both have; None where that is not known."""
    columns: dict[str, int]


def _differences(table: pa.Table, base: pa.Table, here: Rows, there: Rows) -> _Differences:
    whole: list[str] = []
    columns: dict[str, int] = {}
    changed, anywhere = np.zeros(len(here), bool), np.zeros(len(here), bool)
    told = True
    every = len(here) == table.num_rows == base.num_rows  # row by row, for both are in order
    ours, theirs = pa.array(here), pa.array(there)
    for field_ in table.schema:
        if field_.name not in base.column_names or base[field_.name].type != field_.type:
            whole.append(field_.name)
            continue
        new, old = table[field_.name], base[field_.name]
        moved = _moved(new, old) if every else _moved(new.take(ours), old.take(theirs))
        if moved is None:
            told = False
            whole.append(field_.name)
            continue
        if count := int(moved.sum()):
            columns[field_.name] = count
        anywhere |= moved
        if count > WORTH * max(len(moved), 1):
            whole.append(field_.name)
        else:
            changed |= moved
    return _Differences(whole, changed, int(anywhere.sum()) if told else None, columns)


def _moved(new: pa.ChunkedArray, old: pa.ChunkedArray) -> np.ndarray[Any, Any] | None:
    """Where two columns of one type differ; None when only the whole can be compared, and it does."""
    if pa.types.is_null(new.type):
        return np.zeros(len(new), bool)
    if pa.types.is_nested(new.type):
        return np.zeros(len(new), bool) if new.equals(old) else None
    differs = pc.fill_null(pc.not_equal(new, old), False)
    if pa.types.is_floating(new.type):
        both = pc.and_(pc.fill_null(pc.is_nan(new), False), pc.fill_null(pc.is_nan(old), False))
        differs = pc.and_not(differs, both)
    differs = pc.or_(differs, pc.xor(pc.is_null(new), pc.is_null(old)))
    return np.asarray(differs.to_numpy(zero_copy_only=False) if isinstance(differs, pa.Array) else differs.to_numpy())


def _parquet(table: pa.Table | None) -> bytes:
    return b"" if table is None else Encoding.of(table, ()).encode(table, "zstd")


def _table(content: bytes) -> pa.Table | None:
    return pq.read_table(pa.BufferReader(content), use_threads=False) if content else None
