"""Metrics of predictions in numpy: what a model's manifest says of its holdout.

`truth` holds 0/1 (or numbers, for `rmse` and `mae`), `score` the probability of class 1 (or the predicted number);
both have one entry a row. A metric that is not defined for the rows at hand (one class only) is NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from everloop.core.errors import DataError

Floats = NDArray[np.float64]


def roc_auc(truth: Floats, score: Floats) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties count half (Mann-Whitney U)."""
    positive = truth > 0
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = (last - (count - 1) / 2.0)[place]
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2.0) / (n_pos * n_neg))


def pr_auc(truth: Floats, score: Floats) -> float:
    """Average precision: the sum over thresholds of precision times the step in recall, without interpolation."""
    positive = truth > 0
    total = int(positive.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_tie = np.flatnonzero(np.r_[score[order][1:] != score[order][:-1], True])
    precision = hits[last_of_tie] / (last_of_tie + 1.0)
    steps = np.diff(np.r_[0, hits[last_of_tie]]) / total
    return float(np.sum(precision * steps))


def log_loss(truth: Floats, score: Floats) -> float:
    """Mean negative log likelihood in nats; probabilities are kept off 0 and 1 by the float's epsilon."""
    epsilon = np.finfo(np.float64).eps
    kept = np.clip(score, epsilon, 1 - epsilon)
    return float(-np.mean(truth * np.log(kept) + (1 - truth) * np.log1p(-kept)))


def brier(truth: Floats, score: Floats) -> float:
    """Mean squared difference of probability and outcome (Brier 1950, for two classes)."""
    return float(np.mean((score - truth) ** 2))


def ece(truth: Floats, score: Floats, bins: int = 10) -> float:
    """Expected calibration error: |mean outcome - mean probability| in `bins` equal-width bins, weighted by rows."""
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.bincount(place, truth - score, minlength=bins)
    return float(np.abs(gap[count > 0]).sum() / len(score))


def accuracy(truth: Floats, score: Floats, threshold: float = 0.5) -> float:
    """Share of rows whose probability lies on the right side of the threshold (at it counts as class 1)."""
    return float(np.mean((score >= threshold) == (truth > 0)))


def rmse(truth: Floats, score: Floats) -> float:
    """Root of the mean squared error, in the label's unit."""
    return float(np.sqrt(np.mean((score - truth) ** 2)))


def mae(truth: Floats, score: Floats) -> float:
    """Mean absolute error, in the label's unit."""
    return float(np.mean(np.abs(score - truth)))


BINARY = {"roc_auc": roc_auc, "pr_auc": pr_auc, "log_loss": log_loss, "brier": brier, "ece": ece, "accuracy": accuracy}
"""Metrics of probabilities of class 1."""
NUMERIC = {"rmse": rmse, "mae": mae}
"""Metrics of predicted numbers."""


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
    metrics = NUMERIC if output == "value" else BINARY
    found = {name: metric(numbers, scores) for name, metric in metrics.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _of_classes(truth: NDArray[Any], probabilities: Floats, classes: NDArray[Any]) -> dict[str, float]:
    right = truth[:, None] == classes[None, :]
    epsilon = np.finfo(np.float64).eps
    likelihood = np.clip((probabilities * right).sum(axis=1), epsilon, 1.0)
    guess = classes[np.argmax(probabilities, axis=1)]
    return {"log_loss": float(-np.mean(np.log(likelihood))), "accuracy": float(np.mean(guess == truth))}
