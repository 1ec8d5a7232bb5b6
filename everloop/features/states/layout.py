"""The packed value of one entity in one view: 64-bit integers, little endian, the same bytes for the same facts.

    header   format | newest known time | facts in the head | tiles of each tier
    lasts    of each `last`, the newest folded fact: present, event time, id, float64 bits
    tiles    of each tier (hop), ascending: start of the hop, added columns, minima, maxima
    head     facts as they came, ascending by start: event time, start, id, added columns, minima, maxima, lasts

The horizon is the newest known time less the view's slack. Facts that started before it are folded into tiles, for
every question that may still be asked counts them whole; later ones stay in the head, exact to the microsecond.
Both follow from the set of facts alone, so neither order, nor batches, nor redelivery changes a byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from struct import Struct
from typing import NamedTuple

import numpy as np

from everloop.core.clock import Micros
from everloop.core.errors import CorruptObject
from everloop.features.definitions import FOREVER, Feature, FeatureViewDef, Value
from everloop.features.states.facts import Facts, Ints, until
from everloop.features.states.finalise import lanes

FORMAT = 1
NO_MINIMUM, NO_MAXIMUM = 2**63 - 1, -(2**63)
EVENT, STARTS, ID, FIRST_COLUMN = 0, 1, 2, 3
_FIXED = 3  # words of the header before the tile counts


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a windowed feature finds its state: columns of the head (`Tier` maps them to those of a tile)."""

    feature: int
    function: str
    divisor: int
    """10 to the scale."""
    count: int = 0
    high: int = 0
    low: int = 0
    extreme: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """One length of window in a tier, and the features that use it."""

    length: Micros
    hop: Micros
    sums: tuple[Slot, ...]
    extremes: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Tier:
    """Tiles of one hop, kept as long as its longest window needs them.

    Its columns are contiguous in the head: added, minima and maxima are ranges of head columns.
    """

    hop: Micros
    longest: Micros
    added: tuple[int, int]
    minima: tuple[int, int]
    maxima: tuple[int, int]
    cuts: tuple[int, int, int]
    """Where in a tile the added columns, the minima and the maxima end; the third is its width in words."""
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Last:
    """A `last` feature: its columns in the head are `has` and `has + 1`."""

    feature: int
    has: int
    ttl: Micros | None
    filtered: bool
    """Whether facts may not have it; otherwise `has` is 1 throughout."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a view's state is laid out; made once from the definition by `layout_of`."""

    view: FeatureViewDef
    added: tuple[tuple[str, int], ...]
    """(part, feature) of the head's columns from `FIRST_COLUMN` on: part is `count`, `high` or `low`."""
    minima: tuple[int, ...]
    """Features of the columns that follow; after them the maxima, then two columns for each `last`."""
    maxima: tuple[int, ...]
    lasts: tuple[Last, ...]
    tiers: tuple[Tier, ...]
    width: int
    """Words of a fact in the head."""
    header: Struct
    """Format, newest known time, facts in the head, tiles of each tier."""
    empty: tuple[Value, ...]
    """The view's values where there are no facts."""


_PARTS: dict[str, tuple[str, ...]] = {"count": ("count",), "sum": ("high", "low"), "mean": ("count", "high", "low")}


def layout_of(view: FeatureViewDef) -> Layout:
    """The layout of a view."""
    ordered = sorted(enumerate(view.features), key=lambda pair: (pair[1].hop, pair[0]))
    added = [(part, i) for i, f in ordered for part in _PARTS.get(f.function, ())]
    minima = [i for i, f in ordered if f.function == "min"]
    maxima = [i for i, f in ordered if f.function == "max"]
    columns = {key: FIRST_COLUMN + n for n, key in enumerate(added)}
    columns |= {("extreme", i): FIRST_COLUMN + len(added) + n for n, i in enumerate(minima + maxima)}
    first_last = FIRST_COLUMN + len(columns)
    chosen = [(i, f) for i, f in enumerate(view.features) if f.function == "last"]
    lasts = tuple(Last(i, first_last + 2 * n, f.window, f.where is not None) for n, (i, f) in enumerate(chosen))
    hops = sorted({f.hop for f in view.features if f.hop})
    tiers = tuple(_tier(view, hop, columns) for hop in hops)
    width = first_last + 2 * len(lasts)
    header, empty = Struct(f"<{_FIXED + len(tiers)}q"), tuple(f.empty for f in view.features)
    return Layout(view, tuple(added), tuple(minima), tuple(maxima), lasts, tiers, width, header, empty)


