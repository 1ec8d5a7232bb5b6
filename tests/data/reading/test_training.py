"""Streams for training: every row once a pass, whatever the shards; the same order by one seed; resumable anywhere."""

from itertools import islice, pairwise

import datasets
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from everloop import data
from everloop.data.content import ordering
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.reading.streaming import Position

HERE = "sandbox/ada/x"
COUNT = 2_000


@pytest.fixture
def stored(context, monkeypatch):
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 64)
    numbers = range(COUNT)
    frame = pl.DataFrame(
        {"id": numbers, "x": [n / 4 for n in numbers], "who": [f"u{n % 7}" for n in numbers]}
    ).with_columns(
        sparse=pl.when(pl.col("id") % 2 == 0).then("x"),
        vector=pl.concat_list("x", "x").cast(pl.Array(pl.Float64, 2)),
    )
    edit(context, "events", frame, "append", HERE, contract=Contract.of("id"))
    return context


def stream(context, **options):
    return data.read(context, "events", "torch", columns=["id"], **options)._stream


def ids(stream, size=100, start=None):
    return [n for table, _ in stream.batches(size, start or Position()) for n in table["id"].to_pylist()]


@given(
    seed=st.none() | st.integers(0, 5),
    shards=st.integers(1, 7),
    window=st.sampled_from([1, 150, 10_000]),
    size=st.integers(1, 700),
)
def test_shards_share_no_row_and_miss_none(stored, seed, shards, window, size):
    whole = stream(stored, seed=seed, window=window)
    parts = [ids(whole.of(shard, shards), size) for shard in range(shards)]
    assert sorted(n for part in parts for n in part) == list(range(COUNT))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    nested = [ids(whole.of(1, 2).of(worker, 3), size) for worker in range(3)]
    assert sorted(n for part in nested for n in part) == sorted(ids(whole.of(1, 2)))


def test_seed_and_epoch_decide_the_order(stored):
    order = ids(stream(stored, seed=1, window=500))
    assert order == ids(stream(stored, seed=1, window=500), size=33)
    assert order != ids(stream(stored, seed=2, window=500))
    assert order != ids(stream(stored, seed=1, epoch=1, window=500))
    assert ids(stream(stored)) == list(range(COUNT))
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert neighbours < COUNT / 20


@given(
    seed=st.none() | st.integers(0, 3),
    window=st.sampled_from([1, 300, 10_000]),
    size=st.integers(1, 400),
    taken=st.integers(0, 30),
)
def test_reading_goes_on_at_any_position(stored, seed, window, size, taken):
    where = [("id", "in", list(range(1, COUNT, 2)))] if taken % 2 else []
    shard = stream(stored, seed=seed, window=window, where=where).of(1, 3)
    whole = list(shard.batches(size))
    position = whole[: taken + 1][-1][1]
    rest = [n for table, _ in whole[taken + 1 :] for n in table["id"].to_pylist()]
    assert ids(shard, size, position) == rest


@pytest.mark.parametrize("batch", [0, 64])
def test_pytorch_goes_on_where_its_state_was_taken(stored, batch):
    def rows():
        return data.read(stored, "events", "torch", seed=3, window=500, batch=batch)

    def plain(given):
        return [{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in one.items()} for one in given]

    first = rows()
    walk = iter(first)
    before = plain(islice(walk, 7))
    state = first.state_dict()
    after = plain(walk)
    resumed = rows()
    resumed.load_state_dict(state)
    assert plain(resumed) == after
    assert plain(resumed) == before + after  # the next pass is whole
    resumed.set_epoch(1)
    assert plain(resumed) != before + after


def test_pytorch_gets_tensors_where_it_can(stored):
    batch = next(iter(data.read(stored, "events", "torch", batch=8)))
    assert batch["id"].dtype == torch.int64
    assert batch["vector"].shape == (8, 2)
    assert batch["who"][:2] == ["u0", "u1"]
    assert batch["sparse"][:2] == [0.0, None]


def test_workers_and_ranks_read_each_row_once(stored, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        rows = data.read(stored, "events", "torch", columns=["id"], seed=4, batch=50)
        loader = DataLoader(
            rows, batch_size=None, num_workers=2 * rank, multiprocessing_context="spawn" if rank else None
        )
        seen += [n for batch in loader for n in batch["id"].tolist()]
    assert sorted(seen) == list(range(COUNT))


def test_hugging_face_reads_splits_and_goes_on(stored):
    found = data.read(stored, "events", "datasets", seed=5, shards=4, columns=["id", "who"])
    assert isinstance(found, datasets.IterableDataset)
    assert found.features["who"].dtype in ("string", "large_string")
    order = [row["id"] for row in found]
    assert sorted(order) == list(range(COUNT))
    assert order != sorted(order)
    assert order == [row["id"] for row in data.read(stored, "events", "datasets", seed=5, shards=4)]
    halves = [split_dataset_by_node(found, rank, 2) for rank in range(2)]
    assert sorted(row["id"] for half in halves for row in half) == list(range(COUNT))
    walk = iter(found)
    taken = [row["id"] for row in islice(walk, 30)]
    state = found.state_dict()
    again = data.read(stored, "events", "datasets", seed=5, shards=4, columns=["id", "who"])
    again.load_state_dict(state)
    assert taken + [row["id"] for row in again] == order


def test_a_stream_has_its_schema_without_reading(stored):
    assert stream(stored).schema == pa.schema([("id", pa.int64())])
