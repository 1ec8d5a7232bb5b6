"""What is said of a file that cannot be read."""

import re
from collections.abc import Callable, Iterator

import pyarrow as pa

from everloop.core.errors import DataError
from everloop.data.sources.places.place import Here

_ROW = re.compile(r"Row #(\d+): ")
_CUT_OFF = "the file is broken or was cut off while it was written; write it again"
HINTS = {
    "parquet": _CUT_OFF,
    "csv": "correct the line, or export the file again",
    "jsonl": "every line is one JSON object, and a field has one type throughout",
    "arrow": _CUT_OFF,
    "excel": "the first row of the sheet holds the names, each column values of one type",
}


def unreadable(name: str, format_: str, error: BaseException) -> DataError:
    """The error of an engine as ours, with the line where it tells one."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    row = _ROW.search(text)
    place = f"{name}:{row.group(1)}" if row else name
    what = f"not a readable {format_} file: " if format_ in ("parquet", "arrow", "excel") else ""
    return DataError(f"{place}: {what}{_ROW.sub('', text)}", hint=HINTS[format_])


def not_text(here: Here, lines: Callable[[], Iterator[bytes]], encoding: str) -> DataError:
    """The first line that is not text of the encoding."""
    place = here.name
    for number, line in enumerate(lines(), 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            place = f"{here.name}:{number}"
            break
    return DataError(
        f"{place}: not {encoding.upper()} text",
        hint='one file has one encoding: say it, Files(..., encoding="latin-1"), or convert the file to UTF-8',
    )


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """A type that holds the values of both; text where nothing else does."""
    if a.equals(b) or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b) and a.tz == b.tz:
        return a if a.unit == "ns" or b.unit == "s" else b
    return pa.string()
