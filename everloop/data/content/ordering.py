"""The order of rows inside a version, and where its parts are cut.

Rows of a table with a key are sorted by it, so that a re-read in another order is the same version. Parts end where the
hash of a key says so (content-defined cuts): rows that come or go change the parts they lie in and no other.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.core.errors import DataError
from everloop.data.content.logical import BLOCK
from everloop.data.content.schema import is_bytes, is_text, plain
from everloop.data.content.sorting import shares_keys, sorted_in_memory, sorted_on_disk

MEMORY = 256 * 2**20
"""Bytes of Arrow data that are sorted in memory, where they take three times as much; more goes through the disk."""
SMALLEST_CUT, LARGEST_CUT = 8_192, 65_536
_SAMPLE = 1_024

Words = np.ndarray[Any, np.dtype[np.uint64]]


def cut_size(rows: int) -> int:
    """The mean number of rows of a part: 65,536, and less for small tables so that they have some 32 to 64 parts.

    A power of two, so that the cuts of a larger size are among those of a smaller one when a table grows.
    """
    wanted = 1 << max(rows // 32, 1).bit_length() - 1
    return min(max(wanted, SMALLEST_CUT), LARGEST_CUT)


def check_key(schema: pa.Schema, key: Sequence[str]) -> None:
    """Raise `DataError` unless every column of the key is there and of a type that identifies."""
    for name in key:
        if name not in schema.names:
            raise DataError(f"there is no column {name!r} for the key", hint="columns: " + ", ".join(schema.names))
        type_ = schema.field(name).type
        if pa.types.is_floating(type_) or pa.types.is_nested(type_) or pa.types.is_null(type_):
            raise DataError(
                f"column {name!r} of type {type_} cannot be part of a key",
                hint="keys are integers, decimals, text, bytes, dates, times or booleans",
            )


def ordered(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, key: Sequence[str], *, scratch: Path, memory: int = MEMORY
) -> tuple[int, Iterator[pa.Table]]:
    """All rows in plain layout, sorted by key: their number, and tables to iterate over.

    `schema` is the plain schema. Rows of equal keys come in the order of their other columns, so the order never
    depends on how rows arrived. Raises `DataError` for nulls in the key, `StorageFull`.
    """
    check_key(schema, key)
    held: list[pa.Table] = []
    size = 0
    stream = iter(batches)
    for batch in stream:
        held.append(_checked(plain(pa.Table.from_batches([batch])), key))
        size += held[-1].nbytes
        if size > memory:
            rest = (_checked(plain(pa.Table.from_batches([b])), key) for b in stream)
            return sorted_on_disk(_chain(held, rest), schema, key, scratch, memory)
    table = pa.concat_tables(held or [schema.empty_table()]).combine_chunks()
    held.clear()
    return table.num_rows, iter([sorted_in_memory(table, key)])


def _chain(held: list[pa.Table], rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    while held:
        yield held.pop(0)
    yield from rest


def _checked(table: pa.Table, key: Sequence[str]) -> pa.Table:
    for name in key:
        if table[name].null_count:
            raise DataError(
                f"{table[name].null_count} rows hold a null in the key column {name!r}",
                hint="drop these rows, fill the key, or declare another key",
            )
    return table


def distinct(tables: Iterable[pa.Table], key: Sequence[str]) -> Iterator[pa.Table]:
    """Tables in the order of their keys, as they come; raises `DataError` when two rows have one key."""
    last: tuple[Any, ...] | None = None
    for table in tables:
        if table.num_rows:
            keys = table.select(list(key)).combine_chunks()
            first, end = (tuple(keys[n][i].as_py() for n in key) for i in (0, keys.num_rows - 1))
            if first == last or shares_keys(keys, key):
                rows = list(zip(*(keys[n].to_pylist() for n in key), strict=True)) if first != last else [first, first]
                twice = next(a for a, b in itertools.pairwise(rows) if a == b)
                shown = ", ".join(f"{n}={value!r}" for n, value in zip(key, twice, strict=True))
                raise DataError(
                    f"two rows have the key {shown}",
                    hint="drop duplicates where the rows come from, or declare a key that tells rows apart",
                )
            last = end
        yield table


# --- cuts


def cut(tables: Iterable[pa.Table], key: Sequence[str], mean: int) -> Iterator[pa.Table]:
    """Cut sorted rows into parts of `mean` rows (a power of two) on average: a part begins where hash mod `mean` is 0.

    What lies between two cuts and exceeds twice `mean` is cut again at `mean / 2`, and so on, so that no part is large
    and a change stays local. Rows of one key stay together, unless they alone exceed the limit. There is always a part,
    if an empty one.
    """
    held: list[tuple[pa.Table, Words]] = []
    empty = True
    for table in tables:
        if held and not table.num_rows:
            continue
        hashes = key_hashes(table, key)
        begin = 0
        for start in _starts(hashes, held[-1][1][-1:] if held else hashes[:0], mean):
            held.append((table.slice(begin, start - begin), hashes[begin:start]))
            begin = start
            if any(piece.num_rows for piece, _ in held):
                yield from _limited(held, mean)
                empty = False
            held = []
        held.append((table.slice(begin), hashes[begin:]))
    if empty or any(piece.num_rows for piece, _ in held):
        yield from _limited(held, mean)


def _starts(hashes: Words, before: Words, modulus: int) -> list[int]:
    """Rows whose hash is 0 modulo `modulus` and whose key differs from the row before."""
    starts = (hashes & np.uint64(modulus - 1)) == 0
    starts[1:] &= hashes[1:] != hashes[:-1]
    if len(starts) and len(before) and hashes[0] == before[0]:
        starts[0] = False
    return [int(index) for index in np.flatnonzero(starts)]


def _limited(held: list[tuple[pa.Table, Words]], mean: int) -> Iterator[pa.Table]:
    table = pa.concat_tables([piece for piece, _ in held])
    hashes = np.concatenate([piece for _, piece in held])
    begin = 0
    for end in _ends(hashes, 0, len(hashes), 2 * mean, mean // 2):
        yield table.slice(begin, end - begin)
        begin = end


def _ends(hashes: Words, begin: int, end: int, limit: int, modulus: int) -> list[int]:
    if end - begin <= limit:
        return [end]
    if modulus < 2:
        return [*range(begin + limit, end, limit), end]
    inside = [begin + start for start in _starts(hashes[begin:end], hashes[begin:begin], modulus) if start]
    bounds = itertools.pairwise([begin, *inside, end])
    return [bound for a, b in bounds for bound in _ends(hashes, a, b, limit, modulus // 2)]


def key_hashes(table: pa.Table, key: Sequence[str]) -> Words:
    """A stable 64-bit hash of the key of every row, in blocks, by the rule of docs/data-identity.md."""
    pieces = [_block_hashes(table.slice(i, BLOCK), key) for i in range(0, table.num_rows, BLOCK)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)


def _block_hashes(table: pa.Table, key: Sequence[str]) -> Words:
    result = np.zeros(table.num_rows, np.uint64)
    for name in key:
        column = table[name].combine_chunks()
        array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        result = mixed(result * np.uint64(0x9E3779B97F4A7C15) + mixed(words(array)))
    return result


def words(array: pa.Array) -> Words:
    """A 64-bit word for every value (plain layout, no nulls): integers as they are, text by a polynomial."""
    type_ = array.type
    if is_text(type_) or is_bytes(type_):
        return _text_words(array)
    if pa.types.is_boolean(type_):
        return np.asarray(array.to_numpy(zero_copy_only=False)).astype(np.uint64)
    width = type_.byte_width
    buffer = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    if width in (1, 2, 4, 8):
        sign = "u" if pa.types.is_unsigned_integer(type_) else "f" if pa.types.is_floating(type_) else "i"
        values = buffer.view(f"<{sign}{width}")
        return (values.astype(np.float64).view(np.uint64)) if sign == "f" else values.astype(np.int64).view(np.uint64)
    rows = buffer.reshape(len(array), width)
    return np.asarray((rows.astype(np.uint64) * _powers(width)).sum(axis=1, dtype=np.uint64))


def _text_words(array: pa.Array) -> Words:
    if len(array) > _SAMPLE and pc.count_distinct(array[:_SAMPLE]).as_py() * 8 <= _SAMPLE:  # codes: a word for each
        coded = array.dictionary_encode()
        found: Words = _spelled(coded.dictionary)[coded.indices.to_numpy(zero_copy_only=False)]
        return found
    return _spelled(array)


def _spelled(array: pa.Array) -> Words:
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    result = lengths.astype(np.uint64)
    data = array.buffers()[2]
    if data is None or not len(array) or offsets[-1] == offsets[0]:
        return result
    content = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    places = np.arange(len(content)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    products = (content.astype(np.uint64) + np.uint64(1)) * _powers(int(lengths.max()))[places]
    filled = lengths > 0
    sums = np.add.reduceat(products, (offsets[:-1] - offsets[0])[filled])
    result[filled] += sums
    return result


def _powers(count: int) -> Words:
    return np.cumprod(np.full(count, 0x100000001B3, np.uint64), dtype=np.uint64)


def mixed(values: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
