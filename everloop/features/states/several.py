"""Values of many entities at once: their states lie one after the other, and are added up where they lie by NumPy.

A column of a section is a run of words, so a window of an entity's tiles is a range of the row of all words. Sums and
extremes of many ranges are one call each. Every feature ends in `finalise`, as those of one entity do (`decode`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.features.definitions import Feature, Value
from everloop.features.states.columns import Ints, Mask
from everloop.features.states.decode import Decoder
from everloop.features.states.facts import NOTHING, VALUE
from everloop.features.states.finalise import joined, lanes, quotient, ratios, squares, stddev, variance
from everloop.features.states.layout import EVENT, ID, NO_MAXIMUM, NO_MINIMUM, PARTS, STARTS, Atom, Layout, Part
from everloop.features.states.packing import FORMAT, NEVER, header_words, headers, too_early
from everloop.features.states.points import only_newest

Reader = Callable[[Sequence[bytes | None], Micros], list[list[Value]]]
"""From packed states (None: an entity without facts) to a list of values for each feature."""
FEW, FEW_NEWEST = 12, 40
"""Up to so many entities, one after the other is faster; of views that only ask for the newest value, of more."""
_END = bytes(8)
"""A word after the last one, for ranges that end there."""


def reader_of(layout: Layout, decode: Decoder) -> Reader:
    """A function that reads many states; it raises what `decode`, the function for one of them, raises."""
    few = FEW_NEWEST if only_newest(layout) else FEW
    empty, several = layout.empty, _Several(layout) if _plain(layout) else None

    def read(packed: Sequence[bytes | None], at: Micros) -> list[list[Value]]:
        if not packed:
            return [[] for _ in empty]
        if several is None or len(packed) <= few:
            rows = [empty if p is None else decode(p, at) for p in packed]
            return [list(column) for column in zip(*rows, strict=True)]
        return several.values(packed, at)

    return read


def _plain(layout: Layout) -> bool:
    """Whether all features are sums, extremes or newest numbers, for which there is a way over arrays."""
    return all(
        atom.tier >= 0 or (atom.keep >= 0 and atom.feature.function == "last" and atom.feature.kind != "text")
        for atoms in layout.atoms
        for atom in atoms
    )


@dataclass(frozen=True, slots=True)
class _Heads:
    """Facts in the heads of many entities, entity by entity: whose each is, and where it lies in the words."""

    words: Ints
    owner: Ints
    place: Ints
    step: Ints
    """How far a fact's next column is from it."""
    cuts: Ints
    """Where each entity's facts begin; one more."""
    owners: Ints
    """The entities that have facts."""

    @classmethod
    def of(cls, words: Ints, starts: Ints, rows: Ints, at: Micros) -> "_Heads":
        """Those that a question sees."""
        cuts = _cuts(rows)
        owner = np.repeat(np.arange(len(rows)), rows)
        place = (starts - cuts[:-1]).take(owner) + np.arange(len(owner))
        whole = cls(words, owner, place, rows.take(owner), cuts, np.flatnonzero(rows))
        began = whole.column(STARTS)
        return whole.only(began < at) if len(owner) and began.max() >= at else whole

    def only(self, wanted: Mask) -> "_Heads":
        """The facts of a mask."""
        owner = self.owner[wanted]
        rows = np.bincount(owner, minlength=len(self.cuts) - 1)
        return _Heads(self.words, owner, self.place[wanted], self.step[wanted], _cuts(rows), np.flatnonzero(rows))

    def column(self, column: int) -> Ints:
        """A column of all facts."""
        return self.words.take(self.place + column * self.step if column else self.place)

    def newest(self) -> tuple[Ints, Ints]:
        """Of each entity that has facts its number and, among the facts, its newest: by event time, then by id."""
        owners = self.owners
        if not len(owners):
            return owners, owners
        events = self.column(EVENT)
        top = np.zeros(len(self.cuts) - 1, np.int64)
        top[owners] = np.maximum.reduceat(events, self.cuts[owners])
        facts = np.flatnonzero(events == top[self.owner])
        if len(facts) > len(owners):
            ids = self.column(ID)[facts].view(np.uint64)
            facts = facts[np.lexsort((ids, self.owner[facts]))]
            mine = self.owner[facts]
            facts = facts[np.r_[mine[1:] != mine[:-1], True]]
        return owners, facts


