"""The functions that an author makes features with."""

from typing import Any

from everloop.core.errors import DefinitionError, EverloopError
from everloop.core.ids import checked_name
from everloop.features.definitions.feature import Feature, Function, duration
from everloop.features.definitions.filters import where_of
from everloop.features.expressions import Expr, Node
from everloop.features.expressions.author import is_expression, typed_node

Column = str | Expr
"""A column of the source, or an expression over its columns (`el.col("price") * el.col("n")`; Polars' too)."""

LARGEST_SCALE = 15
"""10**15 is an exact double, and leaves three digits before the point in 64 bits."""


def count(*, over: str, name: str = "", where: Any = None) -> Feature:
    """How many facts lie in the window; 0 when none."""
    return _windowed("count", "", over, name, 0, where)


def sum(column: Column, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Exact decimal sum of the column's values that are not null; 0.0 when none."""
    return _windowed("sum", column, over, name, scale, where)


def mean(column: Column, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:
    """Exact sum over count of the values that are not null, rounded once; null when none."""
    return _windowed("mean", column, over, name, scale, where)


def min(column: Column, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Smallest value in the window; null when none."""
    return _windowed("min", column, over, name, scale, where)


def max(column: Column, *, over: str, name: str = "", scale: int = 6, where: Any = None) -> Feature:  # noqa: A001 - the author's word
    """Largest value in the window; null when none."""
    return _windowed("max", column, over, name, scale, where)


def last(column: Column, *, ttl: str | None = None, name: str = "", where: Any = None) -> Feature:
    """The value of the newest fact by (event time, fact id), null included, if it is at most `ttl` old.

    A null in the newest fact is the answer: it is never filled from an older one.
    """
    where = where_of(where)
    window = None if ttl is None else duration(ttl)
    read, tree = column_of(column, name)
    return _checked(Feature(name or f"{read}_last", "last", read, window, 0, where, tree))


def column_of(column: Any, name: str) -> tuple[str, Node | None]:
    """The name of a column, and its tree where it is computed, which needs a `name` for the feature."""
    if isinstance(column, str):
        return column, None
    if not is_expression(column):
        raise DefinitionError(f"{column!r} is no column", hint='a name, or an expression such as el.col("a") / 2')
    node = typed_node(column)
    if node.op == "column" and node.type == "float64":
        return str(node.value), None
    if not name:
        raise DefinitionError(f"a feature of {node} needs a name", hint='name="revenue_7d"')
    return str(node), node


def _windowed(function: Function, column: Column, over: str, name: str, scale: int, where: Any) -> Feature:  # noqa: PLR0917 - in the order of the fields
    read, tree = column_of(column, name)
    stem = f"{read}_{function}" if read else function
    return _checked(Feature(name or f"{stem}_{over}", function, read, duration(over), scale, where_of(where), tree))


def _checked(feature: Feature) -> Feature:
    try:
        checked_name(feature.name)
    except EverloopError as error:
        raise DefinitionError(f"feature {feature.name!r}: {error.message}", hint=error.hint) from None
    if feature.function != "count" and not feature.column:
        raise DefinitionError(f"feature {feature.name}: {feature.function} needs a column")
    if not 0 <= feature.scale <= LARGEST_SCALE:
        raise DefinitionError(
            f"feature {feature.name}: scale {feature.scale} is not between 0 and {LARGEST_SCALE}",
            hint="scale is the number of decimal digits to keep, for example scale=2 for cents",
        )
    return feature
