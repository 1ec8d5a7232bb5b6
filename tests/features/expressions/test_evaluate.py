import math
from typing import Any

import numpy as np
import pytest
from expression_oracle import Beyond, value
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from everloop.core.errors import DataError, DefinitionError
from everloop.features.expressions import coalesce, col, expr, greatest, least, when
from everloop.features.expressions.author import typed_node
from everloop.features.expressions.evaluate import Cells, evaluate
from everloop.features.expressions.tree import Node, resolved

NAMES = {
    "f": "float64",
    "g": "float64",
    "i": "int64",
    "j": "int64",
    "s": "text",
    "t": "text",
    "b": "bool",
    "at": "time",
}
_TEXTS = st.sampled_from(["", "a", "Ab", " x ", "ß", "Ünï", "été\u0301"])
_TIMES = st.integers(-(2**50), 2**52)
_FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1.5, 2.5, -3.0])
_INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)
_KINDS = {"float64": _FLOATS, "int64": _INTS, "text": _TEXTS, "bool": st.booleans(), "time": _TIMES}
row = st.fixed_dictionaries({name: st.none() | _KINDS[kind] for name, kind in NAMES.items()})


def _leaves(kind: str) -> st.SearchStrategy[Node]:
    columns = st.sampled_from([Node("column", (), n, k) for n, k in NAMES.items() if k == kind])
    if kind == "time":
        return columns
    literal = {
        "float64": st.floats(-10, 10),
        "int64": st.just(0),
        "text": _TEXTS,
        "bool": st.booleans(),
    }[kind].map(lambda v: Node("literal", (), v))
    return columns if kind == "int64" else columns | literal


def _of(op: str, *args: st.SearchStrategy[Node], extra: Any = None) -> st.SearchStrategy[Node]:
    return st.tuples(*args).map(lambda found: Node(op, found, extra))


def _tree(kind: str, depth: int) -> st.SearchStrategy[Node]:
    if depth == 0:
        return _leaves(kind)
    same = _tree(kind, depth - 1)
    made = [same, _of("coalesce", same, same), _of("when", _tree("bool", depth - 1), same, same)]
    made += [_of(op, same, same) for op in ("least", "greatest")]
    if kind in ("float64", "int64"):
        made += [_of(op, same, same) for op in ("add", "sub", "mul", "floordiv", "mod")]
        made += [_of(op, same) for op in ("neg", "abs")]
    if kind == "float64":
        whole = _tree("int64", depth - 1)
        made += [_of("div", same, same), _of("cast", whole, extra="float64")]
        made += [_of(op, same) for op in ("floor", "ceil", "round", "sqrt")]
    if kind == "int64":
        made += [_of("cast", _tree("float64", depth - 1), extra="int64"), _of("length", _tree("text", depth - 1))]
        made += [_of(op, _leaves("time")) for op in ("year", "month", "day", "weekday", "hour", "minute")]
    if kind == "text":
        made += [_of("concat", same, same), _of("slice", same, extra=(1, 2))]
        made += [_of(op, same) for op in ("lower", "upper", "strip")]
    if kind == "bool":
        for inner in ("float64", "int64", "text", "bool", "time"):
            below = _tree(inner, depth - 1)
            made += [_of(op, below, below) for op in ("eq", "ne", "lt", "le", "gt", "ge")] + [_of("is_null", below)]
        made += [_of(op, same, same) for op in ("and", "or")] + [_of("not", same)]
        made += [_of(op, *[_tree("text", depth - 1)] * 2) for op in ("starts_with", "ends_with", "contains")]
        made += [_of("is_in", _tree("text", depth - 1), extra=("a", ""))]
    return st.one_of(made)


trees = st.sampled_from(["float64", "int64", "text", "bool"]).flatmap(lambda kind: _tree(kind, 2))


def cells(rows: list[dict[str, Any]]) -> dict[str, Cells]:
    """Rows as columns, the way that facts hold them: booleans as integers, nulls as 0."""
    made = {}
    for name, kind in NAMES.items():
        found = [r[name] for r in rows]
        there = [v is not None and not (isinstance(v, float) and math.isnan(v)) for v in found]
        if kind == "text":
            values = np.empty(len(rows), object)
            values[:] = [v or "" for v in found]
        else:
            values = np.array([v if ok else 0 for v, ok in zip(found, there, strict=True)], _DTYPES[kind])
        made[name] = Cells(values, np.array(there, bool))
    return made


