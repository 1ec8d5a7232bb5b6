"""Merging facts into states, all entities of a batch at once.

Every step is a sort, a union or an integer sum, so the result depends on the set of facts and on nothing else.
"""

from collections.abc import Mapping

import numpy as np

from everloop.features.states.columns import Ints, Mask
from everloop.features.states.facts import NOTHING, VALUE
from everloop.features.states.layout import (
    EVENT,
    ID,
    STARTS,
    Bag,
    Keep,
    Layout,
    Tier,
    all_until,
    bag_keys,
    tile_columns,
    windows_until,
)
from everloop.features.states.packing import Batch, Rows


def merge(layout: Layout, batch: Batch, facts: tuple[Ints, Ints, Ints], texts: Mapping[int, str]) -> int:
    """Merge facts (`layout.records`, whose entity, known time) into the batch; returns how many were new."""
    rows, rows_of, known = facts
    batch.texts |= texts
    fresh = _unseen(batch, rows, rows_of)
    np.maximum.at(batch.newest, rows_of, known)
    head = batch.sections[0].with_(rows[:, fresh], rows_of[fresh])
    horizon = batch.newest - layout.view.slack
    limit = horizon[head.owner]
    # Asked at or after the horizon and after its start: a fact that ends before both is never seen.
    visible = all_until(layout, head.columns[EVENT]) > np.maximum(head.columns[STARTS] + 1, limit)
    old = head.columns[STARTS] < limit
    folded = head.take(np.flatnonzero(visible & old))
    if len(folded.owner) or len(batch.newest):
        _fold(layout, batch, horizon, folded)
    kept = np.flatnonzero(visible & ~old)
    columns = head.columns
    order = kept[np.lexsort((columns[ID, kept], columns[STARTS, kept], head.owner[kept]))]
    batch.sections[0] = head.take(order)
    return int(fresh.sum())


def _unseen(batch: Batch, rows: Ints, rows_of: Ints) -> Mask:
    """Which rows are not in the batch yet, each fact once."""
    head = batch.sections[0]
    owner = np.concatenate([head.owner, batch.spent.owner, rows_of])
    ids = np.concatenate([head.columns[ID], batch.spent.columns[1], rows[ID]])
    order = np.lexsort((ids, owner))  # stable: known facts come before the same fact in `rows`
    again = np.zeros(len(order), bool)
    again[order[1:]] = (owner[order[1:]] == owner[order[:-1]]) & (ids[order[1:]] == ids[order[:-1]])
    return ~again[len(owner) - rows.shape[1] :]


def _fold(layout: Layout, batch: Batch, horizon: Ints, folded: Rows) -> None:
    sections = batch.sections
    at = 1
    for tier in layout.tiers:
        sections[at] = _fold_tiles(layout, tier, sections[at], horizon, folded)
        at += 1
    for bag in layout.bags:
        sections[at] = _fold_bag(layout, bag, sections[at], horizon, folded)
        at += 1
    for keep in layout.keeps:
        sections[at] = _fold_keep(layout, keep, sections[at], horizon, folded)
        at += 1
    if windowed(layout):  # a kept fact twice is one kept fact: nothing to remember
        fresh = np.stack([windows_until(layout, folded.columns[EVENT]), folded.columns[ID]])
        spent = batch.spent.with_(fresh, folded.owner)
        alive = np.flatnonzero(spent.columns[0] > horizon[spent.owner])
        order = np.lexsort((spent.columns[1, alive], spent.columns[0, alive], spent.owner[alive]))
        batch.spent = spent.take(alive[order])


def windowed(layout: Layout) -> bool:
    """Whether a fact that is folded twice would count twice."""
    return bool(layout.tiers or layout.bags)


def _fold_tiles(layout: Layout, tier: Tier, tiles: Rows, horizon: Ints, folded: Rows) -> Rows:
    both = tiles.with_(tile_columns(layout, tier, folded.columns), folded.owner)
    both = both.take(np.flatnonzero(both.columns[0] + (tier.hop + tier.longest) > horizon[both.owner]))
    order = np.lexsort((both.columns[0], both.owner))
    both = both.take(order)
    first = _firsts(both.owner, both.columns[0])
    if len(first) == len(both.owner):
        return both
    added, minima, maxima = tier.cuts
    merged = both.columns[:, first]
    for combine, begin, end in ((np.add, 1, added), (np.minimum, added, minima), (np.maximum, minima, maxima)):
        if end > begin:
            merged[begin:end] = combine.reduceat(both.columns[begin:end], first, axis=1)
    return Rows(merged, both.owner[first])


def _fold_bag(layout: Layout, bag: Bag, rows: Rows, horizon: Ints, folded: Rows) -> Rows:
    there = np.flatnonzero(folded.columns[layout.flags[bag.lift]] == VALUE)
    new = np.ones((bag.width, len(there)), np.int64)
    new[0] = folded.columns[EVENT, there] // bag.hop * bag.hop
    new[1] = bag_keys(bag, folded.columns[layout.words[bag.lift], there])
    both = rows.with_(new, folded.owner[there])
    both = both.take(np.flatnonzero(both.columns[0] + (bag.hop + bag.longest) > horizon[both.owner]))
    both = both.take(np.lexsort((both.columns[1], both.columns[0], both.owner)))
    first = _firsts(both.owner, both.columns[0], both.columns[1])
    columns = both.columns[:, first]
    if not bag.once and len(first):
        columns[2] = np.add.reduceat(both.columns[2], first)
    merged = Rows(columns, both.owner[first])
    if not bag.size:
        return merged
    return merged.take(np.flatnonzero(_rank(merged.owner, merged.columns[0]) < bag.size))


def _fold_keep(layout: Layout, keep: Keep, rows: Rows, horizon: Ints, folded: Rows) -> Rows:
    has, word = layout.flags[keep.lift], layout.words[keep.lift]
    flags = folded.columns[has]
    there = np.flatnonzero((flags != NOTHING) if keep.nulls else (flags == VALUE))
    both = rows.with_(folded.columns[:, there][[EVENT, ID, has, word]], folded.owner[there])
    event = both.columns[0]
    hop = event // keep.hop * keep.hop if keep.hop else np.zeros(len(event), np.int64)
    if keep.longest is not None:
        ends = hop + (keep.hop + keep.longest) if keep.hop else event + (keep.longest + 1)
        alive = np.flatnonzero(ends > horizon[both.owner])
        both, hop, event = both.take(alive), hop[alive], event[alive]
    ids = both.columns[1].view(np.uint64)
    order = np.lexsort((ids, event, hop, both.owner))
    both, hop = both.take(order), hop[order]
    once = _firsts(both.owner, both.columns[0], both.columns[1])
    both, hop = both.take(once), hop[once]
    rank = _rank(both.owner, hop)
    if keep.newest:
        rank = _rank(both.owner[::-1], hop[::-1])[::-1]
    return both.take(np.flatnonzero(rank < keep.size))


def _firsts(owner: Ints, *columns: Ints) -> Ints:
    """Where a row differs from the one before it."""
    changed = np.ones(len(owner), bool)
    changed[1:] = owner[1:] != owner[:-1]
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def _rank(owner: Ints, group: Ints) -> Ints:
    """The place of each row among the rows of its owner and group, which lie together."""
    first = _firsts(owner, group)
    return np.arange(len(owner)) - np.repeat(first, np.diff(np.r_[first, len(owner)]))
