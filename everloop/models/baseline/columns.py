"""What each column of a table is, and which columns must not be learnt from: ids, constants, leaks.

Looked at on training rows only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from everloop.core.errors import DataError
from everloop.models.selection import ranking

MANY = 30
"""A text with more different values than this is no plain category."""
_CLASSES = 20
_LEAK = 0.995
_SUSPECT = 0.95
_ID = 0.98
_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Columns:
    """A plan for the columns of a table."""

    roles: Mapping[str, str]
    """`number`, `flag`, `category`, `many` (a text with many values) or `date`, by column."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Why a column is not learnt from."""
    warnings: tuple[str, ...] = ()


def task_of(label: pl.Series) -> str:
    """`binary`, `classes` or `numbers`. Raises `DataError` for a label that is nothing of it."""
    values = label.drop_nulls()
    count = values.n_unique()
    if count < 2:
        raise DataError(f"the label {label.name!r} has {count} different values", hint="there is nothing to learn")
    if count == 2:
        return "binary"
    if label.dtype.is_numeric():
        whole = label.dtype.is_integer() or bool((values == values.round()).all())
        return "classes" if whole and count <= _CLASSES and count < values.len() / 20 else "numbers"
    if count > values.len() / 5 or count > 200:
        raise DataError(f"the label {label.name!r} has {count} different texts: they are no classes", hint="--label")
    return "classes"


def planned(table: pl.DataFrame, label: str, beside: tuple[str, ...]) -> Columns:
    """What to learn from; `beside` are columns that only split. Raises `DataError` when nothing is left."""
    roles: dict[str, str] = {}
    dropped: dict[str, str] = {}
    warnings: list[str] = []
    for name in table.columns:
        if name == label or name in beside:
            continue
        role, why = _role(table[name])
        if why:
            dropped[name] = why
        else:
            roles[name] = role
    for name, score in _alone(table, roles, label).items():
        if score >= _LEAK:
            dropped[name] = f"it answers the question alone (score {score:.3f}): a leak?"
            warnings.append(f"{name} answers the question alone (score {score:.3f}); it was left out as a leak")
            del roles[name]
        elif score >= _SUSPECT:
            warnings.append(f"{name} nearly answers the question alone (score {score:.3f}): is it known in time?")
    warnings += [f"{name} was left out: {why}" for name, why in dropped.items() if "an id" in why]
    if not roles:
        raise DataError(
            "no column is left to learn from", hint="; ".join(f"{n}: {w}" for n, w in dropped.items())[:400]
        )
    return Columns(roles, dropped, tuple(warnings))


def _role(column: pl.Series) -> tuple[str, str]:
    """What a column is, and why it must go if it must."""
    values = column.drop_nulls()
    count, different = values.len(), values.n_unique()
    if different < 2:
        return "", "it has one value" if count else "it is empty"
    unlike = count > 50 and different > _ID * count
    if column.dtype.is_integer() and unlike:
        return "", f"it looks like an id: {different} different values in {count} rows"
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return "flag" if column.dtype == pl.Boolean else "number", ""
    if column.dtype != pl.String:
        return "", f"a column of {column.dtype} is not learnt from"
    date = _is_date(values)
    if unlike and not date:
        return "", f"it looks like an id, or free text: {different} different values in {count} rows"
    return "date" if date else "category" if different <= MANY else "many", ""


def _is_date(values: pl.Series) -> bool:
    head = values.head(200)
    return bool(head.str.contains(r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?$").all())


def _alone(table: pl.DataFrame, roles: Mapping[str, str], label: str) -> dict[str, float]:
    """How well each column alone tells the label: by its order, or by the share of each of its values."""
    step = max(1, table.height // _ROWS)
    rows = table.gather_every(step)
    truth = _numbers(rows[label])
    found = {}
    for name, role in roles.items():
        if role == "date":
            continue
        values = _numbers(rows[name]) if role in ("number", "flag") else _rates(rows[name], truth)
        found[name] = ranking.alone(values, truth)
    return found


def _numbers(column: pl.Series) -> Any:
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float64).to_numpy()
    return column.cast(pl.Categorical).to_physical().cast(pl.Float64).to_numpy()


def _rates(column: pl.Series, truth: Any) -> Any:
    """Each value as the mean of the label among the other rows that have it; rare values as the mean of all."""
    _, place = np.unique(column.fill_null("").to_numpy().astype(str), return_inverse=True)
    total, count = np.bincount(place, truth)[place], np.bincount(place)[place]
    mean = truth.mean()
    return np.where(count > 3, (total - truth + mean) / count, mean)
