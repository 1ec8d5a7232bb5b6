import datetime as dt
import itertools
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.core.errors import DataError
from everloop.data.content.logical import BLOCK, digest
from everloop.data.content.schema import logical_type, plain, schema_fields

EPOCH = dt.datetime.fromisoformat("1900-01-01")
STAMPS = st.integers(0, 2**52).map(lambda us: EPOCH + dt.timedelta(microseconds=us))
VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=12),
    pa.binary(): st.binary(max_size=12),
    pa.date32(): st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)),
    pa.timestamp("us"): STAMPS,
    pa.timestamp("us", "UTC"): STAMPS.map(lambda t: t.replace(tzinfo=dt.UTC)),
    pa.decimal128(10, 2): st.decimals(-9999, 9999, places=2),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.list_(pa.int32()): st.lists(st.none() | st.integers(-5, 5), max_size=4),
    pa.list_(pa.string()): st.lists(st.none() | st.text(max_size=3), max_size=4),
    pa.list_(pa.float32(), 2): st.lists(st.floats(width=32), min_size=2, max_size=2),
    pa.struct([("a", pa.int16()), ("b", pa.string())]): st.fixed_dictionaries(
        {"a": st.none() | st.integers(0, 9), "b": st.none() | st.text(max_size=3)}
    ),
    pa.map_(pa.string(), pa.int64()): st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3).map(
        lambda d: list(d.items())
    ),
}


@st.composite
def arrays(draw):
    type_ = draw(st.sampled_from(list(VALUES)))
    values = draw(st.lists(st.none() | VALUES[type_], max_size=40))
    return pa.array(values, type_)


def of(column):
    return digest(pa.table({"x": column}))


@given(arrays(), st.lists(st.integers(0, 40), max_size=4), st.integers(0, 9))
@settings(max_examples=300)
def test_equal_values_have_one_digest_in_every_layout(array, cuts, before):
    expected = of(array)
    bounds = sorted({0, len(array), *(min(c, len(array)) for c in cuts)})
    pieces = [array[a:b] for a, b in itertools.pairwise(bounds)]
    assert of(pa.chunked_array(pieces, array.type)) == expected
    # the same values at another offset of a longer buffer, where bitmaps do not start at a byte
    padding = array.take(pa.array(np.zeros(before if len(array) else 0, np.int64)))
    assert of(pa.concat_arrays([padding, array, padding])[len(padding) : len(padding) + len(array)]) == expected
    # written and read again by another library's layout, and in ours
    assert digest(plain(pa.table({"x": array}))) == expected


@given(st.lists(st.none() | st.text(max_size=6), max_size=40))
def test_dictionaries_views_and_large_offsets_do_not_matter(values):
    expected = of(pa.array(values, pa.string()))
    for other in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        array = (
            pa.array(values, pa.string()).dictionary_encode()
            if pa.types.is_dictionary(other)
            else pa.array(values, other)
        )
        assert of(array) == expected
    assert digest(pl.DataFrame({"x": pl.Series(values, dtype=pl.String)}).to_arrow()) == expected
    categories = pl.DataFrame({"x": pl.Series(values, dtype=pl.Categorical)}).to_arrow()
    assert digest(categories) == expected


@given(arrays(), arrays())
@settings(max_examples=200)
def test_different_values_have_different_digests(a, b):
    same = logical_type(a.type) == logical_type(b.type) and _canonical(a) == _canonical(b)
    assert (of(a) == of(b)) == same


def _canonical(array):
    return repr(array.to_pylist()).replace("-0.0", "0.0")


@given(arrays().filter(len), st.data())
def test_one_changed_value_changes_the_digest(array, data):
    values = array.to_pylist()
    place = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(st.none() | VALUES[array.type])
    changed = pa.array([*values[:place], other, *values[place + 1 :]], array.type)
    assert (of(changed) == of(array)) == (_canonical(changed) == _canonical(array))


def test_one_zero_and_one_nan():
    payload = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001], np.uint64).view(np.float64)
    assert of(pa.array(payload)) == of(pa.array([float("nan")] * 3))
    assert of(pa.array([-0.0, 1.0])) == of(pa.array([0.0, 1.0]))
    assert of(pa.array([float("inf"), float("-inf")])) != of(pa.array([float("inf"), float("inf")]))
    assert of(pa.array([float("nan")])) != of(pa.array([None], pa.float64()))


def test_bytes_under_nulls_do_not_matter():
    clean = pa.array([1, None, 3], pa.int64())
    dirty = pa.Array.from_buffers(
        pa.int64(), 3, [clean.buffers()[0], pa.py_buffer(np.array([1, 99, 3], np.int64).tobytes())]
    )
    assert of(dirty) == of(clean)
    text = pa.array(["a", None, "b"], pa.string())
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32).tobytes())
    assert of(pa.Array.from_buffers(pa.string(), 3, [text.buffers()[0], offsets, pa.py_buffer(b"axxb")])) == of(text)
    lists = pa.array([[1], None, [2]], pa.list_(pa.int64()))
    hidden = pa.Array.from_buffers(
        lists.type,
        3,
        [lists.buffers()[0], pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())],
        children=[pa.array([1, 7, 2])],
    )
    assert of(hidden) == of(lists)


