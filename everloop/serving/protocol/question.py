"""What a caller asks, whichever protocol carried it, and the parsing that the protocols share."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from everloop.core.errors import InvalidInput
from everloop.models.signature import Matrix
from everloop.serving.columns import NUMPY, Columns, Layout

MAX_ROWS = 100_000
MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """Rows to predict for, as columns, and how the caller wants the answer."""

    columns: Columns
    rows: int
    id: str = ""
    """The caller's own id, echoed."""
    wanted: tuple[tuple[str, bool], ...] | None = None
    """Outputs asked for, in order, each with whether its bytes are wanted raw; None: all of them."""
    raw_by_default: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


def parse_json(body: bytes) -> Any:
    """JSON of a body; raises `InvalidInput`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None


def decompress(body: bytes, encoding: str) -> bytes:
    """Undo `Content-Encoding`; raises `InvalidInput` for an unknown or broken one, or a bomb."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "deflate"):
        raise InvalidInput(f"content encoding {coding[:40]!r} is unknown", hint="gzip, deflate or none")
    # 47: zlib or gzip by its header
    inflate = zlib.decompressobj(47)
    try:
        plain = inflate.decompress(body, MAX_BODY)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(f"the {coding} body is broken: {error}") from None
    if inflate.unconsumed_tail or not inflate.eof:
        raise InvalidInput(f"the {coding} body is cut short or larger than {MAX_BODY} bytes")
    return plain


def columns_of_rows(rows: Sequence[Any], names: Sequence[str]) -> Columns:
    """Turn rows (objects by name) into columns; a name that a row lacks is an error when it is needed."""
    columns: Columns = {}
    for name in names:
        try:
            columns[name] = [row[name] for row in rows]
        except (KeyError, TypeError):
            if any(not isinstance(row, dict) for row in rows):
                raise InvalidInput("a row is not an object of column names and values") from None
            if any(name in row for row in rows):
                columns[name] = [row.get(name) for row in rows]
    return columns


def columns_of_matrix(values: Any, layout: Layout) -> tuple[Columns, int]:
    """Spread rows (lists of values, or a two-dimensional array) over all columns in order; raises `InvalidInput`."""
    if isinstance(values, np.ndarray):
        rows, width = values.shape
        if width == len(layout.names):
            return Matrix(layout.names, values), rows
        columns: list[Any] = []
    else:
        if not all(isinstance(row, list) and len(row) == len(layout.names) for row in values):
            raise InvalidInput(f"not every row has {len(layout.names)} values", hint=", ".join(layout.names))
        rows, width = len(values), len(layout.names)
        columns = [list(column) for column in zip(*values, strict=True)]
    if width != len(layout.names):
        raise InvalidInput(f"a row has {width} values, the endpoint takes {len(layout.names)}")
    return dict(zip(layout.names, columns, strict=False)), rows


def counted(columns: Columns, layout: Layout) -> int:
    """The number of rows; raises `InvalidInput` when a column is missing, lengths differ, or there are too many."""
    rows = -1
    for name in layout.names:
        values = columns.get(name)
        if values is None:
            raise InvalidInput(f"column {name!r} is missing", hint="the columns are " + ", ".join(layout.names))
        if not isinstance(values, list | np.ndarray):
            raise InvalidInput(f"column {name!r} is not a list")
        if rows not in (-1, len(values)):
            raise InvalidInput(f"column {name!r} has {len(values)} rows, another has {rows}")
        rows = len(values)
    if rows <= 0:
        raise InvalidInput("there are no rows to predict for")
    if rows > MAX_ROWS:
        raise InvalidInput(f"{rows} rows are more than {MAX_ROWS}", hint="ask in several requests")
    return rows


def check_datatype(name: str, datatype: Any) -> str:
    """The datatype, or `InvalidInput`."""
    if not isinstance(datatype, str) or (datatype not in NUMPY and datatype != "BYTES"):
        raise InvalidInput(f"input {name!r}: datatype {str(datatype)[:40]!r} is unknown")
    return datatype
