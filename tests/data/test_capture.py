import datetime as dt
import errno
import gzip
import json
import os
import sqlite3
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text

from everloop import data
from everloop.catalog import placements, refs, versions
from everloop.core.clock import ReplayClock, parse_time
from everloop.core.errors import (
    DataError,
    EverloopError,
    InvalidInput,
    NotFound,
    PolicyRefused,
    StorageFull,
    Unavailable,
)
from everloop.data import SQL, Call, Files, SourceDef, expect

NOON = parse_time("2013-01-01T12:00:00Z")


def flights(count=500, start=0):
    return pl.DataFrame(
        {
            "id": np.arange(start, start + count),
            "carrier": [("UA", "AA", None)[i % 3] for i in range(count)],
            "delay": [float(i % 50) - 10 for i in range(count)],
            "at": pl.Series(
                [dt.datetime.fromisoformat("2013-01-01T00:00") + dt.timedelta(minutes=i) for i in range(count)]
            ),
        }
    )


def objects(ctx):
    return sum(ctx.store.size(identity) for identity in ctx.store.ids())


def state(ctx):
    """All that a failed capture must leave alone."""
    with ctx.read() as tx:
        kinds = {kind: versions.names(tx, ctx.project, kind) for kind in ("data", "source")}
        return kinds, refs.all(tx, ctx.project), placements.objects(tx, ctx.project)


def assert_refused(ctx, source, error, *words, root):
    before = state(ctx)
    with pytest.raises(error) as caught:
        data.capture(ctx, source, "staging", root=root)
    assert isinstance(caught.value, EverloopError)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    assert state(ctx) == before
    assert not list((ctx.home / "scratch").glob("*")) if (ctx.home / "scratch").exists() else True
    return caught.value


FLIGHTS = SourceDef("flights", Files("*.parquet"), key="id", event_time="at")


def test_capture_and_read_back(each_context, tmp_path):
    ctx = each_context
    flights().write_parquet(tmp_path / "a.parquet")
    found = data.capture(ctx, FLIGHTS, "staging", root=tmp_path)
    assert (found.number, found.rows, found.new, found.read) == (1, 500, True, True)
    assert data.head(ctx, "staging", "flights") == found.id
    assert data.read(ctx, found.id).collect().equals(flights())
    with ctx.read() as tx:
        edges = versions.upstream(tx, ctx.project, found.id)
        assert [(e.role, e.from_id) for e in edges] == [("source", FLIGHTS.version().id)]


def test_unchanged_input_is_not_read_and_adds_nothing(context, tmp_path):
    flights().write_parquet(tmp_path / "a.parquet")
    first = data.capture(context, FLIGHTS, "staging", root=tmp_path)
    before, size = state(context), objects(context)
    again = data.capture(context, FLIGHTS, "staging", root=tmp_path)
    assert (again.id, again.number, again.new, again.read) == (first.id, 1, False, False)
    # written again in another order and encoding: read, and found to be the same
    flights().sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "a.parquet", compression="uncompressed")
    rewritten = data.capture(context, FLIGHTS, "staging", root=tmp_path)
    assert (rewritten.id, rewritten.new, rewritten.read) == (first.id, False, True)
    assert (state(context), objects(context)) == (before, size)


def test_new_rows_are_a_new_version(context, tmp_path):
    flights().write_parquet(tmp_path / "a.parquet")
    first = data.capture(context, FLIGHTS, "staging", root=tmp_path)
    flights(100, 500).write_parquet(tmp_path / "b.parquet")
    second = data.capture(context, FLIGHTS, "staging", root=tmp_path)
    assert (second.number, second.rows, second.new) == (2, 600, True)
    assert data.head(context, "staging", "flights") == second.id
    found = data.compare(context, first.id, second.id)
    assert (found.added, found.removed, found.changed) == (100, 0, 0)


