"""The operations of contracts, through their permission check."""

import base64
import io

import polars as pl
import pytest

from everloop.catalog import versions
from everloop.catalog.chain import seal
from everloop.catalog.context import Actor
from everloop.catalog.operation import invoke
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.data import Call, SourceDef, expect
from everloop.data import operations as ops
from everloop.data.contracts import handing
from everloop.data.contracts import operations as contracts
from everloop.data.definitions import Contract
from everloop.data.editing import edit

SOURCE = SourceDef("rain", Call("rules:rain"), key="id", expect=[expect.between("x", 0, 5000, severity="warn")])


@pytest.fixture
def ctx(context_of, sqlite_catalog):
    found = context_of(sqlite_catalog)
    with found.write() as tx:
        versions.put(tx, found.project, SOURCE.version(), actor="ada", at=found.now())
    for number in range(2):
        ids = range(number * 100, number * 100 + 100)
        rows = pl.DataFrame(
            {"id": ids, "x": [i * 1.0 + 4950 * number for i in ids], "who": ["p"] * 100, "kind": ["a", "b"] * 50}
        )
        edit(found, "rain", rows, "append", "production", contract=Contract.of("id", tags={"who": "personal"}))
    seal(sqlite_catalog, found.clock)
    return found


def test_the_contract_tells_what_is_promised_and_how_it_went(ctx):
    told = invoke(ctx, contracts.contract, contracts.OfDataset(name="rain"))
    assert (told.held, told.authors, told.moved) == (False, ["ada"], True)
    assert told.expectations == [{"expectation": "between(x, lower=0, upper=5000)", "severity": "warn"}]
    (result,) = told.results
    assert (result["passed"], result["failing"]) == (False, 100)
    assert invoke(ctx, contracts.contract, contracts.OfDataset(name="unknown")).definition == ""


def test_drift_names_the_farthest_column_first_and_none_that_is_hidden(ctx):
    told = invoke(ctx, contracts.drift, told_of())
    assert [one["name"] for one in told.columns] == ["id", "x", "kind"]
    assert [one["distance"] for one in told.columns] == [0.5, 0.5, 0.0]
    viewer = ctx.as_actor(Actor.of("eve", "viewer"))
    assert "who" not in [one["name"] for one in invoke(viewer, contracts.drift, told_of()).columns]
    with pytest.raises(PermissionDenied):
        invoke(ctx.as_actor(Actor.of("nobody")), contracts.drift, told_of())


def told_of():
    return contracts.Drift(old="rain@1", new="rain@2")


def test_associations_are_shown_with_the_version(ctx):
    told = invoke(ctx, ops.show, ops.OfData(version="rain@2"))
    assert told.associations["rows"] == 200
    assert told.associations["numbers"]["columns"] == ["id", "x"]


RULES = """
def strange(table):
    return table.select(word=table.collect_schema().names()[0], n=1)

def bare(table):
    return False
"""
EVERY = [
    expect.between("x", 0, 50),
    expect.unique("kind"),
    expect.not_null("note"),
    expect.null_share("note", 0.1),
    expect.one_of("kind", ["a"]),
    expect.matches("kind", "b"),
    expect.ordered("id", "x"),
    expect.references("kind", "kinds", "kind"),
    expect.custom("failing_rules:strange"),
]
TOLD = [49, 100, 60, 60, 50, 50, 0, 50, 100]


def test_every_kind_of_expectation_that_is_about_rows_tells_them(context_of, sqlite_catalog, tmp_path):
    (tmp_path / "failing_rules.py").write_text(RULES)
    ctx = context_of(sqlite_catalog, ports={"root": str(tmp_path)})
    bare = [expect.custom("failing_rules:bare"), expect.row_count(at_most=3), expect.columns("id")]
    rows = {"id": range(100), "x": [i * 1.0 for i in range(100)], "kind": ["a", "b"] * 50}
    rows["note"] = [None if i < 60 else "n" for i in range(100)]
    tagged = Contract.of("id", tags={"note": "personal"})
    edit(ctx, "rain", pl.DataFrame(rows), "append", "sandbox/ada/x", contract=tagged)
    kinds = pl.DataFrame({"kind": ["a"]})
    edit(ctx, "kinds", kinds, "append", "production", contract=Contract.of("kind"))
    with ctx.write() as tx:
        source = SourceDef("rain", Call("rules:rain"), key="id", expect=[*EVERY, *bare])
        versions.put(tx, ctx.project, source.version(), actor="ada", at=ctx.now())
    viewer = ctx.as_actor(Actor.of("eve", "viewer"))
    for one, count in zip(EVERY, TOLD, strict=True):
        asked = contracts.Failing(name="rain", expectation=str(one), format="parquet", version="rain@1")
        found, hidden = (invoke(who, contracts.failing, asked) for who in (ctx, viewer))
        assert (str(one), found.rows, found.cut, found.masked) == (str(one), count, False, [])
        table = pl.read_parquet(io.BytesIO(base64.b64decode(found.content)))
        assert table.height == count
        assert "note" in hidden.masked or one.kind == "custom"
        masked = pl.read_parquet(io.BytesIO(base64.b64decode(hidden.content)))
        assert masked.columns == table.columns
        if one.kind == "custom":  # its columns are of its own making: who may not see all sees none of them
            assert hidden.masked == ["n", "word"]
            assert masked.drop_nulls().to_dicts() == [{"word": "•••", "n": "•••"}] * 100
        else:
            assert set(masked["note"].drop_nulls()) <= {"•••"}
            assert masked["note"].null_count() == table["note"].null_count()
    for one in bare:
        with pytest.raises(InvalidInput, match="tells no rows"):
            invoke(ctx, contracts.failing, contracts.Failing(name="rain", expectation=str(one), version="rain@1"))
    with pytest.raises(InvalidInput, match="no format"):
        invoke(
            ctx,
            contracts.failing,
            contracts.Failing(name="rain", expectation=str(EVERY[0]), format="xls", version="rain@1"),
        )
    with pytest.raises(NotFound, match="nothing is expected"):
        invoke(ctx, contracts.failing, contracts.Failing(name="kinds", expectation=str(EVERY[0])))
    asked = contracts.Failing(name="rain", expectation=str(EVERY[0]), version="kinds@1")
    with pytest.raises(InvalidInput, match="not of data/rain"):
        invoke(ctx, contracts.failing, asked)


def test_a_file_of_failing_rows_has_a_size(context_of, sqlite_catalog, monkeypatch):
    ctx = context_of(sqlite_catalog)
    monkeypatch.setattr(handing, "MOST", 5)
    edit(ctx, "rain", pl.DataFrame({"id": range(20)}), "append", "sandbox/ada/x", contract=Contract.of("id"))
    with ctx.write() as tx:
        source = SourceDef("rain", Call("rules:rain"), key="id", expect=[expect.between("id", 3, 9)])
        versions.put(tx, ctx.project, source.version(), actor="ada", at=ctx.now())
    asked = contracts.Failing(name="rain", expectation="between(id, lower=3, upper=9)", version="rain@1")
    found = invoke(ctx, contracts.failing, asked)
    assert (found.rows, found.cut) == (5, True)
    assert len(base64.b64decode(found.content).decode().splitlines()) == 6
