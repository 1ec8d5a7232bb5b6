"""Differences: what layers tell without reading a part is what comparing all rows gives."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.data import compare
from everloop.data.content import ordering
from everloop.data.content.pairs import clusters
from everloop.data.definitions import Contract
from everloop.data.editing import edit

HERE = "sandbox/ada/x"
COUNT = 40_000


def rows(numbers, seed=0):
    numbers = np.asarray(numbers, np.int64)
    chance = np.random.default_rng(seed)
    values = chance.normal(0, 1, len(numbers))
    values[::101] = np.nan
    return pl.DataFrame({"id": numbers, "value": values, "who": [f"u{n % 977}" for n in numbers.tolist()]})


def counted(old, new):
    """Added, removed and changed rows, by a join of everything."""
    joined = old.join(new, on="id", how="inner", suffix="_new")
    moved = joined.filter(pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_new")) for c in old.columns[1:]))
    return new.height - joined.height, old.height - joined.height, moved.height


def test_layers_tell_what_differs_and_no_part_is_read(context):
    table = rows(np.arange(COUNT) * 2)
    first = edit(context, "events", table, "append", HERE, contract=Contract.of("id"))
    come = pl.concat([rows(np.arange(0, COUNT, 200), 1), rows(np.arange(1, COUNT, 400), 2)])
    second = edit(context, "events", come, "upsert", HERE)
    expected = pl.concat([table.filter(~pl.col("id").is_in(come["id"].implode())), come])
    found = compare(context, first.id, second.id, examples=False)
    assert (found.added, found.removed, found.changed) == counted(table, expected)
    assert found.changes == {"value": found.changed}
    assert found.parts_new
    assert not list((context.home / "cache").glob("*.parquet"))  # nothing was folded
    back = compare(context, second.id, first.id)
    assert (back.added, back.removed, back.changed) == (found.removed, found.added, found.changed)
    assert len(back.examples) == 10
    assert set(back.examples[0]) == {"id", "value"}


@settings(max_examples=8)
@given(
    start=st.sets(st.integers(0, 400), min_size=60),
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "upsert", "delete"]), st.sets(st.integers(0, 400), max_size=9)), max_size=3
    ),
)
def test_any_two_versions_differ_as_their_rows_do(context, monkeypatch, start, steps):
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 16)
    name = f"d{context.wall()}"
    table = rows(sorted(start))
    made = [(edit(context, name, table, "append", HERE, contract=Contract.of("id")).id, table)]
    for number, (mode, keys) in enumerate(steps, 1):
        new = keys - set(table["id"].to_list()) if mode == "append" else keys
        come = rows(sorted(new), number)
        table = table.filter(~pl.col("id").is_in(come["id"].implode()))
        table = table if mode == "delete" else pl.concat([table, come])
        given_rows = come.select("id") if mode == "delete" else come
        made.append((edit(context, name, given_rows, mode, HERE).id, table))
    for old, before in made[:1]:
        for later, after in made[1:]:
            found = compare(context, old, later, examples=False)
            assert (found.added, found.removed, found.changed) == counted(before, after)


@pytest.mark.parametrize(
    ("type_", "spans", "sizes"),
    [
        ("int64", [("-5", "9"), ("10", "12"), ("10", "10")], [1, 2]),
        ("string", [("b", "c"), ("a", "aa"), ("aa", "ab")], [2, 1]),
        ("timestamp[ns]", [("1970-01-01", "1970-01-02"), ("1980-01-01", "1980-01-02")], [2]),
    ],
)
def test_parts_are_grouped_where_their_keys_overlap(type_, spans, sizes):
    parts = [{"rows": 1, "key_min": [first], "key_max": [last]} for first, last in spans]
    found = clusters({"key": ["k"], "schema_fields": [["k", type_]]}, parts[:1], [*parts[1:], {"rows": 0}])
    assert [len(c.old) + len(c.new) for c in found] == sizes
