"""Search that is ranked, filtered and up to date; annotations; lineage to the column."""

import polars as pl
import pytest

from everloop.catalog import versions
from everloop.catalog.context import Actor
from everloop.catalog.operation import invoke
from everloop.catalog.placements import put as place
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.core.version import Version
from everloop.data.catalogue import operations as ops
from everloop.data.catalogue import sql
from everloop.data.catalogue.documents import Document
from everloop.data.catalogue.index import Index, words_of
from everloop.data.codec import DataCodec
from everloop.data.definitions import SQL, Contract, SourceDef


def record(ctx, kind, name, manifest, inputs=()):
    with ctx.write() as tx:
        return versions.put(tx, ctx.project, Version(kind, name, manifest, tuple(inputs)), actor="ada", at=1).id


def table(ctx, name, names, *, inputs=None, **contract):
    frame = pl.DataFrame({column: [1] for column in names})
    made = DataCodec(Contract.of(None, **contract)).save(frame, name, ctx.store, {"inputs": inputs or {}})
    with ctx.write() as tx:
        place(tx, ctx.project, made.placements)
        return versions.put(tx, ctx.project, made.version, actor="ada", at=1).id


def keys(ctx, query, **more):
    return [hit.asset.key for hit in invoke(ctx, "catalogue.search", ops.Search(query=query, **more)).hits]


@pytest.fixture
def shop(each_context):
    ctx = each_context
    table(ctx, "orders", ["order_id", "customerEmail", "total"], tags={"customerEmail": "personal"})
    table(ctx, "returns", ["order_id", "reason"])
    record(ctx, "source", "orders", {"origin": {"type": "sql", "binding": "warehouse", "query": "select * from raw"}})
    record(ctx, "model", "refunds", {"service": "", "files": {}})
    return ctx


def test_search_reads_names_columns_tags_owners_and_what_people_say(shop):
    assert keys(shop, "order") == ["data/orders", "data/returns"]  # the name counts more than a column
    assert keys(shop, "EMAIL") == ["data/orders"]
    assert keys(shop, "personal") == ["data/orders"]
    assert keys(shop, "warehouse") == ["data/orders"]
    assert keys(shop, "ord tot") == ["data/orders"]
    assert keys(shop, "orders nothing") == []
    assert keys(shop, "  ") == []
    assert keys(shop, "refunds", kind="model") == ["model/refunds"]
    assert keys(shop, "refunds", kind="data") == []
    said = ops.Annotate(asset="data/returns", owner="finance team", description="What came back", labels=["gold"])
    assert invoke(shop, "catalogue.annotate", said).owner == "finance team"
    for query in ("finance", "came back", "gold"):
        assert keys(shop, query) == ["data/returns"]
    invoke(shop, "catalogue.annotate", ops.Annotate(asset="data/returns", column="reason", description="why, in words"))
    assert keys(shop, "why words") == ["data/returns"]
    changed = invoke(shop, "catalogue.annotate", ops.Annotate(asset="data/returns", owner="", labels=["silver"]))
    assert (changed.owner, changed.labels, changed.description) == ("", ["silver"], "What came back")
    assert keys(shop, "finance") == keys(shop, "gold") == []
    with pytest.raises(InvalidInput):
        invoke(shop, "catalogue.search", ops.Search(query="x", kind="nonsense"))
    with pytest.raises(NotFound):
        invoke(shop, "catalogue.annotate", ops.Annotate(asset="data/nothing", owner="me"))
    with pytest.raises(InvalidInput):
        invoke(shop, "catalogue.annotate", ops.Annotate(asset="data/returns", column="reason", owner="me"))


def test_search_shows_only_what_may_be_read_and_pages_it(shop):
    some = shop.as_actor(Actor.of("tom", grants=["read project/*@*", "read data/returns@*"]))
    assert keys(some, "order") == ["data/returns"]
    assert invoke(some, "catalogue.search", ops.Search(query="order")).total == 1
    with pytest.raises(PermissionDenied):
        keys(shop.as_actor(Actor.of("stranger")), "order")
    with pytest.raises(PermissionDenied):
        invoke(some, "catalogue.annotate", ops.Annotate(asset="data/returns", owner="tom"))
    first = invoke(shop, "catalogue.search", ops.Search(query="order", limit=1))
    assert (first.total, [h.asset.key for h in first.hits], first.hits[0].fields) == (
        2,
        ["data/orders"],
        ["columns", "name"],
    )
    assert keys(shop, "order", limit=1, offset=1) == ["data/returns"]


