"""Bootstrap intervals of metrics and of the difference of two models on the same rows.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile interval; the paired
form resamples rows once for both models, so that what is hard for both cancels out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everloop.core.errors import DataError
from everloop.models.metrics import Floats, Metric, checked_rows, metric_of

_BLOCK_CELLS = 4_000_000
"""Weights held at once (32 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, its interval at `level`, and how many rows stand behind it."""

    value: float
    low: float
    high: float
    rows: int
    level: float = 0.95

    def __str__(self) -> str:
        """`0.7312 [0.7250, 0.7371]`."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Resampling:
    """How to resample: how often, from which seed, and which rows stay together (an integer a row)."""

    n_boot: int = 1000
    seed: int = 0
    level: float = 0.95
    groups: NDArray[np.int64] | None = None
    """Rows of one group (a day, a customer) are drawn together, because they are alike."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same rows: each one's value, and the improvement (positive: the challenger is better)."""

    champion: float
    challenger: float
    improvement: Interval


def interval(
    name: str,
    truth: Floats,
    score: Floats,
    how: Resampling,
) -> Interval:
    """The metric and its percentile interval.

    Raises `InvalidInput` for an unknown metric, `DataError` for rows on which it has no meaning.
    """
    metric = metric_of(name)
    checked_rows(metric, truth, score)
    value, draws = _draws(metric, truth, (score,), how)
    low, high = _ends(draws[0], how.level, metric.name)
    return Interval(float(value[0]), low, high, len(truth), how.level)


def compare(
    name: str,
    truth: Floats,
    champion: Floats,
    challenger: Floats,
    how: Resampling,
) -> Comparison:
    """Compare two score vectors by the paired bootstrap. Raises as `interval` does."""
    metric = metric_of(name)
    checked_rows(metric, truth, champion)
    checked_rows(metric, truth, challenger)
    value, draws = _draws(metric, truth, (champion, challenger), how)
    sign = 1.0 if metric.higher_is_better else -1.0
    low, high = _ends(sign * (draws[1] - draws[0]), how.level, metric.name)
    improvement = Interval(float(sign * (value[1] - value[0])), low, high, len(truth), how.level)
    return Comparison(float(value[0]), float(value[1]), improvement)


def _draws(
    metric: Metric, truth: Floats, scores: tuple[Floats, ...], how: Resampling
) -> tuple[list[float], list[Floats]]:
    """The metric of each score vector on the rows as they are, and on the resamples shared by all."""
    functions = [metric.prepare(truth, score) for score in scores]
    rows = len(truth)
    members = None if how.groups is None else np.unique(how.groups, return_inverse=True)[1].reshape(-1)
    units = rows if members is None else int(members.max()) + 1
    random = np.random.default_rng(how.seed)
    block = max(1, min(how.n_boot, _BLOCK_CELLS // rows))
    found: list[list[Floats]] = [[] for _ in scores]
    for start in range(0, how.n_boot, block):
        size = min(block, how.n_boot - start)
        weights = np.empty((size, units))
        for line in weights:
            line[:] = np.bincount(random.integers(0, units, units), minlength=units)
        by_row = weights if members is None else weights[:, members]
        for values, function in zip(found, functions, strict=True):
            values.append(function(by_row))
    whole = np.ones((1, rows))
    return [float(f(whole)[0]) for f in functions], [np.concatenate(values) for values in found]


def _ends(draws: Floats, level: float, name: str) -> tuple[float, float]:
    usable = draws[np.isfinite(draws)]
    if len(usable) < 0.9 * len(draws):
        raise DataError(
            f"{name} cannot be resampled: most resamples hold a single class", hint="too few rows of the rarer class"
        )
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
