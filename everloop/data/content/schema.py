"""Types by what they mean: layouts of one meaning have one name, and one layout in which we write them.

| meaning | layouts | written as |
|---|---|---|
| `string`, `binary` | normal, large, view, dictionary, run-end | large |
| `list<…>` | list, large list, views | large list |
| `date` | date32, date64 | date32 |
| `time[us]`, `timestamp[us]`, `duration[us]` | seconds, milli-, microseconds | microseconds (nanoseconds stay apart) |
| `timestamp[us,UTC]` | zones UTC, Etc/UTC, Z, GMT, +00:00 | UTC (other zones stay apart) |
| `decimal(p,s)` | any width that holds p digits | 128 bit, above 38 digits 256 bit |
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from everloop.core.errors import DataError

_types = pa.types
_UTC = ("UTC", "Etc/UTC", "Z", "Zulu", "+00:00", "GMT", "Etc/GMT")


def is_text(type_: pa.DataType) -> bool:
    """Whether it is UTF-8 text in any offsets layout."""
    return bool(_types.is_string(type_) or _types.is_large_string(type_) or _types.is_string_view(type_))


def is_bytes(type_: pa.DataType) -> bool:
    """Whether it is binary of variable length in any offsets layout."""
    return bool(_types.is_binary(type_) or _types.is_large_binary(type_) or _types.is_binary_view(type_))


def is_lists(type_: pa.DataType) -> bool:
    """Whether it is a list of variable length (maps aside) in any layout."""
    return type_.id in _LISTS


_LISTS = {
    make(pa.null()).id for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
}  # pyarrow has no one predicate for all four


def _itself(type_: pa.DataType) -> bool:
    number = _types.is_integer(type_) or _types.is_floating(type_) or _types.is_boolean(type_)
    return bool(number or _types.is_null(type_) or _types.is_fixed_size_binary(type_))


def _encoded(type_: pa.DataType) -> bool:
    return bool(_types.is_dictionary(type_) or _types.is_run_end_encoded(type_))


def _extension(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType)


def _unit(unit: str) -> str:
    return "ns" if unit == "ns" else "us"


def _zone(zone: str | None) -> str | None:
    return "UTC" if zone in _UTC else zone


def _decimal(type_: pa.DataType) -> pa.DataType:
    return (pa.decimal256 if type_.precision > 38 else pa.decimal128)(type_.precision, type_.scale)


def _struct(type_: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(field.name, plain_type(field.type)) for field in type_])


_Rule = tuple[Callable[[pa.DataType], Any], Callable[[pa.DataType], pa.DataType]]
_PLAIN: tuple[_Rule, ...] = (
    (_extension, lambda t: plain_type(t.storage_type)),
    (_encoded, lambda t: plain_type(t.value_type)),
    (_itself, lambda t: t),
    (is_text, lambda _: pa.large_string()),
    (is_bytes, lambda _: pa.large_binary()),
    (_types.is_date, lambda _: pa.date32()),
    (_types.is_timestamp, lambda t: pa.timestamp(_unit(t.unit), tz=_zone(t.tz))),
    (_types.is_time, lambda t: pa.time64(_unit(t.unit))),
    (_types.is_duration, lambda t: pa.duration(_unit(t.unit))),
    (_types.is_decimal, _decimal),
    (_types.is_map, lambda t: pa.map_(plain_type(t.key_type), plain_type(t.item_type))),
    (_types.is_fixed_size_list, lambda t: pa.list_(plain_type(t.value_type), t.list_size)),
    (is_lists, lambda t: pa.large_list(plain_type(t.value_type))),
    (_types.is_struct, _struct),
)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The one layout in which values of that meaning are written; raises `DataError` where there is none."""
    for fits, layout in _PLAIN:
        if fits(type_):
            return layout(type_)
    raise DataError(f"values of the type {type_} cannot be stored", hint="convert the column to text, numbers or times")


