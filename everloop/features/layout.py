"""The packed value of one entity in one view: 64-bit integers, little endian, the same bytes for the same facts.

    header   format | newest known time | facts in the head | tiles of each tier
    lasts    of each `last`, the newest folded fact: present, event time, id, float64 bits
    tiles    of each tier (hop), ascending: start of the hop, added columns, minima, maxima
    head     facts as they came, ascending by start: event time, start, id, added columns, minima, maxima, lasts

The horizon is the newest known time less the view's slack. Facts that started before it are folded into tiles, for
every question that may still be asked counts them whole; later ones stay in the head, exact to the microsecond.
Both follow from the set of facts alone, so neither order, nor batches, nor redelivery changes a byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from everloop.core.clock import Micros
from everloop.core.errors import CorruptObject
from everloop.features.definitions import FOREVER, Feature, FeatureViewDef
from everloop.features.facts import Facts, Ints, until
from everloop.features.finalise import lanes

FORMAT = 1
NO_MINIMUM, NO_MAXIMUM = 2**63 - 1, -(2**63)
EVENT, STARTS, ID, FIRST_COLUMN = 0, 1, 2, 3
_FIXED = 3  # words of the header before the tile counts

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a windowed feature finds its state: indices into added, minimum and maximum columns."""

    feature: int
    count: int = -1
    high: int = -1
    low: int = -1
    minimum: int = -1
    maximum: int = -1


@dataclass(frozen=True, slots=True)
class Window:
    """One length of window in a tier, and the features that use it."""

    length: Micros
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Tier:
    """Tiles of one hop, kept as long as its longest window needs them."""

    hop: Micros
    longest: Micros
    added: Ints
    """Indices of the head's added columns that its tiles hold; likewise minima and maxima."""
    minima: Ints
    maxima: Ints
    windows: tuple[Window, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Last:
    """A `last` feature: its columns in the head are `has` and `has + 1`."""

    feature: int
    has: int
    ttl: Micros | None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a view's state is laid out; made once from the definition by `layout_of`."""

    view: FeatureViewDef
    added: tuple[tuple[str, int], ...]
    """(part, feature): part is `count`, `high` or `low`."""
    minima: tuple[int, ...]
    maxima: tuple[int, ...]
    lasts: tuple[Last, ...]
    tiers: tuple[Tier, ...]
    width: int = field(init=False)
    """Words of a fact in the head."""

    def __post_init__(self) -> None:
        """Derive the width."""
        width = FIRST_COLUMN + len(self.added) + len(self.minima) + len(self.maxima) + 2 * len(self.lasts)
        object.__setattr__(self, "width", width)

    @property
    def first_minimum(self) -> int:
        """Index of the head's first minimum column."""
        return FIRST_COLUMN + len(self.added)

    @property
    def first_maximum(self) -> int:
        """Index of the head's first maximum column."""
        return self.first_minimum + len(self.minima)

    @property
    def header(self) -> int:
        """Words of the header."""
        return _FIXED + len(self.tiers)


def layout_of(view: FeatureViewDef) -> Layout:
    """The layout of a view."""
    added: list[tuple[str, int]] = []
    minima: list[int] = []
    maxima: list[int] = []
    for i, feature in enumerate(view.features):
        added += [(part, i) for part in _PARTS.get(feature.function, ())]
        minima += [i] if feature.function == "min" else []
        maxima += [i] if feature.function == "max" else []
    first_last = FIRST_COLUMN + len(added) + len(minima) + len(maxima)
    chosen = [(i, f) for i, f in enumerate(view.features) if f.function == "last"]
    lasts = tuple(Last(i, first_last + 2 * n, f.window) for n, (i, f) in enumerate(chosen))
    hops = sorted({f.hop for f in view.features if f.hop})
    tiers = tuple(_tier(view, hop, added, minima, maxima) for hop in hops)
    return Layout(view, tuple(added), tuple(minima), tuple(maxima), lasts, tiers)


_PARTS: dict[str, Parts] = {"count": ("count",), "sum": ("high", "low"), "mean": ("count", "high", "low")}


def _tier(
    view: FeatureViewDef, hop: Micros, added: Sequence[tuple[str, int]], minima: Sequence[int], maxima: Sequence[int]
) -> Tier:
    mine = {i: f for i, f in enumerate(view.features) if f.hop == hop}
    adds = [n for n, (_, i) in enumerate(added) if i in mine]
    lows = [n for n, i in enumerate(minima) if i in mine]
    highs = [n for n, i in enumerate(maxima) if i in mine]
    where = {added[n]: k for k, n in enumerate(adds)}
    low_at, high_at = {minima[n]: k for k, n in enumerate(lows)}, {maxima[n]: k for k, n in enumerate(highs)}

    def slot(i: int, feature: Feature) -> Slot:
        parts = {part: where[part, i] for part in _PARTS.get(feature.function, ())}
        return Slot(i, **parts, minimum=low_at.get(i, -1), maximum=high_at.get(i, -1))

    lengths = sorted({f.window for f in mine.values() if f.window is not None})
    windows = tuple(Window(w, tuple(slot(i, f) for i, f in mine.items() if f.window == w)) for w in lengths)
    return Tier(hop, lengths[-1], _index(adds), _index(lows), _index(highs), windows, 1 + len(adds) + len(lows + highs))


def _index(columns: Sequence[int]) -> Ints:
    return np.array(columns, np.int64)


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


@dataclass(frozen=True, slots=True)
class State:
    """One entity's state, as views into its packed bytes."""

    newest: Micros
    lasts: Ints
    """(number of `last` features, 4)."""
    tiles: tuple[Ints, ...]
    head: Ints


def unpack(layout: Layout, packed: bytes) -> State:
    """Read a packed value without copying; raises `CorruptObject` when it has another form."""
    words = np.frombuffer(packed, np.int64)
    count = layout.header
    header = words[:count].tolist()
    if len(header) < count or header[0] != FORMAT:
        raise CorruptObject("an online value has an unknown format", hint="materialise the view again")
    at = count + 4 * len(layout.lasts)
    lasts = words[count:at].reshape(-1, 4)
    tiles = []
    for tier, rows in zip(layout.tiers, header[_FIXED:], strict=True):
        end = at + rows * tier.width
        tiles.append(words[at:end].reshape(rows, tier.width))
        at = end
    if len(words) != at + header[2] * layout.width:
        raise CorruptObject("an online value has the wrong length", hint="materialise the view again")
    return State(header[1], lasts, tuple(tiles), words[at:].reshape(header[2], layout.width))


def pack(newest: Micros, lasts: Ints, tiles: Sequence[Ints], head: Ints) -> bytes:
    """The packed value; `unpack` reads it."""
    header = np.array([FORMAT, newest, len(head), *(len(t) for t in tiles)], np.int64)
    return b"".join([header.tobytes(), lasts.tobytes(), *(t.tobytes() for t in tiles), head.tobytes()])
