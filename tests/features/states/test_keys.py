"""Keys of entities."""

import pytest

from everloop.features.states.keys import whole


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("-12", -12), ("0", 0), ("9223372036854775807", 2**63 - 1)])
def test_a_whole_number_is_read(text, number):
    assert whole(text) == number


@pytest.mark.parametrize("text", ["", " 7", "7\n", "1_0", "+7", "7.0", "1e3", "\u0667", "-", "9" * 30])
def test_any_other_text_is_none(text):
    assert whole(text) is None
