"""Whether the bytes of a file speak of a subject, and the same file without the subject where that can be written.

Tables lose rows, lists of lines lose lines, other texts lose the key. What is packed (gzip, zip, Parquet, statements
that are signed) is opened to look into it.
"""

import base64
import csv
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from everloop.catalog.erasing.mentions import Mentions
from everloop.core.errors import DataError
from everloop.data.content.layers import Layers, is_layered

_LARGEST = 1 << 30
"""Bytes that are unpacked of one file at most."""
_LINES = frozenset({".jsonl", ".ndjson", ".log", ".txt", ".md"})
_TABLES = {".csv": ",", ".tsv": "\t"}


def holds(content: bytes, mentions: Mentions, depth: int = 3) -> bool:
    """Whether a file speaks of the subject, inside of archives too."""
    if mentions.in_bytes(content):
        return True
    if content[:4] == b"PAR1":
        return any(_rows(table, mentions) for table in _tables(content))
    if content[:2] == b"\x1f\x8b" and depth:
        return holds(_gunzipped(content), mentions, depth - 1)
    if content[:4] == b"PK\x03\x04" and depth:
        return any(name_or_bytes(name, inner, mentions, depth - 1) for name, inner in _members(content))
    if content[:1] in (b"{", b"[") and any(form.encode() in content for form in mentions.forms):
        return _json_speaks(content, mentions)
    return b'"payloadType"' in content[:4096] and _statement_speaks(content, mentions)


def name_or_bytes(name: str, content: bytes, mentions: Mentions, depth: int = 3) -> bool:
    """Whether a file speaks of the subject by its path or its bytes."""
    return mentions.in_text(name) or holds(content, mentions, depth)


def redacted(content: bytes, path: str, mentions: Mentions) -> bytes | None:
    """The file without the subject; None for one that cannot be written without it."""
    if content[:4] == b"PAR1":
        return _parquet(content, mentions)
    signed = b'"payloadType"' in content[:4096]  # another text would be another statement
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if signed or "\0" in text else _text(text, PurePosixPath(path).suffix.lower(), mentions)


def _text(text: str, suffix: str, mentions: Mentions) -> bytes:
    if suffix in _TABLES:
        return _records(text, _TABLES[suffix], mentions)
    if suffix in _LINES:
        return "".join(line for line in text.splitlines(keepends=True) if not mentions.in_text(line)).encode()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return mentions.without(text).encode()
    return json.dumps(_value(value, mentions), ensure_ascii=False).encode()


def masked_lines(content: bytes, mentions: Mentions) -> bytes:
    """Lines with the key taken out of them, each still there: what counts lines goes on to be right."""
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    kept = (mentions.without(line.rstrip("\n")) + "\n" * line.endswith("\n") for line in lines)
    return "".join(kept).encode("utf-8", "surrogateescape")


def _value(value: Any, mentions: Mentions) -> Any:
    """A JSON file: a table by rows or by columns loses rows, anything else the key."""
    if isinstance(value, dict) and {"columns", "data"} <= value.keys() and isinstance(value["data"], list):
        names = value["columns"] if isinstance(value["columns"], list) else []
        kept = [row for row in value["data"] if not _row_speaks(row, names, mentions)]
        return {**{k: mentions.value_without(v, k) for k, v in value.items() if k != "data"}, "data": kept}
    columns = list(value.values()) if isinstance(value, dict) else []
    if columns and all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        gone = {i for name, c in value.items() for i, cell in enumerate(c) if mentions.in_value(cell, name)}
        return {name: [cell for i, cell in enumerate(c) if i not in gone] for name, c in value.items()}
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return [row for row in value if not mentions.in_value(row)]
    return mentions.value_without(value)


def _row_speaks(row: Any, names: list[Any], mentions: Mentions) -> bool:
    if isinstance(row, list) and len(row) == len(names):
        return any(mentions.in_value(cell, str(name)) for name, cell in zip(names, row, strict=True))
    return mentions.in_value(row)


def _records(text: str, delimiter: str, mentions: Mentions) -> bytes:
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    names = rows[0] if rows else []
    kept = [row for i, row in enumerate(rows) if i == 0 or not _row_speaks(row, names, mentions)]
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows(kept)
    return written.getvalue().encode()


def _tables(content: bytes) -> list[pa.Table]:
    """The tables in a Parquet file, or in a layered part; none of one that cannot be read."""
    try:
        if is_layered(io.BytesIO(content)):
            layers = Layers.decode(content)
            return [table for table in (layers.columns, layers.patch) if table is not None]
        return [pq.read_table(pa.BufferReader(content))]
    except (pa.ArrowException, OSError, DataError):
        return []


def _rows(table: pa.Table, mentions: Mentions) -> list[int]:
    """The rows of a table that speak of the subject."""
    found: set[int] = set()
    for name, column in zip(table.column_names, table.columns, strict=True):
        rows = _candidates(column, mentions)
        for row, cell in zip(rows, column.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
            told = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
            if mentions.in_value(_plain(told), name):
                found.add(row)
    return sorted(found)


def _candidates(column: pa.ChunkedArray, mentions: Mentions) -> list[int]:
    """The rows of a column that are worth a look."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return _candidates(column.cast(type_.value_type), mentions)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        hit = pc.match_substring(column, mentions.forms[0])
        for form in mentions.forms[1:]:
            hit = pc.or_(hit, pc.match_substring(column, form))
    elif pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        hit = pc.equal(column.cast(pa.string()), mentions.key)
    elif pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return list(range(len(column)))
    else:
        return []
    found: list[int] = pc.indices_nonzero(pc.fill_null(hit, False)).to_pylist()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _parquet(content: bytes, mentions: Mentions) -> bytes:
    table = pq.read_table(pa.BufferReader(content))
    gone = set(_rows(table, mentions))
    kept = table.take(pa.array([row for row in range(table.num_rows) if row not in gone], pa.int64()))
    sink = io.BytesIO()
    pq.write_table(kept, sink)
    return sink.getvalue()


def _json_speaks(content: bytes, mentions: Mentions) -> bool:
    lines = [content, *content.splitlines()] if b"\n" in content.strip() else [content]
    return any(mentions.in_text(line.decode("utf-8", "replace")) for line in lines)


def _statement_speaks(content: bytes, mentions: Mentions) -> bool:
    try:
        payload = base64.b64decode(json.loads(content)["payload"])
    except (ValueError, KeyError, TypeError):
        return False
    return holds(payload, mentions)


def _gunzipped(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, _LARGEST)
    except zlib.error:
        return b""


def _members(content: bytes) -> "list[tuple[str, bytes]]":
    found, left = [], _LARGEST
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    found.append((entry.filename, member.read(left)))
                left -= len(found[-1][1])
                if left <= 0:
                    break
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return found
    return found
