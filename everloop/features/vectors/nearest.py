"""Exact nearest neighbours: one matrix product over all vectors, the best of it scored again, row by row.

The product may differ in its last bits with the number of threads or questions; which rows win, and in what order, is
decided by the second score: double precision, one row at a time, ties by row. So the answer is a function of the
vectors and the question alone.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput

Metric = Literal["cosine", "dot", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")
MOST = 1000
_SPARE = 32
"""Candidates beyond `k` that are scored again."""
_BLOCK = 1 << 24
"""Scores held at a time."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Index:
    """Vectors in memory (or mapped into it), with what each metric needs of them."""

    vectors: Matrix
    """Shape [rows, dim], float32, C order."""
    lengths: Matrix
    """Euclidean length of each, never 0: 1 stands in for it."""

    @classmethod
    def of(cls, vectors: Matrix) -> "Index":
        """An index over vectors; they are not copied."""
        matrix = np.ascontiguousarray(vectors, np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)).astype(np.float32)
        return cls(matrix, np.where(lengths > 0, lengths, np.float32(1)))

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
            rough = self._rough(asked[start : start + step], metric)
            for place, likely in enumerate(rough, start):
                rows[place], scores[place] = self._best(asked[place], likely, kept, metric)
        return rows, scores

    def _rough(self, asked: Matrix, metric: Metric) -> Matrix:
        """Larger is nearer."""
        product: Matrix = asked @ self.vectors.T
        if metric == "cosine":
            product /= self.lengths
        elif metric == "euclidean":
            product -= self.lengths * self.lengths / np.float32(2)
        return product

    def _best(
        self, question: Matrix, likely: Matrix, kept: int, metric: Metric
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        most = min(len(likely), kept + _SPARE)
        near = np.argpartition(likely, len(likely) - most)[len(likely) - most :] if most else np.empty(0, np.int64)
        found = self.vectors[near].astype(np.float64)
        exact = question.astype(np.float64)
        if metric == "euclidean":
            scores = np.sqrt(((found - exact) ** 2).sum(axis=1))
            order = np.lexsort((near, scores))[:kept]
        else:
            scores = (found * exact).sum(axis=1)
            if metric == "cosine":
                own, theirs = np.sqrt((exact**2).sum()), np.sqrt((found**2).sum(axis=1))
                scores = np.divide(scores, own * theirs, out=np.zeros_like(scores), where=own * theirs > 0)
            order = np.lexsort((near, -scores))[:kept]
        return near[order], scores[order]


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
