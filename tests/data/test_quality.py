"""Expectations, profiles, comparison, operations."""

import datetime as dt
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop import data
from everloop.catalog import placements
from everloop.catalog.operation import invoke
from everloop.catalog.versions import put
from everloop.core.clock import parse_time
from everloop.core.errors import DataError, InvalidInput, NotFound, PermissionDenied
from everloop.data import Call, SourceDef, check_expectations, expect
from everloop.data import operations as ops
from everloop.data.profiles import Distinct, Profile, profile

TABLE = pl.DataFrame(
    {
        "id": [1, 2, 2, 4],
        "x": [0.5, float("nan"), None, 9.0],
        "name": ["UA", "AA", None, "zz9"],
        "at": pl.Series([dt.datetime(2013, 1, d, tzinfo=dt.UTC) for d in (1, 2, 3, 4)]),
        "day": [dt.date(2013, 1, d) for d in (1, 2, 3, 4)],
        "low": [1, 5, None, 2],
    }
)


@pytest.mark.parametrize(
    ("expectation", "passed", "failing"),
    [
        (expect.unique("id"), False, 2),
        (expect.unique("id", "at"), True, 0),
        (expect.not_null("id", "at"), True, 0),
        (expect.not_null("x"), False, 1),
        (expect.between("id", 1, 4), True, 0),
        (expect.between("x", 0, 10), False, 1),
        (expect.between("x", upper=1.5), False, 2),
        (expect.between("at", "2013-01-01", dt.datetime(2013, 1, 3, tzinfo=dt.UTC)), False, 1),
        (expect.between("day", dt.date(2013, 1, 1), dt.date(2013, 1, 4)), True, 0),
        (expect.between("name", "A", "V"), False, 1),
        (expect.one_of("name", ["UA", "AA"]), False, 1),
        (expect.one_of("id", [1, 2, 4]), True, 0),
        (expect.matches("name", "[A-Z]{2}"), False, 1),
        (expect.row_count(at_least=4), True, 0),
        (expect.row_count(at_most=3), False, 0),
        (expect.fresh("at", "24h"), True, 0),
        (expect.fresh("at", "10h"), False, 0),
        (expect.fresh("day", "24h"), True, 0),
        (expect.dtype("at", "timestamp[us,UTC]"), True, 0),
        (expect.dtype("id", "int32"), False, 0),
        (expect.null_share("x", 0.25), True, 1),
        (expect.null_share("x", 0.2), False, 1),
        (expect.ordered("low", "id"), False, 1),
        (expect.columns("id", "x"), True, 0),
        (expect.columns("id", "nope"), False, 0),
        (expect.between("nope", 1, 2), False, 0),
    ],
)
def test_expectations(expectation, passed, failing):
    now = parse_time("2013-01-04T12:00:00Z")
    for table in (TABLE, TABLE.lazy(), TABLE.to_arrow()):
        (result,) = check_expectations(table, [expectation], now=now)
        assert (result.passed, result.failing) == (passed, failing), result
        assert result.blocks is (not passed)
    assert data.Expectation.from_manifest(expectation.manifest()) == expectation


def test_failing_rows_are_shown_and_masked():
    checks = [expect.matches("name", "[A-Z]{2}"), expect.unique("id"), expect.not_null("name", severity="warn")]
    found = check_expectations(TABLE, checks, tags={"name": "personal"}, key=["id"])
    assert found[0].examples == ({"id": "4", "name": "•••"},)
    assert found[1].examples == ({"id": "2", "rows": "2"},)
    assert found[2].examples == ({"id": "2", "name": "null"},)
    assert not found[2].blocks


def test_expectations_that_make_no_sense():
    for wrong in (
        lambda: expect.between("x"),
        lambda: expect.one_of("x", "abc"),
        lambda: expect.matches("x", "("),
        expect.row_count,
        lambda: expect.fresh("x", "soon"),
        lambda: expect.null_share("x", 2),
        lambda: expect.between("x", float("nan")),
        lambda: expect.unique("x", severity="loud"),
        expect.unique,
        lambda: SourceDef("no name", Call("m:f")),
        lambda: SourceDef("x", "file.csv"),
        lambda: SourceDef("x", Call("nonsense")),
        lambda: SourceDef("x", Call(lambda: 1)),
        lambda: SourceDef("x", data.Files("x.pdf")),
        lambda: SourceDef("x", data.Files("x.csv"), key=("a", "a")),
        lambda: SourceDef("x", data.Files("x.csv"), expect=["unique"]),
        lambda: SourceDef("x", data.SQL("warehouse", " ")),
        lambda: check_expectations(TABLE, [expect.between("id", "many")]),
    ):
        with pytest.raises(InvalidInput) as caught:
            wrong()
        assert str(caught.value)


