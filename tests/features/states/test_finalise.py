import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.features.states.finalise import decimals, lanes, quotient, ratio, ratios

wide = st.integers(-(2**90), 2**90) | st.integers(-(2**54), 2**54) | st.integers(-100, 100)


@settings(max_examples=300)
@given(
    rows=st.lists(st.tuples(wide, st.integers(0, 2**40) | st.integers(0, 3)), min_size=1, max_size=5),
    scale=st.integers(0, 15),
)
def test_arrays_and_scalars_are_rounded_once_and_correctly(rows, scale):
    high = np.array([total >> 32 for total, _ in rows])
    low = np.array([total & (2**32 - 1) for total, _ in rows])
    found = ratios(high, low, np.array([n for _, n in rows]), scale)
    for value, (total, n) in zip(found.tolist(), rows, strict=True):
        if n == 0:
            assert np.isnan(value)
        else:
            exact = float(Fraction(total, n * 10**scale))
            assert value.hex() == exact.hex() == ratio(total >> 32, total & (2**32 - 1), n * 10**scale).hex()


def test_low_lanes_may_carry():
    low = np.array([2**62])
    assert ratios(np.array([0]), low, np.array([1]), 0).tolist() == [float(2**62)]


@given(values=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), max_size=5))
def test_lanes_put_together_are_the_value(values):
    high, low = lanes(np.array(values, np.int64))
    assert [(h << 32) + n for h, n in zip(high.tolist(), low.tolist(), strict=True)] == values


def test_nothing_over_something_negative_is_zero_without_a_sign():
    assert math.copysign(1, quotient(0, 1, -1, 1)) == 1
    assert quotient(1, 1, 0, 1) is None


def test_decimals_of_what_is_not_there_are_nan():
    found = decimals(np.array([15, 7, -1]), np.array([True, False, True]), 1)
    assert found[0] == 1.5
    assert np.isnan(found[1])
    assert found[2] == -0.1
