"""Whether something speaks of a subject: by the name of a member, or as a word; and what is left without it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog.erasing.mentions import ERASED, Mentions, mentions

KEY = "customer-0004711-x"
LONG = mentions(KEY, ["customer"])
SHORT = mentions("7", ["customer"])


@pytest.mark.parametrize(
    ("text", "long", "short"),
    [
        (f"about {KEY}.", True, False),
        (f"about {KEY}2", False, False),
        (f"a{KEY}", False, False),
        (json.dumps({"customer": KEY}), True, False),
        ('{"customer": 7}', False, True),
        ('{"customer": "7"}', False, True),
        ('{"depth": 7, "rows": [7, "7"]}', False, False),
        ('{"rows": {"customer": [1, 7]}}', False, True),
        ('{"body": "{\\"customer\\": 7}"}', False, True),
        ('{"customer": true}', False, False),
        ("7", False, False),
        (f'{{"by {KEY}": 1}}', True, False),
        (f"/orders/{KEY}/7", True, False),
    ],
)
def test_a_short_key_counts_where_its_name_says_so_and_a_long_one_as_a_word(text, long, short):
    assert (LONG.in_text(text), SHORT.in_text(text)) == (long, short)
    for one in (LONG, SHORT):
        left = one.without(text)
        assert not one.in_text(left)
        assert (left != text) == one.in_text(text)


def test_a_key_is_found_however_it_is_escaped():
    key = 'Zoë "z" 4711/é'
    subject = mentions(key, [])
    written = ("Zo%C3%AB%20%22z%22%204711%2F%C3%A9", key, json.dumps(key), json.dumps([key], ensure_ascii=False))
    for text in (f"x {form} y" for form in written):
        assert subject.in_text(text), text
        assert not subject.in_text(subject.without(text))


def test_numbers_become_marks_and_json_stays_json():
    subject = Mentions("4711", ("customer",), words=True)
    left = json.loads(subject.without('{"customer": 4711, "n": [4711.0, 4711, 47110], "t": "4711 and 47112"}'))
    assert left == {"customer": ERASED, "n": [4711.0, ERASED, 47110], "t": f"{ERASED} and 47112"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.just(KEY)
    | st.just(f"a {KEY}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.just(KEY), inner, max_size=4),
)


@given(VALUES)
def test_nothing_is_left_of_any_value_and_what_does_not_speak_of_it_stays(value):
    left = LONG.value_without(value)
    assert KEY not in json.dumps(left, ensure_ascii=False)
    assert LONG.in_value(value) == (KEY in json.dumps(value, ensure_ascii=False))
    if not LONG.in_value(value):
        assert left == value


def test_bytes_are_searched_for_words_only():
    assert LONG.in_bytes(b"\x00\xff" + KEY.encode() + b"\x00")
    assert not LONG.in_bytes(b"\x00a" + KEY.encode())
    assert not SHORT.in_bytes(b"7")
