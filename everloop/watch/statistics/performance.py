"""How well the model really did, once late labels joined their predictions.

Only cohorts past the label's maturity age are judged: early outcomes are not like late ones. Every figure comes
with an interval, and an objective is breached only when its whole interval is on the wrong side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput
from everloop.watch.statistics.special import chi_squared_above, log_odds, logistic, normal_quantile

Floats = NDArray[np.float64]
Standing = Literal["met", "breached", "uncertain", "unknown"]

_LEAST_LABELS = 30
_LEAST_OF_A_CLASS = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric with its interval (95 % unless asked otherwise) over `rows` labelled predictions."""

    metric: str
    value: float
    low: float
    high: float
    rows: int

    def body(self) -> dict[str, Any]:
        """JSON-ready."""
        rounded = {name: round(float(getattr(self, name)), 6) for name in ("value", "low", "high")}
        return {"metric": self.metric, **rounded, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class Cohort:
    """Predictions of a window, as far as their outcome may be judged.

    `mature` marks those older than the label's delay; `labelled` those whose label had arrived. A mature
    prediction without label (a cancelled flight, an application that was refused) never gets one.
    """

    scores: Floats
    labels: Floats
    """NaN where there is none yet."""
    mature: NDArray[np.bool_]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Mature and labelled."""
        return self.mature & ~np.isnan(self.labels)

    @property
    def coverage(self) -> float:
        """Share of the mature predictions that have a label; NaN when none is mature."""
        mature = int(self.mature.sum())
        return float(self.judged.sum() / mature) if mature else float("nan")


def cohort(
    at: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    recorded: ArrayLike,
    *,
    delay: Micros,
    known: Micros,
) -> Cohort:
    """What could be judged at time `known`: labels recorded later count as absent, younger predictions as immature.

    With `known` at the end of the window plus the delay this is "as known then"; with now, "as known now". `at` and
    `recorded` are microseconds; `recorded` is anything where the label is NaN.
    """
    moments, arrived = np.asarray(at, dtype=np.int64), np.asarray(recorded, dtype=np.float64)
    values = np.asarray(labels, dtype=np.float64)
    there = ~np.isnan(values) & (np.nan_to_num(arrived, nan=np.inf) <= known)
    return Cohort(np.asarray(scores, dtype=np.float64), np.where(there, values, np.nan), moments <= known - delay)


def maturity(at: ArrayLike, recorded: ArrayLike, now: Micros, ages: ArrayLike) -> Floats:
    """Share of labels that arrive within each age (microseconds): Kaplan-Meier, so young predictions count rightly.

    `recorded` is NaN for labels that did not arrive yet: those predictions are censored at their age now.
    """
    start, end = np.asarray(at, dtype=np.float64), np.asarray(recorded, dtype=np.float64)
    arrived = ~np.isnan(end)
    age = np.where(arrived, end, now) - start
    order = np.lexsort((~arrived, age))  # at equal ages arrivals count before those who leave unlabelled
    at_risk = np.arange(age.size, 0, -1)
    # Equal ages one after the other: the product over them telescopes to the same value.
    surviving = np.cumprod(np.where(arrived[order], 1 - 1 / at_risk, 1.0))
    place = np.searchsorted(age[order], np.asarray(ages, dtype=np.float64), side="right")
    return 1 - np.concatenate([[1.0], surviving])[place]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve by ranks, ties half; NaN when a class is missing."""
    y, s = np.asarray(labels) > 0.5, np.asarray(scores, dtype=np.float64)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        return float("nan")
    return float((midranks(s)[y].sum() - positive * (positive + 1) / 2) / (positive * negative))


def delong(labels: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Figure:
    """AUC with DeLong's interval on the logit scale (DeLong 1988 by the ranks of Sun and Xu 2014)."""
    y, s = np.asarray(labels) > 0.5, np.asarray(scores, dtype=np.float64)
    m, n = int(y.sum()), int((~y).sum())
    value = auc(y, s)
    if min(m, n) < 2:
        return Figure("roc_auc", value, 0.0, 1.0, m + n)
    every = midranks(s)
    over_negatives = (every[y] - midranks(s[y])) / n
    over_positives = 1 - (every[~y] - midranks(s[~y])) / m
    spread = float(np.sqrt(over_negatives.var(ddof=1) / m + over_positives.var(ddof=1) / n))
    low, high = _logit_interval(value, spread, level)
    return Figure("roc_auc", value, low, high, m + n)


def midranks(values: ArrayLike) -> Floats:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)


def _accuracy(y: Floats, s: Floats) -> float:
    return float(((s >= 0.5) == (y > 0.5)).mean())


def _precision(y: Floats, s: Floats) -> float:
    called = s >= 0.5
    return float((y[called] > 0.5).mean()) if called.any() else float("nan")


def _recall(y: Floats, s: Floats) -> float:
    real = y > 0.5
    return float((s[real] >= 0.5).mean()) if real.any() else float("nan")


def _f1(y: Floats, s: Floats) -> float:
    hits = ((s >= 0.5) & (y > 0.5)).sum()
    return float(2 * hits / max(1, (s >= 0.5).sum() + (y > 0.5).sum()))


def _log_loss(y: Floats, s: Floats) -> float:
    p = np.clip(s, 1e-12, 1 - 1e-12)
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


METRICS: dict[str, tuple[Callable[[Floats, Floats], float], bool]] = {
    "roc_auc": (auc, True),
    "accuracy": (_accuracy, True),
    "precision": (_precision, True),
    "recall": (_recall, True),
    "f1": (_f1, True),
    "log_loss": (_log_loss, False),
    "brier": (lambda y, s: float(((s - y) ** 2).mean()), False),
    "rmse": (lambda y, s: float(np.sqrt(((s - y) ** 2).mean())), False),
    "mae": (lambda y, s: float(np.abs(s - y).mean()), False),
    "r2": (lambda y, s: float(1 - ((s - y) ** 2).sum() / max(1e-300, ((y - y.mean()) ** 2).sum())), True),
}
"""Metric -> (function of labels and scores, whether larger is better)."""


def measure(
    metric: str,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 300,
) -> Figure | None:
    """A metric with its interval: DeLong for AUC, bootstrap percentiles otherwise.

    None when there are too few labels (30, and 5 of each class for AUC). Raises `InvalidInput` for an unknown metric.
    """
    if metric not in METRICS:
        raise InvalidInput(f"{metric!r} is not a metric that is watched", hint="one of " + ", ".join(METRICS))
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.size < _LEAST_LABELS:
        return None
    if metric == "roc_auc":
        positive = int((y > 0.5).sum())
        return delong(y, s, level) if min(positive, y.size - positive) >= _LEAST_OF_A_CLASS else None
    function, _ = METRICS[metric]
    value = function(y, s)
    draws = rng.integers(0, y.size, size=(resamples, y.size))
    drawn = np.array([function(y[i], s[i]) for i in draws])
    if np.isnan(value) or np.isnan(drawn).all():
        return None
    low, high = np.nanquantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return Figure(metric, value, float(low), float(high), y.size)


def standing(figure: Figure | None, *, at_least: float | None = None, at_most: float | None = None) -> Standing:
    """Where a figure stands to an objective: `breached` or `met` only when the whole interval says so."""
    if figure is None:
        return "unknown"
    if (at_least is not None and figure.high < at_least) or (at_most is not None and figure.low > at_most):
        return "breached"
    if (at_least is None or figure.low >= at_least) and (at_most is None or figure.high <= at_most):
        return "met"
    return "uncertain"


@dataclass(frozen=True, slots=True)
class CalibrationDrift:
    """Whether scores still mean what they say, as probabilities."""

    intercept: float
    slope: float
    """Of labels on logit(score); 0 and 1 when calibrated. Below 1: too sure of itself."""
    p: float
    """Wald test of (0, 1), two degrees of freedom."""
    ece: float
    """Root mean squared calibration error, less its bias (Kumar et al. 2019); 0 to 1."""
    rows: int

    def body(self) -> dict[str, Any]:
        """JSON-ready."""
        figures: Mapping[str, float] = {"intercept": self.intercept, "slope": self.slope, "p": self.p, "ece": self.ece}
        return {**{name: float(f"{value:.4g}") for name, value in figures.items()}, "rows": self.rows}


def calibration(labels: ArrayLike, scores: ArrayLike, bins: int = 15) -> CalibrationDrift | None:
    """Logistic recalibration with its Wald test, and the debiased error; None with fewer than 5 of a class.

    Newton's method; labels are 0 and 1, scores probabilities (clipped at 1e-6).
    """
    y, p = np.asarray(labels, dtype=np.float64), np.clip(np.asarray(scores, dtype=np.float64), 1e-6, 1 - 1e-6)
    positive = int((y > 0.5).sum())
    if min(positive, y.size - positive) < _LEAST_OF_A_CLASS:
        return None
    design = np.column_stack([np.ones(y.size), log_odds(p)])
    weights = np.array([0.0, 1.0])
    information = np.eye(2)
    for _ in range(25):
        fitted = logistic(design @ weights)
        information = (design * (fitted * (1 - fitted))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (y - fitted))
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    away = weights - np.array([0.0, 1.0])
    chance = float(chi_squared_above(2, float(away @ information @ away)))
    return CalibrationDrift(float(weights[0]), float(weights[1]), chance, _ece(y, p, bins), y.size)


def _ece(y: Floats, p: Floats, bins: int) -> float:
    order = np.argsort(p, kind="stable")
    squared = 0.0
    for part in np.array_split(order, min(bins, max(1, y.size // 20))):
        mean = float(y[part].mean())
        noise = mean * (1 - mean) / max(1, part.size - 1)
        squared += part.size / y.size * ((mean - float(p[part].mean())) ** 2 - noise)
    return float(np.sqrt(max(0.0, squared)))


def _logit_interval(value: float, spread: float, level: float) -> tuple[float, float]:
    """Interval of a share, symmetric on the logit scale so that it stays within 0 and 1."""
    z = normal_quantile((1 + level) / 2)
    if not 0 < value < 1:
        return max(0.0, value - z * spread), min(1.0, value + z * spread)
    wide = z * spread / (value * (1 - value))
    return float(logistic(log_odds(value) - wide)), float(logistic(log_odds(value) + wide))
