import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.flows.perform import adapt
from everloop.flows.value import codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_comes_back_as_it_was(store, value):
    saved = codec.save(value, "v", store, {})
    assert saved.version.manifest["format"] == "json"
    again = codec.load(saved.version.manifest, store, {})
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (np.arange(6.0).reshape(2, 3), "npy"),
        (pl.DataFrame({"a": [1, None], "b": ["x", "y"]}), "arrow"),
        ((1, 2), "pickle"),
        ({1: "a"}, "pickle"),
        (float("nan"), "pickle"),
        ({"a": {1, 2}}, "pickle"),
    ],
)
def test_other_values_have_the_format_that_keeps_them(store, value, form):
    saved = codec.save(value, "v", store, {})
    assert saved.version.manifest["format"] == form
    again = codec.load(saved.version.manifest, store, {})
    assert type(again) is type(value)
    assert str(again) == str(value)


def test_a_declared_format_is_held_to(store):
    assert codec.save([1, 2], "v", store, {"format": "npy"}).version.manifest["format"] == "npy"
    with pytest.raises(InvalidInput, match="is not a format"):
        codec.save(1, "v", store, {"format": "xml"})
    with pytest.raises(InvalidInput, match="cannot be written as json"):
        codec.save(object(), "v", store, {"format": "json"})


def test_tables_arrive_in_the_form_that_the_annotation_asks_for():
    table = pl.DataFrame({"a": [1]})
    assert isinstance(adapt(table, "pl.LazyFrame"), pl.LazyFrame)
    assert isinstance(adapt(table.lazy(), "polars.DataFrame"), pl.DataFrame)
    assert type(adapt(table.lazy(), "pd.DataFrame")).__module__.startswith("pandas")
    assert type(adapt(table.lazy(), "pa.Table")).__module__.startswith("pyarrow")
    assert adapt(table, "") is table
    assert adapt(5, "pl.DataFrame") == 5
