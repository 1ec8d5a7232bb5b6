"""From a Polars expression to ours, as far as both mean the same or ours is stated; everything else is refused.

Polars is not run: its own serialised form is read. Where it differs from ours (division by zero gives infinity there
and null here), the rule of the expressions page holds, in batch and online.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.features.expressions.tree import Node

_BINARY = {
    "Plus": "add", "Minus": "sub", "Multiply": "mul", "TrueDivide": "div", "FloorDivide": "floordiv",
    "Modulus": "mod", "Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtEq": "le", "Gt": "gt", "GtEq": "ge",
    "And": "and", "Or": "or", "LogicalAnd": "and", "LogicalOr": "or",
}  # fmt: skip
_FUNCTIONS = {
    "Abs": "abs", "Negate": "neg", "FillNull": "coalesce", "Coalesce": "coalesce", "MaxHorizontal": "greatest",
    "MinHorizontal": "least", "Floor": "floor", "Ceil": "ceil", "StringExpr.Lowercase": "lower",
    "StringExpr.Uppercase": "upper", "StringExpr.StartsWith": "starts_with", "StringExpr.EndsWith": "ends_with",
    "StringExpr.LenChars": "length", "Boolean.Not": "not", "Boolean.IsNull": "is_null", "TemporalExpr.Year": "year",
    "TemporalExpr.Month": "month", "TemporalExpr.Day": "day", "TemporalExpr.WeekDay": "weekday",
    "TemporalExpr.Hour": "hour", "TemporalExpr.Minute": "minute", "Pow.Sqrt": "sqrt", "PowExpr.Sqrt": "sqrt",
}  # fmt: skip
_CASTS = {"Float64": "float64", "Int64": "int64"}


def translated(given: Any) -> Node:
    """The tree of a Polars expression; raises `DefinitionError` naming what is not supported."""
    refusals = import_module("polars").exceptions.PolarsError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Polars warns that the form may change: what is not read is refused
            said = json.loads(given.meta.serialize(format="json"))
    except (refusals, ValueError) as error:
        raise _refused(f"it cannot be written down ({type(error).__name__})") from error
    return _node(said)


def _node(said: Any) -> Node:
    if not isinstance(said, Mapping) or len(said) != 1:
        raise _refused(str(said)[:60])
    kind, body = next(iter(said.items()))
    if kind not in _READERS:
        raise _refused(kind)
    return _READERS[kind](body)


def _binary(body: Any) -> Node:
    if body["op"] not in _BINARY:
        raise _refused(str(body["op"]))
    return Node(_BINARY[body["op"]], (_node(body["left"]), _node(body["right"])))


def _function(body: Any) -> Node:
    name, options = _named(body["function"])
    args = tuple(_node(arg) for arg in body["input"])
    if name == "Boolean.IsNotNull":
        return Node("not", (Node("is_null", args),))
    if name == "Round" and options.get("decimals") == 0 and options.get("mode") == "HalfToEven":
        return Node("round", args)
    if name == "Clip":
        bounds = list(args[1:])
        inner = Node("greatest", (args[0], bounds.pop(0))) if options.get("has_min") else args[0]
        clipped = Node("least", (inner, bounds.pop(0))) if options.get("has_max") else inner
        return Node("when", (Node("is_null", args[:1]), Node("literal"), clipped))
    if name == "StringExpr.Contains" and options.get("literal"):
        return Node("contains", args)
    if name not in _FUNCTIONS:
        raise _refused(name)
    return Node(_FUNCTIONS[name], args)


def _named(said: Any) -> tuple[str, Mapping[str, Any]]:
    """`{"Boolean": {"IsIn": {…}}}` is `Boolean.IsIn` with options."""
    if isinstance(said, str):
        return said, {}
    name, inner = next(iter(said.items()))
    if isinstance(inner, str):
        return f"{name}.{inner}", {}
    nested = isinstance(inner, Mapping) and len(inner) == 1 and isinstance(next(iter(inner.values())), Mapping)
    if nested:
        below, options = next(iter(inner.items()))
        return f"{name}.{below}", options
    return name, inner if isinstance(inner, Mapping) else {}


def _literal(body: Any) -> Node:
    kind, value = next(iter(body.items()))
    if isinstance(value, Mapping):
        inner, content = next(iter(value.items()))
        if inner == "Null":
            return Node("literal")
        if isinstance(content, bool | int | float | str) and inner not in ("Datetime", "Date", "Duration", "Time"):
            return Node("literal", (), content)
        raise _refused(f"a literal of type {inner}")
    raise _refused(f"the literal {kind}")


def _ternary(body: Any) -> Node:
    return Node("when", (_node(body["predicate"]), _node(body["truthy"]), _node(body["falsy"])))


def _cast(body: Any) -> Node:
    dtype = body["dtype"].get("Literal") if isinstance(body["dtype"], Mapping) else body["dtype"]
    if dtype not in _CASTS:
        raise _refused(f"a cast to {dtype}")
    return Node("cast", (_node(body["expr"]),), _CASTS[dtype])


_READERS: Mapping[str, Callable[[Any], Node]] = {
    "Column": lambda body: Node("column", (), str(body)),
    "BinaryExpr": _binary,
    "Function": _function,
    "Literal": _literal,
    "Ternary": _ternary,
    "Cast": _cast,
    "Alias": lambda body: _node(body[0]),
}


def _refused(what: str) -> DefinitionError:
    return DefinitionError(
        f"the Polars expression uses {what}, which is no row-level expression here",
        hint="write it with el.col(…), or make a column of it in the dataset; el.sum, el.mean, … aggregate",
    )
