"""Layered parts: few bytes for a small change, and the same rows whichever way a part is stored."""

import io

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop import data
from everloop.catalog import placements
from everloop.catalog.verify import verify
from everloop.core.errors import DataError
from everloop.data.content.layers import Layers, is_layered, layered
from everloop.data.content.logical import digest
from everloop.data.content.schema import plain
from everloop.data.definitions import Contract, Files, SourceDef
from everloop.data.evolution import Evolution

COUNT = 120_000
KEY = ["id"]


def flights(count=COUNT, seed=0):
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": np.arange(count) * 3,
            "tail": [f"N{i:05d}" for i in chance.integers(0, 4000, count)],
            "delay": chance.normal(10, 30, count),
            "distance": chance.integers(50, 5000, count),
            "note": [None if i % 3 else f"note {i}" for i in range(count)],
        }
    )


def scattered(count, share, seed=1):
    return np.random.default_rng(seed).random(count) < share


def numbered():
    return pl.int_range(pl.len())


def contiguous(table):
    return table.with_columns(delay=pl.when(numbered().is_between(500, 1700)).then(0.5).otherwise("delay"))


def two_columns(table):
    some, others = (pl.Series(scattered(table.height, 0.01, seed)) for seed in (1, 2))
    return table.with_columns(
        delay=pl.when(some).then(1.25).otherwise("delay"), distance=pl.when(others).then(77).otherwise("distance")
    )


CHANGES = {  # one percent of the rows, and the new bytes that it may cost as a share of the first version's
    "contiguous": (0.03, contiguous),
    "inserted": (0.03, lambda t: pl.concat([t, flights(1200, 2).with_columns(id=pl.col("id") + 30_001)])),
    "deleted": (0.04, lambda t: t.filter(~numbered().is_between(700, 1900))),
    "appended": (0.015, lambda t: pl.concat([t, flights(1200, 3).with_columns(id=pl.col("id") + 3 * COUNT)])),
    "scattered in two columns": (0.08, two_columns),
    "scattered deletes": (0.02, lambda t: t.filter(~pl.Series(scattered(t.height, 0.01)))),
}


