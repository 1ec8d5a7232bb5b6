import sqlite3

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text

from everloop import data
from everloop.core.errors import DataError, EverloopError, InvalidInput, Unavailable
from everloop.data import SQL, Files, SourceDef, editing
from everloop.data.definitions import Table


def stored(ctx):
    return {identity: ctx.store.size(identity) for identity in ctx.store.ids()}


def rows(ctx, found):
    return data.read(ctx, found.id).collect().rows()


@pytest.fixture
def pg(postgresql_url):
    engine = create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://", 1))
    yield engine
    engine.dispose()


def run(engine, *statements):
    with engine.begin() as tx:
        for statement in statements:
            tx.execute(text(statement))


def test_a_cursor_reads_what_is_new(context_of, catalog, pg, tmp_path):
    url = pg.url.render_as_string(hide_password=False)
    ctx = context_of(catalog, bindings={"w": url})
    run(
        pg,
        "create table t (id int, v text, changed timestamptz)",
        "insert into t select i, 'v' || i, '2013-01-01T00:00:00Z'::timestamptz + i * interval '1 minute'"
        " from generate_series(1, 30000) i",
    )
    source = SourceDef("t", SQL("w", "select id, v, changed from t;", cursor="changed"), key="id")
    first = data.capture(ctx, source, "staging")
    before = stored(ctx)
    again = data.capture(ctx, source, "staging")
    assert (again.id, again.number, again.new) == (first.id, 1, False)
    assert stored(ctx) == before
    last = "(select max(changed) from t)"
    run(
        pg,
        f"insert into t values (30001, 'equal', {last}), (30003, 'null', null)",  # the last value is seen again
        f"insert into t values (30002, 'new', {last} + interval '1 hour')",
        f"update t set v = 'changed', changed = {last} where id = 7",
        "update t set v = 'unseen' where id = 8",  # the cursor tells nothing of it
    )
    second = data.capture(ctx, source, "staging")
    assert (second.rows, second.number, second.new) == (30_003, 2, True)
    found = data.read(ctx, second.id).collect()
    assert found.filter(pl.col("id").is_in([7, 8, 30_001, 30_003]))["v"].to_list() == ["changed", "v8", "equal", "null"]
    assert sum(stored(ctx).values()) - sum(before.values()) < sum(before.values()) / 5
    # from the start, the same parts come out, but for the row whose change the cursor did not see
    run(pg, "update t set v = 'v8' where id = 8")
    whole = SourceDef("t", SQL("w", "select id, v, changed from t"), key="id")
    assert data.capture(ctx, whole, "other").id == second.id
    run(pg, "alter table t add column more int default 1")
    wider = SourceDef("t", SQL("w", "select * from t", cursor="changed"), key="id")
    assert data.read(ctx, data.capture(ctx, wider, "staging").id).collect().columns[-1] == "more"


def test_late_rows_and_edits_by_hand(context_of, sqlite_catalog, tmp_path):
    file = tmp_path / "w.db"
    ctx = context_of(sqlite_catalog, bindings={"w": f"sqlite:///{file}"})

    def write(*values):
        with sqlite3.connect(file) as db:
            db.execute("create table if not exists t (id integer, seq integer)")
            db.executemany("insert into t values (?, ?)", values)
        db.close()

    write((1, 10), (2, 20))
    source = SourceDef("t", SQL("w", "select * from t", cursor="seq", late=8), key="id")
    data.capture(ctx, source, "staging")
    write((3, 13), (4, 11), (5, 21))
    assert rows(ctx, data.capture(ctx, source, "staging")) == [(1, 10), (2, 20), (3, 13), (5, 21)]
    editing.edit(ctx, "t", pa.table({"id": [1]}), "delete", "staging")
    write((6, 22))
    assert rows(ctx, data.capture(ctx, source, "staging")) == [(2, 20), (3, 13), (5, 21), (6, 22)]
    write((6, 23))
    before = stored(ctx)
    with pytest.raises(DataError, match="two rows have the key id=6"):
        data.capture(ctx, source, "staging")
    assert stored(ctx) == before
    for cursor, word in (("nope", "no column 'nope'"), ("half", "type double")):
        wrong = SourceDef("x", SQL("w", "select id, seq / 2.0 as half from t where id < 6", cursor=cursor), key="id")
        with pytest.raises(DataError, match=word):
            data.capture(ctx, wrong)
    with pytest.raises(InvalidInput, match="no key"):
        SourceDef("t", SQL("w", "select 1", cursor="seq"))
    with pytest.raises(InvalidInput):
        SQL("w", "select 1", late=3)


