"""What an expression means, in plain Python, one row at a time: the oracle of the property tests."""

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from everloop.features.expressions.tree import Node


class Beyond(Exception):
    """A whole number left 64 bits: the code under test must refuse."""


def value(node: Node, row: dict[str, Any]) -> Any:
    """The value of a resolved tree for one row; None is null."""
    if node.op == "column":
        return _read(node, row[node.value])
    if node.op == "literal":
        return node.value
    if node.op == "when":
        return value(node.args[1] if value(node.args[0], row) is True else node.args[2], row)
    args = [value(arg, row) for arg in node.args]
    return _clean(_of_nulls(node, args) if node.op in _NULLS else _plain(node, args))


def _read(node: Node, found: Any) -> Any:
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return None
    return {"float64": float, "int64": int, "time": int, "bool": bool, "any": lambda v: v, "text": str}[node.type](
        found
    )


def _clean(found: Any) -> Any:
    return None if isinstance(found, float) and math.isnan(found) else found


def _of_nulls(node: Node, args: list[Any]) -> Any:
    there = [arg for arg in args if arg is not None]
    if node.op == "is_null":
        return args[0] is None
    if node.op == "coalesce":
        return there[0] if there else None
    if node.op in ("least", "greatest"):
        best = there[0] if there else None
        for other in there[1:]:
            if other < best if node.op == "least" else other > best:
                best = other
        return best
    if node.op == "and":
        return False if False in there else None if None in args else True
    return True if True in there else None if None in args else False


_NULLS = ("is_null", "coalesce", "least", "greatest", "and", "or")


def _plain(node: Node, args: list[Any]) -> Any:  # noqa: PLR0911
    if None in args:
        return None
    op = node.op
    if op in ("eq", "ne", "lt", "le", "gt", "ge"):
        a, b = args
        return {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[op]
    if op in ("add", "sub", "mul", "neg", "abs"):
        return _arithmetic(op, args)
    if op in ("div", "floordiv", "mod"):
        return _divided(op, *args)
    if op in ("year", "month", "day", "weekday", "hour", "minute"):
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=args[0])
        return at.isoweekday() if op == "weekday" else getattr(at, op)
    if op == "cast":
        return float(args[0]) if node.type == "float64" else _whole(args[0])
    if op == "is_in":
        return args[0] in node.value
    return _TEXT[op](node, args) if op in _TEXT else _ROUND[op](args[0])


def _arithmetic(op: str, args: list[Any]) -> Any:
    a, b = args[0], args[-1]
    try:
        found = {
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "mul": lambda: a * b,
            "neg": lambda: -a,
            "abs": lambda: abs(a),
        }[op]()
    except OverflowError:
        return math.inf
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise Beyond
    return found


_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a, _b: -a,
    "abs": lambda a, _b: abs(a),
}


def _divided(op: str, a: Any, b: Any) -> Any:
    if b == 0:
        return None
    if isinstance(a, int):
        return _arithmetic("add", [a // b if op == "floordiv" else a % b, 0])
    if math.isinf(a) or math.isinf(b):
        return None if op == "skip" else _infinite(op, a, b)
    if op == "div":
        try:
            return a / b
        except OverflowError:
            return math.inf
    return a // b if op == "floordiv" else a % b


def _infinite(op: str, a: float, b: float) -> Any:
    if op == "div":
        return math.nan if math.isinf(a) and math.isinf(b) else a / b
    if math.isinf(a):
        return math.nan
    return a // b if op == "floordiv" else a % b


def _whole(found: Any) -> Any:
    if isinstance(found, float) and (math.isinf(found) or abs(math.trunc(found)) >= 2**63):
        return None
    return math.trunc(found)


def _rounded(found: float) -> float:
    if math.isinf(found):
        return found
    down = math.floor(found)
    rest = Fraction(found) - down
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1)
    return math.copysign(float(down + up), found)


_ROUND = {
    "floor": lambda v: v if math.isinf(v) else math.copysign(float(math.floor(v)), v) if v else v,
    "ceil": lambda v: v if math.isinf(v) else math.copysign(float(math.ceil(v)), v) if v else v,
    "round": _rounded,
    "sqrt": lambda v: None if v < 0 else math.sqrt(v),
    "not": lambda v: not v,
}
_TEXT = {
    "lower": lambda _n, a: a[0].lower(),
    "upper": lambda _n, a: a[0].upper(),
    "strip": lambda _n, a: a[0].strip(),
    "length": lambda _n, a: len(a[0]),
    "starts_with": lambda _n, a: a[0].startswith(a[1]),
    "ends_with": lambda _n, a: a[0].endswith(a[1]),
    "contains": lambda _n, a: a[1] in a[0],
    "concat": lambda _n, a: "".join(a),
    "slice": lambda n, a: a[0][n.value[0] : n.value[0] + n.value[1]],
}
