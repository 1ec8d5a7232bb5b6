"""Comparing two arms while looking at them all the time: confidence sequences that hold at every moment at once.

Each arm has a mixture martingale for its mean: Beta-binomial for shares, which is exact (Robbins 1970, Ann. Math. Stat.
41), and Gaussian for other numbers, which is asymptotic, with the variance estimated (Waudby-Smith, Arbour, Sinha,
Kennedy, Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences", Ann. Stat. 52). Under
the true pair of means the product of the two is a martingale that begins at 1, however many rows each arm has and
however shares changed on the way. By Ville's inequality (1939) it reaches 1/alpha with a probability of at most alpha,
ever. So the pairs under that bound are a confidence region at all times, and their differences are the interval.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_HALVINGS, _SECTIONS = 24, 40
"""Of the search for an end of the interval, and for the pair of shares at it: exact to 1e-7."""
_GOLD = (math.sqrt(5) - 1) / 2
_PRIOR = 0.5
_TUNED_FOR = 500
"""Rows of an arm at which the Gaussian mixture is tightest."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What is known of an arm: rows, the sum of their values, and that of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Sums":
        """Of these values."""
        listed = list(values)
        return cls(len(listed), math.fsum(listed), math.fsum(value * value for value in listed))

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """The mean; 0 without rows."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Unbiased; 0 below two rows."""
        return max(self.squares - self.total * self.mean, 0.0) / (self.count - 1) if self.count > 1 else 0.0

    @property
    def shares(self) -> bool:
        """Whether every value was 0 or 1."""
        return self.squares == self.total and 0 <= self.total <= self.count and float(self.total).is_integer()


@dataclass(frozen=True, slots=True)
class Interval:
    """The difference of two means, the second less the first, and where it is for sure."""

    low: float
    difference: float
    high: float


def interval(one: Sums, other: Sums, alpha: float) -> Interval:
    """Of `other` less `one`. The bounds cover the true difference at every moment at once but for a chance of `alpha`.

    Both must be samples of their arm in the order of time, from its beginning. Without rows in an arm nothing is known.
    """
    difference = other.mean - one.mean
    if not one.count or not other.count:
        return Interval(-math.inf, difference, math.inf)
    if one.shares and other.shares:
        return _of_shares(one, other, alpha)
    margin = _margin(one, other, alpha)
    return Interval(difference - margin, difference, difference + margin)


def _margin(one: Sums, other: Sums, alpha: float) -> float:
    """Half the width for numbers: the largest difference with a pair of means under the bound, in closed form.

    An arm's variance is at least that of both together: one that saw no rare value yet would believe itself sure.
    """
    together = one.plus(other).variance
    log_alpha = -2 * math.log(alpha)
    rho = (log_alpha + math.log(log_alpha + 1)) / _TUNED_FOR
    spread, penalty = 0.0, math.log(1 / alpha)
    for arm in (one, other):
        grown = 1 + arm.count * rho
        spread += max(arm.variance, together) * grown / (rho * arm.count * arm.count)
        penalty += 0.5 * math.log(grown)
    return math.sqrt(2 * spread * penalty)


def _of_shares(one: Sums, other: Sums, alpha: float) -> Interval:
    bound = math.log(1 / alpha)
    first, second = _log_martingale(one), _log_martingale(other)

    def inside(difference: float) -> bool:
        return _least(first, second, difference) < bound

    difference = other.mean - one.mean
    return Interval(_edge(inside, difference, -1.0), difference, _edge(inside, difference, 1.0))


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """Where `inside` ends between a point that is inside and one that need not be."""
    if inside(beyond):
        return beyond
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        if inside(middle):
            within = middle
        else:
            beyond = middle
    return beyond


def _least(first: Callable[[float], float], second: Callable[[float], float], difference: float) -> float:
    """The smallest sum over pairs of shares that differ so; it is convex, so the golden section finds it."""
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    left, right = high - _GOLD * (high - low), low + _GOLD * (high - low)
    at_left = first(left) + second(left + difference)
    at_right = first(right) + second(right + difference)
    for _ in range(_SECTIONS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLD * (high - low)
            at_left = first(left) + second(left + difference)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLD * (high - low)
            at_right = first(right) + second(right + difference)
    return min(at_left, at_right)


def _log_martingale(arm: Sums) -> Callable[[float], float]:
    """Log of the likelihood under a Beta(1/2, 1/2) of shares against that of one share, as a function of the share."""
    hits, misses = arm.total, arm.count - arm.total
    mixed = _log_beta(_PRIOR + hits, _PRIOR + misses) - _log_beta(_PRIOR, _PRIOR)

    def against(share: float) -> float:
        if (share <= 0 and hits) or (share >= 1 and misses):
            return math.inf
        return mixed - (hits * math.log(share) if hits else 0.0) - (misses * math.log1p(-share) if misses else 0.0)

    return against


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def apart(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Largest distance of two samples' distribution functions (Kolmogorov-Smirnov); of texts, in their order."""
    first, second = sorted(one), sorted(other)
    if not first or not second:
        return 0.0
    places = sorted({*first, *second})
    return max(
        abs(bisect_right(first, place) / len(first) - bisect_right(second, place) / len(second)) for place in places
    )


def radius(count: int, alpha: float) -> float:
    """How far a sample's distribution function is from the true one, at every moment at once but for `alpha`.

    Howard and Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm
    identification", Bernoulli 28, corollary 2.
    """
    if count < 1:
        return 1.0
    return min(1.0, 0.85 * math.sqrt((math.log(math.log(math.e * count)) + 0.8 * math.log(1612 / alpha)) / count))
