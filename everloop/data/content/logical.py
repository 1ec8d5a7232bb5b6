"""The identity of tables: a digest of what Arrow data means, not of how it is laid out (docs/data-identity.md).

Equal values give equal digests whatever the chunking, slicing, dictionary encoding, offsets width or view layout, the
bytes under nulls, -0.0 or the payload of a NaN. Everything is vectorised over Arrow's buffers; blocks of 65,536 rows
keep the working set in the processor's cache, and strings are never touched one by one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from everloop.core.errors import DataError
from everloop.core.ids import manifest_id
from everloop.data.content.schema import is_bytes, is_lists, is_text, plain_type, schema_fields, unwrapped

RULE = 1
"""Number of the written rule; a change of any digest makes a new number."""
BLOCK = 65_536
Array = np.ndarray[Any, np.dtype[Any]]
Buffer = bytes | memoryview | Array
_INFINITY = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}
_NAN = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}


@dataclass(frozen=True, slots=True)
class Digest:
    """What a table is: its logical id, and per column the digest and the number of nulls."""

    logical: str
    rows: int
    columns: tuple[str, ...]
    """32 hexadecimal digits a column."""
    nulls: tuple[int, ...]


class Hasher:
    """The digest of a table that comes in record batches of any size."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin a table of that schema; raises `DataError` for types that cannot be stored."""
        self._fields = schema_fields(schema)
        self._streams = [blake3() for _ in self._fields]
        self._nulls = [0] * len(self._fields)
        self._rows = 0
        self._waiting: list[pa.RecordBatch] = []
        self._held = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        while batch.num_rows:
            piece = batch.slice(0, BLOCK - self._held)
            batch = batch.slice(piece.num_rows)
            self._waiting.append(piece)
            self._held += piece.num_rows
            if self._held == BLOCK:
                self._flush()

    def digest(self) -> Digest:
        """The digest of all rows so far; nothing may be added after."""
        self._flush()
        columns = tuple(stream.hexdigest(length=16) for stream in self._streams)
        return assembled(self._fields, self._rows, columns, tuple(self._nulls))

    def _flush(self) -> None:
        for index, stream in enumerate(self._streams):
            arrays = [batch.column(index) for batch in self._waiting]
            if arrays:
                array = _joined(arrays)
                self._nulls[index] += array.null_count if array.type.id != _NULL else len(array)
                for piece in _encode(array):
                    stream.update(piece)  # type: ignore[arg-type]  # a NumPy array is a buffer
        self._rows += self._held
        self._waiting, self._held = [], 0


class ColumnHasher:
    """The digest of one column of numbers without nulls, whose values come as unsigned integers of any count."""

    def __init__(self, type_: pa.DataType) -> None:
        """Begin a column of that plain type."""
        self._stream = blake3()
        self._width = type_.byte_width
        self._floats = pa.types.is_floating(type_)
        self._held = 0

    def update(self, values: Array) -> None:
        """Add values, little-endian."""
        while len(values):
            piece = values[: BLOCK - self._held]
            values = values[len(piece) :]
            if not self._held:
                self._stream.update(b"\x00")
            self._held = (self._held + len(piece)) % BLOCK
            found = _one_zero_one_nan(piece, self._width) if self._floats else piece
            self._stream.update(found.view(np.uint8))  # type: ignore[arg-type]  # a NumPy array is a buffer

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._stream.hexdigest(length=16)


def assembled(fields: list[list[str]], rows: int, columns: tuple[str, ...], nulls: tuple[int, ...]) -> Digest:
    """The digest of a table from those of its columns; `fields` as `schema_fields` gives them."""
    identity = {"rule": RULE, "fields": fields, "rows": rows, "columns": list(columns)}
    return Digest(manifest_id(identity), rows, columns, nulls)


_NULL = pa.null().id


def digest(table: pa.Table | pa.RecordBatch) -> Digest:
    """The digest of a table that is at hand."""
    hasher = Hasher(table.schema)
    for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
        hasher.update(batch)
    return hasher.digest()


def digest_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Digest:
    """The digest of a table that streams."""
    hasher = Hasher(schema)
    for batch in batches:
        hasher.update(batch)
    return hasher.digest()


def _joined(arrays: list[pa.Array]) -> pa.Array:
    plain_arrays = [unwrapped(array) for array in arrays]
    return plain_arrays[0] if len(plain_arrays) == 1 else pa.concat_arrays(plain_arrays)


def _encode(array: pa.Array) -> Iterator[Buffer]:
    """The bytes that stand for an array: one byte for "holds nulls", the validity bits, then the values."""
    array = unwrapped(array)
    type_ = array.type
    if pa.types.is_null(type_):
        return
    mask: Array | None = None
    if array.null_count:
        mask = _valid(array)
        yield b"\x01"
        yield np.packbits(mask, bitorder="little")
    else:
        yield b"\x00"
    if len(array):
        yield from _values(array, mask)


