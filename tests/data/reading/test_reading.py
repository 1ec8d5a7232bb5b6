"""Reading in every form: the same rows, columns and order, whatever the engine; parts that cannot match stay unread."""

import datetime as dt

import polars as pl
import pytest

from everloop import data
from everloop.core.errors import InvalidInput
from everloop.data.content import ordering
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.heads import find_version
from everloop.data.reading.conditions import Condition, pruned

HERE = "sandbox/ada/x"
COUNT = 3_000
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def rows():
    return pl.DataFrame(
        {
            "id": range(COUNT),
            "at": [START + dt.timedelta(minutes=n) for n in range(COUNT)],
            "who": [f"u{n % 7}" for n in range(COUNT)],
            "delay": [None if n % 11 == 0 else n / 8 for n in range(COUNT)],
        }
    )


@pytest.fixture
def stored(context, monkeypatch):
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 128)
    edit(context, "events", rows(), "append", HERE, contract=Contract.of("id", "at"))
    return context


CONDITIONS = {
    "a range of keys": ([("id", ">=", 700), ("id", "<", 800)], pl.col("id").is_between(700, 799)),
    "one key": ([("id", "=", 5)], pl.col("id") == 5),
    "some keys": ([("id", "in", [3, 2_500])], pl.col("id").is_in([3, 2500])),
    "no keys": ([("id", "in", [])], pl.lit(False)),
    "no such key": ([("id", ">", 10**6)], pl.lit(False)),
    "times": ([("at", "<=", START + dt.timedelta(minutes=9))], pl.col("id") < 10),
    "text": ([("who", "!=", "u3")], pl.col("who") != "u3"),
    "nulls": ([("delay", "is null")], pl.col("delay").is_null()),
    "no nulls": ([("delay", "is not null"), ("delay", "<", 4.5)], pl.col("delay") < 4.5),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_form_gives_the_same_rows(stored, name):
    where, meant = CONDITIONS[name]
    columns = ["who", "id"]
    expected = rows().filter(meant).select(columns)
    assert data.read(stored, "events", columns=columns, where=where).collect().equals(expected)
    assert pl.from_arrow(data.read(stored, "events", "arrow", columns=columns, where=where)).equals(expected)
    found = data.read(stored, "events", "duckdb", columns=columns, where=where)
    assert pl.from_arrow(found.to_arrow_table()).sort("id").equals(expected)
    assert data.read(stored, "events", "pandas", columns=columns, where=where)["id"].tolist() == list(expected["id"])
    streamed = data.read(stored, "events", "batches", columns=columns, where=where, size=100)
    assert [row for table in streamed for row in table["id"].to_pylist()] == list(expected["id"])


def test_parts_that_cannot_match_are_not_read(stored):
    manifest = find_version(stored, "events").manifest
    assert len(manifest["parts"]) > 5
    assert len(pruned(manifest, [Condition("id", "=", 1_000)])) == 1
    assert pruned(manifest, [Condition("id", ">", COUNT)]) == []
    assert pruned(manifest, [Condition("who", "is null")]) == []
    assert len(pruned(manifest, [Condition("id", "<", "text")])) == len(manifest["parts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["nobody"]}, "no column 'nobody'"),
        ({"columns": []}, "at least one"),
        ({"where": [("nobody", "=", 1)]}, "no column 'nobody'"),
        ({"where": [("id", "like", 1)]}, "no condition"),
        ({"where": [("who", "in", "u1")]}, "no list"),
        ({"as_": "excel"}, "no form"),
        ({"as_": "batches", "shard": 2, "shards": 2}, "no order"),
    ],
)
def test_what_cannot_be_read_is_refused(stored, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        data.read(stored, "events", **arguments)


def test_versions_are_named_as_everywhere(stored):
    edit(stored, "events", rows().head(10).select("id"), "delete", HERE)
    assert data.read(stored, "events@1", "arrow").num_rows == COUNT
    assert data.read(stored, f"events@{HERE}", "arrow").num_rows == COUNT - 10