def test_a_null_above_is_not_a_null_below():
    type_ = pa.struct([("a", pa.int64())])
    assert of(pa.array([None], type_)) != of(pa.array([{"a": None}], type_))
    assert of(pa.array([None], pa.list_(pa.int64()))) != of(pa.array([[]], pa.list_(pa.int64())))
    assert of(pa.array([["a", "b"], []])) != of(pa.array([["a"], ["b"]]))
    assert of(pa.array(["ab", ""])) != of(pa.array(["a", "b"]))


def test_names_order_and_types_count_nullability_and_metadata_do_not():
    table = pa.table({"a": [1, 2], "b": [3, 4]})
    assert digest(table.rename_columns(["a", "c"])) != digest(table)
    assert digest(table.select(["b", "a"])) != digest(table)
    assert digest(table.cast(pa.schema([("a", pa.int32()), ("b", pa.int64())]))) != digest(table)
    strict = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.int64(), metadata={"x": "y"})])
    assert digest(table.cast(strict)) == digest(table)


def test_units_and_zones():
    moment = dt.datetime.fromisoformat("2013-01-01T10:00")
    seconds, micros = pa.array([moment], pa.timestamp("s")), pa.array([moment], pa.timestamp("us"))
    assert of(seconds) == of(micros) == of(pa.array([moment], pa.timestamp("ms")))
    assert of(pa.array([moment], pa.timestamp("ns"))) != of(micros)
    aware = [moment.replace(tzinfo=dt.UTC)]
    assert of(pa.array(aware, pa.timestamp("us", "UTC"))) == of(pa.array(aware, pa.timestamp("ms", "Etc/UTC")))
    assert of(pa.array(aware, pa.timestamp("us", "UTC"))) != of(micros)
    assert of(pa.array(aware, pa.timestamp("us", "UTC"))) != of(pa.array(aware, pa.timestamp("us", "America/New_York")))
    assert of(pa.array([dt.date(2013, 1, 1)], pa.date64())) == of(pa.array([dt.date(2013, 1, 1)], pa.date32()))


def test_decimals_of_any_width():
    values = [Decimal("1.50"), None, Decimal("-7.25")]
    assert of(pa.array(values, pa.decimal256(9, 2))) == of(pa.array(values, pa.decimal128(9, 2)))
    assert of(pa.array(values, pa.decimal32(9, 2))) == of(pa.array(values, pa.decimal128(9, 2)))
    assert of(pa.array(values, pa.decimal128(10, 2))) != of(pa.array(values, pa.decimal128(9, 2)))


def test_blocks_of_rows_are_counted_from_the_first_row():
    numbers = np.arange(3 * BLOCK + 5)
    whole = pa.array(numbers)
    ragged = pa.chunked_array([whole[:7], whole[7 : BLOCK + 1], whole[BLOCK + 1 :]])
    assert of(ragged) == of(whole)
    words = pa.array([f"w{i % 17}" if i % 5 else None for i in range(BLOCK + 99)])
    one, two = words[:1000].dictionary_encode(), words[1000:].dictionary_encode()
    assert digest(pa.table({"x": pa.chunked_array([one.cast(pa.string()), two.cast(pa.string())])})) == of(words)


def test_golden_ids():
    # the rule is written down in docs/data-identity.md; a change here is a new rule, never an edit of these
    table = pa.table(
        {
            "flight": pa.array([1, 2, None], pa.int64()),
            "delay": pa.array([-0.0, float("nan"), None], pa.float64()),
            "carrier": pa.array(["UA", None, "Ünited"], pa.string()).dictionary_encode(),
            "at": pa.array([dt.datetime(2013, 1, 1, tzinfo=dt.UTC)] * 3, pa.timestamp("ms", "UTC")),
            "fare": pa.array([Decimal("12.30"), None, Decimal("-1.00")], pa.decimal128(9, 2)),
            "late": pa.array([True, None, False]),
            "stops": pa.array([[1, 2], None, []], pa.list_(pa.int16())),
        }
    )
    found = digest(table)
    assert found.logical == "b3:52f3dd5dac9b8a55bd405a309f8d40a5526a8a46d894eb166f7275c7e1d049a1"
    assert found.nulls == (1, 1, 1, 0, 1, 1, 1)
    assert digest(table.slice(0, 0)).logical == "b3:43899d63f3ac00f95f558059b5571828894456cd5dae1cc92da1828d5ae37cf1"


def test_schema_names():
    names = dict(schema_fields(pa.schema({"a": pa.float16(), "b": pa.large_list(pa.string_view()), "c": pa.null()})))
    assert names == {"a": "float16", "b": "list<string>", "c": "null"}
    struct = pa.struct([("x", pa.int8()), ("y", pa.time32("s"))])
    assert logical_type(struct) == 'struct<"x":int8,"y":time[us]>'
    assert logical_type(pa.duration("ms")) == "duration[us]"


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(DataError, match="two columns are called 'a'"):
        digest(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    with pytest.raises(DataError, match="column 'x'"):
        of(union)
    with pytest.raises(DataError, match="no columns"):
        digest(pa.table({}))
