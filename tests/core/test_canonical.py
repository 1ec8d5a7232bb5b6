"""Canonical JSON: one text for one value, and nothing that hashes differently elsewhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_it_reads_back_as_the_same_value(value):
    assert json.loads(canonical_json(value)) == value


@given(values)
def test_it_is_a_fixed_point(value):
    once = canonical_json(value)
    assert canonical_json(json.loads(once)) == once


@given(st.dictionaries(texts, values, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_keys_are_sorted_by_utf16_as_rfc_8785_says():
    # section 3.2.3 of the RFC, without its control characters
    ordered = ["\r", "1", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    text = canonical_json(dict.fromkeys(reversed(ordered), 0)).decode()
    assert list(json.loads(text)) == ordered


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, 'é\n"\\']}, '{"a":[true,null,"é\\n\\"\\\\"],"b":1}'),
        ((1, 2), "[1,2]"),
        ({}, "{}"),
        ("\u2028/", '"\u2028/"'),
        (-0, "0"),
    ],
)
def test_the_text_is_what_the_rfc_says(value, text):
    assert canonical_json(value) == text.encode()


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), 2**53, -(2**53), {1: 2}, b"x", {"a": {3}}, "\ud800", {"\ud800": 1}]
)
def test_what_has_no_one_form_is_refused(value):
    with pytest.raises(InvalidInput):
        canonical_json(value)


def test_the_refusal_says_where():
    with pytest.raises(InvalidInput, match=r"\$\.a\[1\]\.b") as caught:
        canonical_json({"a": [0, {"b": 1.5}]})
    assert caught.value.hint
