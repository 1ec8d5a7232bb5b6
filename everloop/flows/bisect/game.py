"""Whose doing is a difference? Shapley values of a game whose players are the factors that were swapped. Pure.

`values[S]` are a metric with the factors S taken from the bad side and all others from the good one, once for each
seed; the seeds are the same for every S, so that each seed is a game of its own and the spread of its values is the
noise (common random numbers). Sums are exact: contributions add up to the whole difference, seed by seed.

Sources: Shapley (1953); pairwise interactions by Dhamdhere, Agarwal and Sundararajan, The Shapley Taylor Interaction
Index (2020), of order two; groups of factors that cannot be apart as Owen (1977), each as one player.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from everloop.flows.bisect.student import Interval, interval

Subset = frozenset[str]
Values = Mapping[Subset, Sequence[float] | None]
"""By the factors that are swapped: the metric for each seed; None where the combination cannot be run."""

LEVEL = 0.95
FLOOR = 0.99
"""How sure it must be that there is something to explain: two alike versions then give nothing in 99 % of cases."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a factor (or factors that cannot be apart) contributed to the change under re-execution."""

    factors: tuple[str, ...]
    value: Interval
    """Corrected for the number of factors (Bonferroni)."""
    swapped_in: Interval | None
    """From the good side, this alone swapped; None where that cannot be run."""
    swapped_out: Interval | None
    """The bad side, this alone put back."""

    @property
    def name(self) -> str:
        """`data`, or `data + code`."""
        return " + ".join(self.factors)

    @property
    def noise(self) -> bool:
        """Whether it may be nothing but chance."""
        return not self.value.excludes_zero


@dataclass(frozen=True, slots=True)
class Interaction:
    """What two factors do only together."""

    first: str
    second: str
    value: Interval


@dataclass(frozen=True, slots=True)
class Attribution:
    """The whole answer."""

    good: Interval
    bad: Interval
    total: Interval
    state: Literal["explained", "nothing"]
    contributions: tuple[Contribution, ...]
    """Largest first; none when there is nothing to explain."""
    interactions: tuple[Interaction, ...]
    undefined: tuple[tuple[str, ...], ...]
    """Combinations that could not be run."""

    @property
    def joint(self) -> Interaction | None:
        """The interaction that outweighs both of its factors; None when there is none."""
        sizes = {one.name: abs(one.value.mean) for one in self.contributions}
        strong = [
            one
            for one in self.interactions
            if one.value.excludes_zero and abs(one.value.mean) > max(sizes[one.first], sizes[one.second])
        ]
        return max(strong, key=lambda one: abs(one.value.mean), default=None)


def subsets(players: Sequence[str]) -> list[Subset]:
    """Every subset, small ones first."""
    return [frozenset(one) for size in range(len(players) + 1) for one in itertools.combinations(players, size)]


def floor(values: Values, players: Sequence[str]) -> Interval:
    """The difference of the two sides with its interval at 99 %; when that covers 0 there is nothing to explain."""
    good, bad = values[frozenset()], values[frozenset(players)]
    assert good is not None
    assert bad is not None
    return interval([b - a for a, b in zip(good, bad, strict=True)], FLOOR)


def attribute(values: Values, players: Sequence[str]) -> Attribution:
    """Explain the difference between all good and all bad; both must be defined."""
    good, bad = values[frozenset()], values[frozenset(players)]
    assert good is not None
    assert bad is not None
    total = floor(values, players)
    undefined = tuple(tuple(sorted(s)) for s in subsets(players) if values.get(s) is None)
    ends = (interval(good), interval(bad))
    if not total.excludes_zero:
        return Attribution(*ends, total, "nothing", (), (), undefined)
    groups = grouped(values, players)
    game = merged(values, groups)
    names = [" + ".join(group) for group in groups]
    each = shapley(names, game)
    level = 1 - (1 - LEVEL) / len(names)
    found = [
        Contribution(
            group,
            interval(each[name], level),
            _gap(game, frozenset(), frozenset([name])),
            _gap(game, frozenset(names) - {name}, frozenset(names)),
        )
        for name, group in zip(names, groups, strict=True)
    ]
    pairs = [Interaction(a, b, interval(samples, level)) for (a, b), samples in interactions(names, game).items()]
    found.sort(key=lambda one: -abs(one.value.mean))
    pairs.sort(key=lambda one: -abs(one.value.mean))
    return Attribution(*ends, total, "explained", tuple(found), tuple(pairs), undefined)


def shapley(players: Sequence[str], values: Mapping[Subset, Sequence[float]]) -> dict[str, list[float]]:
    """The Shapley value of every player, for each seed; every subset must be defined."""
    count = len(players)
    weight = [math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count) for s in range(count)]
    seeds = range(len(values[frozenset()]))
    return {
        player: [
            sum(weight[len(s)] * (values[s | {player}][seed] - values[s][seed]) for s in _without(players, player))
            for seed in seeds
        ]
        for player in players
    }


def interactions(
    players: Sequence[str], values: Mapping[Subset, Sequence[float]]
) -> dict[tuple[str, str], list[float]]:
    """The Shapley-Taylor index of order two for every pair, for each seed."""
    count, found = len(players), dict[tuple[str, str], list[float]]()
    for a, b in itertools.combinations(players, 2):
        rest = [player for player in players if player not in (a, b)]
        found[a, b] = [
            sum(
                2 / count / math.comb(count - 1, len(s))
                * (values[s | {a, b}][n] - values[s | {a}][n] - values[s | {b}][n] + values[s][n])
                for s in subsets(rest)
            )
            for n in range(len(values[frozenset()]))
        ]  # fmt: skip
    return found


def grouped(values: Values, players: Sequence[str]) -> list[tuple[str, ...]]:
    """Players, with those merged that cannot be apart: as few as make every combination one that can be run.

    Always the pair is merged that the most undefined combinations part. All together is always defined.
    """
    groups: list[tuple[str, ...]] = [(player,) for player in players]
    while True:
        broken = [s for s in _unions(groups) if values.get(s) is None]
        if not broken:
            return groups
        pairs = itertools.combinations(groups, 2)
        best = max(pairs, key=lambda pair: sum(_parts(one, *pair) for one in broken))
        groups = [group for group in groups if group not in best]
        groups.append(tuple(sorted(best[0] + best[1], key=list(players).index)))


def merged(values: Values, groups: Sequence[tuple[str, ...]]) -> dict[Subset, Sequence[float]]:
    """The game whose players are the groups."""
    found: dict[Subset, Sequence[float]] = {}
    for chosen in subsets([" + ".join(group) for group in groups]):
        held = values[frozenset(p for group in groups if " + ".join(group) in chosen for p in group)]
        assert held is not None
        found[chosen] = held
    return found


def _parts(subset: Subset, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a subset holds all of one group and nothing of the other."""
    return (subset.issuperset(one) and subset.isdisjoint(other)) or (
        subset.issuperset(other) and subset.isdisjoint(one)
    )


def _unions(groups: Sequence[tuple[str, ...]]) -> Iterable[Subset]:
    for size in range(len(groups) + 1):
        for chosen in itertools.combinations(groups, size):
            yield frozenset(player for group in chosen for player in group)


def _without(players: Sequence[str], player: str) -> list[Subset]:
    return subsets([other for other in players if other != player])


def _gap(values: Mapping[Subset, Sequence[float]], low: Subset, high: Subset) -> Interval | None:
    if low not in values or high not in values:
        return None
    return interval([b - a for a, b in zip(values[low], values[high], strict=True)])
