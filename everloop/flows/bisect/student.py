"""Student's t: quantiles and intervals for the mean of a few samples. Pure, without SciPy, which no plain install has.

The distribution function comes from the regularised incomplete beta function by its continued fraction (Lentz's method;
Press et al., Numerical Recipes, 6.4); the quantile by halving.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_TINY = 1e-300
_ENOUGH = 1e-14


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def interval(samples: Sequence[float], level: float = 0.95) -> Interval:
    """The t-interval of the mean at `level`; of a single sample it is everything."""
    mean = statistics.fmean(samples)
    if len(samples) < 2:
        return Interval(mean, -math.inf, math.inf)
    spread = statistics.stdev(samples)
    reach = quantile(0.5 + level / 2, len(samples) - 1) * spread / math.sqrt(len(samples)) if spread else 0.0
    return Interval(mean, mean - reach, mean + reach)


@lru_cache(maxsize=256)
def quantile(share: float, freedom: int) -> float:
    """Below which value of t this share of the distribution lies."""
    if share < 0.5:
        return -quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while distribution(high, freedom) < share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def distribution(value: float, freedom: int) -> float:
    """The share of the distribution below `value`."""
    tail = _beta(freedom / (freedom + value * value), freedom / 2, 0.5) / 2
    return 1 - tail if value > 0 else tail


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function."""
    if x in (0.0, 1.0):
        return x
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + numerator * d)
            c = _away(1 + numerator / c)
            found *= c * d
        if abs(c * d - 1) < _ENOUGH:
            break
    return found


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
