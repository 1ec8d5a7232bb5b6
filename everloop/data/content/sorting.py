"""Rows in the order of their keys, in memory or by way of the disk. Both ways give the same rows in the same order.

What does not fit in memory is written to the disk as it comes. Rows that came in the order of their keys are read
again as they are; others are dealt out into files by ranges of keys, each of which fits in memory and is sorted there.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.data.content.logical import BLOCK
from everloop.data.failures import full_disk_is_storage_full

_SAMPLED = 512
"""Of so many rows one tells how keys are spread."""
_SHARE = 4
"""A range may take this part of the memory: it is there twice while it is sorted, and the one before still once."""
_RANGES = 256
"""Files that are open at once, at most; with more rows ranges grow."""


def sorted_in_memory(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Rows by key; those of one key in the order of their other columns."""
    table = table.combine_chunks()
    if not _in_order(table, key):
        table = table.take(_order(table, key))
    if shares_keys(table, key):
        table = table.take(_order(table, _sort_columns(table.schema, key)))
    return table


def sorted_on_disk(
    tables: Iterable[pa.Table], schema: pa.Schema, key: Sequence[str], scratch: Path, memory: int
) -> tuple[int, Iterator[pa.Table]]:
    """The same of rows that stream, with about twice `memory` bytes at hand: how many there are, and the rows.

    Raises `StorageFull`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sort-", dir=scratch))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        spill = _Spill(folder / "rows.arrow", schema, key, memory // _SHARE)
        spill.write(tables)
        pa.default_memory_pool().release_unused()  # else it is held beside what the sorting takes
        stack.pop_all()  # whoever reads it clears it away
    return spill.rows, _cleared(folder, spill.tables())


def _cleared(folder: Path, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    try:
        with full_disk_is_storage_full():
            yield from tables
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Spill:
    """Rows in a file, as they came."""

    path: Path
    schema: pa.Schema
    key: Sequence[str]
    size: int
    """Bytes of a range."""
    rows: int = 0
    bytes: int = 0
    ascending: bool = True
    """Whether each row has a larger key than the one before."""
    sample: pa.Table | None = None

    def write(self, tables: Iterable[pa.Table]) -> None:
        """Write all rows, and see how their keys lie."""
        chance = np.random.default_rng(0)  # what is drawn changes where ranges end, and no result
        sampled = [self.schema.empty_table()]
        last = self.schema.empty_table().select(list(self.key))
        with full_disk_is_storage_full(), pa.ipc.new_file(str(self.path), self.schema) as writer:
            for table in tables:
                writer.write_table(table, BLOCK)
                count = (self.rows + table.num_rows) // _SAMPLED - self.rows // _SAMPLED
                if count:
                    sampled.append(table.take(pa.array(chance.integers(0, table.num_rows, count))))
                self.rows += table.num_rows
                self.bytes += table.nbytes
                if self.ascending and table.num_rows:
                    keys = pa.concat_tables([last, table.select(list(self.key))]).combine_chunks()
                    self.ascending = _in_order(keys, self.key) and not shares_keys(keys, self.key)
                    last = keys.take(pa.array([keys.num_rows - 1]))
        self.sample = pa.concat_tables(sampled)

    def tables(self) -> Iterator[pa.Table]:
        """The rows in order."""
        if self.ascending:
            yield from _read(self.path)
            return
        for path in self._dealt():
            table = pa.concat_tables([self.schema.empty_table(), *_read(path)])
            path.unlink()
            if table.num_rows:
                yield sorted_in_memory(table, self.key)

    def _dealt(self) -> list[Path]:
        """The rows in files, each a range of keys, in order; the file with all of them goes."""
        marks, columns = self._marks()
        paths = [self.path.with_name(f"{number}.arrow") for number in range(marks.num_rows + 1)]
        with ExitStack() as stack:
            writers = [stack.enter_context(pa.ipc.new_file(str(path), self.schema)) for path in paths]
            for table in _read(self.path):
                for writer, piece in zip(writers, _split(table, marks, columns), strict=True):
                    if piece.num_rows:
                        writer.write_table(piece)
        self.path.unlink()
        return paths

    def _marks(self) -> tuple[pa.Table, list[str]]:
        """The rows at which ranges begin, and the columns by which; where keys repeat, other columns count too."""
        assert self.sample is not None
        sample = sorted_in_memory(self.sample, self.key)
        columns = _sort_columns(self.schema, self.key) if shares_keys(sample, self.key) else list(self.key)
        ranges = min(-(-self.bytes // max(self.size, 1)), _RANGES, sample.num_rows)
        at = np.arange(1, ranges) * sample.num_rows // max(ranges, 1)
        return sample.take(pa.array(at)).select(columns), columns


def _split(table: pa.Table, marks: pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows below the first mark, those from there to the second, and so on."""
    both = pa.concat_tables([marks, table.select(list(columns))]).combine_chunks()
    order = _order(both, columns).to_numpy()  # stable: a mark comes before the rows that are like it
    is_mark = order < marks.num_rows
    rows = table.take(pa.array(order[~is_mark] - marks.num_rows))
    begin = 0
    for end in [*(np.flatnonzero(is_mark) - np.arange(marks.num_rows)).tolist(), rows.num_rows]:
        yield rows.slice(begin, end - begin)
        begin = end


def _read(path: Path) -> Iterator[pa.Table]:
    """A file's rows, piece by piece; read and not mapped, for what is mapped counts as memory of the process."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def _order(table: pa.Table, columns: Sequence[str]) -> pa.Array:
    return pc.sort_indices(table, sort_keys=[(c, "ascending") for c in columns])  # nulls come last


def _sort_columns(schema: pa.Schema, key: Sequence[str]) -> list[str]:
    """The key, then every other column that has an order."""
    rest = (f for f in schema if f.name not in key and not pa.types.is_nested(f.type) and not pa.types.is_null(f.type))
    return [*key, *(f.name for f in rest)]


def _in_order(table: pa.Table, key: Sequence[str]) -> bool:
    """Whether the rows are in the order of their keys; by blocks, so that a table in no order is found out at once."""
    for start in range(0, table.num_rows, BLOCK):
        block = table.slice(start, BLOCK + 1)  # one row of the next block, too
        ascending, tie = pa.scalar(False), pa.scalar(True)
        for name in key:
            above, below = _neighbours(block, name)
            ascending = pc.or_(ascending, pc.and_(tie, pc.less(above, below)))
            tie = pc.and_(tie, pc.equal(above, below))
        if block.num_rows > 1 and not pc.all(pc.or_(ascending, tie)).as_py():
            return False
    return True


def shares_keys(table: pa.Table, key: Sequence[str]) -> bool:
    """Whether neighbours share a key. The last column goes first: it tells most rows of a sorted table apart."""
    if table.num_rows < 2:
        return False
    *others, last = key
    above, below = _neighbours(table, last)
    rows = pc.indices_nonzero(pc.equal(above, below))
    for name in reversed(others):
        above, below = _neighbours(table, name)
        rows = rows.filter(pc.equal(above.take(rows), below.take(rows)))
    return len(rows) > 0


def _neighbours(table: pa.Table, name: str) -> tuple[pa.Array, pa.Array]:
    column = table[name].chunk(0)
    return column[:-1], column[1:]
