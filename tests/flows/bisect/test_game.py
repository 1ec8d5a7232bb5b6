"""Known games have known values, to the last digit; noise is told from effect as often as the level says."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from everloop.flows.bisect.game import attribute, grouped, interactions, shapley, subsets
from everloop.flows.bisect.narrow import narrow
from everloop.flows.bisect.student import distribution, interval, quantile


def game(players, value):
    return {s: [float(value(s))] for s in subsets(players)}


def test_a_sum_gives_everybody_their_own():
    worth = {"data": -3.0, "code": 1.0, "parameters": 0.0}
    found = shapley(list(worth), game(list(worth), lambda s: sum(worth[p] for p in s)))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(worth)


def test_the_gloves_of_two_right_and_one_left_hand():
    found = shapley(["l", "r", "s"], game(["l", "r", "s"], lambda s: "l" in s and len(s) > 1))
    assert [found[p][0] for p in "lrs"] == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_the_airport_game():
    costs = {"a": 1.0, "b": 2.0, "c": 3.0}
    found = shapley(list(costs), game(list(costs), lambda s: max((costs[p] for p in s), default=0)))
    assert [found[p][0] for p in "abc"] == pytest.approx([1 / 3, 5 / 6, 11 / 6])


@given(st.lists(st.floats(-10, 10), min_size=16, max_size=16))
def test_the_values_are_the_mean_over_all_orders_and_add_up(worth):
    players = ["a", "b", "c", "d"]
    values = dict(zip(subsets(players), ([one] for one in worth), strict=True))
    found = shapley(players, values)
    means = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        reached = frozenset()
        for player in order:
            means[player] += (values[reached | {player}][0] - values[reached][0]) / math.factorial(4)
            reached |= {player}
    assert {p: v[0] for p, v in found.items()} == pytest.approx(means, abs=1e-9)
    assert sum(v[0] for v in found.values()) == pytest.approx(worth[-1] - worth[0], abs=1e-9)


def test_two_that_act_only_together_are_an_interaction():
    both = interactions(["a", "b", "c"], game(["a", "b", "c"], lambda s: {"a", "b"} <= s))
    assert both["a", "b"][0] == pytest.approx(2 / 3 * (1 + 1 / 2))  # on two subsets of the rest, weighted by size
    assert both["a", "c"][0] == both["b", "c"][0] == 0
    alone = interactions(["a", "b"], game(["a", "b"], len))
    assert alone["a", "b"][0] == 0


def noisy(players, worth, seeds, spread, chance):
    """Common random numbers: half of the noise is the seed's, half the run's."""
    shared = [chance.gauss(0, spread) for _ in range(seeds)]
    return {
        s: [sum(worth.get(p, 0) for p in s) + noise + chance.gauss(0, spread / 2) for noise in shared]
        for s in subsets(players)
    }


def test_noise_is_nothing_and_effects_are_found_with_honest_intervals():
    chance, players = random.Random(1), ["data", "code", "parameters"]
    quiet = [attribute(noisy(players, {}, 6, 1, chance), players).state for _ in range(400)]
    assert quiet.count("nothing") >= 0.97 * 400
    covered = first = 0
    for _ in range(200):
        found = attribute(noisy(players, {"code": -4.0}, 6, 1, chance), players)
        assert found.state == "explained"
        first += found.contributions[0].name == "code" and not found.contributions[0].noise
        covered += sum(
            one.value.low <= (-4.0 if one.name == "code" else 0) <= one.value.high for one in found.contributions
        )
    assert first >= 195
    assert covered >= 0.97 * 600


def test_what_cannot_be_run_apart_is_one_player():
    players = ["data", "code", "parameters"]
    values = game(players, lambda s: -2.0 * ("code" in s) - 1.0 * ("parameters" in s))
    for subset in values:
        if ("code" in subset) != ("data" in subset):
            values[subset] = None
    assert grouped(values, players) == [("parameters",), ("data", "code")]
    found = attribute({s: v and [v[0], v[0] + 0.001, v[0] - 0.001] for s, v in values.items()}, players)
    assert [(one.name, one.value.mean) for one in found.contributions] == [
        ("data + code", pytest.approx(-2.0)),
        ("parameters", pytest.approx(-1.0)),
    ]
    assert len(found.undefined) == 4
    assert attribute({frozenset(): [1.0, 1.0], frozenset("a"): [1.0, 1.0]}, ["a"]).state == "nothing"


def test_a_joint_cause_is_said():
    players = ["data", "code"]
    values = {s: [-3.0 * (len(s) == 2) + n / 1000 for n in range(4)] for s in subsets(players)}
    joint = attribute(values, players).joint
    assert (joint.first, joint.second) == ("data", "code")


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 11, 60])
def test_t_is_that_of_scipy(freedom):
    for value in (-7.5, -1.0, 0.0, 0.3, 2.0, 30.0):
        assert distribution(value, freedom) == pytest.approx(stats.t.cdf(value, freedom), abs=1e-12)
    for share in (0.025, 0.5, 0.9, 0.975, 0.995):
        assert quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), abs=1e-9)


def test_an_interval_of_few():
    assert interval([1.0]).low == -math.inf
    assert (interval([2.0, 2.0]).low, interval([2.0, 2.0]).excludes_zero) == (2.0, True)
    expected = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem([1, 2, 3, 4]))
    assert (interval([1, 2, 3, 4]).low, interval([1, 2, 3, 4]).high) == pytest.approx(expected)


def search(guilty, items, noise=0.2, undefined=(), seed=0):
    chance = random.Random(seed)

    def measure(swapped, _seed):
        if any(set(swapped) & set(pair) and not set(pair) <= set(swapped) for pair in undefined):
            return None
        return sum(guilty.get(one, 0.0) for one in swapped) + chance.gauss(0, noise)

    return narrow(items, measure, sum(guilty.values()))


def test_the_guilty_one_is_found_under_noise():
    items = [f"part {n}" for n in range(13)]
    right = sum(search({items[n]: -1.0}, items, seed=n).items == (items[n],) for n in range(13))
    assert right == 13
    found = search({items[4]: -1.0}, items)
    assert found.reason == "one item"
    assert all(3 <= probe.seeds <= 12 for probe in found.probes)


def test_several_together_and_inseparable_ones_are_not_blamed_alone():
    items = list("abcd")
    assert search({"a": -0.5, "d": -0.5}, items, noise=0.01).items == tuple(items)
    assert search({"a": -1.0}, items, noise=0.01, undefined=[("b", "c"), ("a", "d")]).reason == "cannot be parted"
