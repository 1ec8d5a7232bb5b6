"""Facts: what rows contribute to a view's features, as integers, by the one code that batch and online share.

A fact has an event time (what it describes), a start (from when it counts: the later of known and event time), an id
(a hash of its content) and, for each feature, a mask (does it contribute?) and a 64-bit word (what?).
Everything after this module adds, compares and copies integers, so that no order of work can change a result.
"""

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
from everloop.features.definitions import FOREVER, Feature, FeatureViewDef, Where
from everloop.features.expressions.evaluate import Cells, evaluate
from everloop.features.expressions.tree import time_columns

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Times = str | int | datetime | None

_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LIMIT = 2.0**63
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FINAL = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT, _FINAL_SHIFT = np.uint64(29), np.uint64(32)
_NULL_WORD = np.uint64(0xD6E8FEB86659FD93)
_NAN_BITS = np.float64("nan").view(np.int64)


@dataclass(frozen=True, slots=True)
class Column:
    """A column without types to guess: int64, float64, uint64 (text already hashed) or object (text)."""

    values: npt.NDArray[Any]
    valid: Mask

    def take(self, rows: Any) -> "Column":
        """The rows that a mask or an index array names."""
        return Column(self.values[rows], self.valid[rows])


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one view; `lifted[i]` belongs to the view's i-th feature."""

    event: Ints
    starts: Ints
    id: Words
    lifted: tuple[tuple[Mask, Ints], ...]
    """Mask and word: 1 for `count`, the scaled integer for sums and extremes, float64 bits (NaN: null) for `last`."""

    def take(self, rows: Any) -> "Facts":
        """The facts that a mask or an index array names."""
        return Facts(
            self.event[rows], self.starts[rows], self.id[rows], tuple((m[rows], v[rows]) for m, v in self.lifted)
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
        texts = np.empty(len(values), object)
        texts[:] = ["" if v is None else v for v in values]
        return Column(texts, valid)
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


def columns_of(view: FeatureViewDef, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> dict[str, Column]:
    """The view's columns from rows (mappings) or from a mapping of columns. Raises `DataError` when one is missing."""
    times = {view.event_time, view.known_time or view.event_time, *time_columns(view.expressions.values())}
    found = {}
    for name in view.columns:
        try:
            values = rows[name] if isinstance(rows, Mapping) else [row[name] for row in rows]
            found[name] = times_of(values) if name in times else column_of(values)
        except KeyError:
            raise DataError(
                f"feature view {view.name}: a fact has no column {name!r}",
                hint="facts need " + ", ".join(view.columns),
            ) from None
        except DataError as error:
            raise DataError(f"feature view {view.name}, column {name!r}: {error.message}", hint=error.hint) from None
    return found


def facts_of(view: FeatureViewDef, columns: Mapping[str, Column]) -> tuple[Facts, Mask]:
    """Facts of the rows that can ever count, and which rows these are.

    A row without an event time or without a known time (not known yet) is left out. Raises `DataError`
    when a value does not fit the feature's scale or type.
    """
    event, known = columns[view.event_time], columns[view.known_time or view.event_time]
    kept = event.valid & known.valid
    if not kept.all():
        columns = {name: column.take(kept) for name, column in columns.items()}
        event, known = columns[view.event_time], columns[view.known_time or view.event_time]
    columns = {**columns, **_computed(view, columns)}
    made: dict[Any, tuple[Mask, Ints]] = {}
    for feature in view.features:
        if _lift_key(feature) not in made:
            made[_lift_key(feature)] = _lift(view, feature, columns)
    lifted = tuple(made[_lift_key(f)] for f in view.features)
    parts = [_bits(event.values), _bits(known.values)]
    parts += [_key_word(columns[name]) for name in view.key if name not in (view.event_time, view.known_time)]
    for mask, word in made.values():
        parts.append(np.where(mask, _bits(word), _NULL_WORD))
    starts = np.maximum(event.values, known.values)
    return Facts(event.values, starts, _hash(parts), lifted), kept


def _computed(view: FeatureViewDef, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The view's expressions as columns; numbers are int64 or float64 from here on."""
    cells = {name: Cells(column.values, column.valid) for name, column in columns.items()}
    made = {}
    for name, node in view.expressions.items():
        try:
            values, valid = evaluate(node, cells)
        except DataError as error:
            raise DataError(f"feature view {view.name}: {error.message}", hint=error.hint) from None
        made[name] = Column(values.astype(np.int64) if values.dtype.kind == "b" else values, valid)
    return made


def until(feature: Feature, event: Ints) -> Ints:
    """The first time at which facts of these event times no longer count for the feature.

    A window of length W at t holds event times from floor(t - W, hop): a fact counts while t < floor(event, hop)
    + hop + W. For `last` the age is exact and may equal the time to live.
    """
    if feature.window is None:
        return np.full(len(event), FOREVER, np.int64)
    if feature.hop:
        return event // feature.hop * feature.hop + (feature.hop + feature.window)
    return event + (feature.window + 1)


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


def _lift_key(feature: Feature) -> tuple[Any, ...]:
    kind = {"count": "count", "last": "last"}.get(feature.function, "scaled")
    return kind, feature.column, feature.scale, feature.where


def _lift(view: FeatureViewDef, feature: Feature, columns: Mapping[str, Column]) -> tuple[Mask, Ints]:
    event = columns[view.event_time].values
    mask = np.ones(len(event), bool) if feature.where is None else _passes(view, feature.where, columns)
    if feature.function == "count":
        return mask, np.ones(len(event), np.int64)
    column = columns[feature.column]
    if column.values.dtype.kind not in "if":
        raise DataError(
            f"feature view {view.name}: {feature.function}({feature.column!r}) needs numbers, the column holds text",
            hint="encode the text as a number in the dataset, or count it with where=",
        )
    if feature.function == "last":
        floats = np.where(column.valid, column.values.astype(np.float64) + 0.0, np.nan)  # + 0.0 turns -0.0 into 0.0
        return mask, np.where(np.isnan(floats), _NAN_BITS, floats.view(np.int64))
    return mask & column.valid, _scaled(view, feature, column)


def _passes(view: FeatureViewDef, where: Where, columns: Mapping[str, Column]) -> Mask:
    column = columns[where.column]
    if not column.valid.any():
        return column.valid
    if isinstance(where.value, str) != (column.values.dtype.kind == "O"):
        raise DataError(
            f"feature view {view.name}: where {where.column!r} compares text with a number", hint="use the same type"
        )
    passed: Mask = np.asarray(_COMPARE[where.op](column.values, where.value), bool)
    return passed & column.valid


def _scaled(view: FeatureViewDef, feature: Feature, column: Column) -> Ints:
    values: npt.NDArray[Any] = np.where(column.valid, column.values, 0)
    factor = 10**feature.scale
    if values.dtype.kind == "i":
        bound = (2**63 - 2) // factor  # 2**63 - 1 stands for no minimum in packed states
        fits = (values <= bound) & (values >= -bound)
        scaled: Ints = values * factor
    else:
        rounded = np.rint(values * float(factor))
        fits = np.abs(rounded) < _LIMIT
        scaled = np.where(fits, rounded, 0.0).astype(np.int64)
    if not fits.all():
        worst = values[~fits][0]
        raise DataError(
            f"feature view {view.name}: {worst} in {feature.column!r} does not fit 64 bits at scale {feature.scale}",
            hint="give the feature a smaller scale=, or filter the value out",
        )
    return scaled


def _bits(values: npt.NDArray[Any]) -> Words:
    return np.ascontiguousarray(values).view(np.uint64)


def _key_word(column: Column) -> Words:
    values = column.values
    if values.dtype.kind == "O":
        words = np.array([text_word(t) for t in values], np.uint64)
    elif values.dtype.kind == "f":
        whole = np.where(column.valid & (np.abs(values) < _LIMIT), values, 0.5)
        integral = whole == np.floor(whole)
        words = np.where(integral, np.where(integral, whole, 0.0).astype(np.int64).view(np.uint64), _bits(values))
    else:
        words = _bits(values)
    return np.where(column.valid, words, _NULL_WORD)


def _hash(parts: Sequence[Words]) -> Words:
    state = np.full(len(parts[0]), np.uint64(len(parts)))
    for part in parts:
        state = (state ^ part) * _MULTIPLIER
        state ^= state >> _SHIFT
    state *= _FINAL
    hashed: Words = state ^ (state >> _FINAL_SHIFT)
    return hashed
