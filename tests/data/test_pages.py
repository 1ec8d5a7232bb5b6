"""A column digested from its pages has the digest that decoding it gives, or none."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.data.capturing import _file_digest
from everloop.data.content.logical import BLOCK, digest
from everloop.data.content.pages import straight

ROWS = BLOCK + 4_321


def by_page(path, name="x"):
    with pq.ParquetFile(path, memory_map=True) as file, pa.memory_map(str(path)) as source:
        index = file.schema_arrow.names.index(name)
        return straight(file, source, index, file.schema_arrow.field(name).type)


def check(table, path, *, direct=True, **settings):
    pq.write_table(table, path, **settings)
    expected = digest(table)
    found = [by_page(path, name) for name in table.schema.names]
    if direct:
        assert found == list(expected.columns)
    else:
        assert all(column in (None, other) for column, other in zip(found, expected.columns, strict=True))
    assert _file_digest(path) == expected


def numbers(rows=ROWS):
    chance = np.random.default_rng(0)
    return pa.table(
        {
            "floats": chance.normal(size=rows),
            "positive": chance.random(rows),
            "narrow": chance.random(rows).astype(np.float32),
            "wide": chance.integers(-(2**62), 2**62, rows),
            "few": chance.integers(-3, 40, rows),
            "many": chance.integers(0, 3_000, rows).astype(np.int32),
            "unsigned": chance.integers(0, 2**32, rows).astype(np.uint32),
            "at": pa.array(np.arange(rows), pa.timestamp("us", "UTC")),
            "exact": pa.array(np.arange(rows), pa.timestamp("ns")),
            "day": pa.array(np.arange(rows, dtype=np.int32) % 900, pa.date32()),
        }
    )


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli"])
def test_pages_of_every_compression(tmp_path, compression):
    check(numbers(), tmp_path / "t.parquet", compression=compression)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"data_page_version": "2.0", "use_dictionary": False, "compression": "none"},
        {"row_group_size": 7_001},
        {"data_page_size": 3_000},
        {"dictionary_pagesize_limit": 20_000},
    ],
    ids=str,
)
def test_pages_of_every_layout(tmp_path, settings):
    check(numbers(), tmp_path / "t.parquet", **settings)


def test_columns_that_never_hold_a_null_have_no_levels(tmp_path):
    table = numbers(100)
    strict = pa.schema([pa.field(f.name, f.type, nullable=False) for f in table.schema])
    check(table.cast(strict), tmp_path / "t.parquet")


def test_one_zero_and_one_nan(tmp_path):
    values = np.array([0.0, -0.0, 1.0, np.nan, -np.nan, np.inf, -np.inf])
    for kept in (values, values[:2], values[4:5], values[5:6], np.array([0x7FF0000000000001]).view(np.float64)):
        check(pa.table({"x": kept}), tmp_path / "t.parquet")


@given(
    st.lists(st.tuples(st.integers(-4, 2**40), st.integers(1, 90)), max_size=40),
    st.sampled_from(["1.0", "2.0"]),
    st.integers(20, 400),
)
def test_runs_of_equal_values(tmp_path_factory, runs, version, page):
    values = [value for value, times in runs for _ in range(times)]
    table = pa.table({"x": pa.array(values, pa.int64())})
    path = tmp_path_factory.getbasetemp() / "runs.parquet"
    check(table, path, direct=False, data_page_version=version, data_page_size=page)
    assert by_page(path) is not None or not values or len(set(values)) == 1  # an index of one value takes no bits


@pytest.mark.parametrize(
    ("array", "settings"),
    [
        (pa.array([1, None, 3]), {}),
        (pa.array(["a", "b"]), {}),
        (pa.array([1, 2], pa.int8()), {}),
        (pa.array([True, False]), {}),
        (pa.array([[1], [2]]), {}),
        (pa.array([{"a": 1}]), {}),
        (pa.array([1, 2]), {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"}),
        (pa.array([1.0, 2.0]), {"use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"}),
        (pa.array([1, 2]), {"write_statistics": False}),
        (pa.array([dt.time(1)], pa.time32("s")), {}),
    ],
    ids=str,
)
def test_what_is_not_read_straight_is_decoded(tmp_path, array, settings):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": array, "y": pa.array(np.arange(len(array)))}), path, **settings)
    assert by_page(path) is None
    assert _file_digest(path) == digest(pq.read_table(path))


def test_damaged_pages_are_left_to_pyarrow(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(20_000)}), path)
    whole = path.read_bytes()
    expected = by_page(path)
    for position in range(4, 60):
        for mask in (0x5A, 0xFF, 0x80, 0x01):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
            found = by_page(path)
            assert found is None or len(found) == len(expected)
