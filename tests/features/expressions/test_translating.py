"""SQL and Polars as ways to write the same tree; where all three mean the same, all three give the same values."""

import duckdb
import numpy as np
import polars as pl
import pytest

from everloop.core.errors import DefinitionError
from everloop.features.expressions import coalesce, col, expr, greatest, when
from everloop.features.expressions.author import typed_node
from everloop.features.expressions.evaluate import Cells, evaluate

A, B, S, T = pl.col("a"), pl.col("b"), pl.col("s"), pl.col("t")
SAME = [
    ("a * b + 1", A * B + 1, col("a") * col("b") + 1),
    ("a - b", A - B, col("a") - col("b")),
    ("-abs(a)", -A.abs(), -abs(col("a"))),
    (
        "case when a > b then a else null end",
        pl.when(A > B).then(A).otherwise(None),
        when(col("a") > col("b")).then(col("a")).otherwise(None),
    ),
    ("coalesce(a, b)", pl.coalesce("a", "b"), coalesce(col("a"), col("b"))),
    ("greatest(a, b)", pl.max_horizontal("a", "b"), greatest(col("a"), col("b"))),
    ("a is null or b >= 2", A.is_null() | (B >= 2), col("a").is_null() | (col("b") >= 2)),
    ("not (s = 'AA')", ~(S == "AA"), ~(col("s") == "AA")),
    ("lower(s)", S.str.to_lowercase(), col("s").lower()),
    ("starts_with(s, 'A')", S.str.starts_with("A"), col("s").starts_with("A")),
    ("s || 'x'", None, col("s").concat("x")),
    ("s in ('AA', 'b')", None, col("s").is_in(["AA", "b"])),
    ("a between 1 and 3", None, (col("a") >= 1) & (col("a") <= 3)),
    ("nullif(a, 0)", None, when(col("a") == 0).then(None).otherwise(col("a"))),
    ("floor(a)", A.floor(), col("a").floor()),
    ("extract(hour from t)", T.dt.hour(), col("t").hour()),
    ("isodow(t)", T.dt.weekday(), col("t").weekday()),
    ("year(t)", T.dt.year(), col("t").year()),
    ("length(s)", S.str.len_chars(), col("s").length()),
    ("cast(a as double)", A.cast(pl.Float64), col("a").cast("float64")),
]
FRAME = pl.DataFrame(
    {
        "a": [1.5, None, 0.0, -3.0, 2.0],
        "b": [2.0, 2.0, None, 1.0, 7.25],
        "s": ["AA", None, "b", "Ab", ""],
        "t": [0, 1_700_000_000_000_000, None, -1, 951_782_399_999_999],
    },
    schema_overrides={"t": pl.Datetime("us")},
)


def ours(written):
    columns = {}
    for name in FRAME.columns:
        series = FRAME[name].cast(pl.Int64) if name == "t" else FRAME[name]
        filled = series.fill_null("" if name == "s" else 0)
        columns[name] = Cells(
            np.array(filled.to_list(), object if name == "s" else None), series.is_not_null().to_numpy()
        )
    found = evaluate(typed_node(written), columns)
    return [v if ok else None for v, ok in zip(found.values.tolist(), found.valid.tolist(), strict=True)]


@pytest.mark.parametrize(("sql", "polars", "written"), SAME, ids=[case[0] for case in SAME])
def test_three_ways_to_write_one_tree(sql, polars, written):
    assert typed_node(expr(sql)) == typed_node(written)
    assert ours(expr(sql)) == [row[0] for row in duckdb.sql(f"select {sql} from FRAME").fetchall()]
    if polars is not None:
        assert typed_node(expr(polars)) == typed_node(written)
        assert ours(expr(polars)) == FRAME.select(polars.alias("x"))["x"].to_list()


def test_clipping_keeps_a_null():
    assert ours(expr(A.clip(0, 1))) == FRAME.select(A.clip(0, 1))["a"].to_list()


def test_division_by_zero_is_null_as_in_sql():
    assert ours(expr("b / a"))[2] is None
    assert ours(expr("a / nullif(a, a)")) == [None] * 5
    assert ours(col("b") / col("a"))[2] is None
    assert ours(expr(pl.lit(1.0) / A))[2] is None


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(a)",
        "a % 2",
        "select a",
        "a +",
        "random()",
        "x.a",
        "cast(a as date)",
        "s in (select 1)",
        "a over ()",
        "round(a, 2)",
    ],
)
def test_sql_that_is_not_supported_is_refused_by_name(wrong):
    with pytest.raises(DefinitionError, match=r"row-level expression|SQL expression"):
        expr(wrong)


@pytest.mark.parametrize(
    "wrong", [A.sum(), A.shift(1), A.rank(), A.cast(pl.Int8), A.map_elements(abs, pl.Float64), S.str.contains("a")]
)
def test_polars_that_is_not_supported_is_refused_by_name(wrong):
    with pytest.raises(DefinitionError, match="Polars expression"):
        expr(wrong)