def _values(array: pa.Array, mask: Array | None) -> Iterator[Buffer]:
    type_ = array.type
    if pa.types.is_boolean(type_):
        bits = _bits(array.buffers()[1], array.offset, len(array))
        yield np.packbits(bits if mask is None else bits & mask, bitorder="little")
    elif is_text(type_) or is_bytes(type_):
        yield from _texts(array, mask)
    elif pa.types.is_struct(type_):
        for child in array.flatten():  # a null above is a null below
            yield from _encode(child)
    elif pa.types.is_fixed_size_list(type_):
        yield from _encode(array.flatten())  # elements under a null are left out
    elif is_lists(type_) or pa.types.is_map(type_):
        yield from _lists(array, mask)
    else:
        yield _fixed(array, mask)


def _fixed(array: pa.Array, mask: Array | None) -> Array:
    """Little-endian values, zeros under nulls; floats with one zero and one NaN."""
    target = plain_type(array.type)
    if not array.type.equals(target):
        array = array.cast(target)
    width = target.byte_width
    unit = width if width in (1, 2, 4, 8) else 1
    across = width // unit
    raw = np.frombuffer(array.buffers()[1], np.dtype(f"<u{unit}"))
    values = raw[array.offset * across : (array.offset + len(array)) * across]
    if pa.types.is_floating(target):
        values = _one_zero_one_nan(values, width)
    if mask is not None:
        values = np.where(np.repeat(mask, across) if across > 1 else mask, values, values.dtype.type(0))
    return np.ascontiguousarray(values).view(np.uint8)


def _one_zero_one_nan(values: Array, width: int) -> Array:
    """The bits of floats with -0.0 made +0.0 and every NaN the same one.

    Passes that allocate nothing tell whether there is either. As unsigned integers, what has a sign is larger than what
    has none, and a NaN than infinity: one pass will do where all is positive. As an integer -0.0 is the smallest there
    is, and a NaN shows in the maximum.
    """
    if int(values.max()) <= _INFINITY[width]:
        return values
    floats = values.view(np.dtype(f"<f{width}"))
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        smallest = int(values.view(np.dtype(f"<i{width}")).min())
        if smallest != -(2 ** (8 * width - 1)) and not np.isnan(floats.max()):
            return values
        floats = floats + np.zeros((), floats.dtype)  # -0.0 + 0.0 is +0.0, and nothing else changes
    bits: Array = floats.view(values.dtype)
    bits[np.isnan(floats)] = _NAN[width]
    return bits


def _texts(array: pa.Array, mask: Array | None) -> Iterator[Buffer]:
    """Lengths in bytes as 32-bit integers (0 under nulls), then the bytes without gaps."""
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(plain_type(array.type))
    offsets = _offsets(array)
    lengths = np.diff(offsets)
    if mask is not None and lengths[~mask].any():  # Arrow allows bytes under a null
        array = pc.fill_null(array, pa.scalar(b"" if is_bytes(array.type) else "", array.type))
        offsets = _offsets(array)
        lengths = np.diff(offsets)
    yield _lengths(lengths)
    data = array.buffers()[2]
    if data is not None and offsets[-1] > offsets[0]:
        yield memoryview(data)[int(offsets[0]) : int(offsets[-1])]


def _lists(array: pa.Array, mask: Array | None) -> Iterator[Buffer]:
    """Numbers of elements (0 under nulls), then all elements as one array."""
    if pa.types.is_map(array.type):
        array = _map_as_list(array)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    yield _lengths(lengths if mask is None else np.where(mask, lengths, 0))
    yield from _encode(array.flatten())


def _map_as_list(array: pa.Array) -> pa.Array:
    """The entries of a map as a list of structs; a map's keys and items are not sliced with it."""
    entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    buffers = array.buffers()[:2]
    return pa.Array.from_buffers(pa.list_(entries.type), len(array), buffers, -1, array.offset, [entries])


def _lengths(lengths: Array) -> Array:
    if int(lengths.max()) >= 2**32:
        raise DataError("a single value is larger than 4 GiB", hint="store it as a file")
    return lengths.astype("<u4").view(np.uint8)


def _offsets(array: pa.Array) -> Array:
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    whole = np.frombuffer(array.buffers()[1], np.int64 if wide else np.int32)
    return whole[array.offset : array.offset + len(array) + 1]


def _valid(array: pa.Array) -> Array:
    buffer = array.buffers()[0]
    return (
        array.is_valid().to_numpy(zero_copy_only=False) if buffer is None else _bits(buffer, array.offset, len(array))
    )


def _bits(buffer: pa.Buffer, offset: int, length: int) -> Array:
    first, last = offset // 8, (offset + length + 7) // 8
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8)[first:last], bitorder="little")
    start = offset - first * 8
    return bits[start : start + length].view(bool)
