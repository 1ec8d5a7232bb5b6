"""Whether a split leaks: what validation asks about must not be in what training saw.

One check for the splits of this package and for anybody's own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError

Array = npt.NDArray[Any]
_HINT = "a score on such rows says nothing; split by time or group"


def refuse_shared(number: int, train: Array, valid: Array) -> None:
    """Raise `DataError` for a row on both sides, or a side without rows."""
    if not len(train) or not len(valid):
        raise DataError(
            f"fold {number} has no rows to {'train' if not len(train) else 'validate'} on", hint="fewer folds"
        )
    if len(np.intersect1d(train, valid)):
        raise DataError(f"fold {number} validates on rows that it trains on", hint=_HINT)


def refuse_groups(number: int, train: Array, valid: Array, groups: Array) -> None:
    """Raise `DataError` for a group on both sides."""
    both = np.intersect1d(groups[train], groups[valid])
    if len(both):
        raise DataError(f"fold {number} leaks: the group {both[0]!s} is on both sides", hint=_HINT)


def refuse_future(number: int, train: Array, valid: Array, *, time: Array, known: Array, gap: int = 0) -> None:
    """Raise `DataError` for a training row that was asked or known when validation began, or less than `gap` before."""
    start = time[valid].min()
    late = train[(time[train] >= start) | (known[train] > start - gap) | (known[train] >= start)]
    if len(late):
        raise DataError(
            f"fold {number} leaks: training row {late[0]} was known at {known[late[0]]}, validation begins at {start}",
            hint=_HINT,
        )


def refuse_overlap(number: int, train: Array, valid: Array, *, time: Array, known: Array, embargo: int = 0) -> None:
    """Raise `DataError` for a training row whose time from question to label meets that of a validated stretch."""
    first, last = time[valid].min(), known[valid].max()
    meets = (known[train] >= first) & (time[train] <= last + embargo)
    if meets.any():
        row = train[meets][0]
        raise DataError(
            f"fold {number} leaks: training row {row} spans {time[row]} to {known[row]}, validation {first} to {last}",
            hint=_HINT,
        )


def refuse_leaks(
    folds: Sequence[tuple[Array, Array]],
    *,
    time: Array | None = None,
    known: Array | None = None,
    groups: Array | None = None,
) -> None:
    """Raise `DataError` where somebody's own folds (arrays of row numbers: training, validation) leak.

    With `time`, training must be over before validation begins; with `groups`, each is on one side.
    """
    for number, (train, valid) in enumerate(folds, 1):
        sides = np.asarray(train), np.asarray(valid)
        refuse_shared(number, *sides)
        if groups is not None:
            refuse_groups(number, *sides, np.asarray(groups))
        if time is not None:
            when = np.asarray(time)
            refuse_future(number, *sides, time=when, known=when if known is None else np.asarray(known))
