"""CSV and its kin, in blocks. Types are found over all files: a column takes the narrowest that holds all of it."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from everloop.core.errors import DataError
from everloop.data.sources.formats.cut import Remembered, refuse_cut
from everloop.data.sources.formats.telling import not_text, unreadable, wider
from everloop.data.sources.formats.unpacking import is_compressed, opened
from everloop.data.sources.places.place import Here

NULLS = ("", "NA", "N/A", "NULL", "null")
"""Unquoted CSV fields that mean "no value"; `nan` is a float that is no number, not a null."""
BLOCK_BYTES = 16 * 2**20
_BAD_COLUMN = re.compile(r"CSV column #(\d+)")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def csv_types(found: Sequence[Here], encoding: str) -> dict[str, pa.DataType]:
    """The type of each column over all files. A column whose values do not fit one type in the end becomes wider.

    One file of less than a block is typed as it is read; else a first pass reads everything.
    """
    if len(found) == 1 and found[0].path.stat().st_size < BLOCK_BYTES and not is_compressed(found[0].path):
        return {}
    types: dict[str, pa.DataType] = {}
    for here in found:
        while True:
            try:
                for batch in csv(here, types, encoding):
                    for field in batch.schema:
                        types[field.name] = wider(types.get(field.name, field.type), field.type)
                break
            except pa.ArrowInvalid as error:
                if not _widen(types, here, str(error), encoding):
                    raise unreadable(here.name, "csv", error) from error
    return types


def csv(here: Here, types: Mapping[str, pa.DataType], encoding: str) -> Iterator[pa.RecordBatch]:
    """Record batches of a file, by the types as far as they are given. Raises `DataError`, or Arrow's errors."""
    with opened(here) as inner:
        # what is packed cannot be asked for its end again
        file = Remembered(inner, 2 * BLOCK_BYTES) if is_compressed(here.path) else inner
        try:
            reader = pc.open_csv(file, *_options(types, here, encoding))
            last = None
            for batch in reader:
                last = batch if batch.num_rows else last
                if any(pa.types.is_binary(field.type) for field in batch.schema):  # Arrow's type for what is no text
                    raise not_text(here, lambda: _lines(here), encoding)
                yield batch
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise _told(here, error, encoding) from error
        if last is None:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
        else:
            refuse_cut(here, file, last, _delimiter(here), encoding)


def _told(here: Here, error: Exception, encoding: str) -> Exception:
    if "Empty CSV file" in str(error):
        return DataError(f"{here.name}: the file is empty", hint="a CSV file has at least a line of names")
    if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error) or _begins(here) in _UTF16:
        return not_text(here, lambda: _lines(here), encoding)
    return error


def _lines(here: Here) -> Iterator[bytes]:
    with opened(here) as file:
        yield from io.BufferedReader(file) if isinstance(file, pa.NativeFile) else file


def _begins(here: Here) -> bytes:
    with opened(here) as file:
        return bytes(file.read(2))


def _widen(types: dict[str, pa.DataType], here: Here, message: str, encoding: str) -> bool:
    """Make the column that `message` complains about wider; False when it is about something else."""
    match = _BAD_COLUMN.search(message)
    if match is None or "conversion error" not in message:
        return False
    with opened(here) as file, pc.open_csv(file, *_options({}, here, encoding)[:2]) as reader:
        name = reader.schema.names[int(match.group(1))]
        now = types.get(name, reader.schema.field(name).type)
    types[name] = {pa.null(): pa.int64(), pa.int64(): pa.float64()}.get(now, pa.string())
    return not now.equals(types[name])


def _delimiter(here: Here) -> str:
    return "\t" if ".tsv" in here.path.suffixes else ","


def _options(types: Mapping[str, pa.DataType], here: Here, encoding: str) -> tuple[Any, Any, Any]:
    return (
        pc.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding=encoding),
        pc.ParseOptions(delimiter=_delimiter(here)),
        pc.ConvertOptions(
            null_values=list(NULLS), strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=types
        ),
    )
