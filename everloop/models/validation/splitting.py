"""Making folds in NumPy. Cuts are made between different times or groups, so the order of rows does not matter."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError
from everloop.models.validation import leaks
from everloop.models.validation.folds import Folds

Array = npt.NDArray[Any]
_MANY = 20
"""A label with more values than this is cut at its deciles."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Row numbers, rising."""

    train: Array
    valid: Array


def split(folds: Folds, *, time: Any, known: Any, groups: Any, label: Any) -> list[Fold]:
    """See `Folds.split`."""
    found = {"time_series": _time_series, "purged": _purged, "grouped": _grouped, "stratified": _stratified}[
        folds.kind
    ](folds, {"time": time, "known": known, "groups": groups, "label": label})
    for number, fold in enumerate(found, 1):
        leaks.refuse_shared(number, fold.train, fold.valid)
    return found


def _time_series(folds: Folds, columns: dict[str, Any]) -> list[Fold]:
    time, known = _times(columns)
    edges = _edges(time, folds.n + 1)[1:]
    group = _groups(columns) if folds.by else None
    found = []
    for number, start in enumerate(edges[:-1]):
        valid = np.flatnonzero((time >= start) & (time < edges[number + 1]))
        past = (time < start) & (known < start) & (known <= start - folds.gap)
        if folds.window is not None:
            past &= time >= start - folds.window
        if group is not None:
            past &= ~np.isin(group, group[valid])
        train = np.flatnonzero(past)
        leaks.refuse_shared(number + 1, train, valid)
        leaks.refuse_future(number + 1, train, valid, time=time, known=known, gap=folds.gap)
        if group is not None:
            leaks.refuse_groups(number + 1, train, valid, group)
        found.append(Fold(train, valid))
    return found


def _purged(folds: Folds, columns: dict[str, Any]) -> list[Fold]:
    time, known = _times(columns)
    edges = _edges(time, folds.n)
    found = []
    for number, start in enumerate(edges[:-1]):
        inside = (time >= start) & (time < edges[number + 1])
        valid = np.flatnonzero(inside)
        last = known[valid].max()
        train = np.flatnonzero(~inside & ((known < start) | (time > last + folds.gap)))
        leaks.refuse_shared(number + 1, train, valid)
        leaks.refuse_overlap(number + 1, train, valid, time=time, known=known, embargo=folds.gap)
        found.append(Fold(train, valid))
    return found


def _grouped(folds: Folds, columns: dict[str, Any]) -> list[Fold]:
    group = _groups(columns)
    names, place, counts = np.unique(group, return_inverse=True, return_counts=True)
    if len(names) < folds.n:
        raise DataError(f"{len(names)} groups of {folds.by} make no {folds.n} folds", hint="fewer folds")
    sizes = np.zeros(folds.n, dtype=np.int64)
    home = np.zeros(len(names), dtype=np.int64)
    for one in np.argsort(-counts, kind="stable"):  # names are sorted: equal sizes come in the order of their names
        home[one] = int(np.argmin(sizes))
        sizes[home[one]] += counts[one]
    found = _of_homes(home[place], folds.n)
    for number, fold in enumerate(found, 1):
        leaks.refuse_groups(number, fold.train, fold.valid, group)
    return found


def _stratified(folds: Folds, columns: dict[str, Any]) -> list[Fold]:
    label = _column(columns, "label")
    _, place = np.unique(label, return_inverse=True)
    if place.max(initial=0) >= _MANY and label.dtype.kind in "iuf":
        place = np.searchsorted(np.quantile(label, np.linspace(0, 1, 11)[1:-1]), label, side="right")
    rng = np.random.default_rng(folds.seed)
    home = np.zeros(len(label), dtype=np.int64)
    begin = 0
    for one in np.unique(place):
        rows = rng.permutation(np.flatnonzero(place == one))
        if len(rows) < folds.n:
            raise DataError(
                f"a class of the label has {len(rows)} rows: too few for {folds.n} folds", hint="fewer folds"
            )
        home[rows] = (begin + np.arange(len(rows))) % folds.n
        begin += len(rows)
    return _of_homes(home, folds.n)


def _of_homes(home: Array, n: int) -> list[Fold]:
    return [Fold(np.flatnonzero(home != number), np.flatnonzero(home == number)) for number in range(n)]


def _edges(time: Array, parts: int) -> Array:
    """Cuts of about equal numbers of rows, each at a time: the first row's, those between, and one after the last."""
    different, counts = np.unique(time, return_counts=True)
    if len(different) < parts:
        raise DataError(f"{len(different)} different times make no {parts} stretches", hint="fewer folds")
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    wanted = np.arange(1, parts) * len(time) / parts
    cuts = np.searchsorted(before, wanted, side="left").clip(1, len(different) - 1)
    for number in range(1, len(cuts)):  # times with very many rows must not make a stretch without any
        cuts[number] = max(cuts[number], cuts[number - 1] + 1)
    for number in range(len(cuts) - 1, -1, -1):
        cuts[number] = min(cuts[number], len(different) - (len(cuts) - number))
    return np.concatenate([different[:1], different[cuts], different[-1:] + 1])


def _times(columns: dict[str, Any]) -> tuple[Array, Array]:
    time = _micros(_column(columns, "time"))
    if columns["known"] is None:
        return time, time
    known = _micros(_column(columns, "known"))
    if len(known) != len(time) or (known < time).any():
        raise DataError("a label is known before its question was asked", hint="are the two columns exchanged?")
    return time, known


def _micros(values: Array) -> Array:
    """Times as whole numbers: microseconds, or what numeric ones count."""
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise DataError("a row has no time", hint="leave such rows out")
        return values.astype("datetime64[us]").astype(np.int64)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f" and np.isfinite(values).all():
        return values
    raise DataError(f"a column of {values.dtype} is no time", hint="dates, or numbers without nulls")


def _groups(columns: dict[str, Any]) -> Array:
    values = _column(columns, "groups")
    if values.dtype.kind != "O":
        return values
    if any(one is None for one in values):
        raise DataError("a row has no group", hint="give it one of its own, or leave it out")
    return values.astype(str)


def _column(columns: dict[str, Any], name: str) -> Array:
    if columns[name] is None:
        raise DataError(f"these folds need the {name} of every row", hint=f"split({name}=…)")
    values = columns[name]
    found = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if found.ndim != 1 or not len(found):
        raise DataError(f"{name} has the shape {found.shape}", hint="one value a row")
    return found
