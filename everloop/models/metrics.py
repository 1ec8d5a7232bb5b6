"""Metrics of predictions in numpy, each computed for many row weightings at once (what a bootstrap needs).

Scores are one number a row: the probability of class 1, or the predicted value. Truths are 0/1 or numbers.
`evaluate` gives all that fit a model's output: what its manifest says of its holdout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(score, epsilon, 1 - epsilon)
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
    return _plain(name, truth, score)


PROBABILITY = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy")
"""What is said of probabilities of class 1, beside their calibration error."""
NUMERIC = ("rmse", "mae")
"""What is said of predicted numbers."""


def ece(truth: Floats, score: Floats, bins: int = 10) -> float:
    """Expected calibration error: |mean outcome - mean probability| in `bins` equal-width bins, weighted by rows."""
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.bincount(place, truth - score, minlength=bins)
    return float(np.abs(gap[count > 0]).sum() / len(score))


def evaluate(truth: Any, answer: Any, output: str, classes: Any = None) -> dict[str, float]:
    """Every metric that fits a declared output (see `TrainerDef.output`); rows and undefined metrics aside.

    `classes` are the labels of the columns of `probabilities`, in order. Raises `DataError` when there are no rows,
    the lengths differ, or a `probability` model's label is not 0 or 1.
    """
    answer = np.asarray(answer)
    truth = np.asarray(truth)
    if len(truth) == 0 or len(truth) != len(answer):
        raise DataError(f"{len(truth)} labels for {len(answer)} predictions", hint="is the holdout empty?")
    if output == "class":
        return {"accuracy": float(np.mean(truth == answer))}
    if output == "probabilities":
        return _of_classes(truth, answer, np.asarray(classes if classes is not None else range(answer.shape[1])))
    numbers, scores = truth.astype(np.float64), answer.astype(np.float64)
    if output == "probability" and not np.isin(numbers, (0.0, 1.0)).all():
        raise DataError("the label of a probability model is 0 or 1", hint='declare output="value" for numbers')
    found = {name: _plain(name, numbers, scores) for name in (NUMERIC if output == "value" else PROBABILITY)}
    if output != "value":
        found["ece"] = ece(numbers, scores)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _plain(name: str, truth: Floats, score: Floats) -> float:
    """Of rows that count alike; NaN where the metric is not defined (one class only)."""
    return float(METRICS[name].prepare(truth, score)(np.ones((1, len(truth))))[0])


def _of_classes(truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any]) -> dict[str, float]:
    right = truth[:, None] == classes[None, :]
    epsilon = np.finfo(np.float64).eps
    likelihood = np.clip((probabilities * right).sum(axis=1), epsilon, 1.0)
    guess = classes[np.argmax(probabilities, axis=1)]
    return {"log_loss": float(-np.mean(np.log(likelihood))), "accuracy": float(np.mean(guess == truth))}