def test_parquet_without_a_key_keeps_its_bytes(context, tmp_path):
    whole = SourceDef("flights", Files("*.parquet"))
    for i in range(3):
        flights(100, i * 100).write_parquet(tmp_path / f"{i}.parquet")
    first = data.capture(context, whole, root=tmp_path)
    assert [p.read_bytes() for p in data.paths(context, first.id)] == [
        p.read_bytes() for p in sorted(tmp_path.glob("*.parquet"))
    ]
    size = objects(context)
    flights(100, 300).write_parquet(tmp_path / "3.parquet")
    second = data.capture(context, whole, root=tmp_path, profile=False)
    assert objects(context) - size == (tmp_path / "3.parquet").stat().st_size
    expected = pl.concat([flights(100, i * 100) for i in range(4)])
    assert data.read(context, second.id).collect().equals(expected)
    # pandas' categories and seconds would read differently elsewhere: those files are written anew
    frame = pd.DataFrame(
        {"c": pd.Categorical(["a", "b"]), "t": pd.to_datetime(["2013-01-01", "2013-01-02"]).as_unit("ms")}
    )
    (tmp_path / "other").mkdir()
    frame.to_parquet(tmp_path / "other" / "x.parquet")
    found = data.capture(context, SourceDef("categories", Files("other/*.parquet")), root=tmp_path)
    read = data.read(context, found.id).collect()
    assert read.schema == {"c": pl.String, "t": pl.Datetime("us")}


def test_every_format_gives_the_same_version(context, tmp_path):
    frame = flights()
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv", null_value="NA", datetime_format="%Y-%m-%dT%H:%M:%S%.6f")
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write((tmp_path / "a.csv").read_bytes())
    with (tmp_path / "a.jsonl").open("w") as file:
        file.writelines(json.dumps({**r, "at": r["at"].isoformat()}) + "\n" for r in frame.to_dicts())
    frame.write_ipc(tmp_path / "a.arrow")
    frame.write_ipc_stream(tmp_path / "b.arrow")
    ids = {
        name: data.capture(context, SourceDef("flights", Files(name), key="id", event_time="at"), root=tmp_path).id
        for name in ("a.parquet", "a.arrow", "b.arrow")
    }
    assert len(set(ids.values())) == 1
    for name in (
        "a.csv",
        "a.csv.gz",
        "a.jsonl",
    ):  # text knows no microseconds and no widths, so types may differ; values do not
        found = data.capture(context, SourceDef("text", Files(name), key="id"), root=tmp_path)
        read = data.read(context, found.id).collect()
        assert read.with_columns(pl.col("at").cast(pl.Datetime("us"))).equals(frame), name


def test_csv_types_hold_for_all_files(context, tmp_path):
    (tmp_path / "1.csv").write_text("id,x,y,z\n1,1,,a\n2,2,,NA\n")
    (tmp_path / "2.csv").write_text('id,x,y,z\n3,2.5,7,\n4,oops,8,"NA"\n')
    found = data.capture(context, SourceDef("t", Files("*.csv"), key="id"), root=tmp_path)
    read = data.read(context, found.id).collect()
    assert read.to_dict(as_series=False) == {
        "id": [1, 2, 3, 4],
        "x": ["1", "2", "2.5", "oops"],
        "y": [None, None, 7, 8],
        "z": ["a", None, None, "NA"],
    }


def test_sqlite_and_postgresql(context_of, sqlite_catalog, postgresql_url, tmp_path):
    with sqlite3.connect(tmp_path / "w.db") as db:
        db.execute("create table w (id integer, name text, x real, note text)")
        db.executemany("insert into w values (?, ?, ?, ?)", [(i, f"n{i}", i / 4, None) for i in range(50)])
    db.close()
    url = postgresql_url.replace("postgresql://", "postgresql+psycopg://", 1)
    server = create_engine(url)
    with server.begin() as tx:
        tx.execute(text("create table w (id bigint, name text, x double precision, note text)"))
        tx.execute(text("insert into w select i, 'n' || i, i / 4.0, null from generate_series(0, 49) i"))
        tx.execute(
            text("create table t (id int, d date, t timestamptz, n numeric(9,2), j jsonb, u uuid, b bool, r bytea)")
        )
        tx.execute(
            text(
                "insert into t values (1, '2013-01-01', '2013-01-01T00:00:00-05', 1.25, '{\"b\": 1, \"a\": [2]}',"
                " '00000000-0000-0000-0000-000000000001', true, '\\x00ff'),"
                " (2, null, null, null, null, null, null, null)"
            )
        )
    ctx = context_of(sqlite_catalog, bindings={"lite": f"sqlite:///{tmp_path / 'w.db'}", "pg": url, "broken": "nope"})
    ids = [
        data.capture(ctx, SourceDef("w", SQL(binding, "select id, name, x from w order by 1"), key="id")).id
        for binding in ("lite", "pg")
    ]
    assert ids[0] == ids[1]
    found = data.capture(ctx, SourceDef("t", SQL("pg", "select * from t where b or id::text <> ':x'"), key="id"))
    assert data.read(ctx, found.id).collect().row(0) == (
        1,
        dt.date(2013, 1, 1),
        dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC),
        Decimal("1.25"),
        '{"a":[2],"b":1}',
        "00000000-0000-0000-0000-000000000001",
        True,
        b"\x00\xff",
    )
    stateful = SourceDef("s", SQL("pg", "select id from w", state="select count(*), max(id) from w"), key="id")
    assert data.capture(ctx, stateful).read
    assert not data.capture(ctx, stateful).read
    with server.begin() as tx:
        tx.execute(text("insert into w values (99, 'new', 0, null)"))
    server.dispose()
    assert data.capture(ctx, stateful).new
    for origin, error, word in (
        (SQL("pg", "select nope from w"), DataError, "nope"),
        (SQL("lite", "selekt"), DataError, "syntax"),
        (SQL("absent", "select 1"), InvalidInput, "no binding 'absent'"),
        (SQL("broken", "select 1"), InvalidInput, "binding 'broken'"),
    ):
        assert_refused(ctx, SourceDef("e", origin), error, word, root=tmp_path)
    gone = context_of(sqlite_catalog, bindings={"pg": "postgresql+psycopg://u:secret@127.0.0.1:1/x"})
    error = assert_refused(gone, SourceDef("e", SQL("pg", "select 1")), Unavailable, "'pg'", root=tmp_path)
    assert "secret" not in str(error.problem())


