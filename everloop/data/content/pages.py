"""The digest of a column of numbers straight from the pages of a Parquet file.

A page of plain values without nulls *is* what rule 1 hashes, once it is decompressed: PyArrow would copy it into arrays
first, which costs as much as the digest does. Pages of dictionary indices are unpacked with NumPy. Whatever else a
column holds (nulls, text, lists, other encodings) is left to PyArrow: `straight` says None, and the digests agree.
Layout: the Parquet format's specification (thrift compact headers; the hybrid of runs and packed bits).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.errors import DataError
from everloop.data.content.logical import Array, ColumnHasher
from everloop.data.content.schema import plain_type

_WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_CODECS = {"SNAPPY": "snappy", "ZSTD": "zstd", "GZIP": "gzip", "BROTLI": "brotli"}
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # kinds of pages
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8  # encodings
_TRUTHS, _INTEGERS, _TEXT, _STRUCT = (1, 2), (4, 5, 6), 8, 12  # kinds of thrift's fields
_MORE = 128
_HEADER = 512
"""Bytes within which the header of a page of numbers ends."""
_LARGEST = 1 << 28
"""Bytes of a page; writers make them of about 1 MiB."""
_RUNS = 512
"""Runs in a page beyond which Python would be slower than PyArrow."""


def straight(file: pq.ParquetFile, source: pa.MemoryMappedFile, index: int, type_: pa.DataType) -> str | None:
    """The digest of a flat column of the file, or None where it must be decoded in the ordinary way."""
    about = file.schema.column(index)
    width = _WIDTHS.get(about.physical_type)
    if width is None or not _is_number(type_, width) or about.max_repetition_level or about.max_definition_level > 1:
        return None
    hasher = ColumnHasher(type_)
    rows = 0
    try:
        for group in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(group).column(index)
            for values in _chunk_values(chunk, source, _Shape(width, about.max_definition_level == 1)):
                hasher.update(values)
                rows += len(values)
    except (DataError, pa.ArrowException, OSError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError):
        # a damaged header may say anything; PyArrow says better what is wrong with it
        return None
    return hasher.hexdigest() if rows == file.metadata.num_rows else None


def _is_number(type_: pa.DataType, width: int) -> bool:
    """Whether values of the type are written as they lie in memory."""
    is_ = pa.types
    plain = is_.is_integer(type_) or is_.is_floating(type_) or is_.is_temporal(type_)
    return bool(plain and type_.byte_width == width and type_.equals(plain_type(type_)))


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    levels: bool
    """Whether values may be null, so that pages tell which are."""


def _chunk_values(chunk: Any, source: pa.MemoryMappedFile, shape: _Shape) -> Iterator[Array]:
    """Values of a column chunk, page by page, as unsigned integers of the column's width."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_null_count or statistics.null_count:
        raise _unusual("nulls")
    if chunk.compression != "UNCOMPRESSED" and chunk.compression not in _CODECS:
        raise _unusual(chunk.compression)
    codec = pa.Codec(_CODECS[chunk.compression]) if chunk.compression in _CODECS else None
    source.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
    buffer = source.read_buffer(chunk.total_compressed_size)
    view = memoryview(buffer)
    dictionary: Array | None = None
    position = 0
    while position < len(view):
        header, size = _struct(bytes(view[position : position + _HEADER]), 0)
        position += size
        if not 0 <= header[3] <= len(view) - position or not 0 <= header[2] <= _LARGEST:
            raise _unusual("sizes that do not fit")
        body = buffer.slice(position, header[3])
        position += header[3]
        if header[1] == _DICTIONARY:
            dictionary = np.frombuffer(_plain_bytes(body, codec, header[2]), f"<u{shape.width}", header[7][1])
        elif header[1] in (_DATA, _DATA_2):
            yield _page(header, body, codec, shape, dictionary)


def _page(
    header: dict[int, Any], body: pa.Buffer, codec: pa.Codec | None, shape: _Shape, dictionary: Array | None
) -> Array:
    if header[1] == _DATA:
        about = header[5]
        encoding, content = about[2], memoryview(_plain_bytes(body, codec, header[2]))
        if shape.levels:
            content = _after_levels(content, about[1], about[3])
    else:
        about = header[8]
        encoding, levels = about[4], about[5] + about[6]
        if about[2]:
            raise _unusual("nulls")
        packed = about.get(7, True)
        content = memoryview(_plain_bytes(body.slice(levels), codec if packed else None, header[2] - levels))
    if about[1] > _LARGEST // shape.width:
        raise _unusual("more values than a page holds")
    if encoding == _PLAIN:
        return np.frombuffer(content, f"<u{shape.width}", about[1])
    if encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY) and dictionary is not None:
        return dictionary[_indices(np.frombuffer(content, np.uint8), about[1])]
    raise _unusual(f"encoding {encoding}")


