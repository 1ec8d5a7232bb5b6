"""From a packed state to the values of a view at a time."""

import struct

import numpy as np

from everloop.core.clock import Micros, iso
from everloop.core.errors import InvalidInput
from everloop.features.definitions import Value
from everloop.features.states.facts import Ints
from everloop.features.states.finalise import ratio
from everloop.features.states.layout import EVENT, ID, NO_MAXIMUM, NO_MINIMUM, STARTS, Last, Layout, Slot, Tier, unpack

_DOUBLE, _WORD = struct.Struct("<d"), struct.Struct("<q")


def values_at(layout: Layout, packed: bytes, at: Micros) -> tuple[Value, ...]:
    """The view's values from one packed state."""
    newest, lasts, every_tile, head = unpack(layout, packed)
    horizon = newest - layout.view.slack
    if at < horizon:
        raise InvalidInput(
            f"feature view {layout.view.name} cannot answer for {iso(at)} any more, only from {iso(horizon)} on",
            hint="ask history for the past, or give the view a longer slack",
        )
    values = list(layout.empty)
    if len(head) and head[-1, STARTS] >= at:
        head = head[: head[:, STARTS].searchsorted(at)]
    for tier, tiles in zip(layout.tiers, every_tile, strict=True):
        if len(head) or len(tiles):
            _tier_values(tier, head, tiles, at, values)
    for last, best in zip(layout.lasts, lasts, strict=True):
        values[last.feature] = _last(last, head, best.tolist(), at)
    return tuple(values)


def _tier_values(tier: Tier, head: Ints, tiles: Ints, at: Micros, values: list[Value]) -> None:
    """Fill in the values of one tier's features; all sums of a window are one product and one reduction."""
    hop, event = tier.hop, head[:, EVENT]
    first, end = tier.added
    for window in tier.windows:
        tail = (at - window.length) // hop * hop
        inside = event >= tail
        whole = tiles[tiles[:, 0].searchsorted(tail) :] if len(tiles) else tiles
        if window.sums:
            totals = inside @ head[:, first:end]
            if len(whole):
                totals += np.add.reduce(whole[:, 1 : tier.cuts[0]], 0)
            sums = totals.tolist()
            for slot in window.sums:
                values[slot.feature] = _sum_value(slot, sums, first)
        for slot in window.extremes:
            values[slot.feature] = _extreme_value(tier, slot, head[inside, slot.extreme], whole)


def _sum_value(slot: Slot, sums: list[int], first: int) -> Value:
    if slot.function == "count":
        return sums[slot.count - first]
    high, low = sums[slot.high - first], sums[slot.low - first]
    if slot.function == "sum":
        return ratio(high, low, slot.divisor)
    count = sums[slot.count - first]
    return ratio(high, low, count * slot.divisor) if count else None


def _extreme_value(tier: Tier, slot: Slot, head: Ints, tiles: Ints) -> Value:
    if slot.function == "min":
        column, nothing, reduce, better = (
            tier.cuts[0] + slot.extreme - tier.minima[0],
            NO_MINIMUM,
            np.minimum.reduce,
            min,
        )
    else:
        column, nothing, reduce, better = (
            tier.cuts[1] + slot.extreme - tier.maxima[0],
            NO_MAXIMUM,
            np.maximum.reduce,
            max,
        )
    found = int(reduce(head)) if len(head) else nothing
    if len(tiles):
        found = better(found, int(reduce(tiles[:, column])))
    return None if found == nothing else ratio(0, found, slot.divisor)


def _last(last: Last, head: Ints, best: list[int], at: Micros) -> Value:
    has, event, identity, bits = best
    rows = head[head[:, last.has] != 0] if last.filtered else head
    if len(rows):
        events = rows[:, EVENT]
        row = events.argmax()
        newest = int(events[row])
        if not has or newest >= event:
            ties = rows[events == newest] if np.count_nonzero(events == newest) > 1 else rows[row : row + 1]
            offers = [(event, identity % 2**64, bits)] if has else []
            offers += [(newest, tie[ID] % 2**64, tie[last.has + 1]) for tie in ties.tolist()]
            has, (event, _, bits) = 1, max(offers)
    if not has or (last.ttl is not None and event < at - last.ttl):
        return None
    value: float = _DOUBLE.unpack(_WORD.pack(bits))[0]
    return None if value != value else value  # noqa: PLR0124 - NaN stands for null
