"""Rows that come and go inside a version with a key: which parts they touch, and what these hold afterwards.

The result has the very parts that a capture of the whole edited table would have: parts are cut where the hash of a key
says so, so whatever lies between two such cuts can be cut again by itself.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from everloop.data.content.keys import key_value
from everloop.data.content.ordering import cut, cut_size, key_hashes, ordered

Key = tuple[Any, ...]
ReadPart = Callable[[int], pa.Table]


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
    """The rows of a part, in plain layout."""
    scratch: Path


def spliced(whole: Whole, edit: Edit) -> Iterator[int | pa.Table]:
    """The parts after the edit, in order: the number of a part that stays, or the rows of a new one.

    There is always a part, if an empty one.
    """
    starts = _starts(whole)
    touched = _touched(whole, starts, edit)
    rows = sum(part["rows"] for part in whole.parts) + edit.rows.num_rows
    mean = cut_size(rows - _rows_gone(whole, edit, touched))
    boundary = _boundaries(whole, starts, edit, mean)
    stretches = list(_stretches(touched, boundary)) if mean == whole.cut else [range(len(whole.parts))]
    made, at = False, 0
    for stretch in stretches:
        for number in range(at, stretch.start):
            made = True
            yield number
        at = stretch.stop
        for table in cut(_edited(whole, edit, starts, stretch), whole.key, mean):
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


def _touched(whole: Whole, starts: list[Key], edit: Edit) -> set[int]:
    """The parts in whose range a key of the edit lies."""
    keys = {*_keys(edit.rows, whole.key), *_keys(edit.gone, whole.key)}
    return {max(bisect_right(starts, key, lo=1) - 1, 0) for key in keys}


def _rows_gone(whole: Whole, edit: Edit, touched: set[int]) -> int:
    """How many rows go."""
    if not edit.gone.num_rows:
        return 0
    gone = _Keys.of(edit.gone, whole.key)
    return sum(int(gone.among(whole.read(number)).sum()) for number in sorted(touched))


def _boundaries(whole: Whole, starts: list[Key], edit: Edit, mean: int) -> list[bool]:
    """Whether each part begins where the hash of its key says so, and goes on doing it."""
    if len(starts) < 2:
        return [True] * len(starts)
    fields = [whole.schema.field(name) for name in whole.key]
    firsts = pa.table(
        [pa.array([key[i] for key in starts[1:]], f.type) for i, f in enumerate(fields)], pa.schema(fields)
    )
    cuts = (key_hashes(firsts, whole.key) & np.uint64(mean - 1)) == 0
    gone = set(_keys(edit.gone, whole.key))
    return [True, *(bool(at) and key not in gone for at, key in zip(cuts, starts[1:], strict=True))]


def _stretches(touched: set[int], boundary: list[bool]) -> Iterator[range]:
    """Runs of parts between boundaries that hold a touched part."""
    begin = 0
    for number in range(1, len(boundary) + 1):
        if number == len(boundary) or boundary[number]:
            if not touched.isdisjoint(range(begin, number)):
                yield range(begin, number)
            begin = number


def _edited(whole: Whole, edit: Edit, starts: list[Key], stretch: range) -> Iterator[pa.Table]:
    """The rows of a stretch after the edit, in order."""
    gone = _Keys.of(edit.gone, whole.key)
    keys = _keys(edit.rows, whole.key)
    places = np.array([max(bisect_right(starts, key, lo=1) - 1, 0) for key in keys], np.int64)
    for number in stretch:
        table = whole.read(number)
        kept = table.filter(pa.array(~gone.among(table)))
        come = edit.rows.filter(pa.array(places == number)) if len(places) else edit.rows
        if come.num_rows:
            both = pa.concat_tables([kept, come]).to_batches()
            _, sorted_rows = ordered(both, whole.schema, whole.key, scratch=whole.scratch)
            yield from sorted_rows
        else:
            yield kept


@dataclass(frozen=True, slots=True)
class _Keys:
    """A set of keys to look rows up in: by their hashes first, which few rows share, then exactly."""

    key: Sequence[str]
    hashes: Any
    exact: frozenset[Key]

    @classmethod
    def of(cls, table: pa.Table, key: Sequence[str]) -> "_Keys":
        return cls(key, np.unique(key_hashes(table, key)), frozenset(_keys(table, key)))

    def among(self, table: pa.Table) -> np.ndarray[Any, Any]:
        """Which rows of the table have one of the keys."""
        if not len(self.hashes) or not table.num_rows:
            return np.zeros(table.num_rows, bool)
        found = np.isin(key_hashes(table, self.key), self.hashes)
        rows = np.flatnonzero(found)
        for row, key in zip(rows, _keys(table.select(list(self.key)).take(pa.array(rows)), self.key), strict=True):
            found[row] = key in self.exact
        return found
