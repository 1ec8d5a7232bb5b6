"""Confidence sequences: the chance of ever being wrong, over streams that are looked at all the time."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.serving.rollout.sequential import Sums, apart, interval, radius

DRAWS = {
    "shares": lambda r: float(r.random() < 0.3),
    "rare shares": lambda r: float(r.random() < 0.02),
    "normal": lambda r: r.gauss(5.0, 2.0),
    "skewed": lambda r: r.expovariate(1.0),
    "rare and large": lambda r: 100.0 if r.random() < 0.02 else 0.0,
}


def ever_wrong(kind, seed, *, alpha, rows=1500, look=25, effect=0.0):
    """Rows of the first arm at the first look that told two arms apart; 0 when none did. Shares change on the way."""
    rng, draw = random.Random(seed), DRAWS[kind]
    one = other = Sums()
    for at in range(0, rows, look):
        one = one.plus(Sums.of(draw(rng) for _ in range(look)))
        few = max(look // (1 + at * 4 // rows), 5)
        other = other.plus(Sums.of(draw(rng) + effect for _ in range(few)))
        if min(one.count, other.count) >= 50:
            found = interval(one, other, alpha)
            if found.low > 0 or found.high < 0:
                return one.count
    return 0


@pytest.mark.parametrize(("kind", "streams"), [("shares", 12), ("normal", 200), ("skewed", 200)])
def test_looking_all_the_time_is_seldom_wrong(kind, streams):
    wrong = sum(ever_wrong(kind, seed, alpha=0.1) > 0 for seed in range(streams))
    assert wrong / streams <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_chance_of_ever_being_wrong_stays_below_alpha(kind, alpha):
    streams = 150 if "share" in kind else 2000
    wrong = sum(ever_wrong(kind, seed, alpha=alpha) > 0 for seed in range(streams))
    assert wrong / streams <= alpha


def test_a_real_difference_is_found():
    assert all(ever_wrong("normal", seed, alpha=0.05, effect=1.0) for seed in range(20))
    one, other = Sums(2000, 600, 600), Sums(2000, 800, 800)
    found = interval(one, other, 0.05)
    assert 0 < found.low < 0.1 < found.high
    turned = interval(other, one, 0.05)
    assert turned.low == pytest.approx(-found.high, abs=1e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.4))
def test_shares_are_bounded_and_hold_their_estimate(hits, others, alpha):
    found = interval(Sums(40, hits, hits), Sums(40, others, others), alpha)
    assert -1 <= found.low <= found.difference + 1e-9
    assert found.difference - 1e-9 <= found.high <= 1


def test_an_arm_that_saw_no_rare_value_yet_is_not_sure():
    found = interval(Sums(100, 0.0, 0.0), Sums(100, 100.0, 10_000.0), 0.05)  # one value of 100
    assert found.low < 0 < found.high
    assert interval(Sums(), Sums(5, 1.0, 1.0), 0.05).high == math.inf


def test_the_distance_of_distributions():
    assert apart([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0
    assert apart([1.0] * 10, [2.0] * 5) == 1
    assert apart(["a", "b"], ["a", "a"]) == 0.5
    assert apart([], [1.0]) == 0
    rng = random.Random(1)
    for _ in range(200):  # the true function is never further away, at any time
        sample = []
        for _ in range(8):
            sample += [rng.random() for _ in range(50)]
            steps = [(place + 1) / len(sample) - value for place, value in enumerate(sorted(sample))]
            assert max(steps) <= radius(len(sample), 0.1)
    assert radius(0, 0.1) == 1
