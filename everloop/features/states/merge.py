"""Merging facts into packed states, all entities of a batch at once.

Every step is a sort, a union or an integer sum, so the result depends on the set of facts and on nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from everloop.features.states.facts import Ints, Mask
from everloop.features.states.layout import (
    EVENT,
    ID,
    STARTS,
    Layout,
    Tier,
    all_until,
    last_until,
    pack,
    unpack,
    windows_until,
)

NEVER = -(2**62)
"""The newest known time of an entity without facts."""


@dataclass(slots=True)
class Batch:
    """States of several entities, concatenated; `*_of` tells whose row it is."""

    newest: Ints
    head: Ints
    head_of: Ints
    tiles: list[Ints]
    tiles_of: list[Ints]
    lasts: Ints
    """(entities, number of `last` features, 4)."""
    spent: Ints
    """(until, id) of folded facts that a redelivery could still change something by."""
    spent_of: Ints


def read_batch(layout: Layout, states: Sequence[bytes | None], spent: Sequence[bytes | None]) -> Batch:
    """Unpack the states of several entities; None is an entity without facts."""
    found = [None if packed is None else unpack(layout, packed) for packed in states]
    newest = np.array([NEVER if s is None else s.newest for s in found], np.int64)
    lasts = np.zeros((len(states), len(layout.lasts), 4), np.int64)
    for i, state in enumerate(found):
        if state is not None and layout.lasts:
            lasts[i] = state.lasts
    head, head_of = _stack([None if s is None else s.head for s in found], layout.width)
    tiles = [
        _stack([None if s is None else s.tiles[t] for s in found], tier.cuts[2]) for t, tier in enumerate(layout.tiers)
    ]
    ids, ids_of = _stack([None if b is None else np.frombuffer(b, np.int64).reshape(-1, 2) for b in spent], 2)
    return Batch(newest, head, head_of, [t for t, _ in tiles], [o for _, o in tiles], lasts, ids, ids_of)


def _stack(arrays: Iterable[Ints | None], width: int) -> tuple[Ints, Ints]:
    filled = [(i, a) for i, a in enumerate(arrays) if a is not None and len(a)]
    if not filled:
        return np.empty((0, width), np.int64), np.empty(0, np.int64)
    owner = np.repeat(np.array([i for i, _ in filled]), [len(a) for _, a in filled])
    return np.concatenate([a for _, a in filled]), owner


def merge(layout: Layout, batch: Batch, rows: Ints, rows_of: Ints, known: Ints) -> int:
    """Merge facts (`layout.records`, whose entity, known time) into the batch; returns how many were new."""
    fresh = _unseen(batch, rows, rows_of)
    np.maximum.at(batch.newest, rows_of, known)
    head = np.concatenate([batch.head, rows[fresh]])
    head_of = np.concatenate([batch.head_of, rows_of[fresh]])
    horizon = batch.newest - layout.view.slack
    limit = horizon[head_of]
    # Asked at or after the horizon and after its start: a fact that ends before both is never seen.
    visible = all_until(layout, head[:, EVENT]) > np.maximum(head[:, STARTS] + 1, limit)
    old = head[:, STARTS] < limit
    folded = visible & old
    _fold_tiles(layout, batch, horizon, head[folded], head_of[folded])
    _fold_lasts(layout, batch, horizon, head[folded], head_of[folded])
    _fold_ids(layout, batch, horizon, head[folded], head_of[folded])
    kept = np.flatnonzero(visible & ~old)
    order = kept[np.lexsort((head[kept, ID], head[kept, STARTS], head_of[kept]))]
    batch.head, batch.head_of = head[order], head_of[order]
    return int(fresh.sum())


def _unseen(batch: Batch, rows: Ints, rows_of: Ints) -> Mask:
    """Which rows are not in the batch yet, each fact once."""
    owner = np.concatenate([batch.head_of, batch.spent_of, rows_of])
    ids = np.concatenate([batch.head[:, ID], batch.spent[:, 1], rows[:, ID]])
    order = np.lexsort((ids, owner))  # stable: known facts come before the same fact in `rows`
    again = np.zeros(len(order), bool)
    again[order[1:]] = (owner[order[1:]] == owner[order[:-1]]) & (ids[order[1:]] == ids[order[:-1]])
    return ~again[len(owner) - len(rows) :]


def _fold_tiles(layout: Layout, batch: Batch, horizon: Ints, rows: Ints, rows_of: Ints) -> None:
    for t, tier in enumerate(layout.tiers):
        lifted = np.empty((len(rows), tier.cuts[2]), np.int64)
        lifted[:, 0] = rows[:, EVENT] // tier.hop * tier.hop
        end = 1
        for first, after in (tier.added, tier.minima, tier.maxima):
            lifted[:, end : end + after - first] = rows[:, first:after]
            end += after - first
        tiles, owner = np.concatenate([batch.tiles[t], lifted]), np.concatenate([batch.tiles_of[t], rows_of])
        alive = tiles[:, 0] + (tier.hop + tier.longest) > horizon[owner]
        batch.tiles[t], batch.tiles_of[t] = _grouped(tier, tiles[alive], owner[alive])


def _grouped(tier: Tier, tiles: Ints, owner: Ints) -> tuple[Ints, Ints]:
    order = np.lexsort((tiles[:, 0], owner))
    tiles, owner = tiles[order], owner[order]
    first = np.flatnonzero((np.diff(tiles[:, 0], prepend=0) != 0) | (np.diff(owner, prepend=-1) != 0))
    if len(first) == len(tiles):
        return tiles, owner
    added, minima, maxima = tier.cuts
    merged = tiles[first]
    for combine, begin, end in ((np.add, 1, added), (np.minimum, added, minima), (np.maximum, minima, maxima)):
        if end > begin:
            merged[:, begin:end] = combine.reduceat(tiles[:, begin:end], first, axis=0)
    return merged, owner[first]


def _fold_lasts(layout: Layout, batch: Batch, horizon: Ints, rows: Ints, rows_of: Ints) -> None:
    for k, last in enumerate(layout.lasts):
        best = batch.lasts[:, k]
        there = np.flatnonzero(rows[:, last.has])
        before = np.flatnonzero(best[:, 0])
        owner = np.concatenate([before, rows_of[there]])
        news = rows[there][:, [last.has, EVENT, ID, last.has + 1]]
        offers = np.concatenate([best[before], news])
        alive = last_until(last, offers[:, 1]) > horizon[owner]
        offers, owner = offers[alive], owner[alive]
        batch.lasts[:, k] = _newest(offers, owner, len(horizon))


def _newest(offers: Ints, owner: Ints, entities: int) -> Ints:
    chosen = np.zeros((entities, 4), np.int64)
    if len(offers):
        ids = np.ascontiguousarray(offers[:, 2]).view(np.uint64)
        order = np.lexsort((ids, offers[:, 1], owner))
        final = order[np.r_[owner[order][1:] != owner[order][:-1], True]]
        chosen[owner[final]] = offers[final]
    return chosen


def _fold_ids(layout: Layout, batch: Batch, horizon: Ints, rows: Ints, rows_of: Ints) -> None:
    if not layout.tiers:  # the newest fact twice is the newest fact: nothing to remember
        return
    fresh = np.stack([windows_until(layout, rows[:, EVENT]), rows[:, ID]], axis=1)
    spent, owner = np.concatenate([batch.spent, fresh]), np.concatenate([batch.spent_of, rows_of])
    alive = np.flatnonzero(spent[:, 0] > horizon[owner])
    order = alive[np.lexsort((spent[alive, 1], spent[alive, 0], owner[alive]))]
    batch.spent, batch.spent_of = spent[order], owner[order]


def write_batch(batch: Batch) -> tuple[list[bytes], list[bytes]]:
    """Packed states and packed ids of the entities, in order."""
    entities = np.arange(len(batch.newest) + 1)
    cuts = [np.searchsorted(owner, entities).tolist() for owner in (batch.head_of, *batch.tiles_of, batch.spent_of)]
    states, spent = [], []
    for i, newest in enumerate(batch.newest.tolist()):
        tiles = [rows[cut[i] : cut[i + 1]] for rows, cut in zip(batch.tiles, cuts[1:-1], strict=True)]
        states.append(pack(newest, batch.lasts[i], tiles, batch.head[cuts[0][i] : cuts[0][i + 1]]))
        spent.append(batch.spent[cuts[-1][i] : cuts[-1][i + 1]].tobytes())
    return states, spent
