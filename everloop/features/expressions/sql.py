"""From SQL text (DuckDB's words) to the tree, parsed by sqlglot; what is not supported is refused by name."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.features.expressions.tree import Node

_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "IntDiv": "floordiv", "EQ": "eq", "NEQ": "ne", "LT": "lt",
    "LTE": "le", "GT": "gt", "GTE": "ge", "And": "and", "Or": "or",
}  # fmt: skip
_UNARY = {
    "Neg": "neg", "Not": "not", "Abs": "abs", "Floor": "floor", "Ceil": "ceil", "Sqrt": "sqrt", "Lower": "lower",
    "Upper": "upper", "Length": "length", "Year": "year", "Month": "month", "Day": "day",
    "DayOfMonth": "day", "DayOfWeekIso": "weekday", "Hour": "hour", "Minute": "minute",
}  # fmt: skip
_PARTS = {"YEAR": "year", "MONTH": "month", "DAY": "day", "ISODOW": "weekday", "HOUR": "hour", "MINUTE": "minute"}
_CASTS = {"DOUBLE": "float64", "BIGINT": "int64"}


def parsed(text: str) -> Node:
    """The tree of an SQL expression; raises `DefinitionError` for a syntax error or what is not supported."""
    try:
        sqlglot = import_module("sqlglot")
    except ImportError:
        raise DefinitionError(
            "an expression in SQL needs sqlglot", hint="pip install 'everloop[sql]', or write it with el.col(…)"
        ) from None
    try:
        found = sqlglot.parse_one(text, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise DefinitionError(f"{text!r} is no SQL expression: {str(error).splitlines()[0]}") from None
    return _node(found)


def _node(found: Any) -> Node:
    name = type(found).__name__
    if name in _BINARY:
        return Node(_BINARY[name], (_node(found.this), _node(found.expression)))
    if name in _UNARY:
        return Node(_UNARY[name], (_node(found.this),))
    if name in _OTHERS:
        return _OTHERS[name](found)
    raise _refused(found.sql(dialect="duckdb")[:80])


def _column(found: Any) -> Node:
    if found.table:
        raise _refused(found.sql())
    return Node("column", (), found.name)


def _literal(found: Any) -> Node:
    if found.is_string:
        return Node("literal", (), found.name)
    text = found.name
    return Node("literal", (), float(text) if any(c in text.lower() for c in ".e") else int(text))


def _case(found: Any) -> Node:
    default = found.args.get("default")
    made = _node(default) if default is not None else Node("literal")
    for branch in reversed(found.args["ifs"]):
        condition = _node(branch.this)
        if found.this is not None:
            condition = Node("eq", (_node(found.this), condition))
        made = Node("when", (condition, _node(branch.args["true"]), made))
    return made


def _if(found: Any) -> Node:
    other = found.args.get("false")
    return Node(
        "when", (_node(found.this), _node(found.args["true"]), Node("literal") if other is None else _node(other))
    )


def _several(op: str) -> Callable[[Any], Node]:
    return lambda found: Node(op, (_node(found.this), *(_node(one) for one in found.expressions)))


def _is(found: Any) -> Node:
    if type(found.expression).__name__ != "Null":
        raise _refused(found.sql())
    return Node("is_null", (_node(found.this),))


def _in(found: Any) -> Node:
    nodes = [_node(one) for one in found.expressions]
    values = tuple(one.value for one in nodes if isinstance(one.value, str | int | float) and one.op == "literal")
    if not values or len(values) != len(nodes):
        raise _refused(found.sql())
    return Node("is_in", (_node(found.this),), values)


def _between(found: Any) -> Node:
    value, low, high = (_node(found.this), _node(found.args["low"]), _node(found.args["high"]))
    return Node("and", (Node("ge", (value, low)), Node("le", (value, high))))


def _cast(found: Any) -> Node:
    kind = found.args["to"].sql(dialect="duckdb").upper()
    if kind not in _CASTS:
        raise _refused(found.sql(dialect="duckdb"))
    return Node("cast", (_node(found.this),), _CASTS[kind])


def _extract(found: Any) -> Node:
    part = str(found.name or found.this).upper()
    if part not in _PARTS:
        raise _refused(found.sql())
    return Node(_PARTS[part], (_node(found.expression),))


def _concat(found: Any) -> Node:
    parts = found.expressions or [found.this, found.expression]
    return Node("concat", tuple(_node(one) for one in parts))


def _null_if(found: Any) -> Node:
    value = _node(found.this)
    return Node("when", (Node("eq", (value, _node(found.expression))), Node("literal"), value))


_OTHERS: Mapping[str, Callable[[Any], Node]] = {
    "Column": _column,
    "Literal": _literal,
    "Boolean": lambda found: Node("literal", (), bool(found.this)),
    "Null": lambda _found: Node("literal"),
    "Paren": lambda found: _node(found.this),
    "Case": _case,
    "If": _if,
    "Coalesce": _several("coalesce"),
    "Least": _several("least"),
    "Greatest": _several("greatest"),
    "Is": _is,
    "In": _in,
    "Between": _between,
    "Cast": _cast,
    "Extract": _extract,
    "DPipe": _concat,
    "StartsWith": lambda found: Node("starts_with", (_node(found.this), _node(found.expression))),
    "EndsWith": lambda found: Node("ends_with", (_node(found.this), _node(found.expression))),
    "Nullif": _null_if,
}


def _refused(text: str) -> DefinitionError:
    return DefinitionError(
        f"{text!r} is no row-level expression here",
        hint="write it with el.col(…), or make a column of it in the dataset; el.sum, el.mean, … aggregate",
    )
