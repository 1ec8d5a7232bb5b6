"""Conditions on rows, which every engine gets in its own form, and which parts may hold a row that meets them."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import duckdb
import polars as pl
import pyarrow.compute as pc

from everloop.core.errors import InvalidInput
from everloop.data.content.keys import key_value
from everloop.data.content.schema import type_named

_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NULLS = ("is null", "is not null")
OPERATORS = (*_COMPARED, "in", *_NULLS)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a row must meet: `("delay", ">", 15)`, `("carrier", "in", ["UA", "AA"])`, `("note", "is null")`.

    As in SQL, a comparison does not hold for a null.
    """

    column: str
    operator: str
    value: Any = None

    def __post_init__(self) -> None:
        """Check the operator; raises `InvalidInput`."""
        if self.operator not in OPERATORS:
            raise InvalidInput(f"{self.operator!r} is no condition", hint="one of " + ", ".join(OPERATORS))
        if self.operator == "in":
            if isinstance(self.value, str | bytes) or not hasattr(self.value, "__iter__"):
                raise InvalidInput(
                    f"{self.column!r} in {self.value!r}: no list", hint='("carrier", "in", ["UA", "AA"])'
                )
            object.__setattr__(self, "value", list(self.value))


Where = Sequence[Condition | tuple[Any, ...]]
"""Conditions that all must hold; tuples of column, operator and value."""


def checked(
    manifest: Mapping[str, Any], columns: Sequence[str] | None, where: Where
) -> tuple[list[str], list[Condition]]:
    """The columns to read (default: all) and the conditions; raises `InvalidInput` for a column that is not there."""
    names = [name for name, _ in manifest["schema_fields"]]
    conditions = [given if isinstance(given, Condition) else Condition(*given) for given in where]
    wanted = names if columns is None else list(columns)
    for name in (*wanted, *(condition.column for condition in conditions)):
        if name not in names:
            raise InvalidInput(f"there is no column {name!r}", hint="columns: " + ", ".join(names))
    if not wanted or len(set(wanted)) < len(wanted):
        raise InvalidInput("name each column to read once, at least one", hint="columns: " + ", ".join(names))
    return wanted, conditions


def pruned(manifest: Mapping[str, Any], where: Sequence[Condition]) -> list[Mapping[str, Any]]:
    """The parts that may hold a row that meets all conditions, by what the manifest says of them."""
    names = [name for name, _ in manifest["schema_fields"]]
    first = manifest["key"][0] if manifest["key"] else None
    type_ = type_named(dict(map(tuple, manifest["schema_fields"]))[first]) if first else None

    def possible(part: Mapping[str, Any]) -> bool:
        if not part["rows"]:
            return False
        for condition in where:
            nulls = part["nulls"][names.index(condition.column)]
            if (condition.operator == "is null" and not nulls) or (
                condition.operator != "is null" and nulls == part["rows"]
            ):
                return False
            if condition.column == first and type_ is not None:
                low, high = (key_value(part[which][0], type_) for which in ("key_min", "key_max"))
                if low is not None and not _meets(condition, low, high):
                    return False
        return True

    return [part for part in manifest["parts"] if possible(part)]


def _meets(condition: Condition, low: Any, high: Any) -> bool:
    """Whether a value from `low` to `high` may meet the condition; a value that cannot be compared may."""
    name, value = condition.operator, condition.value
    try:
        if name in ("=", "in"):
            return any(bool(low <= one <= high) for one in (value if name == "in" else [value]))
        if name in ("<", "<="):
            return bool(_COMPARED[name](low, value))
        if name in (">", ">="):
            return bool(_COMPARED[name](high, value))
    except TypeError:
        return True
    return name != "is null"


def polars_of(where: Sequence[Condition]) -> pl.Expr:
    """The conditions for Polars."""

    def one(condition: Condition) -> pl.Expr:
        column = pl.col(condition.column)
        if condition.operator in _COMPARED:
            met: pl.Expr = _COMPARED[condition.operator](column, condition.value)
            return met
        if condition.operator == "in":
            return column.is_in(condition.value)
        return column.is_null() if condition.operator == "is null" else column.is_not_null()

    return reduce(operator.and_, map(one, where), pl.lit(True))


def arrow_of(where: Sequence[Condition]) -> pc.Expression | None:
    """The conditions for Arrow; None for none."""

    def one(condition: Condition) -> pc.Expression:
        column = pc.field(condition.column)
        if condition.operator in _COMPARED:
            return _COMPARED[condition.operator](column, pc.scalar(condition.value))
        if condition.operator == "in":
            return column.isin(condition.value)
        return column.is_null() if condition.operator == "is null" else column.is_valid()

    return reduce(operator.and_, map(one, where)) if where else None


def duckdb_of(where: Sequence[Condition]) -> duckdb.Expression:
    """The conditions for DuckDB."""

    def one(condition: Condition) -> duckdb.Expression:
        column = duckdb.ColumnExpression(condition.column)
        if condition.operator in _COMPARED:
            met: duckdb.Expression = _COMPARED[condition.operator](column, duckdb.ConstantExpression(condition.value))
            return met
        if condition.operator == "in":
            if not condition.value:
                return duckdb.ConstantExpression(False)
            return column.isin(*map(duckdb.ConstantExpression, condition.value))
        return column.isnull() if condition.operator == "is null" else column.isnotnull()

    return reduce(operator.and_, map(one, where), duckdb.ConstantExpression(True))
