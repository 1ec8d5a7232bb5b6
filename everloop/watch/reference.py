"""What training looked like, column by column, and the counts of a window in the same cells.

A numeric column has 256 cells bounded by quantiles of the reference, so counts of hours, days and weeks
merge exactly, without sketch error, in 2 KB. A column of few whole numbers has a cell for each. A
categorical column has a cell for each level, and one for levels beyond the most frequent and for unseen ones.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from everloop.core.errors import DataError

Kind = Literal["numeric", "discrete", "levels"]
Values = NDArray[Any]
_MARGIN = 0.05
"""By how much of its width a value must lie beyond the range of training to count as outside."""
SCORE = "prediction"
"""The name under which the model's output is watched, as one more column."""

_CELLS = 256
_FEW = 20
_MOST_LEVELS = 500
_PROBABILITIES = (np.arange(129) + 0.5) / 129


@dataclass(frozen=True, slots=True)
class Counts:
    """One column of one window: `cells` (int64), what did not fit, and 129 of its own quantiles.

    The quantiles are there to name a change of unit, which throws everything into the last cell.
    """

    cells: NDArray[np.int64]
    nulls: int = 0
    invalid: int = 0
    """Values of a wrong type: text in a numeric column."""
    low: float = float("nan")
    high: float = float("nan")
    outside: int = 0
    """Values beyond the reference's smallest and largest."""
    quantiles: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    unseen: Mapping[str, int] = field(default_factory=dict)

    @property
    def present(self) -> int:
        """Values that fell into a cell."""
        return int(self.cells.sum())

    @property
    def rows(self) -> int:
        """All rows, nulls and values of a wrong type among them."""
        return self.present + self.nulls + self.invalid

    def merge(self, other: "Counts") -> "Counts":
        """Counts of both windows together; exact but for the quantiles (rank error below 1 %)."""
        unseen = dict(self.unseen)
        for level, count in other.unseen.items():
            unseen[level] = unseen.get(level, 0) + count
        return Counts(
            cells=self.cells + other.cells,
            nulls=self.nulls + other.nulls,
            invalid=self.invalid + other.invalid,
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            outside=self.outside + other.outside,
            quantiles=_merged_quantiles((self.quantiles, self.present), (other.quantiles, other.present)),
            unseen=unseen,
        )


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the reference: how values fall into cells, and how often they did in training."""

    name: str
    kind: Kind
    counts: Counts
    edges: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Upper bounds of all cells but the last (numeric and discrete)."""
    levels: tuple[str, ...] = ()

    @property
    def null_share(self) -> float:
        """Share of nulls among all rows."""
        return self.counts.nulls / max(1, self.counts.rows)

    def quantile(self, *probabilities: float) -> NDArray[np.float64]:
        """Quantiles of the reference; NaN for levels."""
        if self.counts.quantiles.size == 0:
            return np.full(len(probabilities), np.nan)
        return np.interp(probabilities, _PROBABILITIES, self.counts.quantiles)

    def count(self, values: Any) -> Counts:
        """Count values in this column's cells; None and NaN are nulls."""
        if self.kind == "levels":
            return _count_levels(self.levels, array_of(values))
        numbers, nulls, invalid = _numbers(array_of(values))
        # the range was learned, not declared: a record set by a little is no violation
        margin = _MARGIN * (self.counts.high - self.counts.low)
        bounds = (self.counts.low - margin, self.counts.high + margin)
        return _count_numbers(self.edges, numbers, nulls, invalid, bounds)


@dataclass(frozen=True, slots=True)
class Reference:
    """The columns of a training frame (and of the model's scores on it) that windows are compared with."""

    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        """Rows of the largest column."""
        return max((c.counts.rows for c in self.columns.values()), default=0)

    def count(self, frame: Any) -> dict[str, Counts]:
        """Counts of a window for every column of the reference that the window has."""
        window = columns_of(frame)
        return {name: column.count(window[name]) for name, column in self.columns.items() if name in window}

    def to_json(self) -> bytes:
        """A JSON object to store; `from_json` reads it."""
        body = {name: _column_body(column) for name, column in self.columns.items()}
        return json.dumps({"schema": 1, "columns": body}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Reference":
        """Read what `to_json` wrote; raises `DataError`."""
        try:
            body = dict(json.loads(content)["columns"])
            return cls({name: _column_from(name, part) for name, part in body.items()})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"this object is no training reference: {error}") from error


