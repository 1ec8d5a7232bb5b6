"""Exact nearest neighbours: one matrix product over all vectors, what may be among the best of it scored again.

The product is of single precision, and may differ in its last bits with the number of threads or questions. Its error
has a bound (Higham, Accuracy and Stability of Numerical Algorithms, 3.5): every row that could be among the best within
it is scored again, in double precision, one row at a time, ties by row. So the answer is a function of the vectors and
the question alone, however many rows are equal and however far from zero they lie.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput

Metric = Literal["cosine", "dot", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")
MOST = 1000
_BLOCK = 1 << 24
"""Scores held at a time."""
_ROUNDED = 2.0**-24
"""How far, relatively, one operation of single precision may be off."""
_TINY = 1e-30
"""Below this length, products may underflow and have no such bound."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Index:
    """Vectors in memory (or mapped into it), with what each metric needs of them."""

    vectors: Matrix
    """Shape [rows, dim], float32, C order."""
    lengths: Matrix
    """Euclidean length of each."""

    @classmethod
    def of(cls, vectors: Matrix) -> "Index":
        """An index over vectors; they are not copied."""
        matrix = np.ascontiguousarray(vectors, np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)).astype(np.float32)
        return cls(matrix, lengths)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(
        self, questions: Any, k: int, metric: Metric = "cosine"
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Rows and scores of the `k` nearest of each question, best first; shapes [questions, min(k, rows)].

        Scores: cosine and dot product, larger is nearer; Euclidean distance, smaller is nearer. Raises `InvalidInput`.
        """
        asked = _asked(questions, self.vectors.shape[1], k, metric)
        many, kept = len(asked), min(k, len(self.vectors))
        rows, scores = np.empty((many, kept), np.int64), np.empty((many, kept))
        step = max(1, _BLOCK // max(1, len(self.vectors)))
        for start in range(0, many, step):
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is scored again
                rough = self._rough(asked[start : start + step], metric)
                for place, scored in enumerate(rough, start):
                    likely = self._likely(asked[place], scored, kept, metric)
                    rows[place], scores[place] = self._best(asked[place], likely, kept, metric)
        return rows, scores

    def _rough(self, asked: Matrix, metric: Metric) -> Matrix:
        """Larger is nearer."""
        product: Matrix = asked @ self.vectors.T
        if metric == "cosine":
            np.divide(product, self.lengths, out=product, where=self.lengths > 0)
        elif metric == "euclidean":
            product -= self.lengths * self.lengths / np.float32(2)
        return product

    def _likely(self, question: Matrix, rough: Matrix, kept: int, metric: Metric) -> npt.NDArray[np.int64]:
        """The rows that may be among the `kept` nearest, by what their rough scores may be off."""
        scores = rough.astype(np.float64)
        if not np.isfinite(scores).all():
            return np.arange(len(scores))  # overflow says nothing
        if not kept:
            return np.empty(0, np.int64)
        slack = self._slack(float(np.sqrt((question.astype(np.float64) ** 2).sum())), metric)
        least = np.partition(scores - slack, len(scores) - kept)[len(scores) - kept]
        return np.flatnonzero(scores + slack >= least)

    def _slack(self, asked: float, metric: Metric) -> npt.NDArray[np.float64]:
        if 0 < asked < _TINY:
            return np.full(len(self), np.inf)
        lengths = self.lengths.astype(np.float64)
        product = 1.1 * _ROUNDED * (self.vectors.shape[1] + 8) * asked
        if metric == "cosine":
            return np.where((lengths > 0) & (lengths < _TINY), np.inf, product)
        own = 8 * _ROUNDED if metric == "euclidean" else 0.0
        slack: npt.NDArray[np.float64] = (product + own * lengths) * lengths + _TINY
        return slack

    def _best(
        self, question: Matrix, likely: npt.NDArray[np.int64], kept: int, metric: Metric
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        step = max(1, _BLOCK // max(1, self.vectors.shape[1]))
        parts = [self._scores(question, likely[i : i + step], metric) for i in range(0, len(likely), step)]
        scores = np.concatenate(parts) if parts else np.empty(0)
        order = np.lexsort((likely, scores if metric == "euclidean" else -scores))[:kept]
        return likely[order], scores[order]

    def _scores(self, question: Matrix, rows: npt.NDArray[np.int64], metric: Metric) -> npt.NDArray[np.float64]:
        found, exact = self.vectors[rows].astype(np.float64), question.astype(np.float64)
        if metric == "euclidean":
            far: npt.NDArray[np.float64] = np.sqrt(((found - exact) ** 2).sum(axis=1))
            return far
        scores: npt.NDArray[np.float64] = (found * exact).sum(axis=1)
        if metric == "cosine":
            both = np.sqrt((exact**2).sum()) * np.sqrt((found**2).sum(axis=1))
            scores = np.divide(scores, both, out=np.zeros_like(scores), where=both > 0)
        return scores


class NearestLabel:
    """A model that answers with the label of the nearest vector: exact nearest neighbours in a serving graph.

    `fit(vectors, labels)`, then `predict(vectors)`; a model function may return one. Ties go to the earlier row.
    """

    def __init__(self, metric: Metric = "cosine") -> None:
        """Nothing is known before `fit`."""
        self.metric: Metric = metric

    def fit(self, vectors: Any, labels: Any) -> "NearestLabel":
        """Keep the vectors (float32) and their labels, one a row."""
        self.index, self.labels = Index.of(np.asarray(vectors, np.float32)), np.asarray(labels)
        if len(self.labels) != len(self.index):
            raise InvalidInput(f"{len(self.labels)} labels for {len(self.index)} vectors", hint="one a row")
        return self

    def predict(self, vectors: Any) -> npt.NDArray[Any]:
        """The label of the nearest row of each vector."""
        rows, _ = self.index.nearest(vectors, 1, self.metric)
        found: npt.NDArray[Any] = self.labels[rows[:, 0]]
        return found


def _asked(questions: Any, dim: int, k: int, metric: str) -> Matrix:
    if metric not in METRICS:
        raise InvalidInput(f"{metric!r} is no metric", hint="one of " + ", ".join(METRICS))
    if not 1 <= k <= MOST:
        raise InvalidInput(f"{k} neighbours", hint=f"1 to {MOST}")
    try:
        asked = np.atleast_2d(np.asarray(questions, np.float32))
    except (TypeError, ValueError):
        raise InvalidInput("the question is no vector", hint=f"{dim} numbers") from None
    if asked.ndim != 2 or asked.shape[1] != dim:
        raise InvalidInput(f"the question has shape {list(asked.shape)}", hint=f"vectors here have {dim} numbers")
    if not np.isfinite(asked).all():
        raise InvalidInput("the question holds numbers that are not finite", hint="NaN has no neighbours")
    return asked
