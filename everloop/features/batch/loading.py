"""Facts of a range of entities in memory, each once, in the order of entity, event time and id.

An id is the hash of all that a fact says. It settles the order of facts of one entity and time, and tells a fact that
came twice, which has the same time: so ids are made for rows that share entity and time, and for no others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from everloop.features.batch.intervals import Ranked, by_entity_and_time, rank
from everloop.features.definitions import FeatureViewDef
from everloop.features.states.columns import Ints, Words
from everloop.features.states.facts import Facts, Flags, ids_of, lifts_of, told_apart

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts as they were read: entity codes, facts without ids, known times, words of the key columns."""

    code: Ints
    facts: Facts
    known: Ints
    keys: tuple[Words, ...]


class Loaded:
    """Facts as they were read, and their order by (code, event time, id), each once; sorted copies are made late."""

    def __init__(self, code: Ints, facts: Facts, order: Ints, ranked: Ranked | None) -> None:
        """`facts` has no ids; `ranked` are the places of the facts in the order, where these fit into one integer."""
        self.code, self.facts, self.order = code, facts, order
        self._ranked = ranked
        self._sorted: tuple[Ints, Facts] | None = None

    def sorted(self) -> tuple[Ints, Facts]:
        """Codes and facts in the order: the last one of a code and time is the newest."""
        if self._sorted is None:
            self._sorted = self.code[self.order], self.facts.take(self.order)
        return self._sorted

    def newest_before(self, code: Ints, time: Ints) -> Ints:
        """Place in the order of the last fact before each (code, time), perhaps of another code; -1 for none."""
        ranked = self._ranked
        if ranked is None:
            codes, facts = self.sorted()
            time_rank = np.unique(np.r_[facts.event, time], return_inverse=True)[1]
            both = np.r_[codes, code] * (len(time_rank) + 1) + time_rank
            found: Ints = np.searchsorted(both[: len(codes)], both[len(codes) :]) - 1
            return found
        places = code * ranked.span + np.clip(time - ranked.low, 0, ranked.span - 1)
        return np.searchsorted(ranked.places, places) - 1


def load(view: FeatureViewDef, batches: Iterator[Batch]) -> Loaded:
    """All batches as one."""
    read = list(batches)
    code, event = (
        (_joined(part) for part in zip(*((b.code, b.facts.event) for b in read), strict=True))
        if read
        else (_NONE, _NONE)
    )
    lifted = tuple(_lifted(read, i) for i in range(len(lifts_of(view))))
    ranked = rank(code, event)
    if ranked is None:
        order = by_entity_and_time(code, event)
        tied = _tied(event[order], code[order])
    else:
        order = np.argsort(ranked.places)
        ranked = Ranked(ranked.places[order], ranked.low, ranked.span)
        tied = _tied(ranked.places)
    if len(tied):
        dropped = _settle(read, event, told_apart(view, lifted), order, tied)
        if len(dropped):
            order = np.delete(order, dropped)
            ranked = ranked and Ranked(np.delete(ranked.places, dropped), ranked.low, ranked.span)
    starts = _joined([b.facts.starts for b in read])
    texts = {word: text for b in read for word, text in b.facts.texts.items()}
    return Loaded(code, Facts(event, starts, np.empty(0, np.uint64), lifted, texts), order, ranked)


def _settle(read: Sequence[Batch], event: Ints, lifted: Sequence[tuple[Flags, Ints]], order: Ints, tied: Ints) -> Ints:
    """Put the tied places of `order` into the order of their ids; returns the places of facts that came before."""
    rows = order[tied]
    known = _joined([b.known for b in read])[rows]
    keys = [np.concatenate([b.keys[i] for b in read])[rows] for i in range(len(read[0].keys))]
    ids = ids_of(event[rows], known, keys, [(flags[rows], words[rows]) for flags, words in lifted])
    # Runs of equal (code, time) keep their places; a run begins where the tied place does not follow its run.
    run = _runs(read, event, rows)
    settled = np.lexsort((ids, run))
    order[tied] = rows[settled]
    ids, run = ids[settled], run[settled]
    again = np.zeros(len(ids), bool)
    again[1:] = (ids[1:] == ids[:-1]) & (run[1:] == run[:-1])
    return tied[again]


def _runs(read: Sequence[Batch], event: Ints, rows: Ints) -> Ints:
    """Which run of equal (code, time) each of the tied rows, which lie in order, belongs to."""
    code, at = _joined([b.code for b in read])[rows], event[rows]
    return np.cumsum(np.r_[0, (np.diff(code) != 0) | (np.diff(at) != 0)])


def _tied(*columns: Ints) -> Ints:
    """Places whose columns a neighbour has too."""
    same = columns[0][1:] == columns[0][:-1]
    for column in columns[1:]:
        same &= column[1:] == column[:-1]
    return np.flatnonzero(np.r_[same, False] | np.r_[False, same]) if same.any() else _NONE


def _lifted(read: Sequence[Batch], lift: int) -> tuple[Flags, Ints]:
    flags = np.concatenate([np.empty(0, np.uint8), *(b.facts.lifted[lift][0] for b in read)])
    return flags, _joined([b.facts.lifted[lift][1] for b in read])


def _joined(parts: Sequence[Ints]) -> Ints:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.empty(0, np.int64), *parts])
