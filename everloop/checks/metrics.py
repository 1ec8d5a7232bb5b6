"""Metrics of predictions, each computed for many row weightings at once (what a bootstrap needs).

Scores are one number a row: the probability of class 1, or the predicted value. Truths are 0/1 or numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everloop.core.errors import DataError, InvalidInput

Floats = NDArray[np.float64]
Weights = NDArray[np.float64]
"""Row weights, one weighting a row of the matrix: shape (weightings, rows)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`prepare(truth, score)` returns a function from weights (B, n) to B values."""

    name: str
    prepare: Callable[[Floats, Floats], Callable[[Weights], Floats]]
    higher_is_better: bool
    binary: bool = True
    """Whether the truth must be 0 or 1."""


def _mean_of(loss: Callable[[Floats, Floats], Floats], *, root: bool = False) -> Callable[..., Callable[..., Floats]]:
    def prepare(truth: Floats, score: Floats) -> Callable[[Weights], Floats]:
        each = loss(truth, score)

        def value(weights: Weights) -> Floats:
            mean = weights @ each / weights.sum(axis=1)
            return np.asarray(np.sqrt(mean) if root else mean)

        return value

    return prepare


def _log_loss(truth: Floats, score: Floats) -> Floats:
    clipped = np.clip(score, 1e-15, 1 - 1e-15)
    return np.asarray(-(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped)))


def _roc_auc(truth: Floats, score: Floats) -> Callable[[Weights], Floats]:
    """Weighted area under the ROC curve: the chance that a positive outranks a negative, ties count half."""
    order = np.argsort(score, kind="stable")
    positive = truth[order]
    ranked = score[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    tied = len(starts) < len(ranked)

    def value(weights: Weights) -> Floats:
        sorted_weights = weights[:, order]
        up = sorted_weights * positive
        down = sorted_weights - up
        if tied:
            up, down = (np.add.reduceat(side, starts, axis=1) for side in (up, down))
        below = np.cumsum(down, axis=1) - 0.5 * down
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1)))

    return value


def _average_precision(truth: Floats, score: Floats) -> Callable[[Weights], Floats]:
    """Weighted average precision: sum of precision over the steps of recall, ties taken together."""
    order = np.argsort(-score, kind="stable")
    positive, ranked = truth[order], score[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])

    def value(weights: Weights) -> Floats:
        sorted_weights = weights[:, order]
        hits = np.cumsum(sorted_weights * positive, axis=1)[:, ends]
        seen = np.cumsum(sorted_weights, axis=1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(seen > 0, hits / np.maximum(seen, 1e-300), 0.0)
            return np.asarray((gained * precision).sum(axis=1) / hits[:, -1])

    return value


def _r2(truth: Floats, score: Floats) -> Callable[[Weights], Floats]:
    squared = (truth - score) ** 2

    def value(weights: Weights) -> Floats:
        total = weights.sum(axis=1)
        mean = weights @ truth / total
        spread = weights @ (truth * truth) / total - mean * mean
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1.0 - (weights @ squared / total) / spread)

    return value


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("roc_auc", _roc_auc, higher_is_better=True),
        Metric("average_precision", _average_precision, higher_is_better=True),
        Metric("pr_auc", _average_precision, higher_is_better=True),
        Metric("log_loss", _mean_of(_log_loss), higher_is_better=False),
        Metric("brier", _mean_of(lambda t, s: (t - s) ** 2), higher_is_better=False),
        Metric("accuracy", _mean_of(lambda t, s: ((s >= 0.5) == (t >= 0.5)).astype(float)), higher_is_better=True),
        Metric("mae", _mean_of(lambda t, s: np.abs(t - s)), higher_is_better=False, binary=False),
        Metric("mse", _mean_of(lambda t, s: (t - s) ** 2), higher_is_better=False, binary=False),
        Metric("rmse", _mean_of(lambda t, s: (t - s) ** 2, root=True), higher_is_better=False, binary=False),
        Metric("r2", _r2, higher_is_better=True, binary=False),
    )
}
"""The metrics by name. `pr_auc` is another name of `average_precision`; `accuracy` counts a score of 0.5 as class 1."""


def metric_of(name: str) -> Metric:
    """The metric of that name; raises `InvalidInput`."""
    if name not in METRICS:
        raise InvalidInput(f"{name!r} is not a metric", hint="one of " + ", ".join(METRICS))
    return METRICS[name]


def checked_rows(metric: Metric, truth: Floats, score: Floats) -> None:
    """Raise `DataError` when the metric has no meaning on these rows."""
    if truth.shape != score.shape or truth.ndim != 1:
        raise DataError(f"{metric.name}: {truth.shape} truths for {score.shape} scores", hint="one number a row")
    if not len(truth):
        raise DataError(f"{metric.name}: there are no rows with a label", hint="is the holdout longer than the data?")
    if not (np.isfinite(truth).all() and np.isfinite(score).all()):
        raise DataError(f"{metric.name}: a score or label is not a finite number", hint="the model answered NaN")
    if metric.binary and not np.isin(truth, (0.0, 1.0)).all():
        raise DataError(f"{metric.name} needs labels 0 and 1", hint="for numbers use rmse, mae or r2")
    if metric.binary and metric.name in ("roc_auc", "average_precision", "pr_auc") and len(np.unique(truth)) < 2:
        raise DataError(f"{metric.name}: all labels are {truth[0]:g}", hint="the rows need both classes")


def measure(name: str, truth: Floats, score: Floats) -> float:
    """One value of a metric; raises `InvalidInput` and `DataError`."""
    metric = metric_of(name)
    checked_rows(metric, truth, score)
    return float(metric.prepare(truth, score)(np.ones((1, len(truth))))[0])
