"""Events out of what arrived: rows of the declared columns, and dead letters with the reason."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from everloop.core.errors import DataError, InvalidInput
from everloop.data.content.jsonlines import read_lines
from everloop.data.content.schema import type_named
from everloop.data.streams.origins import ARROW, LONGEST_LETTER

LARGEST = 64 << 20
"""Bytes of a batch after it was unpacked."""
_TEXTUAL = (pa.types.is_date, pa.types.is_time, pa.types.is_duration)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a batch held: `rows` came from the events numbered `kept`; `dead` are number, reason and text of others."""

    rows: pa.Table
    kept: Sequence[int]
    dead: tuple[tuple[int, str, str], ...] = ()


def schema_of(columns: Mapping[str, str]) -> pa.Schema:
    """The schema that a feed declares; raises `InvalidInput` for a type that we do not know."""
    fields = []
    for name, text in columns.items():
        type_ = type_named(text)
        if type_ is None:
            raise InvalidInput(f"{text!r} of the column {name!r} is no type", hint="int64, string, timestamp[us,UTC] …")
        fields.append(pa.field(name, type_))
    return pa.schema(fields)


def unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its `gzip`; raises `DataError` for a broken one, and one of more than `LARGEST`."""
    if encoding != "gzip":
        return body
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = inflate.decompress(body, LARGEST)
    except zlib.error as error:
        raise DataError(f"the batch is no gzip: {error}", hint="send it again") from error
    if inflate.unconsumed_tail:
        raise DataError(f"the batch unpacks to more than {LARGEST >> 20} MiB", hint="send smaller batches")
    if not inflate.eof:
        raise DataError("the gzip of the batch ends in its middle", hint="send it again")
    return content


def decode(body: bytes, media: str, schema: pa.Schema) -> Decoded:
    """The events of a batch; a batch that cannot be read at all is one dead letter."""
    if media == ARROW:
        return _arrow(body, schema)
    return decode_lines([line for line in body.split(b"\n") if line.strip()], schema)


def decode_lines(lines: Sequence[bytes], schema: pa.Schema) -> Decoded:
    """Events that are one JSON object each. All are read at once; where that fails, the halves are."""
    if not lines:
        return Decoded(schema.empty_table(), ())
    try:
        rows = _read(lines, schema)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if len(lines) == 1:
            return Decoded(schema.empty_table(), (), ((0, _reason(lines[0], schema, error), _text(lines[0])),))
        half = len(lines) // 2
        first, second = decode_lines(lines[:half], schema), decode_lines(lines[half:], schema)
        dead = (*first.dead, *((half + at, why, text) for at, why, text in second.dead))
        kept = [*first.kept, *(half + at for at in second.kept)]
        return Decoded(pa.concat_tables([first.rows, second.rows]), kept, dead)
    return Decoded(rows, range(len(lines)))


def _read(lines: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    body = b"\n".join(lines)
    read_as = pa.schema([f.with_type(_as_read(f.type)) for f in schema])
    table = read_lines(
        body,
        pj.ReadOptions(use_threads=False, block_size=len(body) + 1),
        pj.ParseOptions(explicit_schema=read_as, unexpected_field_behavior="error"),
    )
    table.validate(full=True)  # the reader lets broken UTF-8 pass
    if table.num_rows != len(lines):
        raise pa.ArrowInvalid("a line holds one event")
    return table.cast(schema)


def _as_read(type_: pa.DataType) -> pa.DataType:
    return pa.large_string() if any(fits(type_) for fits in _TEXTUAL) else type_


def _reason(line: bytes, schema: pa.Schema, error: Exception) -> str:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(event, dict):
        return "not a JSON object"
    extra = [name for name in event if name not in schema.names]
    return f"a column {extra[0]!r} that the feed has not" if extra else str(error).partition("\n")[0]


def _arrow(body: bytes, schema: pa.Schema) -> Decoded:
    try:
        table = pa.ipc.open_stream(pa.BufferReader(body)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        return Decoded(schema.empty_table(), (), ((0, f"no Arrow stream: {error}", ""),))
    missing = [name for name in schema.names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    try:
        if extra or len(set(table.column_names)) != table.num_columns:
            raise pa.ArrowInvalid(f"columns that the feed has not, or twice: {extra or table.column_names}")
        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
        rows = table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).partition("\n")[0]
        events = [json.dumps(event, default=str) for event in table.to_pylist()]
        return Decoded(schema.empty_table(), (), tuple((at, reason, e[:LONGEST_LETTER]) for at, e in enumerate(events)))
    return Decoded(rows, range(rows.num_rows))


def event_of(fields: Mapping[bytes, bytes], schema: pa.Schema) -> bytes:
    """The JSON object that fields of text mean, each read as its column's type wants it."""
    event: dict[str, Any] = {}
    for raw, value in fields.items():
        name, text = raw.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
        event[name] = text
        if name in schema.names and _is_bare(schema.field(name).type):
            try:
                event[name] = json.loads(text)
            except ValueError:
                continue
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _is_bare(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")[:LONGEST_LETTER]
