import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import DataError
from everloop.watch.reference import Reference, beside, profile

TABLE = pl.DataFrame(
    {
        "delay": [1.5, None, 3.0, -2.25, 80.0] * 40,
        "month": [1, 2, 3, 4, 5] * 40,
        "carrier": ["UA", "AA", None, "UA", "DL"] * 40,
        "late": [True, False, True, True, None] * 40,
        "empty": [None] * 200,
    }
).with_columns(at=pl.datetime(2013, 1, 1))


def test_columns_are_told_apart():
    found = profile(TABLE, skip={"month"})
    assert {n: c.kind for n, c in found.columns.items()} == {"delay": "numeric", "carrier": "levels", "late": "levels"}
    assert profile(TABLE).columns["month"].kind == "discrete"
    assert found.columns["delay"].null_share == pytest.approx(0.2)
    assert found.columns["carrier"].levels == ("UA", "AA", "DL")


@pytest.mark.parametrize("turn", [lambda t: t, lambda t: t.to_arrow(), lambda t: t.to_dict(as_series=False)])
def test_any_kind_of_table_counts_the_same(turn):
    reference = profile(TABLE)
    counted = reference.count(turn(TABLE))
    for name, column in reference.columns.items():
        assert counted[name].cells.tolist() == column.counts.cells.tolist(), name
        assert counted[name].nulls == column.counts.nulls


def test_json_keeps_everything():
    reference = profile(TABLE)
    again = Reference.from_json(reference.to_json())
    assert again.to_json() == reference.to_json()
    with pytest.raises(DataError):
        Reference.from_json(b'{"columns": 3}')


numbers = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60)


@given(numbers, numbers)
def test_counts_of_parts_add_up_to_those_of_the_whole(a, b):
    column = profile({"x": np.linspace(-1e6, 1e6, 5000)}).columns["x"]
    merged, whole = column.count(a).merge(column.count(b)), column.count(a + b)
    assert merged.cells.tolist() == whole.cells.tolist()
    assert (merged.nulls, merged.rows, merged.outside) == (whole.nulls, whole.rows, whole.outside)
    assert np.array_equal([merged.low, merged.high], [whole.low, whole.high], equal_nan=True)


def test_merged_quantiles_are_near_those_of_the_whole():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=3000), rng.normal(2, 1, size=1000)
    column = profile({"x": a}).columns["x"]
    merged, whole = column.count(a).merge(column.count(b)), column.count(np.concatenate([a, b]))
    assert np.abs(merged.quantiles - whole.quantiles)[5:-5].max() < 0.06


def test_text_among_numbers_is_of_a_wrong_type():
    column = profile({"x": np.arange(1000.0)}).columns["x"]
    counted = column.count(np.array([1.0, "n/a", None, 3.0], dtype=object))
    assert (counted.invalid, counted.nulls, counted.present) == (1, 1, 2)


def test_what_is_no_table_is_refused():
    with pytest.raises(DataError):
        profile(7)


def test_training_and_a_window_beside_each_other():
    reference = profile({"n": [*np.arange(999.0), np.nan], "t": ["tea"] * 6 + ["milk"] * 3 + [None]})
    told = beside(reference.columns["n"], reference.columns["n"].count([*(np.arange(50.0) + 100), None, None]))
    assert told["nulls"] == [0.001, 0.03846]
    assert told["quantiles"][0] == pytest.approx([50, 250, 499, 748, 948], abs=8)
    assert told["quantiles"][1] == pytest.approx([102, 112, 124.5, 137, 147], abs=1)
    drinks = reference.columns["t"]
    told = beside(drinks, drinks.count(["tea", "milk", "milk", "rum"]))
    assert told["levels"] == [["tea", 0.6667, 0.25], ["milk", 0.3333, 0.5]]
    assert told["others"] == [0, 0.25]
    assert beside(drinks, drinks.count([None, None])) == {"nulls": [0.1, 1.0]}
    assert beside(drinks, drinks.count(["tea"]), values=False) == {"nulls": [0.1, 0.0]}