_NAMES: tuple[tuple[Callable[[pa.DataType], Any], Callable[[pa.DataType], str]], ...] = (
    (_types.is_floating, lambda t: f"float{t.bit_width}"),
    (is_text, lambda _: "string"),
    (is_bytes, lambda _: "binary"),
    (_types.is_date, lambda _: "date"),
    (_types.is_timestamp, lambda t: f"timestamp[{t.unit}{',' + t.tz if t.tz else ''}]"),
    (_types.is_time, lambda t: f"time[{t.unit}]"),
    (_types.is_duration, lambda t: f"duration[{t.unit}]"),
    (_types.is_decimal, lambda t: f"decimal({t.precision},{t.scale})"),
    (_types.is_map, lambda t: f"map<{_name(t.key_type)},{_name(t.item_type)}>"),
    (_types.is_fixed_size_list, lambda t: f"fixed_list<{_name(t.value_type)}>[{t.list_size}]"),
    (is_lists, lambda t: f"list<{_name(t.value_type)}>"),
    (_types.is_struct, lambda t: "struct<" + ",".join(f"{json.dumps(f.name)}:{_name(f.type)}" for f in t) + ">"),
    (_types.is_fixed_size_binary, lambda t: f"fixed_binary[{t.byte_width}]"),
    (lambda _: True, str),
)


def logical_type(type_: pa.DataType) -> str:
    """The name of a type's meaning, for example `int64`, `string`, `timestamp[us,UTC]`. Raises `DataError`."""
    return _name(plain_type(type_))


def _name(plain: pa.DataType) -> str:
    return next(name(plain) for fits, name in _NAMES if fits(plain))


_SIMPLE = {
    _name(type_): type_
    for type_ in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null(), pa.large_string(), pa.large_binary()),
        *(pa.date32(), pa.time64("us"), pa.time64("ns"), pa.duration("us"), pa.duration("ns")),
        *(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")),
    )
}
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(-?\d{1,2})\)")


def type_named(name: str) -> pa.DataType | None:
    """The plain type of a name that `logical_type` gives; None for nested types, other zones and unknown names."""
    if decimal := _DECIMAL.fullmatch(name):
        precision, scale = int(decimal[1]), int(decimal[2])
        return _decimal(pa.decimal256(precision, scale)) if 0 < precision <= pa.decimal256(76).precision else None
    return _SIMPLE.get(name)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in which parts of such a table are written: every field nullable, no metadata.

    Raises `DataError` for no column, two columns of one name, and types that cannot be stored.
    """
    names = schema.names
    if not names:
        raise DataError("the table has no columns")
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DataError(f"two columns are called {twice!r}", hint="rename one of them")
    return pa.schema([pa.field(f.name, _plain_or_named(f)) for f in schema])


def _plain_or_named(field: pa.Field) -> pa.DataType:
    try:
        return plain_type(field.type)
    except DataError as error:
        raise DataError(f"column {field.name!r}: {error.message}", hint=error.hint) from None


def schema_fields(schema: pa.Schema) -> list[list[str]]:
    """`[[name, logical type], …]` in the order of the columns, as manifests hold it."""
    return [[name, type_] for name, type_ in _schema_fields(schema)]


@lru_cache(maxsize=64)
def _schema_fields(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Every part of a table asks for these again, and naming twenty types costs as much as hashing their values."""
    return tuple((field.name, _name(field.type)) for field in plain_schema(schema))


def unwrapped(array: pa.Array) -> pa.Array:
    """The array without extension, dictionary and run-end layers at its top."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif _types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif _types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        else:
            return array


def plain(table: pa.Table) -> pa.Table:
    """`table` in plain layout, values untouched; raises `DataError` naming the column that does not convert."""
    schema = plain_schema(table.schema)
    if table.schema.equals(schema, check_metadata=True):
        return table
    return pa.Table.from_arrays(
        [_plain_column(f, c) for f, c in zip(schema, table.columns, strict=True)], schema=schema
    )


def _plain_column(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        chunks = [unwrapped(chunk) for chunk in column.chunks]
        same = [c if c.type.equals(field.type) else c.cast(field.type) for c in chunks]
        return pa.chunked_array(same, type=field.type)
    except pa.ArrowException as error:
        raise DataError(f"column {field.name!r} cannot be stored as {_name(field.type)}: {error}") from error