_DTYPES = {"float64": np.float64, "int64": np.int64, "bool": np.int64, "time": np.int64}


def listed(found: Cells) -> list[Any]:
    return [v if ok else None for v, ok in zip(found.values.tolist(), found.valid.tolist(), strict=True)]


def bits(found: Any) -> Any:
    return (type(found).__name__, found.hex() if isinstance(found, float) else found)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, rows=st.lists(row, min_size=1, max_size=6), cut=st.integers(1, 5))
def test_every_expression_is_what_plain_python_says_however_rows_are_cut(tree, rows, cut):
    assume(tree.columns)
    node = resolved(tree)
    try:
        expected = [value(node, one) for one in rows]
    except Beyond:
        with pytest.raises(DataError, match="64 bits"):
            evaluate(node, cells(rows))
        return
    found = listed(evaluate(node, cells(rows)))
    assert [bits(v) for v in found] == [bits(v) for v in expected], str(node)
    parts = [rows[start : start + cut] for start in range(0, len(rows), cut)]
    assert [bits(v) for part in parts for v in listed(evaluate(node, cells(part)))] == [bits(v) for v in found]
    assert resolved(Node.from_manifest(node.manifest())) == node


def test_an_untyped_column_is_what_its_surroundings_need():
    assert typed_node(col("carrier") == "AA").args[0].type == "text"
    assert typed_node(col("a") + col("b")).type == "float64"
    assert typed_node(col("a", "int64") + col("b")).type == "float64"
    assert typed_node(col("a", "int64") + -col("b", "int64")).type == "int64"
    assert typed_node(col("a", "int64") + 1.5).type == "float64"
    assert typed_node(col("a", "int64") * 2).type == "int64"
    assert typed_node(col("b", "time") - col("a")).type == "int64"
    assert typed_node(~col("late")).args[0].type == "bool"
    assert typed_node(col("anything").is_null()).args[0].type == "any"
    assert typed_node(when(col("a").is_null()).then(None).otherwise("x")).type == "text"
    assert typed_node(least(col("a"), 3)).type == typed_node(greatest(col("a"), 3)).type == "float64"
    assert typed_node(coalesce(col("a", "text"), "none")).type == "text"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: typed_node(col("a", "text") + 1), "does not work on text"),
        (lambda: typed_node(col("a", "text") == 1.5), "mixes"),
        (lambda: typed_node(col("a") + "x"), "does not work on text"),
        (lambda: typed_node(col("a", "bool") * 2), "does not work on bool"),
        (lambda: typed_node(expr(3)), "reads no column"),
        (lambda: col("a", "decimal"), "cannot be"),
        (lambda: bool(col("a") > 1), "no truth"),
        (lambda: typed_node(col("a") + object()), "cannot stand"),
        (lambda: typed_node(col("a", "time") + col("b", "time")), "adds times"),
        (lambda: typed_node(col("a", "text").cast("float64")), "cannot be cast"),
        (lambda: typed_node(col("a").is_in([])), "at least one"),
        (lambda: when(col("a") > 1).otherwise(2), "no then"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(wrong, said):
    with pytest.raises(DefinitionError, match=said):
        wrong()


def test_a_tree_that_is_too_large_is_refused():
    tree = col("a")
    for _ in range(50):
        tree = tree + 1
    with pytest.raises(DefinitionError, match="too large"):
        typed_node(tree)


@pytest.mark.parametrize(
    ("node", "values", "said"),
    [
        (col("a", "int64") + 0, np.array([1.5]), "fractions"),
        (col("a") + 0, np.array(["x"], object), "holds text"),
        (col("a") == "x", np.array([1]), "holds numbers"),
        (~col("a"), np.array([2]), "other numbers"),
        (col("a", "int64") * 4, np.array([2**62]), "64 bits"),
    ],
)
def test_a_column_that_is_not_its_type_is_an_error(node, values, said):
    with pytest.raises(DataError, match=said):
        evaluate(typed_node(node), {"a": Cells(values, np.ones(1, bool))})