def test_what_is_retired_is_found_no_more(shop):
    with shop.write() as tx:
        versions.retire(tx, shop.project, "model", "refunds")
    assert keys(shop, "refunds") == []


def test_words():
    assert words_of("customerEmail order_id s3://bucket/Path-2") == [
        *("customer", "email", "order", "id", "s3", "bucket", "path", "2"),
    ]


def test_rare_words_count_more_and_whole_words_more_than_beginnings():
    def document(name, description):
        return Document("data", name, 1, 0, "", description, (), (), "")

    index = Index([document(f"t{i}", "flights of a day") for i in range(20)] + [document("x", "flight of a day")])
    assert index.search("flight")[0].document.name == "x"
    assert len(index.search("flight")) == 21


def test_sql_tells_what_columns_are_made_from():
    query = """with a as (select id, md5(email) h, name || email n, avg(age) m from crm.people group by 1, 2, 3)
               select a.id, a.h, n, m, upper(o.city) city, o.zip from a join orders o on o.id = a.id"""
    found = sql.origins(query, ["id", "h", "n", "m", "city", "zip", "other"])
    said = {n: {(o.table, o.column, o.operator) for o in origins} for n, origins in found.items()}
    assert said["id"] == {("crm.people", "id", "copy")}
    assert said["h"] == {("crm.people", "email", "hash")}
    assert said["n"] == {("crm.people", "name", "combine"), ("crm.people", "email", "combine")}
    assert said["m"] == {("crm.people", "age", "mean")}
    assert said["city"] == {("orders", "city", "combine")}
    assert said["zip"] == {("orders", "zip", "copy")}
    assert said["other"] == {("crm.people", "*", "unknown"), ("orders", "*", "unknown")}


@pytest.mark.parametrize("query", ["select * from t", "seleeect", "select b from t", "update t set a = 1"])
def test_sql_that_does_not_tell_is_conservative(query):
    found = sql.origins(query, ["a"])["a"]
    assert {one.operator for one in found} == {"unknown"}


def test_lineage_to_the_column_from_the_query_to_the_table(each_context):
    ctx = each_context
    source = SourceDef("people", SQL("crm", "select id, lower(mail) as email from contacts"))
    definition = record(ctx, "source", "people", source.manifest())
    people = table(ctx, "people", ["id", "email"], inputs={"source": definition})
    columns = {"who": ["hash(people.email)"]}
    known = table(ctx, "known", ["who", "rest"], inputs={"people": people}, columns=columns)
    found = invoke(ctx, "lineage.columns", ops.OfColumns(version=known, column="who"))
    steps = [(e.to_column, e.from_asset, e.from_column, e.operator) for e in found.edges]
    assert steps == [("who", "data/people", "email", "hash"), ("email", "outside/crm.contacts", "mail", "combine")]
    rest = invoke(ctx, "lineage.columns", ops.OfColumns(version="data/known", column="rest"))
    assert {(e.from_column, e.operator) for e in rest.edges if e.to_column == "rest"} == {
        ("id", "unknown"),
        ("email", "unknown"),
    }
    with pytest.raises(NotFound, match="no column"):
        invoke(ctx, "lineage.columns", ops.OfColumns(version=known, column="nothing"))


def test_columns_are_declared_in_one_grammar():
    assert Contract.of(columns={"a": "t.x", "b": ["hash(t.y)"]}).manifest()["columns"] == {
        "a": ["t.x"],
        "b": ["hash(t.y)"],
    }
    assert "columns" not in Contract.of().manifest()
    for wrong in ("x", "t.", "nonsense(t.x)", "hash(t.x", "t.x)"):
        with pytest.raises(InvalidInput, match="made from"):
            Contract.of(columns={"a": [wrong]})
