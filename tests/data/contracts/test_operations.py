"""The operations of contracts, through their permission check."""

import polars as pl
import pytest

from everloop.catalog import versions
from everloop.catalog.chain import seal
from everloop.catalog.context import Actor
from everloop.catalog.operation import invoke
from everloop.core.errors import PermissionDenied
from everloop.data import Call, SourceDef, expect
from everloop.data import operations as ops
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