def profile(frame: Any, skip: Iterable[str] = ()) -> Reference:
    """The reference of a training frame (polars, Arrow, pandas, or a mapping of arrays).

    Times, lists and columns in `skip` (keys, labels) are left out. A column without any value is left out too:
    it says nothing about what is usual.
    """
    leave = set(skip)
    found = (_column(name, values) for name, values in columns_of(frame).items() if name not in leave)
    return Reference({column.name: column for column in found if column is not None})


_SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN_LEVELS = 8
_NO_SHARE = 1e-9
"""What is left of shares that add up to one."""


def beside(column: Column, window: Counts, *, values: bool = True) -> dict[str, Any]:
    """Training and a window beside each other, JSON-ready: shares of nulls; quantiles, or the most frequent levels.

    Of both there are two lists, training's first. Without `values` only nulls are told: for columns whose values
    somebody may not see.
    """
    rows = max(1, window.rows)
    told: dict[str, Any] = {"nulls": [_share(column.null_share), _share(window.nulls / rows)]}
    if not values or not window.present:
        return told
    if column.kind == "levels":
        cells = [(column.counts.cells / max(1, column.counts.present)), (window.cells / window.present)]
        most = np.argsort(-np.maximum(*cells)[:-1], kind="stable")[:_SHOWN_LEVELS].tolist()
        rest = [_share(1.0 - float(part[most].sum())) for part in cells]
        levels = [[column.levels[i], *(_share(float(part[i])) for part in cells)] for i in most]
        return told | {"levels": levels, "others": rest}
    now = np.interp(_SHOWN, _PROBABILITIES, window.quantiles)
    quantiles = [[float(f"{q:.6g}") for q in part] for part in (column.quantile(*_SHOWN), now)]
    return told | {"quantiles": quantiles, "probabilities": list(_SHOWN)}


def _share(share: float) -> float:
    return float(f"{share:.4g}") if share > _NO_SHARE else 0.0


def columns_of(frame: Any) -> dict[str, Values]:
    """The columns of a frame as numpy arrays (objects where text or mixed); copies as little as it can."""
    if isinstance(frame, Mapping):
        return {str(name): array_of(values) for name, values in frame.items()}
    if hasattr(frame, "column_names"):  # Arrow
        return {n: frame.column(n).to_numpy() for n in frame.column_names}
    if hasattr(frame, "get_columns"):  # polars
        return {series.name: series.to_numpy() for series in frame.get_columns()}
    if hasattr(frame, "columns"):  # pandas
        return {str(n): frame[n].to_numpy() for n in frame.columns}
    raise DataError(
        f"{type(frame).__name__} is not a table", hint="a polars, Arrow or pandas frame, or columns by name"
    )


