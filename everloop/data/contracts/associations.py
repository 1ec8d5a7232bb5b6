"""How columns go together, on a sample of a version: Pearson's r of numbers, Cramer's V of values.

The sample is stated with the figures. Rows of a table with a key lie in the order of hashes of their keys, so the
first rows of some parts are a fair sample; of a table without one they are its first rows. Columns with a tag are
left out.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

SAMPLED_PARTS = 8
SAMPLED_ROWS = 10_000
_COLUMNS = 24
"""Columns of each kind, at most."""
_VALUES = 50
"""A column of texts with more different values than this is no category."""
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def associations(files: Sequence[Path], tags: Mapping[str, str]) -> dict[str, Any]:
    """`{rows, numbers: {columns, pairs}, values: {columns, pairs}}`; a pair is [column, column, figure].

    Pearson's r is over rows where both are there; Cramer's V is corrected for bias (Bergsma 2013).
    """
    frame = pl.concat(_sample(files), how="vertical_relaxed")
    shown = [name for name in frame.columns if name not in tags]
    numbers = [n for n in shown if frame[n].dtype.is_numeric() and frame[n].n_unique() > 1][:_COLUMNS]
    texts = [n for n in shown if frame[n].dtype in (pl.String, pl.Boolean)]
    values = [n for n in texts if 1 < frame[n].drop_nulls().n_unique() <= _VALUES][:_COLUMNS]
    columns = {n: frame[n].cast(pl.Float64).fill_null(float("nan")).to_numpy() for n in numbers}
    return {
        "rows": len(frame),
        "numbers": {"columns": numbers, "pairs": _pairs(numbers, lambda a, b: pearson(columns[a], columns[b]))},
        "values": {"columns": values, "pairs": _pairs(values, lambda a, b: cramers_v(frame[a], frame[b]))},
    }


def pearson(a: Numbers, b: Numbers) -> float | None:
    """The correlation over the places where both are finite; None where one of them does not vary there."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return None
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale else None


def cramers_v(a: pl.Series, b: pl.Series) -> float | None:
    """The association of two columns of values, from 0 (none) to 1, corrected for bias; nulls do not count."""
    pairs = pl.DataFrame({"a": a, "b": b}).drop_nulls()
    n = len(pairs)
    left, right = (pairs[side].rank("dense").to_numpy().astype(np.intp) - 1 for side in ("a", "b"))
    if n < 2 or not left.any() or not right.any():
        return None
    table = np.zeros((int(left.max()) + 1, int(right.max()) + 1))
    np.add.at(table, (left, right), 1.0)
    wanted = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    phi = float(((table - wanted) ** 2 / wanted).sum()) / n
    r, k = table.shape
    phi = max(0.0, phi - (r - 1) * (k - 1) / (n - 1))
    least = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, phi / least))) if least > 0 else None


def _pairs(columns: list[str], figure: Any) -> list[list[Any]]:
    found = [(a, b, figure(a, b)) for a, b in combinations(columns, 2)]
    return [[a, b, round(value, 4)] for a, b, value in found if value is not None]


def _sample(files: Sequence[Path]) -> list[pl.DataFrame]:
    each = max(1, SAMPLED_ROWS // max(len(files), 1))
    found = []
    for file in files:
        with pq.ParquetFile(file) as opened:
            batch = next(opened.iter_batches(each, use_threads=False), None)
            table = pa.Table.from_batches([batch] if batch is not None else [], opened.schema_arrow)
        flat = [f.name for f in table.schema if not pa.types.is_nested(f.type)]
        found.append(pl.DataFrame(table.select(flat)))
    return found
