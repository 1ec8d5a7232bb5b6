"""What an endpoint was asked and answered in a stretch of time, read back from the prediction log."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everloop.catalog.context import Context
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label
from everloop.core.clock import Micros
from everloop.serving import reading

Floats = NDArray[np.float64]

_OURS = frozenset({"prediction_id", "at", "recorded", "revision", "micros", "fallback", "label", "label_at"})
"""Columns of a window that are about the prediction, not of it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Rows in the order of time. Inputs are those that the model saw: request columns and looked-up features."""

    ids: tuple[str, ...]
    at: NDArray[np.int64]
    revisions: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    scores: Floats
    """The model's answer as one number a row (the positive class's probability, or the value); NaN where it is none."""

    @property
    def rows(self) -> int:
        """How many predictions."""
        return len(self.ids)

    def revision(self) -> str:
        """The revision that answered most rows; empty when there are none."""
        counts = Counter(self.revisions)
        return max(counts, key=lambda name: (counts[name], name), default="")

    def answered_by(self, revision: str) -> "Observed":
        """Only the rows that one revision answered: two models' scores do not mix."""
        kept = np.array([r == revision for r in self.revisions], dtype=bool)
        return Observed(
            tuple(i for i, keep in zip(self.ids, kept, strict=True) if keep),
            self.at[kept],
            (revision,) * int(kept.sum()),
            {name: values[kept] for name, values in self.columns.items()},
            self.scores[kept],
        )


def observe(ctx: Context, endpoint: str, start: Micros, until: Micros) -> Observed:
    """Predictions with start <= at < until. Raises `NotFound` when their log is gone."""
    frame = reading.window(ctx, endpoint, start, until)
    if frame.is_empty():
        return Observed((), np.empty(0, dtype=np.int64), (), {}, np.empty(0))
    answers = [name for name in frame.columns if name == "answer" or name.startswith("answer_")]
    scores = [score_of(values) for values in zip(*(frame[name].to_list() for name in answers), strict=True)]
    return Observed(
        tuple(frame["prediction_id"]),
        frame["at"].dt.epoch("us").to_numpy(),
        tuple(frame["revision"]),
        {name: frame[name].to_numpy() for name in frame.columns if name not in _OURS and name not in answers},
        np.array(scores, dtype=np.float64),
    )


def labels_of(ctx: Context, observed: Observed, known: Micros) -> tuple[Floats, Floats]:
    """Label of each row and when it was known, as of event time `known`; NaN where there is none, or no number."""
    with ctx.read() as tx:
        found = predictions.labels_of(tx, ctx.project, observed.ids, known=known)
    values = np.array([_number(found.get(identity)) for identity in observed.ids], dtype=np.float64)
    moments = np.array(
        [float(found[identity].at) if identity in found else np.nan for identity in observed.ids], dtype=np.float64
    )
    return values, moments


def score_of(answers: tuple[Any, ...]) -> float:
    """One number for a row's answer: of two class probabilities the last one; NaN for text or more classes."""
    for answer in answers:
        value = answer[-1] if isinstance(answer, list) and 1 <= len(answer) <= 2 else answer
        if isinstance(value, bool | int | float):
            return float(value)
    return float("nan")


def _number(label: Label | None) -> float:
    if label is None or not isinstance(label.value, bool | int | float):
        return float("nan")
    return float(label.value)
