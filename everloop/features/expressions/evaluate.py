"""Computing an expression over the columns of facts: NumPy, the same code for batch and push.

Every operation is exact or correctly rounded (IEEE 754: + - * / and square root), one value at a time, so that
neither vector length nor thread nor machine can change a bit. A null in, a null out, unless an operation says so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError
from everloop.features.expressions.tree import TEXT_MAPS, TEXT_TESTS, TIME_PARTS, Node

Mask = npt.NDArray[np.bool_]
_WHOLE = 2.0**63


class Cells(NamedTuple):
    """Values and which of them are there: bool, int64, float64 or objects (text); times are int64."""

    values: npt.NDArray[Any]
    valid: Mask


def evaluate(node: Node, columns: Mapping[str, Cells]) -> Cells:
    """The value of a resolved expression for every row.

    Raises `DataError` when a column cannot be read as its type, or whole numbers leave 64 bits.
    """
    rows = len(next(iter(columns.values())).values) if columns else 0
    return _clean(_value(node, columns, rows))


def _value(node: Node, columns: Mapping[str, Cells], rows: int) -> Cells:
    if node.op == "column":
        return _read(node, columns[str(node.value)])
    if node.op == "literal":
        return _constant(node, rows)
    return _APPLY[node.op](node, [_value(arg, columns, rows) for arg in node.args])


def _constant(node: Node, rows: int) -> Cells:
    if node.value is None:
        return Cells(_blank(node.type, rows), np.zeros(rows, bool))
    values: npt.NDArray[Any] = np.full(rows, node.value, object if node.type == "text" else _DTYPES[node.type])
    return Cells(values, np.ones(rows, bool))


_DTYPES = {"float64": np.float64, "int64": np.int64, "time": np.int64, "bool": np.bool_}


def _read(node: Node, cells: Cells) -> Cells:
    values, valid = cells
    kind = values.dtype.kind
    if node.type == "any":
        return cells
    if not valid.any():
        return Cells(_blank(node.type, len(values)), valid)
    if node.type == "text":
        if kind == "O":
            return cells
        raise DataError(f"column {node.value!r} is read as text and holds numbers", hint='el.col(name, "float64")')
    if kind not in "biuf":
        raise DataError(f"column {node.value!r} is read as {node.type} and holds text", hint='el.col(name, "text")')
    if node.type == "float64":
        return Cells(np.where(valid, values, 0).astype(np.float64), valid)
    whole = np.where(valid, values, 0)
    if kind == "f" and not ((whole == np.floor(whole)) & (np.abs(whole) < _WHOLE)).all():
        raise DataError(f"column {node.value!r} is read as {node.type} and holds fractions", hint="read it as float64")
    if node.type == "bool":
        if not np.isin(whole, (0, 1)).all():
            raise DataError(f"column {node.value!r} is read as bool and holds other numbers", hint="compare it")
        return Cells(whole.astype(bool), valid)
    return Cells(whole.astype(np.int64), valid)


def _blank(kind: str, rows: int) -> npt.NDArray[Any]:
    if kind != "text":
        return np.zeros(rows, _DTYPES[kind])
    texts = np.empty(rows, object)
    texts[:] = ""
    return texts


def _clean(cells: Cells) -> Cells:
    """NaN is null; the float that stands below a null is 0."""
    if cells.values.dtype.kind != "f":
        return cells
    valid = cells.valid & ~np.isnan(cells.values)
    return Cells(np.where(valid, cells.values, 0.0), valid)


def _both(args: Sequence[Cells]) -> Mask:
    valid = args[0].valid
    for arg in args[1:]:
        valid = valid & arg.valid
    return valid


def _arithmetic(node: Node, args: Sequence[Cells]) -> Cells:
    valid = _both(args)
    if args[0].values.dtype.kind != "f":
        return Cells(_whole(node, [np.where(valid, a.values, 0) for a in args], valid), valid)
    with np.errstate(all="ignore"):
        return _clean(Cells(np.asarray(_FLOAT[node.op](*(a.values for a in args))), valid))


_FLOAT: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sqrt": np.sqrt,
}


def _whole(node: Node, values: Sequence[npt.NDArray[Any]], valid: Mask) -> npt.NDArray[np.int64]:
    """Whole numbers, wrapped never: what leaves 64 bits is an error."""
    with np.errstate(over="ignore"):
        found: npt.NDArray[np.int64] = np.asarray(_FLOAT[node.op](*values), np.int64)
    # floats tell which results are near the edge; Python's integers decide those
    near = np.abs(_FLOAT[node.op](*(v.astype(np.float64) for v in values))) > 2.0**62
    for row in np.flatnonzero(near & valid).tolist():
        exact = _PYTHON[node.op](*(int(v[row]) for v in values))
        if not -(2**63) <= exact < 2**63:
            raise DataError(f"{node} gives {exact}, which does not fit 64 bits", hint="read its columns as float64")
    return found


_PYTHON: Mapping[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "abs": abs,
}


def _divided(node: Node, args: Sequence[Cells]) -> Cells:
    """`/`, `//` and `%`; by zero: null. `//` goes down, `%` has the sign of the divisor, as in Python."""
    (a, b), valid = args, _both(args)
    valid = valid & (b.values != 0)
    below = np.where(valid, b.values, 1)
    if a.values.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return _clean(Cells(np.asarray(_DIVIDE[node.op](a.values, below)), valid))
    if node.op == "floordiv" and (valid & (a.values == -(2**63)) & (below == -1)).any():
        raise DataError(f"{node} gives {2**63}, which does not fit 64 bits", hint="read its columns as float64")
    below = np.where(below == -1, 1, below) if node.op == "mod" else below  # numpy would overflow; the rest is 0 anyway
    above = np.where(valid, a.values, 0)
    return Cells(np.asarray(_DIVIDE[node.op](above, below)), valid)


_DIVIDE: Mapping[str, Callable[..., Any]] = {"div": np.divide, "floordiv": np.floor_divide, "mod": np.mod}


def _compared(node: Node, args: Sequence[Cells]) -> Cells:
    return Cells(np.asarray(_COMPARE[node.op](args[0].values, args[1].values), bool), _both(args))


_COMPARE: Mapping[str, Callable[..., Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _logic(node: Node, args: Sequence[Cells]) -> Cells:
    """Three-valued: false & null is false, true | null is true."""
    if node.op == "not":
        return Cells(~args[0].values, args[0].valid)
    (a, a_valid), (b, b_valid) = args
    deciding = node.op == "or"
    decided = (a_valid & (a == deciding)) | (b_valid & (b == deciding))
    return Cells(np.where(decided, deciding, not deciding), decided | (a_valid & b_valid))


def _first(_node: Node, args: Sequence[Cells]) -> Cells:
    values, valid = args[0]
    for other in args[1:]:
        values, valid = np.where(valid, values, other.values), valid | other.valid
    return Cells(values, valid)


def _extreme(node: Node, args: Sequence[Cells]) -> Cells:
    better = np.less if node.op == "least" else np.greater
    values, valid = args[0]
    for other in args[1:]:
        take = other.valid & (~valid | np.asarray(better(other.values, values), bool))
        values, valid = np.where(take, other.values, values), valid | other.valid
    return Cells(values, valid)


def _when(_node: Node, args: Sequence[Cells]) -> Cells:
    condition, then, other = args
    chosen = condition.valid & condition.values
    return Cells(np.where(chosen, then.values, other.values), np.where(chosen, then.valid, other.valid))


def _cast(node: Node, args: Sequence[Cells]) -> Cells:
    values, valid = args[0]
    if node.type == "float64" or values.dtype.kind != "f":
        return Cells(values.astype(_DTYPES[node.type]), valid)
    cut = np.trunc(values)
    valid = valid & (np.abs(cut) < _WHOLE)
    return Cells(np.where(valid, cut, 0).astype(np.int64), valid)


def _among(node: Node, args: Sequence[Cells]) -> Cells:
    values, valid = args[0]
    wanted: Any = node.value
    found = [v in set(wanted) for v in values.tolist()] if values.dtype.kind == "O" else np.isin(values, list(wanted))
    return Cells(np.asarray(found, bool), valid)


def _text(node: Node, args: Sequence[Cells]) -> Cells:
    make = _TEXTS[node.op]
    valid = _both(args)
    extra = node.value if isinstance(node.value, tuple) else ()
    found = [make(*row, *extra) for row in zip(*(a.values.tolist() for a in args), strict=True)]
    values = np.empty(len(found), object)
    values[:] = found
    return Cells(values.astype(_DTYPES[node.type]) if node.type != "text" else values, valid)


_TEXTS: Mapping[str, Callable[..., Any]] = {
    "lower": str.lower,
    "upper": str.upper,
    "strip": str.strip,
    "length": len,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
    "concat": lambda *parts: "".join(parts),
    "slice": lambda text, start, length: text[start : start + length],
}


def _part(node: Node, args: Sequence[Cells]) -> Cells:
    values, valid = args[0]
    times = values.astype("datetime64[us]")
    days = times.astype("datetime64[D]")
    months = times.astype("datetime64[M]")
    if node.op == "year":
        found = times.astype("datetime64[Y]").astype(np.int64) + 1970
    elif node.op == "month":
        found = months.astype(np.int64) % 12 + 1
    elif node.op == "day":
        found = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
    elif node.op == "weekday":
        found = (days.astype(np.int64) + 3) % 7 + 1  # 1 January 1970 was a Thursday
    elif node.op == "hour":
        found = values // 3_600_000_000 % 24
    else:
        found = values // 60_000_000 % 60
    return Cells(np.asarray(found, np.int64), valid)


def _is_null(_node: Node, args: Sequence[Cells]) -> Cells:
    return Cells(~args[0].valid, np.ones(len(args[0].valid), bool))


_APPLY: Mapping[str, Callable[[Node, Sequence[Cells]], Cells]] = {
    **dict.fromkeys(_FLOAT, _arithmetic),
    **dict.fromkeys(_DIVIDE, _divided),
    **dict.fromkeys(_COMPARE, _compared),
    **dict.fromkeys(("and", "or", "not"), _logic),
    "is_null": _is_null,
    "coalesce": _first,
    "least": _extreme,
    "greatest": _extreme,
    "when": _when,
    "cast": _cast,
    "is_in": _among,
    **dict.fromkeys((*TEXT_MAPS, *TEXT_TESTS, "length", "concat", "slice"), _text),
    **dict.fromkeys(TIME_PARTS, _part),
}