def table_until(now, rows=10):
    return flights(rows).with_columns(pl.col("at").dt.replace_time_zone("UTC")).filter(pl.col("at") <= now)


def rows_of_it(count):
    return {"rows": count}


def raises():
    raise RuntimeError("out of cheese")


def nonsense():
    return 42


def test_the_table_of_a_function(context_of, sqlite_catalog, tmp_path):
    clock = ReplayClock(parse_time("2013-01-01T00:04:00Z"))
    ctx = context_of(sqlite_catalog, clock=clock)
    source = SourceDef("f", Call(table_until, {"rows": 8}), key="id", event_time="at")
    assert data.capture(ctx, source).rows == 5
    clock.advance(NOON)
    assert data.capture(ctx, source).rows == 8
    fixed = SourceDef("g", Call(flights, {"count": 3}, state=rows_of_it), key="id")
    assert data.capture(ctx, fixed).read
    assert not data.capture(ctx, fixed).read
    for function, error, word in (
        (raises, DataError, "RuntimeError: out of cheese"),
        (nonsense, DataError, "is not a table"),
        ("everloop.data:nope", InvalidInput, "cannot be imported"),
    ):
        assert_refused(ctx, SourceDef("e", Call(function)), error, word, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.parquet", b"PAR1 but not really", ("x.parquet", "not a readable parquet file")),
        ("x.csv", b"a,b\n1,2\n3,4,5\n", ("x.csv:3", "Expected 2 columns, got 3")),
        ("x.csv", b"", ("x.csv", "empty")),
        ("x.jsonl", b'{"a": 1}\n{"a": 2}\n{"a": \n', ("x.jsonl:3", "not JSON")),
        ("x.jsonl", b'{"a": 1}\n[1]\n', ("x.jsonl:2", "not an object")),
        ("x.jsonl", b'{"a": 1}\n{"a": "b"}\n', ("x.jsonl", "changed from number to string")),
        ("x.jsonl", b"", ("x.jsonl", "Empty JSON file")),
        ("x.arrow", b"nonsense", ("x.arrow", "not a readable arrow file")),
    ],
)
def test_broken_files_are_one_clear_error(context, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert_refused(context, SourceDef("x", Files(name)), DataError, *words, root=tmp_path)
    keyed = SourceDef("x", Files(name), key="a")
    assert_refused(context, keyed, DataError, *words, root=tmp_path)


def test_a_parquet_file_broken_in_the_middle(context, tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(50_000)}), path)
    content = bytearray(path.read_bytes())
    content[1000:3000] = os.urandom(2000)
    content[4:64] = b"\xff" * 60
    path.write_bytes(content)
    assert_refused(context, SourceDef("x", Files("x.parquet")), DataError, "x.parquet", root=tmp_path)
    assert_refused(context, SourceDef("x", Files("x.parquet"), event_time="a"), DataError, root=tmp_path)


