import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.models.signature import Field, conform, field_of

FIELDS = (Field("d", "double"), Field("n", "long"), Field("t", "string"), Field("b", "boolean"))
GOOD = {"d": [1, None, 2.5], "n": [1, 2, 3], "t": ["x", None, "z"], "b": [True, False, True]}


def test_columns_are_ordered_typed_and_extra_ones_dropped():
    found = conform(FIELDS, {**GOOD, "extra": [9, 9, 9]})
    assert list(found) == ["d", "n", "t", "b"]
    assert [a.dtype.str for a in found.values()] == ["<f8", "<i8", "|O", "|b1"]
    assert np.isnan(found["d"][1])
    assert conform(FIELDS[:1], {"d": np.arange(3)})["d"].dtype == np.float64
    assert conform(FIELDS[1:2], {"n": np.arange(3, dtype=np.int16)})["n"].dtype == np.int64


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("d", ["1", "2", "3"], "column 'd' is .*, the model takes double"),
        ("d", [1.0, "2", None], "column 'd'"),
        ("d", [[1], [2], [3]], "2 dimensions"),
        ("d", [[1], [2, 3], [3]], "several shapes"),
        ("n", [1.5, 2, 3], "column 'n' is float64, the model takes long"),
        ("n", [1, None, 3], "column 'n'"),
        ("n", np.array([2**63, 1, 2], dtype=np.uint64), "column 'n'"),
        ("t", [1, 2, 3], "column 't'"),
        ("b", [0, 1, 1], "column 'b'"),
        ("b", [True], "another length"),
    ],
)
def test_what_does_not_fit_is_named(column, values, message):
    with pytest.raises(InvalidInput, match=message):
        conform(FIELDS, {**GOOD, column: values})


def test_a_missing_column_is_named():
    with pytest.raises(InvalidInput, match="needs column 'n' and 1 more") as caught:
        conform(FIELDS, {"d": [1], "b": [True]})
    assert caught.value.details["missing"] == ["n", "t"]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_integers_become_floats_without_loss(values):
    assert conform(FIELDS[:1], {"d": values})["d"].tolist() == values


def test_fields_follow_the_training_values():
    kinds = {"b": np.bool_, "integer": np.int8, "long": np.int64, "float": np.float32, "double": np.float64}
    found = [field_of("c", np.zeros(2, dtype)).type for dtype in kinds.values()]
    assert found == ["boolean", "integer", "long", "float", "double"]
    assert field_of("c", np.array(["x", None], dtype=object)).type == "string"
    with pytest.raises(InvalidInput, match="cannot say"):
        field_of("c", np.array(["2013-01-01"], dtype="datetime64[D]"))
