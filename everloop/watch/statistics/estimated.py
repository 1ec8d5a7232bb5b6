"""Performance without labels, from calibrated scores alone (confidence-based performance estimation).

A calibrated score is the chance of a positive, so the expected confusion matrix, accuracy and AUC follow from
the scores. The assumption is that P(label | features) has not changed: where it has (concept drift), nothing in
the scores shows it. Every estimate therefore says so, and carries its past error once labels arrive.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from everloop.watch.statistics.special import isotonic, normal_quantile

Floats = NDArray[np.float64]

ASSUMPTION = "estimate, assumes no concept drift"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated metric: what labels would show, with the interval that drawing them would give (95 %)."""

    metric: str
    value: float
    low: float
    high: float
    rows: int
    assumption: str = ASSUMPTION

    def body(self) -> dict[str, Any]:
        """JSON-ready; the assumption is always part of it."""
        rounded = {name: round(float(getattr(self, name)), 6) for name in ("value", "low", "high")}
        return {"metric": self.metric, **rounded, "rows": self.rows, "assumption": self.assumption}


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A monotone map from scores to probabilities: steps of isotonic regression, straight in between."""

    scores: Floats
    chances: Floats

    def __call__(self, scores: ArrayLike) -> Floats:
        """Probabilities of these scores; NaN stays NaN."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.chances)

    def body(self) -> dict[str, list[float]]:
        """JSON-ready; `Calibrator.of` reads it."""
        return {"scores": self.scores.tolist(), "chances": self.chances.tolist()}

    @classmethod
    def of(cls, body: dict[str, list[float]]) -> "Calibrator":
        """Read what `body` wrote."""
        return cls(np.array(body["scores"]), np.array(body["chances"]))


def calibrator(scores: ArrayLike, labels: ArrayLike, points: int = 200) -> Calibrator:
    """Fit a calibrator on scores that the model gave to rows it was *not* trained on, with their labels.

    Scores are first averaged in `points` groups of equal size, so that no single row makes a step.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    order = np.argsort(s, kind="stable")
    groups = np.array_split(order, max(1, min(points, s.size // 10)))
    means = np.array([s[g].mean() for g in groups])
    shares = np.array([y[g].mean() for g in groups])
    weights = np.array([float(g.size) for g in groups])
    fitted = isotonic(shares, weights)
    # One row more of each class, spread over the ends: a chance of exactly 0 or 1 would claim to be certain.
    return Calibrator(means, np.clip(fitted, 1 / (s.size + 2), 1 - 1 / (s.size + 2)))


def estimate_accuracy(chances: ArrayLike, threshold: float = 0.5, level: float = 0.95, error: float = 0.0) -> Estimate:
    """Expected accuracy at a threshold; the interval is that of a Poisson-binomial sum, widened by the past `error`."""
    p = np.asarray(chances, dtype=np.float64)
    value = float(np.where(p >= threshold, p, 1 - p).mean())
    spread = float(np.sqrt((p * (1 - p)).sum()) / p.size)
    return _estimate("accuracy", value, spread, p.size, level=level, error=error)


def estimate_auc(scores: ArrayLike, chances: ArrayLike, level: float = 0.95, error: float = 0.0) -> Estimate:
    """Expected AUC of `scores` when each row is positive with its chance.

    U = sum over pairs of p_i (1 - p_j) [s_i > s_j] (ties half), over P Q = sum p times sum (1 - p), a ratio of
    means whose bias is of order 1/n. The interval is the delta method over the independent labels: the derivative of
    the AUC in each label, squared, times p (1 - p). `error` is the mean absolute error of past estimates.
    """
    s, p = np.asarray(scores, dtype=np.float64), np.asarray(chances, dtype=np.float64)
    _, group = np.unique(s, return_inverse=True)
    positives, negatives = np.bincount(group, weights=p), np.bincount(group, weights=1 - p)
    all_positive, all_negative = float(p.sum()), float((1 - p).sum())
    # Mass of negatives below, and of positives above, each row; those of the same score count half.
    below = (np.cumsum(negatives) - negatives / 2)[group] - (1 - p) / 2
    above = (all_positive - np.cumsum(positives) + positives / 2)[group] - p / 2
    value = float((p * below).sum() / (all_positive * all_negative))
    slope = (below - above) / (all_positive * all_negative) - value / all_positive + value / all_negative
    spread = float(np.sqrt((p * (1 - p) * slope**2).sum()))
    return _estimate("roc_auc", value, spread, p.size, level=level, error=error)


def _estimate(metric: str, value: float, spread: float, rows: int, *, level: float, error: float) -> Estimate:
    # A normal error's mean absolute value is 0.8 of its deviation.
    wide = normal_quantile((1 + level) / 2) * float(np.hypot(spread, error / 0.798))
    return Estimate(metric, value, max(0.0, value - wide), min(1.0, value + wide), rows)
