"""Rows as a stream: shuffled by seed and epoch, cut into shards that share no row, resumable, in bounded memory.

Row groups (at most 65,536 rows in parts that we wrote) are the unit. Their order is drawn from seed and epoch; laid out
in that order, all rows are cut into shards of equal size, give or take one. A shard goes through its stretch window by
window: each row group's rows are permuted, then those of the whole window together. So rows mix over row groups that
lay far apart, while memory holds one window. Without a seed rows come as they are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.errors import InvalidInput
from everloop.data.reading.conditions import Condition, arrow_of

WINDOW = 262_144
"""Rows that are held and mixed at a time, unless the author says otherwise; a row group is always held whole."""
_OF_WINDOW = 2**40
"""Keeps the draws of windows apart from those of row groups."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a shard was read: windows that are behind, and rows given of the one after them."""

    window: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class _Block:
    file: Path
    group: int
    rows: int
    number: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    block: _Block
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows of Parquet files in an order that seed, epoch and shard decide; a value: it may be sent to other processes.

    Shards are cut before conditions are asked, so with conditions their sizes are equal only about.
    """

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    seed: int | None = None
    """None keeps the order in which rows are stored."""
    epoch: int = 0
    shard: int = 0
    shards: int = 1
    window: int = WINDOW

    def __post_init__(self) -> None:
        """Check the numbers; raises `InvalidInput`."""
        if not (0 <= self.shard < self.shards and self.window > 0 and self.epoch >= 0 and (self.seed or 0) >= 0):
            given = f"shard {self.shard} of {self.shards}, epoch {self.epoch}, seed {self.seed}, window {self.window}"
            raise InvalidInput(
                f"{given}: no order",
                hint="shards count from 0; seeds and epochs are not negative",
            )

    @property
    def schema(self) -> pa.Schema:
        """Of every table that comes."""
        schema = pq.read_schema(self.files[0]).remove_metadata()
        return pa.schema([schema.field(name) for name in self.columns])

    def of(self, shard: int, shards: int) -> "Stream":
        """A shard of this stream: shards of a shard nest, so ranks can share theirs out among their workers."""
        return replace(self, shard=self.shard * shards + shard, shards=self.shards * shards)

    def batches(self, size: int, start: Position = Position()) -> Iterator[tuple[pa.Table, Position]]:
        """Tables of `size` rows (the last one fewer) from a position on, each with the position after it."""
        left = self.schema.empty_table()
        position = start
        for number, window in self._windows(start.window):
            skipped = start.row if number == start.window else 0
            rows = pa.concat_tables([left, window.slice(skipped)])
            given = 0
            while rows.num_rows - given >= size:
                given_now = rows.slice(given, size)
                given += size
                position = Position(number, skipped + given - left.num_rows)
                yield given_now, position
            left = rows.slice(given)
        if left.num_rows:
            yield left, Position(len(list(self._planned())), 0)

    def _windows(self, first: int) -> Iterator[tuple[int, pa.Table]]:
        for number, stretches in enumerate(self._planned()):
            if number >= first:
                yield number, self._window(number, stretches)

    def _planned(self) -> Iterator[list[_Stretch]]:
        """The windows of this shard."""
        held: list[_Stretch] = []
        rows = 0
        for stretch in self._stretches():
            held.append(stretch)
            rows += stretch.stop - stretch.start
            if rows >= self.window:
                yield held
                held, rows = [], 0
        if held:
            yield held

    def _stretches(self) -> Iterator[_Stretch]:
        blocks = _blocks(self.files)
        total = sum(block.rows for block in blocks)
        begin, end = (total * number // self.shards for number in (self.shard, self.shard + 1))
        order = range(len(blocks)) if self.seed is None else self._draw().permutation(len(blocks)).tolist()
        at = 0
        for number in order:
            block = blocks[number]
            start, stop = max(begin - at, 0), min(end - at, block.rows)
            at += block.rows
            if start < stop:
                yield _Stretch(block, start, stop)

    def _window(self, number: int, stretches: list[_Stretch]) -> pa.Table:
        pieces = []
        for stretch in stretches:
            block = stretch.block
            table = self._block(block)
            if self.seed is not None:
                rows = self._draw(block.number).permutation(block.rows)[stretch.start : stretch.stop]
                pieces.append(table.take(pa.array(rows)))
            else:
                pieces.append(table.slice(stretch.start, stretch.stop - stretch.start))
        window = pa.concat_tables(pieces).combine_chunks()
        if self.seed is not None and len(pieces) > 1:
            window = window.take(pa.array(self._draw(_OF_WINDOW + number, self.shard).permutation(window.num_rows)))
        condition = arrow_of(self.where)
        if condition is not None:
            window = window.filter(condition)
        return window.select(list(self.columns))

    def _block(self, block: _Block) -> pa.Table:
        needed = list(dict.fromkeys([*self.columns, *(condition.column for condition in self.where)]))
        with pq.ParquetFile(block.file) as file:
            table = file.read_row_group(block.group, columns=needed, use_threads=False)
        return table.replace_schema_metadata(None)

    def _draw(self, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.seed or 0, self.epoch, *more])


@lru_cache(maxsize=8)
def _blocks(files: tuple[Path, ...]) -> tuple[_Block, ...]:
    found: list[_Block] = []
    for file in files:
        described = pq.read_metadata(file)
        for group in range(described.num_row_groups):
            found.append(_Block(file, group, described.row_group(group).num_rows, len(found)))
    return tuple(found)
