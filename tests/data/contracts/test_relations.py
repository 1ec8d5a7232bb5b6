"""Expectations that look at other versions or run the author's code, over real versions in a catalog."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.catalog import refs, versions
from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.data import SourceDef, check_version, expect
from everloop.data.contracts.distances import distance, drift_of
from everloop.data.definitions import Call, Contract
from everloop.data.editing import edit
from everloop.data.expect import Expectation
from everloop.data.profiles import profile

CODE = """
import os
import polars as pl

def evens(table):
    print("heard by nobody")
    return table.filter(pl.col("id") % 2 == 1)

def counted(table):
    return table.select(pl.len()).collect().item()

def holds(table):
    return "SECRET" not in os.environ

def breaks(table):
    raise ValueError("no such luck")

def strange(table):
    return "yes"
"""


@pytest.fixture
def ctx(context_of, sqlite_catalog, tmp_path):
    (tmp_path / "rules.py").write_text(CODE)
    found = context_of(sqlite_catalog)
    return type(found)(**{**{n: getattr(found, n) for n in found.__slots__}, "ports": {"root": str(tmp_path)}})


def put(ctx, name, frame, key="id", tags=None):
    return edit(ctx, name, frame, "append", "production", contract=Contract.of(key, tags=tags)).id


def check(ctx, version, *expectations, **more):
    return check_version(ctx, version, expectations, environment="production", **more)


def test_references_are_looked_up_in_the_other_head_and_pinned(ctx):
    carriers = put(ctx, "carriers", pl.DataFrame({"code": ["UA", "AA"]}), key="code")
    flights = put(
        ctx,
        "flights",
        pl.DataFrame({"id": [1, 2, 3, 4], "carrier": ["UA", "ZZ", None, "AA"], "tail": ["a", "b", "c", "d"]}),
        tags={"id": "pseudonymous"},
    )
    to_code = expect.references("carrier", "carriers", "code")
    (broken,) = check(ctx, flights, to_code)
    assert (broken.passed, broken.failing, broken.pinned) == (False, 1, {"carriers": carriers})
    assert broken.examples == ({"id": "•••", "carrier": "ZZ"},)
    put(ctx, "carriers", pl.DataFrame({"code": ["ZZ"]}), key="code")
    (holds,) = check(ctx, flights, to_code)
    assert (holds.passed, holds.observed) == (True, "all are there")
    absent, column, own = check(
        ctx,
        flights,
        expect.references("carrier", "nothing"),
        expect.references("carrier", "carriers"),
        expect.references("nope", "carriers", "code"),
    )
    assert absent.observed == "production has no data/nothing"
    assert column.observed == "data/carriers has no column 'carrier'"
    assert own.observed == "there is no column 'nope'"


def test_the_row_count_is_compared_with_the_version_before(ctx):
    old = put(ctx, "rain", pl.DataFrame({"id": range(10)}))
    new = put(ctx, "rain", pl.DataFrame({"id": range(10, 15)}))
    fits, grows, alone = (
        *check(ctx, new, expect.row_change(-0.1, 0.5), expect.row_change(at_most=0.4), previous=old),
        *check(ctx, new, expect.row_change(at_most=0.4)),
    )
    assert (fits.passed, fits.observed, fits.pinned) == (True, "10 → 15 rows (+50.00%)", {"previous": old})
    assert not grows.passed
    assert (alone.passed, alone.pinned) == (True, {})


def test_drift_is_measured_on_sketches_against_the_previous_or_a_named_version(ctx):
    x, kind = [float(i) for i in range(1000)], ["a", "b"] * 500
    old = put(ctx, "rain", pl.DataFrame({"id": range(1000), "x": x, "kind": kind}))
    new = put(ctx, "rain", pl.DataFrame({"id": range(1000, 2000), "x": [v + 1000 for v in x], "kind": ["a"] * 1000}))
    far, named, values, wrong = check(
        ctx,
        new,
        expect.drift("x", 0.1),
        expect.drift("x", 0.6, against="rain@1"),
        expect.drift("kind", 0.3, test="tv"),
        expect.drift("kind", 0.3, test="ks"),
        previous=old,
    )
    assert not far.passed
    assert far.observed.startswith("Kolmogorov-Smirnov distance 0.5")
    assert named.passed
    assert named.pinned == {"rain@1": old}
    assert (values.passed, values.observed) == (True, "total variation distance 0.2500")
    assert (wrong.passed, wrong.observed) == (False, "ks says nothing about string")


def test_custom_functions_run_in_a_process_without_the_environment(ctx, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    version = put(ctx, "rain", pl.DataFrame({"id": [1, 2, 4]}))
    rows, clean, raised, strange = check(
        ctx, version, *(expect.custom(f"rules:{name}") for name in ("evens", "holds", "breaks", "strange"))
    )
    assert (rows.passed, rows.failing, rows.examples) == (False, 1, ({"id": "1"},))
    assert clean.passed
    assert raised.observed == "raised ValueError: no such luck"
    assert "not a boolean" in strange.observed
    with pytest.raises(InvalidInput, match="rules:nope cannot be imported"):
        check(ctx, version, expect.custom("rules:nope"))


def test_a_head_stays_where_a_relation_breaks(ctx):
    put(ctx, "rain", pl.DataFrame({"id": range(10)}))
    source = SourceDef("rain", Call("rules:evens"), key="id", expect=[expect.row_change(at_most=0.2)])

    with ctx.write() as tx:
        versions.put(tx, ctx.project, source.version(), actor="ada", at=ctx.now())
    with pytest.raises(PolicyRefused, match="10 → 20 rows"):
        edit(ctx, "rain", pl.DataFrame({"id": range(10, 20)}), "append", "production")
    with ctx.read() as tx:
        assert len(refs.log(tx, ctx.project, refs.head_ref("production", "rain"))) == 1


@pytest.mark.parametrize(
    "made",
    [
        expect.references(["a", "b"], "other", ["c", "d"]),
        expect.row_change(-0.5),
        expect.drift("a", 0.2, test="psi", against="other@3"),
        expect.custom("rules:evens", severity="warn"),
    ],
)
def test_they_survive_their_manifest(made):
    assert Expectation.from_manifest(made.manifest()) == made


@pytest.mark.parametrize(
    "make",
    [
        lambda: expect.references(["a", "b"], "other", "c"),
        expect.row_change,
        lambda: expect.drift("a", -1),
        lambda: expect.drift("a", 1, test="chi"),
        lambda: expect.custom("nothing"),
    ],
)
def test_wrong_ones_are_refused(make):
    with pytest.raises(InvalidInput):
        make()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=200), st.lists(st.integers(-50, 50), min_size=1, max_size=200)
)
def test_ks_is_the_largest_gap_of_the_distribution_functions(one, other):
    def below(values, x):
        return sum(v <= x for v in values) / len(values)

    exact = max(abs(below(one, x) - below(other, x)) for x in {*one, *other})
    columns = [profile(pl.DataFrame({"x": pl.Series(v, dtype=pl.Float64)})).columns["x"] for v in (one, other)]
    assert distance(*columns, "ks") == pytest.approx(exact, abs=1e-9)
    assert distance(columns[0], columns[0], "psi") == pytest.approx(0, abs=1e-9)
    assert drift_of(*columns)[0] == "Kolmogorov-Smirnov distance"
