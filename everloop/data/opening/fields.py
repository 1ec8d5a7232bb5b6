"""Columns of a dataset as Iceberg and Delta name them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from everloop.data.content.schema import is_bytes, is_lists, is_text, logical_type
from everloop.data.opening.shown import Columns, Shown, refused

_types = pa.types
ICEBERG, DELTA = "Iceberg", "Delta"
_ICEBERG = {
    "bool": "boolean",
    "int8": "int",
    "int16": "int",
    "int32": "int",
    "uint8": "int",
    "uint16": "int",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "date": "date",
    "time[us]": "time",
    "timestamp[us]": "timestamp",
}
_DELTA = {
    "bool": "boolean",
    "int8": "byte",
    "int16": "short",
    "int32": "integer",
    "uint8": "short",
    "uint16": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "date": "date",
    "timestamp[us]": "timestamp_ntz",
}
_WIDER = {("int", "long"), ("float", "double")}


class IcebergFields:
    """Gives each column, and each field within one, its number, which stays with its name."""

    def __init__(self) -> None:
        """No column has a number yet."""
        self._numbers: dict[str, int] = {}
        self._mapped: dict[str, dict[str, Any]] = {}

    @property
    def last(self) -> int:
        """The highest number."""
        return len(self._numbers)

    def number(self, path: str) -> int:
        """The number of a column, or of `column.field`."""
        return self._numbers.setdefault(path, len(self._numbers) + 1)

    def schema(self, columns: Columns) -> list[dict[str, Any]]:
        """The fields of Iceberg's schema; raises `InvalidInput` for a column that it cannot hold."""
        for name, _ in columns:
            self.number(name)
        found = []
        for name, type_ in columns:
            found.append({"id": self.number(name), "name": name, "required": False, "type": self.type_of(type_, name)})
            self._mapped[name] = self._mapping(name, type_, name)
        return found

    def pass_over(self, columns: Columns) -> None:
        """Number columns that files have and no snapshot shows: some readers want to know each one that they meet."""
        for name, type_ in columns:
            if name not in self._mapped:
                self._mapped[name] = self._mapping(name, type_, name)

    def mapping(self) -> list[dict[str, Any]]:
        """`schema.name-mapping.default`: which number the columns of files have, which do not say it themselves."""
        return list(self._mapped.values())

    def type_of(self, type_: pa.DataType, path: str) -> Any:
        """Iceberg's type for a column, its fields numbered; raises `InvalidInput` where there is none."""
        if is_lists(type_) or _types.is_fixed_size_list(type_):
            inner = f"{path}.element"
            return {
                "type": "list",
                "element-id": self.number(inner),
                "element-required": False,
                "element": self.type_of(type_.value_type, inner),
            }
        if _types.is_map(type_):
            key, value = self.number(f"{path}.key"), self.number(f"{path}.value")
            return {
                "type": "map",
                "key-id": key,
                "key": self.type_of(type_.key_type, f"{path}.key"),
                "value-id": value,
                "value-required": False,
                "value": self.type_of(type_.item_type, f"{path}.value"),
            }
        if _types.is_struct(type_):
            fields = [
                {
                    "id": self.number(f"{path}.{field.name}"),
                    "name": field.name,
                    "required": False,
                    "type": self.type_of(field.type, f"{path}.{field.name}"),
                }
                for field in type_
            ]
            return {"type": "struct", "fields": fields}
        return _simple(type_, path, ICEBERG)

    def _mapping(self, name: str, type_: pa.DataType, path: str) -> dict[str, Any]:
        inner = [self._mapping(field, of, f"{path}.{field}") for field, of in _within(type_)]
        told: dict[str, Any] = {"field-id": self.number(path), "names": [name]}
        return {**told, "fields": inner} if inner else told


def delta_schema(columns: Columns) -> dict[str, Any]:
    """Delta's schema; raises `InvalidInput` for a column that it cannot hold."""
    fields = [
        {"name": name, "type": _delta_type(type_, name), "nullable": True, "metadata": {}} for name, type_ in columns
    ]
    return {"type": "struct", "fields": fields}


def _delta_type(type_: pa.DataType, path: str) -> Any:
    if is_lists(type_) or _types.is_fixed_size_list(type_):
        return {"type": "array", "elementType": _delta_type(type_.value_type, path), "containsNull": True}
    if _types.is_map(type_):
        key, value = _delta_type(type_.key_type, path), _delta_type(type_.item_type, path)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if _types.is_struct(type_):
        return delta_schema(tuple((field.name, field.type) for field in type_))
    return _simple(type_, path, DELTA)


def _simple(type_: pa.DataType, path: str, what: str) -> str:
    if is_text(type_):
        return "string"
    if is_bytes(type_):
        return "binary"
    if _types.is_fixed_size_binary(type_) and not _types.is_decimal(type_):
        return f"fixed[{type_.byte_width}]" if what == ICEBERG else "binary"
    if _types.is_decimal(type_) and type_.precision <= 38 and type_.scale >= 0:  # the most that either holds
        gap = ", " if what == ICEBERG else ","
        return f"decimal({type_.precision}{gap}{type_.scale})"
    if _types.is_timestamp(type_) and type_.tz is not None and type_.unit == "us":
        return "timestamptz" if what == ICEBERG else "timestamp"
    found = (_ICEBERG if what == ICEBERG else _DELTA).get(logical_type(type_))
    if found is None:
        raise refused(path.partition(".")[0], logical_type(type_), what)
    return found


def _within(type_: pa.DataType) -> Sequence[tuple[str, pa.DataType]]:
    if is_lists(type_) or _types.is_fixed_size_list(type_):
        return [("element", type_.value_type)]
    if _types.is_map(type_):
        return [("key", type_.key_type), ("value", type_.item_type)]
    return [(field.name, field.type) for field in type_] if _types.is_struct(type_) else []


def agreeing(shown: Sequence[Shown]) -> tuple[Shown, ...]:
    """The newest of some versions in a row whose columns Iceberg knows as the same ones: types may only have widened.

    Iceberg finds a column in our files by its name, so one name has one meaning in all snapshots of a table.
    """
    kept: list[Shown] = []
    types: Mapping[str, Any] = {}
    for one in reversed(shown):
        mine = {name: IcebergFields().type_of(type_, name) for name, type_ in one.columns}
        if any(not _widens(mine[name], types[name]) for name in mine if name in types):
            break
        kept.append(one)
        types = {**types, **mine}
    return tuple(reversed(kept))


def _widens(old: Any, new: Any) -> bool:
    if old == new or (isinstance(old, str) and isinstance(new, str) and (old, new) in _WIDER):
        return True
    if not (isinstance(old, str) and isinstance(new, str) and old.startswith("decimal") and new.startswith("decimal")):
        return False
    (before, scale), (after, same) = (text.removeprefix("decimal(").rstrip(")").split(", ") for text in (old, new))
    return scale == same and int(before) <= int(after)
