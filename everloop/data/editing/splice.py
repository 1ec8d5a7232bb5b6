"""Rows that come and go inside a version with a key: which parts they touch, and what these hold afterwards.

The result has the very parts that a capture of the whole edited table would have: parts are cut where the hash of a key
says so, so whatever lies between two such cuts can be cut again by itself.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.data.content.keys import key_value
from everloop.data.content.ordering import cut, cut_size, key_hashes, ordered

Key = tuple[Any, ...]


class ReadPart(Protocol):
    """How the parts of a table are read."""

    def __call__(self, number: int, columns: Sequence[str] | None = None, /) -> pa.Table:
        """The rows of a part in plain layout, or some of its columns."""
        ...


@dataclass(frozen=True, slots=True)
class Edit:
    """What is done to a table: rows that come (plain layout, all columns), and keys whose rows go first."""

    rows: pa.Table
    gone: pa.Table
    """The key columns of rows that go; for an upsert those of `rows` are among them."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A table with a key, part by part."""

    parts: Sequence[Mapping[str, Any]]
    """As its manifest lists them."""
    key: Sequence[str]
    schema: pa.Schema
    cut: int
    read: ReadPart
    scratch: Path


def spliced(whole: Whole, edit: Edit) -> Iterator[int | pa.Table]:
    """The parts after the edit, in order: the number of a part that stays, or the rows of a new one.

    There is always a part, if an empty one.
    """
    starts = _starts(whole)
    come, gone = _Spread.of(edit.rows, whole.key, starts), _Spread.of(edit.gone, whole.key, starts)
    touched = come.parts | gone.parts
    rows = sum(part["rows"] for part in whole.parts) + edit.rows.num_rows
    mean = cut_size(rows - sum(int(_which(whole, gone, number).sum()) for number in sorted(gone.parts)))
    boundary = _boundaries(whole, starts, gone, mean)
    stretches = list(_stretches(touched, boundary)) if mean == whole.cut else [range(len(whole.parts))]
    made, at = False, 0
    for stretch in stretches:
        for number in range(at, stretch.start):
            made = True
            yield number
        at = stretch.stop
        for table in cut(_edited(whole, come, gone, stretch), whole.key, mean):
            if table.num_rows:
                made = True
                yield table
    for number in range(at, len(whole.parts)):
        made = True
        yield number
    if not made:
        yield whole.schema.empty_table()


def _starts(whole: Whole) -> list[Key]:
    """The first key of every part; the first part takes whatever is smaller."""
    return [() if not number else _first(whole, number) for number in range(len(whole.parts))]


def _first(whole: Whole, number: int) -> Key:
    texts = whole.parts[number]["key_min"]
    values = tuple(key_value(text, whole.schema.field(name).type) for text, name in zip(texts, whole.key, strict=True))
    return values if None not in values else _keys(whole.read(number).slice(0, 1), whole.key)[0]


def _keys(table: pa.Table, key: Sequence[str]) -> list[Key]:
    return list(zip(*(table[name].to_pylist() for name in key), strict=True))


@dataclass(frozen=True, slots=True)
class _Spread:
    """Rows of an edit in the order of their keys, and which of them lie in the range of each part.

    They are sorted once. The starts of parts are looked up among them, so that an edit of a million rows costs a few
    thousand comparisons, and each part sees its own rows only.
    """

    rows: pa.Table
    key: Sequence[str]
    begins: Sequence[int]
    """By part: the first row whose key is not below the part's first; 0 for the first part."""
    ends: Sequence[int]
    """By part: the row after the last whose key is not above the next part's first: rows of one key may be cut."""

    @classmethod
    def of(cls, table: pa.Table, key: Sequence[str], starts: Sequence[Key]) -> "_Spread":
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in key])
        rows = table.take(order).combine_chunks()
        columns, count = [rows[name] for name in key], range(rows.num_rows)

        def at(row: int) -> Key:
            return tuple(column[row].as_py() for column in columns)

        begins = [0, *(bisect_left(count, start, key=at) for start in starts[1:])]
        ends = [*(bisect_right(count, start, key=at) for start in starts[1:]), rows.num_rows]
        return cls(rows, key, begins[: len(starts)], ends)

    @property
    def parts(self) -> set[int]:
        """The parts in whose range a row lies."""
        pairs = zip(self.begins, [*self.begins[1:], self.rows.num_rows], strict=True)
        return {number for number, (begin, end) in enumerate(pairs) if begin < end}

    def of_part(self, number: int) -> pa.Table:
        """The rows that belong into a part."""
        last = number + 1 == len(self.begins)
        begin = self.begins[number]
        return self.rows.slice(begin, (self.rows.num_rows if last else self.begins[number + 1]) - begin)

    def near_part(self, number: int) -> pa.Table:
        """The rows that may have the key of a row of a part."""
        return self.rows.slice(self.begins[number], self.ends[number] - self.begins[number])

    def has(self, number: int, start: Key) -> bool:
        """Whether a row has the key with which a part begins."""
        begin = self.begins[number]
        return begin < self.rows.num_rows and _keys(self.rows.slice(begin, 1), self.key)[0] == start


def _boundaries(whole: Whole, starts: list[Key], gone: _Spread, mean: int) -> list[bool]:
    """Whether each part begins where the hash of its key says so, and goes on doing it."""
    if len(starts) < 2:
        return [True] * len(starts)
    fields = [whole.schema.field(name) for name in whole.key]
    firsts = pa.table(
        [pa.array([key[i] for key in starts[1:]], f.type) for i, f in enumerate(fields)], pa.schema(fields)
    )
    cuts = (key_hashes(firsts, whole.key) & np.uint64(mean - 1)) == 0
    return [True, *(bool(cuts[i - 1]) and not gone.has(i, starts[i]) for i in range(1, len(starts)))]


def _stretches(touched: set[int], boundary: list[bool]) -> Iterator[range]:
    """Runs of parts between boundaries that hold a touched part."""
    begin = 0
    for number in range(1, len(boundary) + 1):
        if number == len(boundary) or boundary[number]:
            if not touched.isdisjoint(range(begin, number)):
                yield range(begin, number)
            begin = number


def _edited(whole: Whole, come: _Spread, gone: _Spread, stretch: range) -> Iterator[pa.Table]:
    """The rows of a stretch after the edit, in order."""
    for number in stretch:
        table = whole.read(number)
        kept = table.filter(pa.array(~_among(gone.near_part(number), table, whole.key)))
        rows = come.of_part(number)
        if rows.num_rows:
            both = pa.concat_tables([kept, rows]).to_batches()
            _, sorted_rows = ordered(both, whole.schema, whole.key, scratch=whole.scratch)
            yield from sorted_rows
        else:
            yield kept


def _which(whole: Whole, gone: _Spread, number: int) -> np.ndarray[Any, Any]:
    """Which rows of a part go."""
    return _among(gone.near_part(number), whole.read(number, list(whole.key)), whole.key)


def _among(keys: pa.Table, table: pa.Table, key: Sequence[str]) -> np.ndarray[Any, Any]:
    """Which rows of a table have one of the keys: by their hashes first, which few rows share, then exactly."""
    found = np.zeros(table.num_rows, bool)
    if not keys.num_rows or not table.num_rows:
        return found
    wanted, hashes = np.unique(key_hashes(keys, key)), key_hashes(table, key)
    places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
    exact = frozenset(_keys(keys, key))
    rows = np.flatnonzero(wanted[places] == hashes)
    for row, one in zip(rows, _keys(table.select(list(key)).take(pa.array(rows)), key), strict=True):
        found[row] = one in exact
    return found
