"""JSON lines, a block of whole lines at a time. Types are found over all blocks of all files before rows are given."""

import io
from collections.abc import Iterator, Sequence

import orjson
import pyarrow as pa
import pyarrow.json as pj

from everloop.core.errors import DataError
from everloop.data.content.jsonlines import read_lines
from everloop.data.content.logical import BLOCK
from everloop.data.sources.formats.telling import HINTS, not_text, unreadable, wider
from everloop.data.sources.formats.unpacking import is_compressed, opened
from everloop.data.sources.places.place import Here

BLOCK_BYTES = 16 * 2**20
_LONGEST = 64 * 2**20


def json_schema(found: Sequence[Here]) -> pa.Schema | None:
    """The schema of all lines of all files; None when one small file is typed as it is read."""
    if len(found) == 1 and found[0].path.stat().st_size < BLOCK_BYTES and not is_compressed(found[0].path):
        return None
    schema: pa.Schema | None = None
    for here in found:
        for batch in json_lines(here, None):
            schema = batch.schema if schema is None else _both(schema, batch.schema, here)
    return schema


def json_lines(here: Here, schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
    """Record batches of a file; raises `DataError` with the line where there is one, or Arrow's errors."""
    options = pj.ReadOptions(use_threads=False, block_size=_LONGEST)
    parsing = pj.ParseOptions(explicit_schema=schema)
    none = True
    with opened(here) as file:
        for block in _blocks(file, here):
            none = False
            try:
                table = read_lines(block, options, parsing)
            except pa.ArrowInvalid as error:
                raise _bad_line(here) or unreadable(here.name, "jsonl", error) from error
            try:
                table.validate(full=True)
            except pa.ArrowInvalid:
                raise not_text(here, lambda: _lines(here), "utf-8") from None
            yield from table.to_batches(max_chunksize=BLOCK)
    if none:
        raise DataError(f"{here.name}: Empty JSON file", hint=HINTS["jsonl"])


def _blocks(file: object, here: Here) -> Iterator[bytes]:
    """Whole lines, a block of them at a time; lines without anything in them at the end are none."""
    left = b""
    while content := file.read(BLOCK_BYTES):  # type: ignore[attr-defined]
        whole, newline, rest = (left + content).rpartition(b"\n")
        if len(rest) > _LONGEST - BLOCK_BYTES:
            raise DataError(f"{here.name}: a line is longer than {_LONGEST} bytes", hint=HINTS["jsonl"])
        left = rest
        if newline and whole.strip():
            yield whole
    if left.strip():
        yield left


def _both(a: pa.Schema, b: pa.Schema, here: Here) -> pa.Schema:
    """A schema that holds the rows of both."""
    fields = {field.name: field for field in a}
    for field in b:
        there = fields.get(field.name, field)
        if pa.types.is_nested(field.type) or pa.types.is_nested(there.type):
            try:
                there = pa.unify_schemas([pa.schema([there]), pa.schema([field])], promote_options="permissive")[0]
            except pa.ArrowException as error:
                raise unreadable(here.name, "jsonl", error) from error
        elif _kind(there.type) and _kind(field.type) and _kind(there.type) != _kind(field.type):
            raise DataError(
                f"{here.name}: field {field.name!r} is {field.type} here, and {there.type} before", hint=HINTS["jsonl"]
            )
        else:
            there = pa.field(field.name, wider(there.type, field.type))
        fields[field.name] = there
    return pa.schema(list(fields.values()))


def _kind(type_: pa.DataType) -> str:
    """What JSON calls the values; empty for nulls."""
    if pa.types.is_null(type_):
        return ""
    if pa.types.is_boolean(type_):
        return "boolean"
    return "number" if pa.types.is_integer(type_) or pa.types.is_floating(type_) else "text"


def _lines(here: Here) -> Iterator[bytes]:
    with opened(here) as file:
        yield from io.BufferedReader(file) if isinstance(file, pa.NativeFile) else file


def _bad_line(here: Here) -> DataError | None:
    """Which line is the first that is no JSON object."""
    for number, line in enumerate(_lines(here), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return DataError(f"{here.name}:{number}: not JSON: {error}", hint=HINTS["jsonl"])
        if not isinstance(value, dict):
            return DataError(f"{here.name}:{number}: a JSON {type(value).__name__}, not an object", hint=HINTS["jsonl"])
    return None
