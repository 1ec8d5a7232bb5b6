"""From a packed state to the values of a view at a time: one entity, in plain Python, by functions made once a layout.

A state of a few hundred integers is read faster without arrays; `several.columns_at` reads many entities at once. Both
give the same bits, for both end in `finalise`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from struct import Struct

from everloop.core.clock import Micros
from everloop.core.errors import CorruptObject
from everloop.features.definitions import Feature, Value
from everloop.features.states.facts import NOTHING, NULL, VALUE
from everloop.features.states.finalise import estimate, joined, quantile, quotient, stddev, variance
from everloop.features.states.layout import EVENT, ID, STARTS, Atom, Bag, Keep, Layout, Tier
from everloop.features.states.packing import FORMAT, header_words, read_texts, too_early
from everloop.features.states.points import Words, newest_decoder, only_newest, words_of

Texts = Mapping[int, str]
Decoder = Callable[[bytes, Micros], list[Value]]
_DOUBLE, _WORD = Struct("<d"), Struct("<q")
_PLAIN = {"count": "count", "high": "sum", "square0": "square", "min": "min", "max": "max"}
_EMPTY: Texts = {}
Found = dict[tuple[int, Micros, str, int], int | None]
Section = tuple[int, int]
"""Where a section begins, and how many rows it has."""


class Head:
    """The facts of the head that a question sees; which of them lie in a window."""

    __slots__ = ("begin", "events", "lowest", "rows", "seen", "words")

    def __init__(self, words: Words, begin: int, rows: int, at: Micros) -> None:
        """Facts in the head are ascending by start; those that start at or after `at` are not seen."""
        self.words, self.begin, self.rows = words, begin, rows
        starts = begin + rows * STARTS
        self.seen = (
            rows
            if not rows or words[starts + rows - 1] < at
            else bisect_left(words, at, starts, starts + rows) - starts
        )
        self.events = words[begin : begin + self.seen]
        self.lowest = min(self.events) if self.seen else 0

    def column(self, column: int, inside: Sequence[int] | None) -> Words | list[int]:
        """A column of the seen facts, or of those with the given places."""
        first = self.begin + column * self.rows
        if inside is None:
            return self.words[first : first + self.seen]
        words = self.words
        return [words[first + i] for i in inside]

    def since(self, tail: Micros) -> Sequence[int] | None:
        """Places of the facts of event time >= `tail`; None when all are."""
        return None if tail <= self.lowest else [i for i, e in enumerate(self.events) if e >= tail]


def decoder_of(layout: Layout) -> Decoder:
    """A function `(packed, at) -> values`, in the order of the view's features.

    It raises `InvalidInput` when `at` lies before what the state can still answer, `CorruptObject` for other bytes.
    """
    if only_newest(layout):
        return newest_decoder(layout)
    widths, slack = layout.widths, layout.view.slack
    head_at, text_at = header_words(layout), header_words(layout) - 1
    tiers, keeps = 1 + len(layout.tiers), 1 + len(layout.tiers) + len(layout.bags)
    windows = _windows(layout)
    finishes = [(i, _finisher(atoms, tiers, keeps, layout)) for i, atoms in enumerate(layout.atoms)]
    empty, has_texts = layout.empty, bool(layout.texts)

    def decode(packed: bytes, at: Micros) -> list[Value]:
        words = words_of(packed)
        begin, sections = head_at, []
        try:
            for rows, width in zip(words[2:text_at], widths, strict=True):
                sections.append((begin, rows))
                begin += rows * width
            if words[0] != FORMAT or begin + words[text_at] != len(words) or min(words[2:head_at]) < 0:
                raise CorruptObject("an online value has an unknown form", hint="materialise the view again")
        except (IndexError, ValueError) as wrong:
            raise CorruptObject("an online value is too short", hint="materialise the view again") from wrong
        if at < words[1] - slack:
            raise too_early(layout, words[1], at)
        head = Head(words, head_at, words[2], at)
        found: Found = {}
        for window in windows:
            window(words, sections, head, at, found)
        texts = read_texts(packed[8 * begin :]) if has_texts and words[text_at] else _EMPTY
        values = list(empty)
        for i, finish in finishes:
            values[i] = finish(words, sections, head, at, found, texts)
        return values

    return decode


Window = Callable[[Words, list[Section], Head, Micros, Found], None]
Finisher = Callable[[Words, list[Section], Head, Micros, Found, Texts], Value]


def _windows(layout: Layout) -> list[Window]:
    """For each tier and length of window, a function that adds up what its features need."""
    lengths = dict.fromkeys((a.tier, a.feature.window or 0) for atoms in layout.atoms for a in atoms if a.tier >= 0)
    return [_window(layout, tier, length) for tier, length in lengths]


def _window(layout: Layout, tier_index: int, length: Micros) -> Window:
    tier = layout.tiers[tier_index]
    wanted = dict.fromkeys(
        (plain, a.lift)
        for atoms in layout.atoms
        for a in atoms
        if a.tier == tier_index and a.feature.window == length
        for plain in _needs(a.feature)
    )
    parts = [
        (
            (tier_index, length, plain, lift),
            _TOTALS[plain](_tile_column(tier, plain, lift), layout.flags[lift], layout.words[lift]),
        )
        for plain, lift in wanted
    ]
    section, hop = 1 + tier_index, tier.hop

    def total(words: Words, sections: list[Section], head: Head, at: Micros, found: Found) -> None:
        begin, rows = sections[section]
        tail = (at - length) // hop * hop
        skipped = bisect_left(words, tail, begin, begin + rows) - begin if rows else 0
        inside = head.since(tail) if head.seen else ()
        for key, act in parts:
            found[key] = act(words, (begin, rows, skipped), head, inside)

    return total


def _needs(feature: Feature) -> tuple[str, ...]:
    match feature.function:
        case "count" | "sum" | "min" | "max":
            return (feature.function,)
        case "mean":
            return ("count", "sum")
        case _:
            return ("count", "sum", "square")


def _tile_column(tier: Tier, plain: str, lift: int) -> int:
    return 1 + next(i for i, (part, mine) in enumerate(tier.columns) if mine == lift and _PLAIN.get(part) == plain)


Inside = Sequence[int] | None
_Tiles = tuple[int, int, int]
"""Where the tiles begin, how many there are, how many of these lie before the window."""
_Total = Callable[[Words, _Tiles, Head, Inside], int | None]
_NO_MINIMUM, _NO_MAXIMUM = 2**63 - 1, -(2**63)


def _count(column: int, flags: int, _word: int) -> _Total:
    def total(words: Words, tiles: _Tiles, head: Head, inside: Inside) -> int:
        begin, rows, skipped = tiles
        found = sum(words[begin + column * rows + skipped : begin + (column + 1) * rows])
        if flags < 0:
            return found + (head.seen if inside is None else len(inside))
        return found + sum(head.column(flags, inside)) if head.seen else found

    return total


def _sum(column: int, _flags: int, word: int) -> _Total:
    def total(words: Words, tiles: _Tiles, head: Head, inside: Inside) -> int:
        begin, rows, skipped = tiles
        high, low, end = (begin + (column + i) * rows for i in (0, 1, 2))
        found = (sum(words[high + skipped : low]) << 32) + sum(words[low + skipped : end])
        return found + sum(head.column(word, inside)) if head.seen else found

    return total


def _square(column: int, _flags: int, word: int) -> _Total:
    def total(words: Words, tiles: _Tiles, head: Head, inside: Inside) -> int:
        begin, rows, skipped = tiles
        lanes = (begin + (column + i) * rows for i in range(4))
        found = joined(sum(words[lane + skipped : lane + rows]) for lane in lanes)
        return found + sum(v * v for v in head.column(word, inside)) if head.seen else found

    return total


def _min(column: int, flags: int, word: int) -> _Total:
    def total(words: Words, tiles: _Tiles, head: Head, inside: Inside) -> int | None:
        begin, rows, skipped = tiles
        # A tile whose facts all lack a value holds the largest integer.
        found = min(words[begin + column * rows + skipped : begin + (column + 1) * rows], default=_NO_MINIMUM)
        found = min(found, min(_present(head, inside, flags, word), default=_NO_MINIMUM))
        return None if found == _NO_MINIMUM else found

    return total


def _max(column: int, flags: int, word: int) -> _Total:
    def total(words: Words, tiles: _Tiles, head: Head, inside: Inside) -> int | None:
        begin, rows, skipped = tiles
        found = max(words[begin + column * rows + skipped : begin + (column + 1) * rows], default=_NO_MAXIMUM)
        found = max(found, max(_present(head, inside, flags, word), default=_NO_MAXIMUM))
        return None if found == _NO_MAXIMUM else found

    return total


_TOTALS = {"count": _count, "sum": _sum, "square": _square, "min": _min, "max": _max}


def _present(head: Head, inside: Inside, flags: int, word: int) -> list[int]:
    if not head.seen:
        return []
    pairs = zip(head.column(flags, inside), head.column(word, inside), strict=True)
    return [w for f, w in pairs if f == VALUE]


def _finisher(atoms: tuple[Atom, ...], tiers: int, keeps: int, layout: Layout) -> Finisher:
    if len(atoms) == 2:
        return _ratio_of(*atoms)
    [atom] = atoms
    if atom.tier >= 0:
        return _total_of(atom)
    if atom.bag >= 0:
        return _bag_of(layout, atom, tiers + atom.bag, layout.bags[atom.bag])
    return _kept_of(layout, atom, keeps + atom.keep, layout.keeps[atom.keep])


def _ratio_of(above: Atom, below: Atom) -> Finisher:
    keys = [(a.tier, a.feature.window or 0, a.feature.function, a.lift) for a in (above, below)]
    by = [10**a.feature.scale if a.feature.function == "sum" else 1 for a in (above, below)]

    def finish(_w: Words, _s: list[Section], _h: Head, _at: Micros, found: Found, _t: Texts) -> Value:
        return quotient(found[keys[0]] or 0, by[0], found[keys[1]] or 0, by[1])

    return finish


def _total_of(atom: Atom) -> Finisher:
    feature, less = atom.feature, atom.feature.size
    divisor: int = 10**feature.scale
    first, *others = [(atom.tier, feature.window or 0, part, atom.lift) for part in _needs(feature)]

    def finish(_w: Words, _s: list[Section], _h: Head, _at: Micros, found: Found, _t: Texts) -> Value:
        one = found[first]
        if feature.function == "count" or one is None:
            return one
        if not others:
            return one / divisor
        rest = [found[key] or 0 for key in others]
        if feature.function == "mean":
            return rest[0] / (one * divisor) if one else None
        of: Callable[..., float | None] = variance if feature.function == "variance" else stddev
        return of(one, rest[0], rest[1], divisor, less)

    return finish


def _bag_of(layout: Layout, atom: Atom, section: int, bag: Bag) -> Finisher:
    feature, length, hop = atom.feature, atom.feature.window or 0, bag.hop
    flags, word = layout.flags[bag.lift], layout.words[bag.lift]

    def finish(words: Words, sections: list[Section], head: Head, at: Micros, _f: Found, texts: Texts) -> Value:
        begin, rows = sections[section]
        tail = (at - length) // hop * hop
        skipped = bisect_left(words, tail, begin, begin + rows) - begin if rows else 0
        keys = words[begin + rows + skipped : begin + 2 * rows]
        mine = _present(head, head.since(tail), flags, word)
        if bag.once:
            return estimate(sorted({*keys, *mine}), bag.size)
        counts: dict[int, int] = {}
        for key, n in zip(keys, words[begin + 2 * rows + skipped : begin + 3 * rows], strict=True):
            counts[key] = counts.get(key, 0) + n
        for w in mine:
            key = bag_key(bag, w)
            counts[key] = counts.get(key, 0) + 1
        return counted(feature, counts, texts)

    return finish


def bag_key(bag: Bag, word: int) -> int:
    """The key of one word; `layout.bag_keys` for many."""
    if bag.bits:
        size = abs(word)
        shift = max(0, size.bit_length() - (bag.bits + 1))
        return ((size >> shift) << shift) * (-1 if word < 0 else 1)
    return bisect_right(bag.edges, word) if bag.edges else word


def counted(feature: Feature, counts: Mapping[int, int], texts: Texts) -> Value:
    """The value of a feature that counts keys: `top_k`, `histogram`, `quantile`."""
    if feature.function == "histogram":
        return [counts.get(i, 0) for i in range(len(feature.edges) + 1)]
    if feature.function == "quantile":
        return quantile(sorted(counts.items()), feature.quantile, feature.size, 10**feature.scale)
    ranked = sorted((-n, value_of(feature, key, texts)) for key, n in counts.items())
    return [value for _, value in ranked[: feature.size]]  # type: ignore[return-value]


def value_of(feature: Feature, word: int, texts: Texts) -> int | float | str:
    """The value that a word stands for."""
    if feature.kind == "text":
        return texts[word]
    if feature.kind == "integer":
        return word
    value: float = _DOUBLE.unpack(_WORD.pack(word))[0]
    return value


def _kept_of(layout: Layout, atom: Atom, section: int, keep: Keep) -> Finisher:
    feature, has, word = atom.feature, layout.flags[keep.lift], layout.words[keep.lift]
    if feature.function == "last":
        return _last_of(feature, section, has, word, filtered=feature.where is not None)
    many, sign = feature.function == "last_k", -1 if keep.newest else 1

    def finish(words: Words, sections: list[Section], head: Head, at: Micros, _f: Found, texts: Texts) -> Value:
        begin, rows = sections[section]
        offers = [
            (sign * words[i], sign * (words[i + rows] % 2**64), words[i + 2 * rows], words[i + 3 * rows])
            for i in range(begin, begin + rows)
        ]
        columns = (head.column(c, None) for c in (EVENT, ID, has, word))
        for event, identity, flag, value in zip(*columns, strict=True):
            if flag == VALUE or (flag == NULL and keep.nulls):
                offers.append((sign * event, sign * (identity % 2**64), flag, value))
        if feature.window is not None:
            tail = (at - feature.window) // (keep.hop or 1) * (keep.hop or 1)
            offers = [o for o in offers if sign * o[0] >= tail]
        offers.sort()
        if many:
            return [value_of(feature, o[3], texts) for o in offers[: feature.size]]  # type: ignore[return-value]
        return value_of(feature, offers[0][3], texts) if offers and offers[0][2] == VALUE else None

    return finish


def _last_of(feature: Feature, section: int, has: int, word: int, *, filtered: bool) -> Finisher:
    ttl = feature.window

    def finish(words: Words, sections: list[Section], head: Head, at: Micros, _f: Found, texts: Texts) -> Value:
        begin, rows = sections[section]
        event, identity, flag, value = words[begin : begin + 4] if rows else (0, 0, NOTHING, 0)
        seen, n, first = head.seen, head.rows, head.begin
        places: Sequence[int] = range(seen)
        if seen and filtered:
            flags = first + has * n
            places = [i for i in places if words[flags + i]]
        if places:
            events = [head.events[i] for i in places] if filtered else head.events
            newest = max(events)
            if flag == NOTHING or newest >= event:
                i = places[events.index(newest)]
                if events.count(newest) > 1 or (flag != NOTHING and newest == event):
                    tied = [
                        (words[first + ID * n + j] % 2**64, j)
                        for j, e in zip(places, events, strict=True)
                        if e == newest
                    ]
                    best, i = max(tied)
                    if flag != NOTHING and newest == event and best < identity % 2**64:
                        i = -1
                if i >= 0:
                    event, flag, value = newest, words[first + has * n + i], words[first + word * n + i]
        if flag != VALUE or (ttl is not None and event < at - ttl):
            return None
        return value_of(feature, value, texts)

    return finish