@pytest.fixture
def captured(context, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()

    def capture(table, drop=()):
        source = SourceDef("flights", Files("in/*.parquet"), key=("id",), evolution=Evolution(drop=drop))
        table.write_parquet(folder / "t.parquet")
        return data.capture(context, source, root=tmp_path)

    return capture


def size(store):
    return sum(store.size(identity) for identity in store.ids())


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_percent_costs_few_bytes(captured, context, change):
    share, edit = CHANGES[change]
    first = captured(flights())
    before = size(context.store)
    edited = edit(flights())
    second = captured(edited)
    assert second.id != first.id
    assert size(context.store) - before <= share * before
    assert data.read(context, second.id).collect().equals(edited.sort("id"))
    assert data.read(context, first.id).collect().equals(flights())
    assert verify(context.catalog, context.store) == []


def test_columns_come_and_go_without_the_others_being_written(captured, context):
    captured(flights())
    before = size(context.store)
    wider = flights().with_columns(flag=pl.col("distance") > 1000, delay=pl.col("delay") * 2)
    second = captured(wider)
    assert size(context.store) - before <= 0.5 * before  # one column of floats, and a column of booleans
    assert data.read(context, second.id).collect().equals(wider)
    after = size(context.store)
    narrower = wider.drop("note", "tail")
    third = captured(narrower, drop=("note", "tail"))
    assert size(context.store) - after <= 0.5 * before
    assert data.read(context, third.id).collect().equals(narrower)


def test_versions_on_versions_rest_on_whole_files(captured, context):
    table = flights(30_000)
    captured(table)
    for turn in range(4):
        table = table.with_columns(
            delay=pl.when(pl.Series(scattered(30_000, 0.01, turn))).then(turn).otherwise("delay")
        )
        found = captured(table)
        assert data.read(context, found.id).collect().equals(table)
    with context.read() as tx:
        for identity in placements.objects(tx, "flights").values():
            content = context.store.get(identity)
            if is_layered(io.BytesIO(content)):
                base = Layers.decode(content).base
                assert not is_layered(io.BytesIO(context.store.get(base)))
                assert identity in placements.resting(tx, "flights", base)
                assert base in placements.reachable(tx, "flights")


def test_what_differs_everywhere_is_written_whole(captured, context):
    captured(flights(20_000))
    found = captured(flights(20_000, seed=9))
    with context.read() as tx:
        placed = placements.resolve(tx, "flights", [p["logical"] for p in data.manifest_of(context, found.id)["parts"]])
    assert not any(is_layered(io.BytesIO(context.store.get(identity))) for identity in placed.values())


VALUES = st.fixed_dictionaries(
    {"x": st.none() | st.floats(), "y": st.sampled_from(["a", "b", None]), "z": st.integers(-3, 3)}
)


def keyed(rows):
    return plain(
        pa.table(
            {
                "id": pa.array(sorted(rows), pa.int64()),
                "x": pa.array([rows[k]["x"] for k in sorted(rows)], pa.float64()),
                "y": pa.array([rows[k]["y"] for k in sorted(rows)], pa.string()),
                "z": pa.array([rows[k]["z"] for k in sorted(rows)], pa.int64()),
            }
        )
    )


@given(
    st.dictionaries(st.integers(0, 40), VALUES, min_size=10),
    st.dictionaries(st.integers(0, 40), VALUES, max_size=8),
    st.sets(st.integers(0, 40), max_size=4),
)
def test_any_rows_are_what_they_were(old, edited, deleted):
    new = {k: v for k, v in {**old, **edited}.items() if k not in deleted}
    base, table = keyed(old), keyed(new)
    made = layered(table, base, KEY, "b3:" + "0" * 64)
    if made is not None:
        again = Layers.decode(made.encode())
        assert digest(again.fold(base, table.column_names, KEY)) == digest(table)


def test_what_is_no_layered_part_is_refused():
    whole = layered(keyed({1: {"x": 1.0, "y": None, "z": 0}}), keyed({1: {"x": 1.0, "y": None, "z": 0}}), KEY, "b3:0")
    content = whole.encode()
    at = content.index(b'{"base"')
    for broken in (content[:-1] + b"?", content[:20], content[:at] + b"[" + content[at + 1 :], content[at:], b""):
        with pytest.raises(DataError):
            Layers.decode(broken)


def test_a_step_s_table_rests_on_the_one_before(store):
    """What an engine tells the codec of the version before; the codec runs in a child, far from the catalog."""
    codec = data.DataCodec(Contract.of("id"))
    first = codec.save(flights(60_000), "flights", store, {})
    before = {"manifest": first.version.manifest, "placements": dict(first.placements)}
    here = size(store)
    same = codec.save(flights(60_000), "flights", store, {"before": before})
    assert (same.version.id, same.placements, size(store)) == (first.version.id, {}, here)
    edited = flights(60_000).with_columns(
        delay=pl.when(pl.Series(scattered(60_000, 0.01))).then(0.5).otherwise("delay")
    )
    second = codec.save(edited, "flights", store, {"before": before})
    assert set(second.rests) <= set(second.placements.values())
    assert second.rests
    assert size(store) - here <= 0.04 * here
    placed = {**first.placements, **second.placements}
    assert codec.load(second.version.manifest, store, placed).collect().equals(edited)


def test_a_layered_object_is_a_parquet_file_of_its_new_rows(captured, context):
    table = flights(30_000)
    captured(table)
    edited = two_columns(table)
    second = captured(edited)
    with context.read() as tx:
        parts = [part["logical"] for part in parts_of(context, second.id)]
        placed = placements.resolve(tx, "flights", parts)
    made = [Layers.decode(context.store.get(identity)) for identity in placed.values()]
    for identity, layers in zip(placed.values(), made, strict=True):
        assert pq.read_table(context.store.path(identity)).equals(layers.patch)
        rows = pl.read_parquet(context.store.path(identity))
        assert rows.equals(edited.filter(pl.col("id").is_in(rows["id"].implode())))


def parts_of(context, version):
    return data.manifest_of(context, version)["parts"]


def test_a_parquet_file_made_to_look_like_a_layered_part_is_no_way_to_other_objects(context, tmp_path):
    """Files of a table without a key are kept byte by byte: one that names a base is written anew instead."""
    hidden = context.store.put_file(parquet(tmp_path / "secret", pl.DataFrame({"x": [1, 2]})))
    made = Layers(hidden, np.array([], np.int64), patch=pa.table({"x": pa.array([7, 8], pa.int64())}))
    (tmp_path / "in.parquet").write_bytes(made.encode())
    found = data.capture(context, SourceDef("t", Files("in.parquet")), root=tmp_path)
    assert data.read(context, found.id).collect()["x"].to_list() == [7, 8]
    with context.read() as tx:
        assert hidden not in placements.objects(tx, context.project).values()


def parquet(path, table):
    table.write_parquet(path)
    return path
