"""Schemas of pandera as expectations: what is counted by us, what pandera checks, and that both find the same rows."""

import sys
from importlib import import_module

import polars as pl
import pytest

from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.data import SourceDef, advance_head, check_version, expect
from everloop.data.checking import check_expectations
from everloop.data.definitions import Call, Contract
from everloop.data.editing import edit

CODE = r"""
import pandera.pandas
import pandera.polars as pa
import polars as pl


class Flights(pa.DataFrameModel):
    id: int = pa.Field(unique=True, ge=0)
    carrier: str = pa.Field(isin=["UA", "AA"])
    delay: float = pa.Field(nullable=True, in_range={"min_value": -60, "max_value": 2000})
    tail: str = pa.Field(nullable=True, str_matches=r"N\d+$")
    seats: int = pa.Field(gt=0, lt=900)
    note: str = pa.Field(nullable=True, str_length={"min_value": 2, "max_value": 4}, raise_warning=True)

    class Config:
        unique = ["carrier", "id"]


class Strict(pa.DataFrameModel):
    id: int

    class Config:
        strict = True

    @pa.dataframe_check
    def odd(cls, data):
        return data.lazyframe.select(pl.col("id") % 2 == 1)


by_pandas = pandera.pandas.DataFrameSchema(
    {
        "id": pandera.pandas.Column("int64", pandera.pandas.Check.ge(2)),
        "carrier": pandera.pandas.Column(str, pandera.pandas.Check(lambda values: values.str.isupper(), name="upper")),
    }
)
"""


def good():
    return pl.DataFrame(
        {
            "id": [1, 2, 3],
            "carrier": ["UA", "AA", "UA"],
            "delay": [1.0, None, -60.0],
            "tail": ["N1", None, "N22"],
            "seats": [1, 5, 899],
            "note": ["ab", None, "abcd"],
        }
    )


@pytest.fixture
def rules(tmp_path, monkeypatch):
    (tmp_path / "flight_rules.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("flight_rules")
    sys.modules.pop("flight_rules")


@pytest.fixture
def ctx(context_of, sqlite_catalog, tmp_path):
    return context_of(sqlite_catalog, ports={"root": str(tmp_path)})


def test_what_has_an_equal_is_ours_and_needs_no_pandera(rules):
    made = expect.pandera(rules.Flights)
    assert {e.kind for e in made} == {"columns", "dtype", "not_null", "unique", "between", "one_of", "matches"}
    assert [e.severity for e in made if e.columns == ("note",) and e.kind == "matches"] == ["warn"]
    assert expect.unique("carrier", "id") in made
    assert all(result.passed for result in check_expectations(good(), made))
    assert [e for e in expect.pandera(rules.Flights, severity="warn") if e.severity == "block"] == []


WRONG = {
    "id": [1, -1, 1],
    "carrier": ["ZZ", "UA", None],
    "delay": [2001.0, 5.0, -61.0],
    "tail": ["x1", "N1x", "N1"],
    "seats": [0, 900, 5],
    "note": ["a", "abcde", "ab"],
}


@pytest.mark.parametrize("column", list(WRONG))
def test_ours_and_pandera_find_the_same_rows(rules, column):
    table = good().with_columns(pl.Series(column, WRONG[column], dtype=good()[column].dtype))
    failing = import_module("everloop.data.contracts.validating").failing
    ours = [r for r in check_expectations(table, expect.pandera(rules.Flights)) if not r.passed]
    if column == "note":  # it only warns, and pandera says so as a warning
        with pytest.warns(UserWarning, match="str_length"):
            assert failing(rules.Flights, table.lazy())[1] == ""
        assert [(r.failing, r.blocks) for r in ours] == [(2, False)]
        return
    rows, broken = failing(rules.Flights, table.lazy())
    assert broken
    assert ours
    numbers = {tuple(row) for row in rows.iter_rows()}
    assert max(r.failing for r in ours) <= len(numbers) <= sum(r.failing for r in ours)


def test_what_has_no_equal_is_run_by_pandera_in_a_process_of_its_own(rules, ctx):
    made = expect.pandera(rules.Strict)
    assert made[-1] == expect.custom("flight_rules:Strict")
    tags = {"carrier": "personal"}
    version = edit(ctx, "flights", good(), "append", "production", contract=Contract.of("id", tags=tags)).id
    result = check_version(ctx, version, made, environment="production")[-1]
    assert not result.passed
    assert "column_in_schema" in result.observed
    bare = edit(ctx, "bare", good().select("id"), "append", "production", contract=Contract.of("id")).id
    (*_, result) = check_version(ctx, bare, made, environment="production")
    assert (result.failing, result.examples) == (1, ({"id": "2"},))


def test_schemas_for_pandas(rules, ctx):
    with pytest.raises(InvalidInput, match="upper") as error:
        expect.pandera(rules.by_pandas)
    assert "at=" in error.value.hint
    made = expect.pandera(rules.by_pandas, at="flight_rules:by_pandas")
    assert {e.kind for e in made} == {"columns", "dtype", "not_null", "between", "custom"}
    table = good().with_columns(carrier=pl.Series(["UA", "aa", "UA"]))
    tags = {"carrier": "personal"}
    version = edit(ctx, "flights", table, "append", "production", contract=Contract.of("id", tags=tags)).id
    results = check_version(ctx, version, made, environment="production")
    between, custom = (next(r for r in results if r.expectation.kind == kind) for kind in ("between", "custom"))
    assert between.failing == 1
    assert custom.failing == 2  # pandera checks all of it: the same row, and the one in small letters
    assert {row["carrier"] for row in custom.examples} == {"•••"}


def test_a_head_waits_for_what_a_schema_blocks(rules, ctx):
    source = SourceDef("made", Call("flight_rules:good"), expect=[*expect.pandera(rules.Flights)])
    assert source.contract.expect == expect.pandera(rules.Flights)
    assert SourceDef.from_manifest("made", source.manifest()).contract == source.contract
    wrong = edit(ctx, "made", good().with_columns(id=pl.Series([1, 1, 2])), "append", "sandbox/ada/x").id
    with pytest.raises(PolicyRefused, match="unique"):
        advance_head(ctx, "production", "made", wrong, source.contract.expect)


def test_what_is_no_schema_is_refused():
    for wrong in (3, pl.DataFrame, object):
        with pytest.raises(InvalidInput, match="no schema of pandera"):
            expect.pandera(wrong)