def test_definitions_round_trip():
    for origin in (data.Files("a/*.csv"), data.SQL("w", "select 1", state="select 2"), Call("m:f", {"a": 1})):
        source = SourceDef("s", origin, ("a", "b"), "t", "k", {"a": "personal"}, [expect.between("x", 0.5, 2)])
        assert SourceDef.from_manifest("s", source.version().manifest) == source
    made = data.DatasetDef("d", check_expectations, {"flights": "source/flights"}, key="id")
    assert made.version().manifest["function"] == "everloop.data.checking:check_expectations"


def test_definitions_load_no_engine():
    code = (
        "import sys, everloop.data as d; d.SourceDef('x', d.Files('x.csv'), expect=[d.expect.unique('a')]).version();"
        "print([m for m in ('pyarrow', 'polars', 'duckdb', 'numpy', 'sqlalchemy', 'pydantic') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


# --- profiles


def test_a_profile_tells_what_the_columns_look_like():
    chance = np.random.default_rng(0)
    values = chance.normal(100, 15, 50_000)
    table = pl.DataFrame(
        {"v": values, "c": [f"c{i % 7}" for i in range(50_000)], "who": [str(i) for i in range(50_000)]}
    )
    found = profile(table, tags={"who": "personal"}).json()["columns"]
    v = found["v"]
    assert v["mean"] == pytest.approx(values.mean())
    assert v["std"] == pytest.approx(values.std())
    assert (v["min"], v["max"]) == (values.min(), values.max())
    assert len(v["quantiles"]) == 257
    ranks = np.searchsorted(np.sort(values), v["quantiles"]) / len(values)
    assert np.abs(ranks - np.linspace(0, 1, 257)).max() < 0.01
    assert v["distinct"] == pytest.approx(50_000, rel=0.05)
    assert (found["c"]["distinct"], found["c"]["top"][0][1]) == (7, 7143)
    assert set(found["who"]) == {"type", "rows", "nulls", "nans", "masked", "distinct", "hll"}


@given(st.lists(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=30), min_size=1, max_size=4))
def test_profiles_merge(pieces):
    def of(values):
        text = pa.array([None if v is None else f"{v:.0f}" for v in values], pa.string())
        return profile(pa.table({"x": pa.array(values, pa.float64()), "s": text}))

    whole = of([v for piece in pieces for v in piece]).json()["columns"]
    merged = of(pieces[0])
    for piece in pieces[1:]:
        merged.merge(Profile.from_json(of(piece).json()))
    for name, column in merged.json()["columns"].items():
        for figure in ("rows", "nulls", "distinct", "min", "max", "top", "counts"):
            found, expected = column.get(figure), whole[name].get(figure)
            assert (sorted(found) == sorted(expected)) if figure == "top" and found else found == expected
        assert column.get("mean", 0) == pytest.approx(whole[name].get("mean", 0), abs=1e-6)
        assert column.get("std", 0) == pytest.approx(whole[name].get("std", 0), abs=1e-3)
    with pytest.raises(DataError):
        merged.merge(profile(pa.table({"y": [1]})))


@pytest.mark.parametrize("count", [0, 1, 100, 5_000, 200_000])
def test_distinct_values_are_estimated(count):
    sketch = Distinct()
    sketch.add(np.random.default_rng(count).integers(0, 2**64, count, dtype=np.uint64))
    assert Distinct.from_text(sketch.text()).estimate() == pytest.approx(count, rel=0.06)


# --- comparison


def version(ctx, frame, key="id", name="t", **more):
    saved = data.DataCodec(data.Contract.of(key, **more), scratch=ctx.home).save(frame, name, ctx.store, {})
    with ctx.write() as tx:
        placements.put(tx, ctx.project, saved.placements)
        put(tx, ctx.project, saved.version, actor="ada", at=0)
    return saved.version.id


