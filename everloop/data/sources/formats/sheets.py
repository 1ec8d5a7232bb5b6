"""Workbooks of Excel, one sheet. Needs the extra `excel`."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import python_calamine as calamine

from everloop.core.errors import DataError, NotFound
from everloop.data.content.logical import BLOCK
from everloop.data.sources.formats.telling import HINTS, unreadable
from everloop.data.sources.formats.unpacking import check_archive
from everloop.data.sources.places.place import Here

_EXACT = 2**53


def sheet(here: Here, name: str) -> Iterator[pa.RecordBatch]:
    """The rows of a sheet (the first, unless it has a name), whose first row holds the names.

    Excel knows numbers, not integers: a column of whole numbers is one of integers. Raises `DataError` naming the
    cell's row where values do not fit, `NotFound` for a sheet that is not there.
    """
    check_archive(here)
    try:
        with calamine.load_workbook(here.path) as book:
            if name and name not in book.sheet_names:
                raise NotFound(f"{here.name} has no sheet {name!r}", hint="it has " + ", ".join(book.sheet_names))
            rows = [list(row) for row in book.get_sheet_by_name(name or book.sheet_names[0]).iter_rows()]
    except (calamine.CalamineError, OSError, IndexError) as error:
        raise unreadable(here.name, "excel", error) from error
    rows = [row for number, row in enumerate(rows) if number == 0 or any(value != "" for value in row)]
    if not rows:
        raise DataError(f"{here.name}: the sheet is empty", hint=HINTS["excel"])
    names = [str(value) for value in rows[0]]
    if not all(names):
        raise DataError(f"{here.name}: column {names.index('') + 1} has no name", hint=HINTS["excel"])
    columns = [_column(here, names[i], [row[i] for row in rows[1:]]) for i in range(len(names))]
    yield from pa.Table.from_arrays(columns, names=names).to_batches(max_chunksize=BLOCK) or [
        pa.RecordBatch.from_arrays(columns, names=names)
    ]


def _column(here: Here, name: str, cells: Sequence[Any]) -> pa.Array:
    values = [None if value == "" else value for value in cells]
    held = [value for value in values if value is not None]
    if held and all(isinstance(v, int | float) and not isinstance(v, bool) for v in held):
        whole = all(float(v).is_integer() and abs(v) < _EXACT for v in held)
        return pa.array([None if v is None else (int if whole else float)(v) for v in values])
    if any(isinstance(v, dt.datetime) for v in held):
        values = [_moment(v) for v in values]
    first = next((v for v in values if v is not None), None)
    wrong = next((i for i, v in enumerate(values) if v is not None and type(v) is not type(first)), None)
    if wrong is not None:
        raise DataError(
            f"{here.name}:{wrong + 2}: column {name!r} holds {values[wrong]!r} among values like {first!r}",
            hint=HINTS["excel"],
        )
    return pa.array(values)


def _moment(value: Any) -> Any:
    return dt.datetime(value.year, value.month, value.day) if type(value) is dt.date else value  # noqa: DTZ001 - as the sheet says it, without a zone