@dataclass(frozen=True, slots=True)
class _Reach:
    """What lies in the windows: `(windows, entities)`."""

    rows: Ints
    """Tiles of the window's tier."""
    spans: Ints
    """`(2, windows, entities)`: where the start of the first tile of the window lies, and where the starts end."""
    inside: Mask
    """Which facts of the heads: `(windows, facts)`."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one question sees of many states."""

    words: Ints
    counts: Ints
    starts: Ints
    """Rows of each section, and where it begins: `(sections, entities)`."""
    heads: _Heads
    at: Micros


_Window = tuple[int, Micros]
"""The tier and the length of a window."""
_Key = tuple[int, Part, int]
"""The window, the part and the lift of what is added up or compared."""


class _Parts:
    """Parts of tiles that are combined in one way, each once, however many features share it."""

    def __init__(self, layout: Layout, windows: Sequence[_Window], keys: Sequence[_Key], combine: np.ufunc) -> None:
        self._layout, self._keys, self._combine = layout, keys, combine
        self._nothing = NO_MINIMUM if combine is np.minimum else NO_MAXIMUM if combine is np.maximum else 0
        self._windows = np.array([window for window, _, _ in keys], np.int64)
        columns = [layout.tiers[windows[w][0]].columns.index((part, lift)) for w, part, lift in keys]
        self._columns = np.array([1 + column for column in columns], np.int64)[:, None]

    def put(self, asked: _Asked, reach: _Reach, found: dict[_Key, Ints]) -> None:
        """What lies in the windows, tiles and head together, of each entity."""
        if not self._keys:
            return
        spans = reach.spans[:, self._windows] + self._columns * reach.rows[self._windows]
        begin, end = spans
        cuts = spans.T.ravel()  # entity by entity: `reduceat` also walks from range to range
        values = self._combine.reduceat(asked.words, cuts)[::2].reshape(begin.T.shape).T
        values = np.where(begin < end, values, self._nothing)
        owners = asked.heads.owners
        if len(owners):
            mine = self._combine.reduceat(self._of_facts(asked.heads, reach), asked.heads.cuts[owners], axis=1)
            if len(owners) == values.shape[1]:
                values = self._combine(values, mine)
            else:
                values[:, owners] = self._combine(values[:, owners], mine)
        found.update(zip(self._keys, values, strict=True))

    def _of_facts(self, heads: _Heads, reach: _Reach) -> Ints:
        """What each fact of the heads is to each part: `(parts, facts)`."""
        known: dict[tuple[Part, int], Ints | int] = {}
        made = np.empty((len(self._keys), len(heads.owner)), np.int64)
        for row, (window, part, lift) in enumerate(self._keys):
            if (part, lift) not in known:
                self._lifted(heads, part, lift, known)
            if self._nothing:
                made[row] = np.where(reach.inside[window], known[part, lift], self._nothing)
            else:
                np.multiply(known[part, lift], reach.inside[window], out=made[row])
        return made

    def _lifted(self, heads: _Heads, part: Part, lift: int, known: dict[tuple[Part, int], Ints | int]) -> None:
        flags, word = self._layout.flags[lift], self._layout.words[lift]
        if part == "count":
            known[part, lift] = 1 if flags < 0 else heads.column(flags)
        elif part in {"min", "max"}:
            known[part, lift] = np.where(heads.column(flags) == VALUE, heads.column(word), self._nothing)
        elif part in {"high", "low"}:
            known["high", lift], known["low", lift] = lanes(heads.column(word))
        else:
            for name, square in zip(_SQUARES, squares(heads.column(word)), strict=True):
                known[name, lift] = square