def test_files_that_do_not_agree(context, tmp_path):
    flights().write_parquet(tmp_path / "1.parquet")
    flights().drop("delay").write_parquet(tmp_path / "2.parquet")
    assert_refused(context, FLIGHTS, DataError, "2.parquet", "has no column 'delay'", root=tmp_path)
    flights().with_columns(pl.col("delay").cast(pl.String)).write_parquet(tmp_path / "2.parquet")
    assert_refused(context, FLIGHTS, DataError, "2.parquet", "'delay' is string, but float64", root=tmp_path)
    assert_refused(context, SourceDef("x", Files("no/*.csv")), NotFound, "no file matches", root=tmp_path)


def test_contracts_are_held(context, tmp_path):
    flights().write_parquet(tmp_path / "1.parquet")
    for more, words in (
        ({"key": "nope"}, ("no column 'nope'",)),
        ({"event_time": "delay"}, ("'delay'", "double")),
        ({"tags": {"ghost": "personal"}}, ("no column 'ghost'",)),
        ({"key": "carrier"}, ("null in the key column 'carrier'",)),
    ):
        assert_refused(context, SourceDef("x", Files("*.parquet"), **more), DataError, *words, root=tmp_path)


class FullStore:
    """A store whose disk is full after some objects; all else is real."""

    def __init__(self, store, room):
        self.store, self.room = store, room

    def put(self, content):
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.store.put(content)

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_a_full_disk_records_nothing(context, tmp_path):
    flights(40_000).write_parquet(tmp_path / "1.parquet")
    full = replace(context, store=FullStore(context.store, 2))
    assert_refused(full, FLIGHTS, StorageFull, "disk is full", root=tmp_path)
    assert data.capture(context, FLIGHTS, root=tmp_path).new


def test_a_head_stays_when_a_blocking_expectation_fails(context, tmp_path):
    flights().write_parquet(tmp_path / "1.parquet")
    warned = expect.between("delay", 0, 10, severity="warn")
    good = SourceDef("flights", Files("*.parquet"), key="id", expect=[expect.not_null("delay"), warned])
    first = data.capture(context, good, "staging", root=tmp_path)
    assert [r.passed for r in first.results] == [True, False]
    flights(500, 3).with_columns(pl.lit(None, pl.Float64).alias("delay")).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(PolicyRefused) as caught:
        data.capture(context, good, "staging", root=tmp_path)
    assert "not_null(delay)" in str(caught.value)
    assert "500 of 500 rows" in str(caught.value)
    assert data.head(context, "staging", "flights") == first.id
    kept = caught.value.details["version"]
    assert data.read(context, kept).collect()["delay"].null_count() == 500
    assert caught.value.details["results"][0]["examples"][0] == {"id": "3", "delay": "null"}


def test_sandboxes_read_their_parents_head(context, tmp_path):
    flights().write_parquet(tmp_path / "1.parquet")
    first = data.capture(context, FLIGHTS, "production", root=tmp_path)
    assert data.head(context, "sandbox/ada/x", "flights") == first.id
    assert data.head(context, "staging", "flights") is None
    flights(10).write_parquet(tmp_path / "1.parquet")
    own = data.capture(context, FLIGHTS, "sandbox/ada/x", root=tmp_path)
    assert data.head(context, "sandbox/ada/x", "flights") == own.id
    assert data.head(context, "production", "flights") == first.id


def test_the_codec_takes_every_kind_of_table(store, tmp_path):
    codec = data.DataCodec(data.Contract.of("id", "at"), scratch=tmp_path)
    frame = flights(20)
    saved = [
        codec.save(value, "flights", store, {})
        for value in (frame, frame.lazy(), frame.to_arrow(), iter(frame.to_arrow().to_batches(max_chunksize=3)))
    ]
    assert len({s.version.id for s in saved}) == 1
    loaded = codec.load(saved[0].version.manifest, store, saved[0].placements)
    assert loaded.collect().equals(frame)
    pandas = codec.save(
        frame.drop("carrier").to_pandas(), "flights", store, {"inputs": {"source": saved[0].version.id}}
    )
    assert pandas.version.inputs == (("source", saved[0].version.id),)
    assert pandas.metrics == {"rows": 20.0}
    with pytest.raises(DataError, match="int is not a table"):
        codec.save(3, "x", store, {})
    with pytest.raises(DataError, match="cannot be computed"):
        codec.save(pd.DataFrame({"id": [1, "a"], "at": [1, 2]}), "x", store, {})
    with pytest.raises(NotFound, match="not here"):
        codec.load(saved[0].version.manifest, store, {})