def array_of(values: Any) -> Values:
    """One column as an array; lists that mix numbers with None become numbers with NaN."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    items = list(values)
    if any(isinstance(v, str | bool) for v in items) or all(v is None for v in items):
        return np.array(items, dtype=object)
    return np.array([np.nan if v is None else v for v in items])


def _column(name: str, values: Values) -> Column | None:
    if values.dtype.kind in "mMV" or values.ndim != 1:
        return None
    if values.dtype.kind in "OUSb":
        present = [str(v) for v in values if not _is_null(v)]
        if not present or (values.dtype.kind == "O" and any(isinstance(v, list | dict | np.ndarray) for v in values)):
            return None
        if values.dtype.kind != "O" or not all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values if not _is_null(v)
        ):
            names, counts = np.unique(np.array(present), return_counts=True)
            order = np.lexsort((names, -counts))[:_MOST_LEVELS]
            levels = tuple(str(n) for n in names[order])
            return Column(name, "levels", _count_levels(levels, values), levels=levels)
    numbers, nulls, invalid = _numbers(values)
    if numbers.size == 0:
        return None
    distinct = np.unique(numbers[:100_000])
    few = distinct.size <= _FEW and bool(np.all(distinct == np.rint(distinct)))
    if few:
        edges = np.unique(numbers)[:-1] if numbers.size > 100_000 else distinct[:-1]
    else:
        edges = np.unique(np.quantile(numbers, np.arange(1, _CELLS) / _CELLS, method="inverted_cdf"))
    bounds = (float(numbers.min()), float(numbers.max()))
    counts_ = _count_numbers(edges, numbers, nulls, invalid, bounds)
    return Column(name, "discrete" if few else "numeric", counts_, edges=edges)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN is the value unlike itself


def _numbers(values: Values) -> tuple[NDArray[np.float64], int, int]:
    """Finite numbers, how many are null, how many are of another type (infinities among them)."""
    if values.dtype.kind in "OUS":
        converted, nulls = np.empty(values.size), 0
        for i, value in enumerate(values):
            if _is_null(value):
                nulls += 1
                converted[i] = np.nan
                continue
            converted[i] = float(value) if isinstance(value, int | float | np.number) else np.inf
    else:
        converted = values.astype(np.float64)
        nulls = int(np.isnan(converted).sum())
    finite = converted[np.isfinite(converted)]
    return finite, nulls, int(converted.size - nulls - finite.size)


def _count_numbers(
    edges: NDArray[np.float64],
    numbers: NDArray[np.float64],
    nulls: int,
    invalid: int,
    bounds: tuple[float, float],
) -> Counts:
    # A cell ends *at* its edge, so a spike at one value is never split.
    cells = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=edges.size + 1).astype(np.int64)
    if numbers.size == 0:
        return Counts(cells, nulls, invalid)
    return Counts(
        cells=cells,
        nulls=nulls,
        invalid=invalid,
        low=float(numbers.min()),
        high=float(numbers.max()),
        outside=int(((numbers < bounds[0]) | (numbers > bounds[1])).sum()),
        quantiles=np.quantile(numbers, _PROBABILITIES),
    )


def _count_levels(levels: Sequence[str], values: Values) -> Counts:
    place = {level: i for i, level in enumerate(levels)}
    cells = np.zeros(len(levels) + 1, dtype=np.int64)
    unseen: dict[str, int] = {}
    nulls = 0
    present: list[str] = []
    for value in values.tolist():
        if _is_null(value):
            nulls += 1
        else:
            present.append(str(value))
    for name, count in Counter(present).items():
        cells[place.get(name, -1)] += count
        if name not in place:
            unseen[name] = count
    return Counts(cells, nulls, unseen=unseen)


def _merged_quantiles(*parts: tuple[NDArray[np.float64], int]) -> NDArray[np.float64]:
    filled = [(q, n) for q, n in parts if q.size and n]
    if not filled:
        return np.empty(0)
    points = np.concatenate([q for q, _ in filled])
    weights = np.concatenate([np.full(q.size, n / q.size) for q, n in filled])
    order = np.argsort(points, kind="stable")
    ranks = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    return np.asarray(np.interp(_PROBABILITIES, ranks, points[order]))


def _column_body(column: Column) -> dict[str, Any]:
    counts = column.counts
    return {
        "kind": column.kind,
        "edges": column.edges.tolist(),
        "levels": list(column.levels),
        "cells": counts.cells.tolist(),
        "nulls": counts.nulls,
        "invalid": counts.invalid,
        "low": None if np.isnan(counts.low) else counts.low,
        "high": None if np.isnan(counts.high) else counts.high,
        "quantiles": counts.quantiles.tolist(),
    }


def _column_from(name: str, body: Mapping[str, Any]) -> Column:
    counts = Counts(
        cells=np.array(body["cells"], dtype=np.int64),
        nulls=body["nulls"],
        invalid=body["invalid"],
        low=float("nan") if body["low"] is None else body["low"],
        high=float("nan") if body["high"] is None else body["high"],
        quantiles=np.array(body["quantiles"], dtype=np.float64),
    )
    return Column(name, body["kind"], counts, np.array(body["edges"], dtype=np.float64), tuple(body["levels"]))
