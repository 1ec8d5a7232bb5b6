"""From facts and sorted questions to the values of a view's features, all at once, in integers until `finalise`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from everloop.features.batch.intervals import (
    NOTHING,
    Questions,
    cover_count,
    cover_distinct,
    cover_max,
    cover_sum,
    cover_top,
    pairs,
)
from everloop.features.batch.loading import Loaded
from everloop.features.definitions import Feature, FeatureViewDef, Filter
from everloop.features.states.columns import Ints, Mask
from everloop.features.states.facts import NOTHING as NO_FACT
from everloop.features.states.facts import VALUE, Lift, lift_of, lifts_of, until
from everloop.features.states.finalise import (
    buckets,
    decimals,
    estimate,
    joined,
    lanes,
    middle,
    quotient,
    rank_of,
    ratios,
    squares,
    stddev,
    variance,
)

Answer = npt.NDArray[Any]
"""int64, float64 with NaN for null, or objects: None, texts, lists."""
Counted = tuple[Ints, Ints, Ints]
"""Different (question, key), and how often each occurs."""
Order = tuple[Ints, Ints, list[Any]]
PAIRS_AT_ONCE = 4_000_000
STEPS = 50


class Answers:
    """Answers of one view over the facts of some entities; what features share is made once."""

    def __init__(self, view: FeatureViewDef, questions: Questions, loaded: Loaded) -> None:
        """Nothing is computed yet."""
        self._view, self._questions, self._loaded = view, questions, loaded
        self._texts = loaded.facts.texts
        self._lifts: tuple[Lift, ...] = lifts_of(view)
        self._starts: Ints | None = None
        self._newest: dict[Filter | None, tuple[Ints, Mask]] = {}
        self._ends: dict[tuple[int | None, int], Ints] = {}
        self._parts: dict[tuple[Any, ...], tuple[Ints, ...]] = {}

    def of(self, feature: Feature) -> Answer:
        """Values of one feature, in the order of the questions."""
        return _ANSWER[feature.function](self, feature)

    def _seen(self, feature: Feature, *, nulls: bool = False) -> tuple[Ints, Ints, Ints, Ints]:
        """Facts that some question sees and that have a value: rows, first question, after the last, words."""
        code, facts = self._loaded.sorted()
        reach = (feature.window, feature.hop)
        if reach not in self._ends:
            ends = until(feature.window, feature.hop, facts.event)
            self._ends[reach] = self._questions.since(code, ends)
        flags, words = facts.lifted[self._lifts.index(lift_of(feature))]
        there = (flags != NO_FACT) if nulls else (flags == VALUE)
        if self._starts is None:
            self._starts = self._questions.after(code, facts.starts)
        rows = np.flatnonzero(there & (self._starts < self._ends[reach]))
        return rows, self._starts[rows], self._ends[reach][rows], words[rows]

    def _shared(self, what: str, feature: Feature, make: Callable[[], tuple[Ints, ...]]) -> tuple[Ints, ...]:
        key = (what, lift_of(feature), feature.window, feature.hop)
        if key not in self._parts:
            self._parts[key] = make()
        return self._parts[key]

    def ratio(self, feature: Feature) -> Answer:
        """One total over another."""
        above, below = (self._total(part) for part in feature.parts)
        by = [10**part.scale for part in feature.parts]
        return _nullable([quotient(a, by[0], b, by[1]) for a, b in zip(above, below, strict=True)])

    def average(self, feature: Feature) -> Answer:
        """Sums, and sums over counts."""
        n = self.count(feature) if feature.function == "mean" else np.ones(len(self._questions), np.int64)
        return ratios(*self._sum(feature), n, feature.scale)

    def distinct(self, feature: Feature) -> Answer:
        """Different keys; a sketch goes over pairs."""
        if feature.size:
            return self.paired(feature)
        _, first, end, words = self._seen(feature)
        return cover_distinct(len(self._questions), first, end, words)

    def count(self, feature: Feature) -> Ints:
        """How many facts."""

        def make() -> tuple[Ints, ...]:
            _, first, end, _ = self._seen(feature)
            return (cover_count(len(self._questions), first, end),)

        return self._shared("count", feature, make)[0]

    def _sum(self, feature: Feature) -> tuple[Ints, Ints]:
        def make() -> tuple[Ints, ...]:
            _, first, end, words = self._seen(feature)
            return cover_sum(len(self._questions), first, end, lanes(words))

        high, low = self._shared("sum", feature, make)
        return high, low

    def _total(self, feature: Feature) -> list[int]:
        if feature.function == "count":
            return self.count(feature).tolist()  # type: ignore[no-any-return]
        high, low = self._sum(feature)
        return [joined(parts) for parts in zip(low.tolist(), high.tolist(), strict=True)]

    def spread(self, feature: Feature) -> Answer:
        """Variance and its root."""

        def make() -> tuple[Ints, ...]:
            _, first, end, words = self._seen(feature)
            return cover_sum(len(self._questions), first, end, squares(words))

        counts, totals = self.count(feature).tolist(), self._total(feature)
        squared = zip(*(lane.tolist() for lane in self._shared("squares", feature, make)), strict=True)
        of = variance if feature.function == "variance" else stddev
        divisor = 10**feature.scale
        spread = zip(counts, totals, squared, strict=True)
        return _nullable([of(n, s, joined(q), divisor, feature.size) for n, s, q in spread])

    def extreme(self, feature: Feature) -> Answer:
        """Smallest and largest."""
        _, first, end, words = self._seen(feature)
        sign = 1 if feature.function == "max" else -1
        best = cover_max(len(self._questions), first, end, sign * words)
        return decimals(sign * best, best != NOTHING, feature.scale)

    def kept(self, feature: Feature) -> Answer:
        """Oldest and newest."""
        if feature.function == "last":
            found = self._stepped(feature)
            if found is not None:
                return found
        rows, first, end, _ = self._seen(feature, nulls=True)
        sign = 1 if feature.function == "last" else -1
        best = sign * cover_max(len(self._questions), first, end, sign * rows)
        flags, words = self._loaded.sorted()[1].lifted[self._lifts.index(lift_of(feature))]
        there = best != NOTHING
        there[there] = flags[best[there]] == VALUE
        return _values(feature, words[np.where(there, best, 0)] if len(words) else best, there, self._texts)

    def _stepped(self, feature: Feature) -> Answer | None:
        """The newest fact, stepping back from the newest by event time over those that are not known yet or filtered.

        None when that takes more than `STEPS` steps: facts that are known much later are the other way's.
        """
        facts, order, asked = self._loaded.facts, self._loaded.order, self._questions
        flags, words = facts.lifted[self._lifts.index(lift_of(feature))]
        if feature.where not in self._newest:
            at = self._loaded.newest_before(asked.code, asked.at)
            there = np.zeros(len(asked), bool)
            left, steps = np.flatnonzero(at >= 0), 0
            while len(left):
                rows = order[at[left]]
                mine = self._loaded.code[rows] == asked.code[left]
                left, rows = (left, rows) if mine.all() else (left[mine], rows[mine])
                seen = (facts.starts[rows] < asked.at[left]) & (flags[rows] != NO_FACT)
                there[left[seen]] = True
                left = left[~seen]
                at[left] -= 1
                left = left[at[left] >= 0]
                steps += 1
                if steps > STEPS and len(left):
                    return None
            self._newest[feature.where] = np.where(there, order[np.where(there, at, 0)] if len(order) else 0, 0), there
        rows, there = self._newest[feature.where]
        there = there.copy()
        there[there] = flags[rows[there]] == VALUE
        if feature.window is not None:
            there[there] = facts.event[rows[there]] >= asked.at[there] - feature.window
        return _values(feature, words[rows] if len(words) else rows, there, self._texts)

    def several(self, feature: Feature) -> Answer:
        """The newest few."""
        rows, first, end, _ = self._seen(feature)
        best = cover_top(len(self._questions), first, end, rows, feature.size)
        _, words = self._loaded.sorted()[1].lifted[self._lifts.index(lift_of(feature))]
        held = best != NOTHING
        found = _values(feature, words[best[held]], np.ones(int(held.sum()), bool), self._texts).tolist()
        return _lists(found, held.sum(axis=1))

    def histogram(self, feature: Feature) -> Answer:
        """Counts between edges."""
        _, first, end, words = self._seen(feature)
        bins = np.searchsorted(np.array(feature.edges), words, side="right")
        counts = np.empty((len(self._questions), len(feature.edges) + 1), np.int64)
        for i in range(counts.shape[1]):
            mine = bins == i
            counts[:, i] = cover_count(len(self._questions), first[mine], end[mine])
        return np.fromiter(counts.tolist(), object, len(counts))

    def paired(self, feature: Feature) -> Answer:
        """By every pair of question and fact: `top_k`, `quantile`, sketches."""
        _, first, end, words = self._seen(feature)
        keys = buckets(words, feature.size) if feature.function == "quantile" else words
        count = len(self._questions)
        answer: Answer = np.empty(count, np.int64 if feature.function == "distinct" else object)
        if feature.function == "quantile":
            answer = np.full(count, np.nan)
        order = _order_of(feature, words, self._texts)
        for low, high, question, which in pairs(count, first, end, PAIRS_AT_ONCE):
            found = _counted(question - low, keys[which])
            answer[low:high] = _FINISH[feature.function](feature, high - low, found, order)
        return answer


_ANSWER: dict[str, Callable[[Answers, Feature], Answer]] = {
    "count": Answers.count,
    "sum": Answers.average,
    "mean": Answers.average,
    "variance": Answers.spread,
    "stddev": Answers.spread,
    "min": Answers.extreme,
    "max": Answers.extreme,
    "first": Answers.kept,
    "last": Answers.kept,
    "last_k": Answers.several,
    "top_k": Answers.paired,
    "distinct": Answers.distinct,
    "ratio": Answers.ratio,
    "histogram": Answers.histogram,
    "quantile": Answers.paired,
}


def _counted(question: Ints, keys: Ints) -> tuple[Ints, Ints, Ints]:
    """Different (question, key), ascending, and how often each occurs."""
    order = np.lexsort((keys, question))
    question, keys = question[order], keys[order]
    fresh = np.flatnonzero(np.r_[True, (np.diff(question) != 0) | (np.diff(keys) != 0)][: len(keys)])
    return question[fresh], keys[fresh], np.diff(np.r_[fresh, len(keys)])


def _order_of(feature: Feature, words: Ints, texts: Mapping[int, str]) -> tuple[Ints, Ints, list[Any]]:
    """The different words, the place of each in the order of values, and the values by place."""
    if feature.function != "top_k":
        return np.empty(0, np.int64), np.empty(0, np.int64), []
    different = np.unique(words)
    values = _values(feature, different, np.ones(len(different), bool), texts).tolist()
    order = sorted(range(len(values)), key=values.__getitem__)
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values))
    return different, place, [values[i] for i in order]


def _finish_top(feature: Feature, questions: int, counted: Counted, order: Order) -> Answer:
    (question, keys, n), (different, place, values) = counted, order
    places = place[np.searchsorted(different, keys)]
    ranked = np.lexsort((places, -n, question))
    rank = _rank(question)  # `question` ascends, and sorting by it first leaves it as it is
    few = rank < feature.size
    return _lists([values[p] for p in places[ranked][few]], np.bincount(question[few], minlength=questions))


def _finish_quantile(feature: Feature, questions: int, counted: Counted, _order: Order) -> Answer:
    question, keys, n = counted
    total = np.zeros(questions, np.int64)
    np.add.at(total, question, n)
    different, back = np.unique(total, return_inverse=True)
    ranks = np.array([rank_of(feature.quantile, int(t)) for t in different])[back]
    before = np.cumsum(total) - total
    at = np.searchsorted(np.cumsum(n), before + ranks)
    answer = np.full(questions, np.nan)
    there = total > 0
    chosen, back = np.unique(keys[at[there]], return_inverse=True)
    middles = np.array([middle(int(key), feature.size, 10**feature.scale) for key in chosen], np.float64)
    answer[there] = middles[back]
    return answer


def _finish_distinct(feature: Feature, questions: int, counted: Counted, _order: Order) -> Answer:
    question, keys, _ = counted
    counts = np.bincount(question, minlength=questions)
    cuts = np.cumsum(counts) - counts
    for i in np.flatnonzero(counts >= feature.size):
        counts[i] = estimate(keys[cuts[i] : cuts[i] + feature.size].tolist(), feature.size)
    return counts


_FINISH: dict[str, Callable[..., Answer]] = {
    "top_k": _finish_top,
    "quantile": _finish_quantile,
    "distinct": _finish_distinct,
}


def _rank(group: Ints) -> Ints:
    first = np.flatnonzero(np.r_[True, np.diff(group) != 0][: len(group)])
    return np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))


def _values(feature: Feature, words: Ints, there: npt.NDArray[np.bool_], texts: Mapping[int, str]) -> Answer:
    """Words as values of the feature's kind; null where not `there`."""
    if feature.kind == "number":
        return np.where(there, np.ascontiguousarray(words).view(np.float64), np.nan)
    listed = zip(words.tolist(), there.tolist(), strict=True)
    values = ((texts[w] if feature.kind == "text" else w) if ok else None for w, ok in listed)
    return np.fromiter(values, object, len(words))


def _lists(values: list[Any], counts: Ints) -> Answer:
    ends = np.cumsum(counts)
    # `fromiter`, because assigning a list of lists would make an array of two dimensions of them
    return np.fromiter(
        [values[a:b] for a, b in zip((ends - counts).tolist(), ends.tolist(), strict=True)], object, len(counts)
    )


def _nullable(values: list[float | None]) -> Answer:
    return np.array([np.nan if v is None else v for v in values], np.float64)
