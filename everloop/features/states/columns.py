"""Columns of a push or of a file, with no types left to guess: integers, floats, hashed text, or text."""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from everloop.core.clock import DAY, micros, parse_time
from everloop.core.errors import DataError
from everloop.features.definitions import FeatureViewDef
from everloop.features.expressions.tree import time_columns

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Times = str | int | datetime | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: int64, float64, uint64 (text that is hashed already), or text as places in `choices`."""

    values: npt.NDArray[Any]
    valid: Mask
    choices: tuple[str, ...] | None = None
    """Different texts; `values` says which of them each row holds."""

    def take(self, rows: Any) -> "Column":
        """The rows that a mask or an index array names."""
        return Column(self.values[rows], self.valid[rows], self.choices)

    def listed(self) -> list[Any]:
        """Integers or texts as Python values; None where there is none."""
        found = self.values.tolist()
        if self.choices is not None:
            found = [self.choices[v] for v in found]
        return (
            found if self.valid.all() else [v if ok else None for v, ok in zip(found, self.valid.tolist(), strict=True)]
        )


def column_of(values: Sequence[Any] | npt.NDArray[Any]) -> Column:
    """A column of Python values (numbers, text, times, None) or a NumPy array. Raises `DataError` for a mixture."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "iub":
            return Column(values.astype(np.int64), np.ones(len(values), bool))
        if values.dtype.kind == "f":
            return Column(values.astype(np.float64), ~np.isnan(values))
        if values.dtype.kind == "M":
            return Column(values.astype("datetime64[us]").astype(np.int64), ~np.isnat(values))
        values = values.tolist()
    return _column_of_list(list(values))


def _column_of_list(values: list[Any]) -> Column:
    valid = np.array([v is not None for v in values], bool)
    kinds = {type(v) for v in values if v is not None}
    if kinds == {str}:
        places: dict[str, int] = {}
        codes = [0 if v is None else places.setdefault(v, len(places)) for v in values]
        return Column(np.array(codes, np.int64), valid, tuple(places))
    if kinds and kinds <= {datetime, date}:
        return Column(np.array([0 if v is None else _time(v) for v in values], np.int64), valid)
    if not all(issubclass(k, int | float | Decimal | np.number | np.bool_) for k in kinds):
        raise DataError(
            f"it holds {', '.join(sorted(k.__name__ for k in kinds))}", hint="a column is numbers, text or times"
        )
    if all(issubclass(k, int | np.integer | np.bool_) for k in kinds):
        try:
            return Column(np.array([0 if v is None else int(v) for v in values], np.int64), valid)
        except OverflowError:
            raise DataError("an integer does not fit into 64 bits", hint="give it as text") from None
    floats = np.array([np.nan if v is None else float(v) for v in values], np.float64)
    return Column(floats, ~np.isnan(floats))


def times_of(values: Sequence[Times] | npt.NDArray[Any]) -> Column:
    """A column of times: microseconds, aware datetimes, ISO texts (without a zone: UTC). Raises `DataError`."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iM":
        return column_of(values)
    listed = list(values)
    valid = np.array([v is not None for v in listed], bool)
    return Column(np.array([0 if v is None else _time(v) for v in listed], np.int64), valid)


def columns_of(
    view: FeatureViewDef, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any], names: Sequence[str] | None = None
) -> dict[str, Column]:
    """The view's columns (or those of `names`) from rows (mappings) or from a mapping of columns.

    Raises `DataError` when one is missing.
    """
    names = view.columns if names is None else names
    times = {view.event_time, view.known_time or view.event_time, *time_columns(view.expressions.values())}
    found = {}
    for name in names:
        try:
            values = rows[name] if isinstance(rows, Mapping) else [row[name] for row in rows]
            found[name] = times_of(values) if name in times else column_of(values)
        except KeyError:
            raise DataError(
                f"feature view {view.name}: a fact has no column {name!r}",
                hint="facts need " + ", ".join(names),
            ) from None
        except DataError as error:
            raise DataError(f"feature view {view.name}, column {name!r}: {error.message}", hint=error.hint) from None
    return found


def text_word(text: str) -> int:
    """64 bits of a text: the second half of its MD5, little endian (`md5_number_lower` in DuckDB)."""
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")


def _time(value: Any) -> int:
    try:
        if isinstance(value, str):
            return parse_time(value)
        if isinstance(value, datetime):
            return micros(value) if value.tzinfo else parse_time(value.isoformat())
        if isinstance(value, date):
            return (value - date(1970, 1, 1)).days * DAY
        return operator.index(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{value!r} is not a time: {error}", hint="microseconds UTC, an aware datetime, or ISO 8601"
        ) from None