def test_new_files_are_read_alone(context, tmp_path):
    def write(name, ids, value="a"):
        pq.write_table(pa.table({"id": ids, "v": [value] * len(ids)}), tmp_path / name)

    write("1.parquet", [1, 2])
    plain = SourceDef("plain", Files("*.parquet", only_new=True))
    keyed = SourceDef("keyed", Files("*.parquet", only_new=True), key="id")
    for source in (plain, keyed):
        assert data.capture(context, source, "staging", root=tmp_path).rows == 2
    assert not data.capture(context, keyed, "staging", root=tmp_path).read
    (tmp_path / "1.parquet").chmod(0o644)
    write("2.parquet", [3], "b")
    write("3.parquet", [4], "c")
    appended, upserted = (data.capture(context, source, "staging", root=tmp_path) for source in (plain, keyed))
    assert rows(context, upserted) == [(1, "a"), (2, "a"), (3, "b"), (4, "c")]
    assert rows(context, appended)[-2:] == [(3, "b"), (4, "c")]
    write("2.parquet", [3], "changed")  # one that was read: all is read again
    assert rows(context, data.capture(context, keyed, "staging", root=tmp_path))[2] == (3, "changed")
    assert (3, "changed") in rows(context, data.capture(context, plain, "staging", root=tmp_path))
    (tmp_path / "3.parquet").unlink()
    assert [data.capture(context, source, "staging", root=tmp_path).rows for source in (plain, keyed)] == [3, 3]
    write("4.parquet", ["text"], "d")
    before = stored(context)
    with pytest.raises(DataError) as caught:
        data.capture(context, keyed, "staging", root=tmp_path)
    assert "'id'" in str(caught.value)
    assert stored(context) == before


def test_new_files_are_not_opened_twice(context, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.csv").write_text(f"id\n{i}\n")
    source = SourceDef("t", Files("*.csv", only_new=True), key="id")
    data.capture(context, source, "staging", root=tmp_path)
    (tmp_path / "1.csv").chmod(0o644)
    state = (tmp_path / "0.csv").stat()
    (tmp_path / "9.csv").write_text("id\n9\n")
    assert data.capture(context, source, "staging", root=tmp_path).rows == 4
    assert (tmp_path / "0.csv").stat().st_atime_ns == state.st_atime_ns


def test_duckdb_files(context_of, sqlite_catalog, tmp_path):
    file = tmp_path / "w.duckdb"
    with duckdb.connect(str(file)) as db:
        db.execute(
            "create table t as select i as id, 'v' || i as v, timestamp '2013-01-01' + i * interval 1 hour as at"
            " from range(100) r(i)"
        )
    ctx = context_of(
        sqlite_catalog, bindings={"w": f"duckdb:///{file}", "none": f"duckdb:///{tmp_path / 'none.duckdb'}"}
    )
    whole = SourceDef("t", SQL("w", "select * from t"), key="id", event_time="at")
    found = data.capture(ctx, whole)
    assert (found.rows, data.capture(ctx, whole).read) == (100, False)
    stepwise = SourceDef("t", SQL("w", "select * from t", cursor="at"), key="id", event_time="at")
    assert data.capture(ctx, stepwise).id == found.id
    with duckdb.connect(str(file)) as db:
        db.execute("insert into t values (100, 'new', timestamp '2014-01-01')")
    grown = data.capture(ctx, stepwise)
    assert (grown.rows, grown.new, data.capture(ctx, whole).id) == (101, True, grown.id)
    for binding, query, error, word in (
        ("w", "select nope from t", DataError, "nope"),
        ("w", "delete from t", DataError, "read-only"),
        ("none", "select 1 as a", Unavailable, "binding 'none'"),
    ):
        with pytest.raises(error, match=word) as caught:
            data.capture(ctx, SourceDef("x", SQL(binding, query)))
        assert isinstance(caught.value, EverloopError)
        assert caught.value.hint


def test_tables_from_code(context, tmp_path):
    import datasets

    frame = pl.DataFrame({"id": [3, 1, 2], "v": ["c", "a", "b"]})
    hugging = datasets.Dataset.from_dict(frame.to_dict(as_series=False))
    with duckdb.connect() as engine:
        kinds = [
            frame,
            frame.lazy(),
            frame.to_pandas(),
            frame.to_arrow(),
            frame.to_arrow().to_batches()[0],
            engine.sql("select * from (values (3, 'c'), (1, 'a'), (2, 'b')) t(id, v)"),
            hugging,
            hugging.shuffle(seed=1),
            hugging.to_iterable_dataset(),
        ]
        found = [data.capture(context, SourceDef("t", Table(kind), key="id"), "staging") for kind in kinds]
    assert rows(context, found[0]) == [(1, "a"), (2, "b"), (3, "c")]
    assert len({f.id for f in found[:5]} | {f.id for f in found[6:]}) == 1
    assert data.read(context, found[5].id).collect().cast({"id": pl.Int64}).equals(frame.sort("id"))
    source = SourceDef("t", Table(frame), key="id")
    again = SourceDef.from_manifest("t", source.version().manifest)
    with pytest.raises(InvalidInput, match="in the project's code"):
        data.capture(context, again)
    with pytest.raises(DataError, match="not a table"):
        data.capture(context, SourceDef("t", Table(3)))
