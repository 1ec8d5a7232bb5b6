"""Appending, upserting and deleting rows: the version that a capture of the whole would be, and few parts touched."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop import data
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.core.errors import DataError, InvalidInput, NotFound
from everloop.data.content import ordering
from everloop.data.definitions import Contract, Files, SourceDef
from everloop.data.editing import edit
from everloop.data.editing.operations import Append, Rows

COUNT = 100_000
CONTRACT = Contract.of("id", "at")
HERE = "sandbox/ada/x"


def events(numbers, seed=0):
    numbers = np.asarray(numbers)
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": numbers,
            "at": pl.Series(numbers * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "who": [f"u{n % 977}" for n in numbers.tolist()],
            "value": chance.normal(0, 1, len(numbers)),
        }
    )


def whole(context, tmp_path, table):
    """The id of a capture of the whole table."""
    folder = tmp_path / "whole"
    folder.mkdir(exist_ok=True)
    table.write_parquet(folder / "t.parquet")
    source = SourceDef("events", Files("whole/*.parquet"), key=("id",), event_time="at")
    return data.capture(context, source, root=tmp_path).id


def test_an_edit_is_what_a_capture_of_everything_would_be_and_touches_few_parts(context, tmp_path):
    table = events(np.arange(COUNT) * 2)
    first = edit(context, "events", table, "append", HERE, contract=CONTRACT)
    assert first.new
    assert first.id == whole(context, tmp_path, table)
    come = events(np.arange(5001, 5101, 2), 1)
    second = edit(context, "events", come, "append", HERE)
    assert second.parts_kept > second.parts_new
    expected = pl.concat([table, come]).sort("id")
    assert data.read(context, second.id).collect().equals(expected)
    assert second.id == whole(context, tmp_path, expected)
    changed = events(np.arange(150_000, 150_200), 2)
    third = edit(context, "events", changed, "upsert", HERE)
    expected = pl.concat([expected.filter(~pl.col("id").is_in(changed["id"].implode())), changed]).sort("id")
    assert data.read(context, third.id).collect().equals(expected)
    assert third.id == whole(context, tmp_path, expected)
    gone = expected.slice(40_000, 300).select("id")
    fourth = edit(context, "events", gone, "delete", HERE)
    expected = expected.filter(~pl.col("id").is_in(gone["id"].implode()))
    assert data.read(context, fourth.id).collect().equals(expected)
    assert fourth.id == whole(context, tmp_path, expected)
    assert verify(context.catalog, context.store) == []


KEYS = st.lists(st.integers(0, 300), max_size=12, unique=True)


@settings(max_examples=40)
@given(
    start=st.sets(st.integers(0, 300), min_size=1),
    steps=st.lists(st.tuples(st.sampled_from(["append", "upsert", "delete"]), KEYS), max_size=5),
)
def test_any_edits_end_where_a_capture_of_their_result_does(context, tmp_path, monkeypatch, start, steps):
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 8)  # many parts of few rows
    name = f"d{context.wall()}"
    rows = {n: (n, 0) for n in start}

    schema = {"id": pl.Int64, "seed": pl.Int64}

    def table_of(state):
        return pl.DataFrame(sorted(state.values()), schema=schema, orient="row")

    last = edit(context, name, table_of(rows), "append", HERE, contract=Contract.of("id"))
    for number, (mode, chosen) in enumerate(steps, 1):
        keys = [k for k in chosen if mode != "append" or k not in rows]
        if not keys:
            continue
        given = pl.DataFrame({"id": keys, "seed": [number] * len(keys)}, schema=schema)
        last = edit(context, name, given.select("id") if mode == "delete" else given, mode, HERE)
        rows = {k: v for k, v in rows.items() if mode != "delete" or k not in keys}
        rows |= {k: (k, number) for k in keys if mode != "delete"}
        assert data.read(context, last.id).collect().equals(table_of(rows))
        assert last.rows == len(rows)
        assert (
            last.id == edit(context, f"{name}-{number}", table_of(rows), "append", HERE, contract=Contract.of("id")).id
        )


def test_without_a_key_rows_are_added_at_the_end(context):
    table = events(range(1000))
    edit(context, "log", table, "append", HERE, contract=Contract.of())
    found = edit(context, "log", events(range(2000, 2010)), "append", HERE)
    both = pl.concat([table, events(range(2000, 2010))])
    assert data.read(context, found.id).collect().equals(both)
    assert found.id == edit(context, "other", both, "append", HERE, contract=Contract.of()).id
    for mode in ("upsert", "delete", HERE):
        with pytest.raises(InvalidInput, match="no key"):
            edit(context, "log", table, mode, HERE)


def test_by_operations_with_rows_in_the_call(context):
    rows = [{"id": n, "at": f"2026-01-0{n}T00:00:00Z", "value": n / 2} for n in range(1, 5)]
    there = {"dataset": "small", "environment": HERE}
    made = invoke(context, "data.append", Append(**there, rows=rows, key=["id"], event_time="at"))
    assert (made.number, made.rows, made.new) == (1, 4, True)
    assert data.head(context, HERE, "small") == made.id
    put = invoke(
        context,
        "data.upsert",
        Rows(**there, rows=[{"id": 2, "at": "2026-02-01T00:00:00Z"}]),
    )
    frame = data.read(context, put.id).collect()
    assert frame["value"].to_list() == [0.5, None, 1.5, 2.0]
    gone = invoke(context, "data.delete", Rows(**there, rows=[{"id": 1}, {"id": 9}]))
    assert gone.rows == 3
    assert data.head(context, HERE, "small") == gone.id


def test_what_does_not_fit_is_refused_and_nothing_is_written(context):
    edit(context, "events", events(range(100)), "append", HERE, contract=CONTRACT)
    before = sorted(context.store.ids())
    wrong = {
        "no column 'id'": (DataError, events([1]).drop("id"), "append"),
        "column 'value'": (DataError, events([1]).with_columns(value=pl.lit("much")), "upsert"),
        "null in the key": (DataError, events([1]).with_columns(id=pl.lit(None, pl.Int64)), "upsert"),
    }
    for says, (kind, table, mode) in wrong.items():
        with pytest.raises(kind, match=says) as caught:
            edit(context, "events", table, mode, HERE)
        assert caught.value.hint
    with pytest.raises(NotFound):
        edit(context, "nothing", events([1]), "delete", HERE)
    with pytest.raises(InvalidInput, match="rows, or the object"):
        invoke(context, "data.append", Append(dataset="events", environment=HERE))
    assert sorted(context.store.ids()) == before