def _tier(view: FeatureViewDef, hop: Micros, columns: Mapping[tuple[str, int], int]) -> Tier:
    mine = {i: f for i, f in enumerate(view.features) if f.hop == hop}

    def reach(*functions: str) -> tuple[int, int]:
        taken = [n for (_, i), n in columns.items() if i in mine and mine[i].function in functions]
        return (min(taken), max(taken) + 1) if taken else (FIRST_COLUMN, FIRST_COLUMN)

    def window(length: Micros) -> Window:
        slots = [_slot(i, f, columns) for i, f in mine.items() if f.window == length]
        sums = tuple(s for s in slots if s.function in _PARTS)
        return Window(length, hop, sums, tuple(s for s in slots if s.function not in _PARTS))

    lengths = sorted({f.window for f in mine.values() if f.window is not None})
    ranges = (reach("count", "sum", "mean"), reach("min"), reach("max"))
    _, added, minima, maxima = accumulate((end - first for first, end in ranges), initial=1)
    return Tier(hop, lengths[-1], *ranges, (added, minima, maxima), tuple(window(length) for length in lengths))


def _slot(index: int, feature: Feature, columns: Mapping[tuple[str, int], int]) -> Slot:
    parts = {part: columns[part, i] for part, i in columns if i == index}
    return Slot(index, feature.function, 10**feature.scale, **parts)


def records(layout: Layout, facts: Facts) -> Ints:
    """Facts as rows of the head, in the order given."""
    rows = np.empty((len(facts.event), layout.width), np.int64)
    rows[:, EVENT], rows[:, STARTS], rows[:, ID] = facts.event, facts.starts, facts.id.view(np.int64)
    split = {i: lanes(facts.lifted[i][1]) for part, i in layout.added if part == "high"}
    column = FIRST_COLUMN
    for part, i in layout.added:
        mask, _ = facts.lifted[i]
        rows[:, column] = mask if part == "count" else np.where(mask, split[i][part == "low"], 0)
        column += 1
    for chosen, nothing in ((layout.minima, NO_MINIMUM), (layout.maxima, NO_MAXIMUM)):
        for i in chosen:
            mask, words = facts.lifted[i]
            rows[:, column] = np.where(mask, words, nothing)
            column += 1
    for last in layout.lasts:
        mask, words = facts.lifted[last.feature]
        rows[:, last.has] = mask
        rows[:, last.has + 1] = np.where(mask, words, 0)
    return rows


def windows_until(layout: Layout, event: Ints) -> Ints:
    """The first time at which facts no longer count in any window; `NO_MAXIMUM` for a view without windows."""
    ends = [until(f, event) for f in layout.view.features if f.hop]
    return np.maximum.reduce(ends) if ends else np.full(len(event), NO_MAXIMUM)


def all_until(layout: Layout, event: Ints) -> Ints:
    """The first time at which facts no longer count for any feature."""
    ends: Ints = np.maximum.reduce([until(f, event) for f in layout.view.features])
    return ends


def last_until(last: Last, event: Ints) -> Ints:
    """The first time at which facts are too old for a `last` feature."""
    return np.full(len(event), FOREVER, np.int64) if last.ttl is None else event + (last.ttl + 1)


class State(NamedTuple):
    """One entity's state, as views into its packed bytes."""

    newest: Micros
    lasts: Ints
    """(number of `last` features, 4): present, event time, id, float64 bits."""
    tiles: tuple[Ints, ...]
    head: Ints


def unpack(layout: Layout, packed: bytes) -> State:
    """Read a packed value without copying; raises `CorruptObject` when it has another form."""
    if len(packed) < layout.header.size:
        raise CorruptObject("an online value is too short", hint="materialise the view again")
    form, newest, rows, *counts = layout.header.unpack_from(packed)
    words = np.frombuffer(packed, np.int64)
    at = _FIXED + len(counts)
    lasts = words[at : at + 4 * len(layout.lasts)]
    at += len(lasts)
    tiles = []
    for tier, count in zip(layout.tiers, counts, strict=True):
        end = at + count * tier.cuts[2]
        tiles.append(words[at:end].reshape(-1, tier.cuts[2]))
        at = end
    if form != FORMAT or len(words) != at + rows * layout.width:
        raise CorruptObject("an online value has an unknown format or length", hint="materialise the view again")
    return State(newest, lasts.reshape(-1, 4), tuple(tiles), words[at:].reshape(-1, layout.width))


def pack(newest: Micros, lasts: Ints, tiles: Sequence[Ints], head: Ints) -> bytes:
    """The packed value; `unpack` reads it."""
    header = np.array([FORMAT, newest, len(head), *(len(t) for t in tiles)], np.int64)
    return b"".join([header.tobytes(), lasts.tobytes(), *(t.tobytes() for t in tiles), head.tobytes()])
