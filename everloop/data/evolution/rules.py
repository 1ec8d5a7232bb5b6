"""The rules by which columns change, on schemas and on rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import types

from everloop.core.errors import DataError, InvalidInput
from everloop.data.content.schema import logical_type, plain, plain_schema, type_named
from everloop.data.evolution import Evolution

_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def wider(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """The smallest type of numbers of their kind that holds the values of both; None when they are of two kinds.

    Whole numbers are taken into a column of floats or decimals, times in another unit into the column's, if each value
    can be without loss; nulls into any.
    """
    if old.equals(new) or types.is_null(new):
        return old
    if types.is_null(old):
        return new
    rule = next((rule for kind, rule in _WIDER if kind(old) and kind(new)), None)
    if rule is not None:
        return rule(old, new)
    return old if types.is_integer(new) and (types.is_floating(old) or types.is_decimal(old)) else None


def _wider_integer(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    width = max(old.bit_width, new.bit_width)
    if types.is_signed_integer(old) == types.is_signed_integer(new):
        return (_SIGNED if types.is_signed_integer(old) else _UNSIGNED)[width]
    unsigned = old if types.is_unsigned_integer(old) else new
    return _SIGNED.get(max(width, 2 * unsigned.bit_width))


def _wider_decimal(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    scale = max(old.scale, new.scale)
    precision = max(old.precision - old.scale, new.precision - new.scale) + scale
    return type_named(f"decimal({precision},{scale})")


def _same_zone(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    return old if getattr(old, "tz", None) == getattr(new, "tz", None) else None


_WIDER: tuple[tuple[Callable[[pa.DataType], Any], Callable[[pa.DataType, pa.DataType], pa.DataType | None]], ...] = (
    (types.is_integer, _wider_integer),
    (types.is_floating, lambda old, new: old if old.bit_width >= new.bit_width else new),
    (types.is_decimal, _wider_decimal),
    (types.is_timestamp, _same_zone),
    (types.is_time, _same_zone),
    (types.is_duration, _same_zone),
)


def told(evolution: Evolution, column: str) -> pa.DataType | None:
    """The type that a column is told to have; raises `InvalidInput` for a name of none."""
    if column not in evolution.retype:
        return None
    type_ = type_named(evolution.retype[column])
    if type_ is None:
        hint = "for example int64, float32, string, timestamp[us,UTC], decimal(12,2)"
        raise InvalidInput(f"{evolution.retype[column]!r} is no type to convert {column!r} to", hint=hint)
    return type_


def captured_schema(before: Iterable[tuple[str, str]], given: pa.Schema, evolution: Evolution, name: str) -> pa.Schema:
    """The columns in which rows of `given` are stored as the next version of a dataset; raises `DataError`.

    `before` are the columns of the version before, names and logical types; none for the first version.
    """
    was = {evolution.name(column): type_ for column, type_ in before}
    fields = []
    for column, field in _renamed(plain_schema(given), evolution).items():
        type_ = told(evolution, column) or field.type
        if column in was and column not in evolution.retype and was[column] != logical_type(field.type):
            type_ = _agreed(type_named(was[column]), field.type)
            if type_ is None:
                raise _another_type(name, column, was[column], logical_type(field.type))
        fields.append(pa.field(column, type_))
    gone = [column for column in was if column is not None and column not in {field.name for field in fields}]
    if gone:
        hint = f"Evolution(drop={gone!r}) in its definition lets it go, rename={{{gone[0]!r}: ...}} names the new one"
        raise DataError(f"data/{name}: the column {gone[0]!r} is missing in its source", hint=hint)
    return pa.schema(fields)


def edited_schema(before: pa.Schema, given: pa.Table, evolution: Evolution, name: str) -> pa.Schema:
    """The columns of a dataset once the rows `given` are in it; raises `DataError`, `InvalidInput`."""
    unknown = [c for c in (*evolution.drop, *evolution.rename) if c not in before.names]
    unknown += [c for c in evolution.retype if c not in {evolution.name(column) for column in before.names}]
    if unknown:
        raise InvalidInput(f"data/{name} has no column {unknown[0]!r}", hint="columns: " + ", ".join(before.names))
    rows = {column: given[field.name] for column, field in _renamed_fields(given.schema, evolution)}
    fields = []
    for column, field in _renamed(before, evolution).items():
        type_ = told(evolution, column) or field.type
        if column in rows and column not in evolution.retype and not fits(rows[column], type_):
            wide = wider(type_, rows[column].type)
            if wide is None or not fits(rows[column], wide):
                raise _another_type(name, column, logical_type(type_), logical_type(rows[column].type))
            type_ = wide
        fields.append(pa.field(column, type_))
    names = {field.name for field in fields}
    return pa.schema([*fields, *(pa.field(c, told(evolution, c) or rows[c].type) for c in rows if c not in names)])


def _agreed(old: pa.DataType | None, new: pa.DataType) -> pa.DataType | None:
    return None if old is None else wider(old, new)


def _another_type(name: str, column: str, old: str, new: str) -> DataError:
    return DataError(
        f"data/{name}: the column {column!r} is of type {old}, the rows hold {new}",
        hint=f"Evolution(retype={{{column!r}: {new!r}}}) converts the dataset's; numbers are widened by themselves",
    )


def _renamed_fields(schema: pa.Schema, evolution: Evolution) -> Iterator[tuple[str, pa.Field]]:
    for field in schema:
        column = evolution.name(field.name)
        if column is not None:
            yield column, field


def _renamed(schema: pa.Schema, evolution: Evolution) -> Mapping[str, pa.Field]:
    found: dict[str, pa.Field] = {}
    for column, field in _renamed_fields(schema, evolution):
        if column in found:
            raise DataError(f"two columns would be called {column!r}", hint="drop one of them, or rename to another")
        found[column] = field
    return found


def fits(column: pa.ChunkedArray, type_: pa.DataType) -> bool:
    """Whether every value converts to a type without loss."""
    try:
        return bool(column.type.equals(type_)) or bool(converted(column, type_) is not None)
    except DataError:
        return False


def converted(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """The column as another type, each value without loss; raises `DataError`."""
    if column.type.equals(type_):
        return column
    try:
        made = column.cast(type_)
        if types.is_floating(type_) and types.is_floating(column.type) and type_.bit_width < column.type.bit_width:
            exact = made.cast(column.type).equals(column) or _same_numbers(made.cast(column.type), column)
            if not exact:
                raise DataError(f"the values do not fit into {logical_type(type_)}", hint="choose a wider type")
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"cannot be converted to {logical_type(type_)}: {error}", hint="see its values") from error
    return made


def _same_numbers(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Equal where nan is nan, too."""
    ours, theirs = (column.combine_chunks().fill_null(0).to_numpy(zero_copy_only=False) for column in (one, other))
    return bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all())  # noqa: PLR0124 - nan


def evolved(rows: pa.Table, schema: pa.Schema, evolution: Evolution) -> pa.Table:
    """Rows in the columns of `schema`: renamed, left out, converted, filled with nulls; raises `DataError`."""
    rows = plain(rows)
    given: dict[str, Any] = {}
    for column, field in _renamed_fields(rows.schema, evolution):
        given.setdefault(column, rows[field.name])
    columns = []
    for field in schema:
        if field.name not in given:
            columns.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
            continue
        try:
            columns.append(converted(given[field.name], field.type))
        except DataError as error:
            raise DataError(f"column {field.name!r} {error.message}", hint=error.hint) from error
    return pa.Table.from_arrays(columns, schema=schema)


def evolved_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, evolution: Evolution
) -> Iterator[pa.RecordBatch]:
    """The same for rows that stream."""
    for batch in batches:
        yield from evolved(pa.Table.from_batches([batch]), schema, evolution).to_batches()
