"""What one entity of a view keeps, as columns of 64-bit integers; made from the definition by `layout_of`.

    head     facts as they came, ascending by (start, id): event time, start, id, and for each lift flags and word
    tiles    of each tier (hop), ascending: start of the hop, columns that add up, minima, maxima
    bags     ascending by (start of the hop, key): how often each key occurs, for `top_k`, `distinct`, …
    keeps    the newest or oldest folded facts: event time, id, flags, word

The horizon is the newest known time less the view's slack. Facts that started before it are folded into the others,
for every question that may still be asked counts them whole; later ones stay in the head, exact to the microsecond.
Both follow from the set of facts alone, so neither order, nor batches, nor redelivery changes anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from everloop.core.clock import Micros
from everloop.features.definitions import Feature, FeatureViewDef, Value
from everloop.features.states.columns import Ints
from everloop.features.states.facts import VALUE, Facts, Lift, atoms_of, lift_of, lifts_of, until
from everloop.features.states.finalise import buckets, lanes, squares

NO_MINIMUM, NO_MAXIMUM = 2**63 - 1, -(2**63)
EVENT, STARTS, ID, FIRST_COLUMN = 0, 1, 2, 3
Part = Literal["count", "high", "low", "square0", "square1", "square2", "square3", "min", "max"]
_SUM: tuple[Part, ...] = ("high", "low")
_SQUARES: tuple[Part, ...] = ("square0", "square1", "square2", "square3")
PARTS: dict[str, tuple[Part, ...]] = {
    "count": ("count",),
    "sum": _SUM,
    "mean": ("count", *_SUM),
    "variance": ("count", *_SUM, *_SQUARES),
    "stddev": ("count", *_SUM, *_SQUARES),
    "min": ("min",),
    "max": ("max",),
}
"""Columns of a tile that a function needs."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Tiles of one hop, kept as long as its longest window needs them. Rows: the start, then `columns`."""

    hop: Micros
    longest: Micros
    columns: tuple[tuple[Part, int], ...]
    """(part, lift): first those that add up, then minima, then maxima."""
    cuts: tuple[int, int, int]
    """Where the columns that add up, the minima and the maxima end; the third is the width."""


@dataclass(frozen=True, slots=True)
class Bag:
    """How often keys occur in each hop. Rows: start of the hop, key and, unless `once`, count."""

    hop: Micros
    longest: Micros
    lift: int
    once: bool
    """Whether a key counts once, however often it occurs (`distinct`)."""
    size: int
    """Only so many smallest keys of each hop are kept; 0 for all."""
    bits: int = 0
    """Keys are buckets of so many bits; 0 for another key."""
    edges: tuple[int, ...] = ()
    """Keys are places among these edges."""

    @property
    def width(self) -> int:
        """Words of a row."""
        return 2 if self.once else 3


@dataclass(frozen=True, slots=True)
class Keep:
    """Folded facts that are kept: `size` newest or oldest ones, of each hop or (0) of all time."""

    hop: Micros
    longest: Micros | None
    lift: int
    newest: bool
    size: int
    nulls: bool
    """Whether a fact whose value is null is kept."""

    width = 4


@dataclass(frozen=True, slots=True)
class Atom:
    """A feature, or a part of a ratio, and where its state is."""

    feature: Feature
    lift: int
    tier: int = -1
    bag: int = -1
    keep: int = -1


@dataclass(frozen=True, slots=True)
class Layout:
    """How a view's state is laid out."""

    view: FeatureViewDef
    lifts: tuple[Lift, ...]
    flags: tuple[int, ...]
    """Column of the head with the flags of each lift; -1 where every fact has it."""
    words: tuple[int, ...]
    """Column of the head with the words of each lift; -1 where there are none."""
    width: int
    """Columns of the head."""
    tiers: tuple[Tier, ...]
    bags: tuple[Bag, ...]
    keeps: tuple[Keep, ...]
    atoms: tuple[tuple[Atom, ...], ...]
    """For each feature one atom; two for a ratio."""
    empty: tuple[Value, ...]
    """The view's values where there are no facts."""
    texts: tuple[int, ...]
    """Lifts whose words stand for texts."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Words of a row of each section: head, tiers, bags, keeps."""
        tiers = [t.cuts[2] for t in self.tiers]
        return (self.width, *tiers, *(b.width for b in self.bags), *(k.width for k in self.keeps))


def layout_of(view: FeatureViewDef) -> Layout:
    """The layout of a view."""
    lifts = lifts_of(view)
    flags, words, column = [], [], FIRST_COLUMN
    for lift in lifts:
        flags.append(-1 if lift.always else column)
        column += not lift.always
        words.append(-1 if lift.how == "one" else column)
        column += lift.how != "one"
    parts = [(a, lifts.index(lift_of(a))) for a in atoms_of(view)]
    tiers, bags, keeps = _tiers(parts), _bags(parts), _keeps(parts)
    hops, bag_keys, keep_keys = [t.hop for t in tiers], [_bag_key(b) for b in bags], [_keep_key(k) for k in keeps]

    def atom(feature: Feature) -> Atom:
        lift = lifts.index(lift_of(feature))
        if feature.function in PARTS:
            return Atom(feature, lift, tier=hops.index(feature.hop))
        keep = _keep(feature, lift)
        if keep is not None:
            return Atom(feature, lift, keep=keep_keys.index(_keep_key(keep)))
        return Atom(feature, lift, bag=bag_keys.index(_bag_key(_bag(feature, lift))))

    atoms = tuple(tuple(atom(a) for a in (f.parts or (f,))) for f in view.features)
    texts = tuple(i for i, lift in enumerate(lifts) if lift.how == "value" and lift.kind == "text")
    empty = tuple(f.empty for f in view.features)
    return Layout(view, lifts, tuple(flags), tuple(words), column, tiers, bags, keeps, atoms, empty, texts)