def _plain_bytes(body: pa.Buffer, codec: pa.Codec | None, size: int) -> pa.Buffer:
    return body if codec is None else codec.decompress(body, size)


def _after_levels(content: memoryview, count: int, encoding: int) -> memoryview:
    """What follows the definition levels, which must be one run that says that every value is there."""
    size = int.from_bytes(content[:4], "little")
    head, position = _varint(content, 4)
    if encoding != _RLE or head & 1 or head >> 1 != count or content[position] != 1:
        raise _unusual("definition levels")
    return content[4 + size :]


def _indices(content: Array, count: int) -> Array:
    """Dictionary indices: runs of one value, and values packed in bits, eight at a time."""
    width = int(content[0])
    if not 0 < width <= 32:
        raise _unusual(f"indices of {width} bits")
    pieces: list[Array] = []
    packed: list[Array] = []  # of the same width, so that they are unpacked together
    view = memoryview(content)  # type: ignore[arg-type]  # a NumPy array is a buffer
    position, found, runs = 1, 0, 0
    while found < count:
        head, start = _varint(view, position)
        if head & 1:
            repeats = _alike(content, position, start, (head >> 1) * width)
            stride = start - position + (head >> 1) * width
            block = content[position : position + repeats * stride].reshape(repeats, stride)[:, start - position :]
            packed.append(block.reshape(-1))
            position += repeats * stride
            found += repeats * (head >> 1) * 8
        else:
            size = (width + 7) // 8
            pieces += [*_unpacked(packed, width), _repeated(view[start : start + size], min(head >> 1, count - found))]
            packed = []
            position = start + size
            found += head >> 1
        runs += 1
        if runs > _RUNS:
            raise _unusual("short runs")
    pieces += _unpacked(packed, width)
    return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces))[:count]


def _repeated(value: memoryview, count: int) -> Array:
    return np.full(count, int.from_bytes(value, "little"), np.uint32)


def _alike(content: Array, position: int, start: int, size: int) -> int:
    """How many packed runs of the same size follow each other; writers make them short, and all alike."""
    stride = start - position + size
    most = (len(content) - position) // stride
    if start - position > 1 or most < 1:
        return 1
    heads = content[position : position + most * stride : stride]
    other = np.flatnonzero(heads != heads[0])
    return int(other[0]) if len(other) else most


def _unpacked(runs: list[Array], width: int) -> list[Array]:
    """Values of `width` bits, least significant first. Eight take `width` bytes, so each of the eight has one shift."""
    if not runs:
        return []
    padded = np.concatenate([*runs, np.zeros(8, np.uint8)])
    groups = (len(padded) - 8) // width
    values = np.empty(groups * 8, np.uint32)
    mask = np.uint64((1 << width) - 1)
    for place in range(8):
        first, shift = divmod(place * width, 8)
        words = np.ndarray((groups,), "<u8", padded, first, (width,))  # unaligned, overlapping: read only
        values[place::8] = (words >> np.uint64(shift)) & mask
    return [values]


# --- headers in thrift's compact protocol


def _struct(view: bytes | memoryview, position: int) -> tuple[dict[int, Any], int]:
    """Fields of a struct by their numbers, and where it ends; text is skipped, for no header that we read needs it."""
    fields: dict[int, Any] = {}
    number = 0
    while head := view[position]:
        position += 1
        kind = head & 15
        if step := head >> 4:
            number += step
        else:
            number, position = _signed(view, position)
        if kind in _INTEGERS:
            small = view[position]
            if small < _MORE:  # most are, and a call costs more than the number
                fields[number], position = (small >> 1) ^ -(small & 1), position + 1
            else:
                fields[number], position = _signed(view, position)
        elif kind in _TRUTHS:
            fields[number] = kind == 1
        elif kind == _STRUCT:
            fields[number], position = _struct(view, position)
        elif kind == _TEXT:
            size, position = _varint(view, position)
            position += size
        else:
            raise _unusual(f"a header with a field of kind {kind}")
    return fields, position + 1


def _varint(view: bytes | memoryview, position: int) -> tuple[int, int]:
    value = view[position]
    position += 1
    shift = 7
    while value >> shift:  # the highest bit so far says that there is more
        value = value & (1 << shift) - 1 | view[position] << shift
        position += 1
        shift += 7
    return value, position


def _signed(view: bytes | memoryview, position: int) -> tuple[int, int]:
    value, position = _varint(view, position)
    return (value >> 1) ^ -(value & 1), position


def _unusual(what: str) -> DataError:
    return DataError(f"pages with {what} are not read straight", hint="decode the column in the ordinary way")
