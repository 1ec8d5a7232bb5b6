"""Exact aggregation over intervals: which facts does each question see?

A fact counts for the questions of its entity with `starts < t < until`: known time, event time and the window's
tail fold into one interval of time. Among questions sorted by (entity, time) that is one contiguous range, so
windows over facts that become known late need no two-dimensional join:

    questions of one entity   q0   q1   q2   q3   q4   q5
    fact known after q0, gone by q4    [----------)         adds at 1, removes at 4

Sums are prefix sums of integer differences. Extremes cover a range by two overlapping power-of-two blocks and push
these down level by level, a sparse table run backwards: O(facts + questions log questions), all in NumPy.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from everloop.features.states.columns import Ints

NOTHING = -(2**63)
"""What `cover_max` answers where no fact reaches; smaller than every lifted value."""


class Questions:
    """Questions sorted by (code, time), ready to be searched; what a search needs is made by the first one."""

    def __init__(self, code: Ints, at: Ints) -> None:
        """Take questions that are sorted by (code, time) already."""
        self.code, self.at = code, at
        self._times: Ints | None = None
        self._place: Ints | None = None

    def __len__(self) -> int:
        return len(self.at)

    def after(self, code: Ints, time: Ints) -> Ints:
        """Index of the first question of each code that is asked later than each time."""
        return self._find(code, time, "right")

    def since(self, code: Ints, time: Ints) -> Ints:
        """Index of the first question of each code that is asked at or after each time."""
        return self._find(code, time, "left")

    def _find(self, code: Ints, time: Ints, side: Literal["left", "right"]) -> Ints:
        if self._times is None or self._place is None:
            self._times = np.unique(self.at)
            rank = np.searchsorted(self._times, self.at)
            self._place = self.code * (len(self._times) + 1) + rank
        return np.searchsorted(self._place, code * (len(self._times) + 1) + np.searchsorted(self._times, time, side))


class Ranked(NamedTuple):
    """(code, time) as one integer each: `code * span + time - low`."""

    places: Ints
    low: int
    span: int
    """One more than the latest time needs, so that a question later than all has a place of its code."""


def rank(code: Ints, time: Ints) -> Ranked | None:
    """One integer for each (code, time), in the same order; None where they do not fit into 64 bits."""
    low = int(time.min()) if len(time) else 0
    span = int(time.max()) - low + 2 if len(time) else 2
    if len(code) and (int(code.max()) + 2) * span >= 2**63:
        return None
    return Ranked(code * span + (time - low), low, span)


def by_entity_and_time(code: Ints, time: Ints) -> Ints:
    """The order by (code, time), fast where both fit into one integer."""
    ranked = rank(code, time)
    return np.lexsort((time, code)) if ranked is None else np.argsort(ranked.places)


def cover_count(questions: int, first: Ints, end: Ints) -> Ints:
    """How many ranges `[first, end)` hold each question."""
    steps = np.bincount(first, minlength=questions + 1) - np.bincount(end, minlength=questions + 1)
    return np.cumsum(steps[:questions])


def cover_sum(questions: int, first: Ints, end: Ints, values: Sequence[Ints]) -> tuple[Ints, ...]:
    """Sums of the values (lanes of integers) of the ranges that hold each question, lane by lane."""
    return tuple(_cover_lane(questions, first, end, lane) for lane in values)


def _cover_lane(questions: int, first: Ints, end: Ints, values: Ints) -> Ints:
    steps = np.zeros(questions + 1, np.int64)
    if values.any():
        np.add.at(steps, first, values)
        np.subtract.at(steps, end, values)
    return np.cumsum(steps[:questions])


def cover_max(questions: int, first: Ints, end: Ints, values: Ints) -> Ints:
    """Largest value of the ranges that hold each question; `NOTHING` where none does."""
    best = np.full(questions, NOTHING, np.int64)
    if not len(first):
        return best
    level = np.frexp((end - first).astype(np.float64))[1] - 1  # floor of the binary logarithm
    for k in range(int(level.max()), -1, -1):
        rows = np.flatnonzero(level == k)
        np.maximum.at(best, first[rows], values[rows])
        np.maximum.at(best, end[rows] - (1 << k), values[rows])
        if k:
            half = 1 << (k - 1)
            # `best[i]` holds for questions i to i + 2 * half: hand it to both halves.
            best[half:] = np.maximum(best[half:], best[: questions - half])
    return best


def cover_top(questions: int, first: Ints, end: Ints, values: Ints, size: int) -> Ints:
    """The `size` largest values of the ranges that hold each question, descending: `(questions, size)`.

    Values are different from each other. `NOTHING` fills up. As `cover_max`, with a list in the place of a number.
    """
    best = np.full((questions, size), NOTHING, np.int64)
    if not len(first):
        return best
    level = np.frexp((end - first).astype(np.float64))[1] - 1
    for k in range(int(level.max()), -1, -1):
        rows = np.flatnonzero(level == k)
        if len(rows):
            slots, offers = np.r_[first[rows], end[rows] - (1 << k)], np.r_[values[rows], values[rows]]
            order = np.lexsort((-offers, slots))
            slots, offers = slots[order], offers[order]
            fresh = np.r_[True, (np.diff(slots) != 0) | (np.diff(offers) != 0)]
            slots, offers = slots[fresh], offers[fresh]
            begin = np.flatnonzero(np.r_[True, np.diff(slots) != 0])
            rank = np.arange(len(slots)) - np.repeat(begin, np.diff(np.r_[begin, len(slots)]))
            few = rank < size
            added = np.full((len(begin), size), NOTHING, np.int64)
            added[np.searchsorted(slots[begin], slots[few]), rank[few]] = offers[few]
            best[slots[begin]] = _largest(best[slots[begin]], added)
        if k:
            half = 1 << (k - 1)
            best[half:] = _largest(best[half:], best[: questions - half])
    return best


def _largest(one: Ints, other: Ints) -> Ints:
    both = np.concatenate([one, other], axis=1)
    both.sort(axis=1)
    both[:, 1:][both[:, 1:] == both[:, :-1]] = NOTHING  # it came by both blocks that cover a range
    both.sort(axis=1)
    largest: Ints = both[:, : -one.shape[1] - 1 : -1]
    return largest


def cover_distinct(questions: int, first: Ints, end: Ints, keys: Ints) -> Ints:
    """How many different keys the ranges have that hold each question.

    Of each key only the union of its ranges counts: the part of a range that earlier ones left uncovered.
    """
    order = np.lexsort((first, keys))
    first, end, keys = first[order], end[order], keys[order]
    if not len(keys):
        return np.zeros(questions, np.int64)
    group = np.cumsum(np.r_[0, np.diff(keys) != 0]) * (questions + 1)
    reached = np.maximum.accumulate(group + end)
    covered = np.r_[0, reached[:-1]] - group
    begin = np.maximum(first, covered)
    left = begin < end
    return cover_count(questions, begin[left], end[left])


def pairs(questions: int, first: Ints, end: Ints, most: int) -> Iterator[tuple[int, int, Ints, Ints]]:
    """Every (question, range that holds it), some `most` pairs at a time (one question is never split).

    Gives the questions as `[low, high)`, and the pairs: questions, and which range.
    """
    sizes = cover_count(questions, first, end)
    reached, low = np.cumsum(sizes), 0
    while low < questions:
        before = int(reached[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(reached, before + most, side="right")))
        rows = np.flatnonzero((first < high) & (end > low))
        begin = np.maximum(first[rows], low)
        lengths = np.minimum(end[rows], high) - begin
        which = np.repeat(rows, lengths)
        offset = np.arange(len(which)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield low, high, np.repeat(begin, lengths) + offset, which
        low = high