def _tiers(parts: Iterable[tuple[Feature, int]]) -> tuple[Tier, ...]:
    mine = [(a, lift) for a, lift in parts if a.function in PARTS]

    def tier(hop: Micros) -> Tier:
        here = [(a, lift) for a, lift in mine if a.hop == hop]
        columns = list(dict.fromkeys((part, lift) for a, lift in here for part in PARTS[a.function]))
        columns.sort(key=lambda c: 2 if c[0] == "max" else c[0] == "min")
        minima, maxima = (sum(c[0] == what for c in columns) for what in ("min", "max"))
        width = 1 + len(columns)
        longest = max(a.window or 0 for a, _ in here)
        return Tier(hop, longest, tuple(columns), (width - minima - maxima, width - maxima, width))

    return tuple(tier(hop) for hop in sorted({a.hop for a, _ in mine}))


def _bags(parts: Iterable[tuple[Feature, int]]) -> tuple[Bag, ...]:
    found: dict[tuple[object, ...], Bag] = {}
    for feature, lift in parts:
        if feature.function not in PARTS and _keep(feature, lift) is None:
            bag = _bag(feature, lift)
            other = found.get(_bag_key(bag))
            if other is None or other.longest < bag.longest:
                found[_bag_key(bag)] = bag
    return tuple(found.values())


def _keeps(parts: Iterable[tuple[Feature, int]]) -> tuple[Keep, ...]:
    found: dict[tuple[object, ...], Keep] = {}
    for feature, lift in parts:
        keep = _keep(feature, lift)
        if keep is not None:
            other = found.get(_keep_key(keep))
            longer = other is None or (other.longest is not None and (keep.longest or 2**63) > other.longest)
            found[_keep_key(keep)] = keep if longer or other is None else other
    return tuple(found.values())


def _bag(feature: Feature, lift: int) -> Bag:
    once = feature.function == "distinct"
    bits = feature.size if feature.function == "quantile" else 0
    return Bag(feature.hop, feature.window or 0, lift, once, feature.size if once else 0, bits, feature.edges)


def _keep(feature: Feature, lift: int) -> Keep | None:
    if feature.function not in {"first", "last", "last_k"}:
        return None
    newest = feature.function != "first"
    size = feature.size or 1
    return Keep(feature.hop, None if feature.hop == 0 and not newest else feature.window, lift, newest, size,
                feature.function != "last_k")  # fmt: skip


def _bag_key(bag: Bag) -> tuple[object, ...]:
    return bag.hop, bag.lift, bag.once, bag.size, bag.bits, bag.edges


def _keep_key(keep: Keep) -> tuple[object, ...]:
    return keep.hop, keep.lift, keep.newest, keep.size, keep.nulls


def records(layout: Layout, facts: Facts) -> Ints:
    """Facts as columns of the head, in the order given: `(layout.width, facts)`."""
    rows = np.empty((layout.width, len(facts.event)), np.int64)
    rows[EVENT], rows[STARTS], rows[ID] = facts.event, facts.starts, facts.id.view(np.int64)
    for (flags, words), has, word in zip(facts.lifted, layout.flags, layout.words, strict=True):
        if has >= 0:
            rows[has] = flags
        if word >= 0:
            rows[word] = words
    return rows


def tile_columns(layout: Layout, tier: Tier, rows: Ints) -> Ints:
    """What facts (columns of the head) are as rows of tiles: `(width, facts)`."""
    lifted = np.empty((tier.cuts[2], rows.shape[1]), np.int64)
    lifted[0] = rows[EVENT] // tier.hop * tier.hop
    squared: dict[int, tuple[Ints, ...]] = {}
    for at, (part, lift) in enumerate(tier.columns, 1):
        has, word = layout.flags[lift], layout.words[lift]
        if part == "count":
            lifted[at] = rows[has] if has >= 0 else 1
        elif part in {"min", "max"}:
            lifted[at] = np.where(rows[has] == VALUE, rows[word], NO_MINIMUM if part == "min" else NO_MAXIMUM)
        elif part in {"high", "low"}:
            lifted[at] = lanes(rows[word])[part == "low"]
        else:
            if lift not in squared:
                squared[lift] = squares(rows[word])
            lifted[at] = squared[lift][int(part[-1])]
    return lifted


def bag_keys(bag: Bag, words: Ints) -> Ints:
    """The keys of words."""
    if bag.bits:
        return buckets(words, bag.bits)
    return np.searchsorted(np.array(bag.edges), words, side="right") if bag.edges else words


def windows_until(layout: Layout, event: Ints) -> Ints:
    """The first time at which facts no longer count in any window; `NO_MAXIMUM` for a view without windows."""
    reaches = {(a.feature.window, a.feature.hop) for atoms in layout.atoms for a in atoms if a.feature.hop}
    ends = [until(window, hop, event) for window, hop in reaches]
    return np.maximum.reduce(ends) if ends else np.full(len(event), NO_MAXIMUM)


def all_until(layout: Layout, event: Ints) -> Ints:
    """The first time at which facts no longer count for any feature."""
    reaches = {(a.feature.window, a.feature.hop) for atoms in layout.atoms for a in atoms}
    ends: Ints = np.maximum.reduce([until(window, hop, event) for window, hop in reaches])
    return ends