def frame(count):
    return pl.DataFrame({"id": np.arange(count), "x": np.arange(count) % 10, "who": [f"p{i}" for i in range(count)]})


def test_compare_by_key(context):
    before = frame(30_000)
    after = before.with_columns(
        x=pl.when(pl.col("id") < 3).then(-1).otherwise(pl.col("x")),
        who=pl.when(pl.col("id") == 2).then(None).otherwise(pl.col("who")),
    ).filter(pl.col("id") != 29_999)
    after = pl.concat([after, frame(30_002).tail(2)])
    tags = {"who": "personal"}
    old, new = version(context, before, tags=tags), version(context, after, tags=tags)
    found = data.compare(context, old, new)
    assert (found.added, found.removed, found.changed) == (2, 1, 3)
    assert found.changes == {"x": 3, "who": 1}
    assert found.examples[2] == {"id": "2", "x": "2 → -1", "who": "•••"}
    assert found.parts_shared > 0
    assert data.compare(context, old, old).same
    back = data.compare(context, new, old)
    assert (back.added, back.removed, back.changed) == (1, 2, 3)


def test_compare_schemas_and_rows_without_a_key(context):
    old = version(context, frame(100), key=None)
    wider = frame(100).with_columns(pl.lit(1).alias("more"), pl.col("x").cast(pl.Float64)).drop("who")
    found = data.compare(context, old, version(context, wider, key=None))
    assert dict(found.columns_added) == {"more": "int32"}
    assert dict(found.columns_removed) == {"who": "string"}
    assert dict(found.columns_retyped) == {"x": ("int64", "float64")}
    again = pl.concat([frame(100), frame(100).head(5)])
    found = data.compare(context, old, version(context, again, key=None))
    assert (found.added, found.removed, found.changed) == (5, 0, 0)
    repeated = pl.concat([frame(10), frame(10).with_columns(x=pl.lit(5, pl.Int64))])
    found = data.compare(context, version(context, frame(10)), version(context, repeated))
    assert (found.added, found.removed) == (10, 0)
    with pytest.raises(InvalidInput, match="different keys"):
        data.compare(context, old, version(context, frame(10)))


# --- operations


def rows_here():
    return frame(50)


def test_operations(each_context, context_of, catalog):
    ctx = each_context
    source = SourceDef("people", Call(rows_here), key="id", tags={"who": "personal"}, expect=[expect.unique("id")])
    with ctx.write() as tx:
        put(tx, ctx.project, source.version(), actor="ada", at=0)
    contributor = context_of(catalog, name="bob", roles=["contributor"])
    found = invoke(contributor, "data.capture", ops.Capture(source="people", environment="staging"))
    assert (found.number, found.rows, found.new, found.results[0]["passed"]) == (1, 50, True, True)
    viewer = context_of(catalog, name="eve", roles=["viewer"])
    with pytest.raises(PermissionDenied):
        invoke(viewer, "data.capture", ops.Capture(source="people"))
    shown = invoke(viewer, "data.show", ops.OfData(version="people", environment="staging"))
    assert shown.heads == {"staging": found.id}
    assert [c["name"] for c in shown.columns] == ["id", "x", "who"]
    assert "kll" not in shown.columns[0]
    assert invoke(viewer, "data.list", ops.ListData()).items[0].name == "people"
    assert len(invoke(viewer, "data.list", ops.ListData(name="people")).items) == 1
    sampled = invoke(viewer, "data.sample", ops.Sample(version=found.id, rows=2))
    assert sampled.rows == [["0", "0", "•••"], ["1", "1", "•••"]]
    assert sampled.masked == ["who"]
    difference = invoke(viewer, "data.compare", ops.Compare(old="data/people@1", new=found.id))
    assert (difference.added, difference.parts_new) == (0, 0)
    draft = invoke(viewer, "data.expect", ops.OfData(version="data/people")).lines
    assert "expect.unique('id')" in draft
    assert "expect.between('x', 0, 9.0, severity='warn')" in draft
    for line in draft:  # what is drafted holds
        made = eval(line, {"expect": expect})
        assert check_expectations(frame(50), [made])[0].passed, line
    assert invoke(viewer, "data.show", ops.OfData(version=found.id[3:15])).id == found.id
    with pytest.raises(NotFound):
        invoke(viewer, "data.show", ops.OfData(version="nobody"))