class _Several:
    """How a layout's states are read together."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._widths = layout, np.array([*layout.widths, 1])
        self._nothing = np.array([FORMAT, NEVER, *[0] * (header_words(layout) - 2)]).tobytes()
        atoms = [a for mine in layout.atoms for a in mine]
        self._windows = list(dict.fromkeys((a.tier, a.feature.window or 0) for a in atoms if a.tier >= 0))
        self._hops = np.array([layout.tiers[tier].hop for tier, _ in self._windows], np.int64)
        self._lengths = np.array([length for _, length in self._windows], np.int64)
        self._sections = np.array([1 + tier for tier, _ in self._windows], np.int64)
        keys = list(dict.fromkeys(key for a in atoms if a.tier >= 0 for key in self._keys(a)))
        ways: dict[Part, np.ufunc] = {"min": np.minimum, "max": np.maximum}
        self._parts = [
            _Parts(layout, self._windows, [k for k in keys if ways.get(k[1], np.add) is way], way)
            for way in (np.add, np.minimum, np.maximum)
        ]
        plain = [(i, a[0]) for i, a in enumerate(layout.atoms) if a[0].keep >= 0 and a[0].feature.where is None]
        filtered = [(i, a[0]) for i, a in enumerate(layout.atoms) if a[0].keep >= 0 and a[0].feature.where is not None]
        self._newest = ([_Newest(layout, plain)] if plain else []) + [_Newest(layout, [one]) for one in filtered]
        nothing = {"sum": 0, "mean": 0, "min": NO_MINIMUM, "max": NO_MAXIMUM}
        quotients = [(i, a) for i, [a, *_] in enumerate(layout.atoms) if layout.view.features[i].function in nothing]
        self._quotients = [(i, self._keys(a), nothing[a.feature.function]) for i, a in quotients]
        self._scales = np.array([a.feature.scale for _, a in quotients], np.int64)[:, None]

    def _keys(self, atom: Atom) -> list[_Key]:
        window = self._windows.index((atom.tier, atom.feature.window or 0))
        return [(window, part, atom.lift) for part in PARTS[atom.feature.function]]

    def values(self, packed: Sequence[bytes | None], at: Micros) -> list[list[Value]]:
        """For each feature a list with the value of each entity. Raises `InvalidInput`, `CorruptObject`."""
        layout = self._layout
        there = [self._nothing if p is None else p for p in packed] if None in packed else packed
        header, starts, words = headers(there, self._widths, end=_END)  # type: ignore[arg-type]
        newest = int(header[1].max())
        if at < newest - layout.view.slack:
            raise too_early(layout, newest, at)
        counts = header[2:-1]
        asked = _Asked(words, counts, starts, _Heads.of(words, starts[0], counts[0], at), at)
        found: list[list[Value]] = [[] for _ in layout.atoms]
        for newest_of in self._newest:
            newest_of.put(asked, found)
        if self._windows:
            parts: dict[_Key, Ints] = {}
            reach = self._reach(asked)
            for some in self._parts:
                some.put(asked, reach, parts)
            self._put_quotients(parts, found)
            for i, (feature, atoms) in enumerate(zip(layout.view.features, layout.atoms, strict=True)):
                if atoms[0].tier >= 0 and not found[i]:
                    found[i] = self._other(feature, atoms, parts)
        return found

    def _reach(self, asked: _Asked) -> _Reach:
        rows, begin = asked.counts[self._sections], asked.starts[self._sections]
        tails = ((asked.at - self._lengths) // self._hops * self._hops)[:, None]
        spans = np.empty((2, *rows.shape), np.int64)
        spans[0], spans[1] = _first(asked.words, begin, rows, tails), begin + rows
        return _Reach(rows, spans, asked.heads.column(EVENT) >= tails)

    def _put_quotients(self, parts: Mapping[_Key, Ints], found: list[list[Value]]) -> None:
        """Values of all sums, means, minima and maxima, finalised together."""
        if not self._quotients:
            return
        shape = len(self._quotients), len(next(iter(parts.values())))
        high, low, count = np.empty(shape, np.int64), np.empty(shape, np.int64), np.ones(shape, np.int64)
        for row, (_, keys, nothing) in enumerate(self._quotients):
            if nothing:
                count[row] = there = parts[keys[0]] != nothing
                high[row], low[row] = lanes(parts[keys[0]] * there)
            else:
                high[row], low[row] = parts[keys[-2]], parts[keys[-1]]
                if len(keys) > len(_SUM):
                    count[row] = parts[keys[0]]
        values = ratios(high, low, count, self._scales)
        for (i, _, _), column, divisors in zip(self._quotients, values.tolist(), count, strict=True):
            for entity in np.flatnonzero(divisors == 0).tolist():
                column[entity] = None
            found[i] = column

    def _other(self, feature: Feature, atoms: tuple[Atom, ...], parts: Mapping[_Key, Ints]) -> list[Value]:
        """Values of a count, ratio, variance or deviation."""
        if len(atoms) == 2:
            pairs = zip(*(self._whole(a, parts) for a in atoms), strict=True)
            by = [10**a.feature.scale if a.feature.function == "sum" else 1 for a in atoms]
            return [quotient(a, by[0], b, by[1]) for a, b in pairs]
        if feature.function == "count":
            return list(self._whole(atoms[0], parts))
        of: Callable[..., float | None] = variance if feature.function == "variance" else stddev
        divisor = 10**feature.scale
        lists = [parts[key].tolist() for key in self._keys(atoms[0])]
        return [
            of(n, joined((low, high)), joined(squared), divisor, feature.size)
            for n, high, low, *squared in zip(*lists, strict=True)
        ]

    def _whole(self, atom: Atom, parts: Mapping[_Key, Ints]) -> list[int]:
        lists: list[list[int]] = [parts[key].tolist() for key in self._keys(atom)]
        return lists[0] if len(lists) == 1 else [joined((low, high)) for high, low in zip(*lists, strict=True)]


class _Newest:
    """Features that are the newest value: all those without a filter, or one with a filter."""

    def __init__(self, layout: Layout, wanted: Sequence[tuple[int, Atom]]) -> None:
        atoms = [atom for _, atom in wanted]
        self._wanted = [(i, atom.feature.kind == "integer") for i, atom in wanted]
        self._keeps = np.array([1 + len(layout.tiers) + len(layout.bags) + a.keep for a in atoms])
        self._flags = np.array([layout.flags[a.lift] for a in atoms])[:, None]
        self._words = np.array([layout.words[a.lift] for a in atoms])[:, None]
        ages = [2**62 if a.feature.window is None else a.feature.window for a in atoms]
        self._ages = np.array(ages, np.int64)[:, None]
        self._filter = -1 if atoms[0].feature.where is None else layout.flags[atoms[0].lift]

    def put(self, asked: _Asked, found: list[list[Value]]) -> None:
        """Put each feature's values where they belong."""
        words, entities = asked.words, asked.counts.shape[1]
        heads = asked.heads if self._filter < 0 else asked.heads.only(asked.heads.column(self._filter) != NOTHING)
        folded = asked.counts[self._keeps] > 0
        begin = np.where(folded, asked.starts[self._keeps], 0)
        owners, facts = heads.newest()
        place, step = np.full(entities, -1), np.zeros(entities, np.int64)
        place[owners], step[owners] = heads.place[facts], heads.step[facts]
        event, kept = words[place], words[begin]
        ids, kept_ids = (words[at].view(np.uint64) for at in (place + ID * step, begin + 1))
        younger = (place >= 0) & (~folded | (event > kept) | ((event == kept) & (ids >= kept_ids)))
        flags = words[np.where(younger, place + self._flags * step, begin + 2)]
        there = (younger | folded) & (flags == VALUE)
        there &= np.where(younger, event, kept) >= asked.at - self._ages
        values = words[np.where(younger, place + self._words * step, begin + 3)]
        whole = there.all(axis=1).tolist()
        for row, (i, integer) in enumerate(self._wanted):
            column: list[Any] = (values[row] if integer else values[row].view(np.float64)).tolist()
            mine = zip(column, there[row].tolist(), strict=True)
            found[i] = column if whole[row] else [value if ok else None for value, ok in mine]


_SUM: tuple[Part, ...] = PARTS["sum"]
_SQUARES: tuple[Part, ...] = ("square0", "square1", "square2", "square3")


def _cuts(rows: Ints) -> Ints:
    cuts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(rows, out=cuts[1:])
    return cuts


def _first(words: Ints, begin: Ints, rows: Ints, least: Ints) -> Ints:
    """Of each range of ascending words the place of the first that is `least` or more; its end when none is."""
    before, last = begin - 1, begin + rows - 1
    step = 1 << int(rows.max(initial=0)).bit_length() >> 1
    while step:
        probe = np.minimum(before + step, last)
        before = np.where(words.take(probe) < least, probe, before)
        step >>= 1
    return before + 1
