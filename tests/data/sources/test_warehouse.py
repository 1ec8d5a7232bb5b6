import polars as pl
import pytest
from sqlalchemy import create_engine, text

from everloop import data
from everloop.catalog import versions
from everloop.core.errors import Conflict, DataError, InvalidInput, NotFound
from everloop.data import SourceDef, editing, expect
from everloop.data.definitions import Query
from everloop.data.erasure import erasing

DAILY = "select day, count(*) as flights, avg(delay)::float8 as delay, max(note) as note from flights group by day"


@pytest.fixture
def warehouse(empty_postgresql_url, context_of, sqlite_catalog):
    engine = create_engine(empty_postgresql_url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as tx:
        tx.execute(text("create table flights (id int, day date, delay float8, note text)"))
        tx.execute(
            text(
                "insert into flights select i, date '2013-01-01' + i % 31, i % 50, case when i % 2 = 0 then 'a:b' end"
                " from generate_series(1, 3100) i"
            )
        )
    url = engine.url.render_as_string(hide_password=False)
    engine.ctx = context_of(sqlite_catalog, bindings={"w": url, "lite": "sqlite://"})
    yield engine
    engine.dispose()


def ask(engine, statement):
    with engine.begin() as tx:
        found = tx.execute(text(statement))
        return found.fetchall() if found.returns_rows else None


def tables(engine):
    return [name for (name,) in ask(engine, "select tablename from pg_tables where schemaname = 'everloop' order by 1")]


def test_a_query_runs_in_the_warehouse_and_its_result_is_captured(warehouse):
    ctx = warehouse.ctx
    source = SourceDef("daily", Query("w", DAILY + ";"), key="day", event_time="day")
    found = data.capture(ctx, source, "staging")
    assert (found.rows, tables(warehouse)) == (31, [])
    read = data.read(ctx, found.id).collect()
    assert read["flights"].to_list() == [100] * 31
    assert data.capture(ctx, source, "staging").id == found.id
    assert SourceDef.from_manifest("daily", source.version().manifest) == source


def test_a_result_that_stays_in_the_warehouse(warehouse):
    ctx = warehouse.ctx
    source = SourceDef("daily", Query("w", DAILY, keep="warehouse"), key="day", expect=[expect.row_count(1, 100)])
    found = data.capture(ctx, source, "staging")
    again = data.capture(ctx, source, "staging")
    assert (again.id, again.number, again.new) == (found.id, 1, False)
    (table,) = tables(warehouse)
    with ctx.read() as tx:
        manifest = versions.get(tx, ctx.project, found.id).manifest
    assert manifest["external"]["table"] == table
    assert (manifest["rows"], manifest["parts"], manifest["key"]) == (31, [], ["day"])
    assert not list(ctx.store.ids())  # nothing of it lies here
    here = SourceDef("other", Query("w", DAILY), key="day")
    same = data.read(ctx, data.capture(ctx, here).id).collect()
    read = data.read(ctx, found.id).collect()
    assert read.sort("day").equals(same)
    assert data.profile_of(ctx, found.id).rows == 31
    for attempt in (
        lambda: data.compare(ctx, found.id, data.capture(ctx, here).id),
        lambda: editing.edit(ctx, "daily", read, "append", "staging"),
    ):
        with pytest.raises(InvalidInput, match="stays in a warehouse"):
            attempt()
    # the order of rows, and how the session writes them, make no difference
    ask(warehouse, "alter database " + warehouse.url.database + " set timezone = 'Asia/Tokyo'")
    ask(warehouse, f'create table everloop.t as select * from everloop."{table}" order by day desc')
    ask(warehouse, f'drop table everloop."{table}"')
    with pytest.raises(NotFound, match="gone from the warehouse"):
        data.read(ctx, found.id)
    ask(warehouse, f'alter table everloop.t rename to "{table}"')
    assert data.read(ctx, found.id).collect().height == 31
    # a change is told: of a value, of a row, of a type
    for change in (
        f"update everloop.\"{table}\" set note = '' where note is null or day = '2013-01-05'",
        f'insert into everloop."{table}" select * from everloop."{table}" limit 1',
        f'alter table everloop."{table}" alter flights type int',
    ):
        ask(warehouse, change)
        with pytest.raises(Conflict, match="changed since it was pinned") as caught:
            data.read(ctx, found.id)
        assert caught.value.hint
        assert data.capture(ctx, source, "staging").id == found.id  # made anew
        assert data.read(ctx, found.id).collect().height == 31
    ask(warehouse, "insert into flights values (9999, '2014-01-01', 1, null)")
    second = data.capture(ctx, source, "staging")
    assert (second.rows, second.number, len(tables(warehouse))) == (32, 2, 2)
    assert data.read(ctx, found.id).filter(pl.col("day").dt.year() == 2014).collect().is_empty()


@pytest.mark.parametrize(
    ("query", "key", "error", "word"),
    [
        ("select nope from flights", "id", DataError, "nope"),
        ("select day, id from flights", "day", DataError, "two rows have the key day="),
        ("select nullif(id, 3) as id from flights", "id", DataError, "null in the key"),
        ("select id from flights", "nope", DataError, "no column 'nope'"),
        ("select day, avg(id) as m from flights group by day", "day", DataError, "cannot be pinned"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(warehouse, query, key, error, word):
    for keep in ("warehouse", "here"):
        with pytest.raises(error, match=word) as caught:
            data.capture(warehouse.ctx, SourceDef("x", Query("w", query, keep), key=key))
        assert caught.value.hint
        assert tables(warehouse) == []
    with warehouse.ctx.read() as tx:
        assert not versions.names(tx, warehouse.ctx.project, "data")


def test_bindings_that_are_no_warehouse(warehouse):
    for binding, word in (("lite", "no warehouse"), ("none", "no binding 'none'")):
        with pytest.raises(InvalidInput, match=word):
            data.capture(warehouse.ctx, SourceDef("x", Query(binding, "select 1 as a")))
    with pytest.raises(InvalidInput, match="where the result stays"):
        Query("w", "select 1", keep="elsewhere")


def test_an_erasure_says_what_stays_in_the_warehouse(warehouse):
    ctx = warehouse.ctx
    data.capture(ctx, SourceDef("notes", Query("w", "select id, note from flights", keep="warehouse"), key="id"))
    data.capture(ctx, SourceDef("daily", Query("w", DAILY, keep="warehouse"), key="day"))
    left = erasing.erase(ctx, "7", columns=("id",)).figures["left"]
    (table,) = [line for line in left if "warehouse" in line]
    assert table.startswith("everloop.")
    assert "in the warehouse w: yours to change or drop" in table
