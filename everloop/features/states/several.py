"""Values of many entities at once: the states are read together, and added up by NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.features.definitions import Feature, Value
from everloop.features.states.columns import Ints
from everloop.features.states.decode import Decoder
from everloop.features.states.facts import NOTHING, VALUE
from everloop.features.states.finalise import decimals, joined, lanes, quotient, ratios, squares, stddev, variance
from everloop.features.states.layout import EVENT, ID, NO_MAXIMUM, NO_MINIMUM, STARTS, Atom, Layout
from everloop.features.states.packing import Batch, Rows, too_early, unpack
from everloop.features.states.points import only_newest

FEW, FEW_NEWEST = 30, 150
"""Up to so many entities, one after the other is faster; of views that only ask for the newest value, of more."""


def columns_at(layout: Layout, decode: Decoder, packed: Sequence[bytes | None], at: Micros) -> list[list[Value]]:
    """For each feature a list with the value of each entity; None in `packed` is an entity without facts.

    Raises what `decode` raises.
    """
    if len(packed) <= (FEW_NEWEST if only_newest(layout) else FEW) or not _plain(layout):
        empty = layout.empty
        rows = [empty if p is None else decode(p, at) for p in packed]
        return [list(column) for column in zip(*rows, strict=True)]
    batch = unpack(layout, packed)
    newest = int(batch.newest.max(initial=at))
    if at < newest - layout.view.slack:
        raise too_early(layout, newest, at)
    head = batch.sections[0]
    if len(head.owner) and head.columns[STARTS].max() >= at:
        head = head.take(np.flatnonzero(head.columns[STARTS] < at))
    several = _Several(layout, batch, head, at)
    return [several.feature(f, atoms) for f, atoms in zip(layout.view.features, layout.atoms, strict=True)]


def _plain(layout: Layout) -> bool:
    """Whether all features are sums, extremes or newest numbers, for which there is a way over arrays."""
    return all(
        atom.tier >= 0
        or (
            atom.keep >= 0
            and layout.keeps[atom.keep].newest
            and atom.feature.function == "last"
            and atom.feature.kind != "text"
        )
        for atoms in layout.atoms
        for atom in atoms
    )


class _Several:
    """What one question sees of many entities; parts that features share are added up once."""

    def __init__(self, layout: Layout, batch: Batch, head: Rows, at: Micros) -> None:
        self._layout, self._batch, self._head, self._at = layout, batch, head, at
        self._entities = len(batch.newest)
        self._head_cuts = np.searchsorted(head.owner, np.arange(self._entities + 1))
        self._inside: dict[tuple[int, Micros], tuple[Rows, Ints, np.ndarray]] = {}
        self._sums: dict[tuple[int, Micros, str, int], Ints] = {}

    def feature(self, feature: Feature, atoms: tuple[Atom, ...]) -> list[Value]:
        """Values of one feature."""
        atom = atoms[0]
        if atom.keep >= 0:
            return self._last(atom)
        if len(atoms) == 2:
            pairs = zip(*(self._whole(a) for a in atoms), strict=True)
            by = [10**a.feature.scale if a.feature.function == "sum" else 1 for a in atoms]
            return [quotient(a, by[0], b, by[1]) for a, b in pairs]
        function = feature.function
        if function == "count":
            return _integers(self._part(atom, "count"))
        if function in {"min", "max"}:
            found = self._extreme(atom)
            return _listed(decimals(found, found != (NO_MINIMUM if function == "min" else NO_MAXIMUM), feature.scale))
        if function in {"sum", "mean"}:
            count = self._part(atom, "count") if function == "mean" else np.ones(self._entities, np.int64)
            return _listed(ratios(self._part(atom, "high"), self._part(atom, "low"), count, feature.scale))
        counts, totals = self._part(atom, "count").tolist(), self._whole(atom)
        squared = zip(*(self._part(atom, f"square{i}").tolist() for i in range(4)), strict=True)
        of: Callable[..., float | None] = variance if function == "variance" else stddev
        divisor = 10**feature.scale
        return [of(n, s, joined(q), divisor, feature.size) for n, s, q in zip(counts, totals, squared, strict=True)]

    def _whole(self, atom: Atom) -> list[int]:
        if atom.feature.function == "count":
            return _integers(self._part(atom, "count"))
        parts = (self._part(atom, part).tolist() for part in ("low", "high"))
        return [joined(pair) for pair in zip(*parts, strict=True)]

    def _window(self, atom: Atom) -> tuple[Rows, Ints, np.ndarray]:
        """Tiles of the window, where each entity's begin, and which facts of the head lie in it."""
        length = atom.feature.window or 0
        key = atom.tier, length
        if key not in self._inside:
            hop = self._layout.tiers[atom.tier].hop
            tail = (self._at - length) // hop * hop
            tiles = self._batch.sections[1 + atom.tier]
            if len(tiles.owner) and tiles.columns[0].min() < tail:
                tiles = tiles.take(np.flatnonzero(tiles.columns[0] >= tail))
            cuts = np.searchsorted(tiles.owner, np.arange(self._entities + 1))
            self._inside[key] = tiles, cuts, self._head.columns[EVENT] >= tail
        return self._inside[key]

    def _part(self, atom: Atom, part: str) -> Ints:
        key = atom.tier, atom.feature.window or 0, part, atom.lift
        if key not in self._sums:
            tiles, cuts, inside = self._window(atom)
            column = 1 + self._layout.tiers[atom.tier].columns.index((part, atom.lift))
            mine = self._head_part(part, atom.lift)
            self._sums[key] = _segments(tiles.columns[column], cuts) + _segments(
                inside if mine is None else np.where(inside, mine, 0), self._head_cuts
            )
        return self._sums[key]

    def _head_part(self, part: str, lift: int) -> Ints | None:
        flags, word = self._layout.flags[lift], self._layout.words[lift]
        if part == "count":
            return self._head.columns[flags] if flags >= 0 else None
        if part in {"high", "low"}:
            return lanes(self._head.columns[word])[part == "low"]
        return squares(self._head.columns[word])[int(part[-1])]

    def _extreme(self, atom: Atom) -> Ints:
        smallest = atom.feature.function == "min"
        combine, nothing = (np.minimum, NO_MINIMUM) if smallest else (np.maximum, NO_MAXIMUM)
        tiles, _, inside = self._window(atom)
        column = 1 + self._layout.tiers[atom.tier].columns.index((atom.feature.function, atom.lift))
        found = np.full(self._entities, nothing, np.int64)
        combine.at(found, tiles.owner, tiles.columns[column])
        flags, word = self._layout.flags[atom.lift], self._layout.words[atom.lift]
        there = inside & (self._head.columns[flags] == VALUE)
        combine.at(found, self._head.owner[there], self._head.columns[word][there])
        return found

    def _last(self, atom: Atom) -> list[Value]:
        layout, lift = self._layout, atom.lift
        kept = self._batch.sections[1 + len(layout.tiers) + len(layout.bags) + atom.keep]
        there = np.flatnonzero(self._head.columns[layout.flags[lift]] != NOTHING)
        mine = self._head.columns[:, there][[EVENT, ID, layout.flags[lift], layout.words[lift]]]
        both = kept.with_(mine, self._head.owner[there])
        order = np.lexsort((both.columns[1].view(np.uint64), both.columns[0], both.owner))
        both = both.take(order)
        final = both.take(np.flatnonzero(np.r_[both.owner[1:] != both.owner[:-1], True])) if len(order) else both
        event, _, flags, words = final.columns
        there = flags == VALUE
        if atom.feature.window is not None:
            there &= event >= self._at - atom.feature.window
        values: list[Value] = [None] * self._entities
        owners, found = final.owner[there].tolist(), np.ascontiguousarray(words[there])
        for owner, value in zip(owners, _of_kind(atom.feature, found), strict=True):
            values[owner] = value
        return values


def _of_kind(feature: Feature, words: Ints) -> list[Value]:
    return _integers(words) if feature.kind == "integer" else words.view(np.float64).tolist()


def _integers(words: Ints) -> list[Any]:
    listed: list[Any] = words.tolist()
    return listed


def _segments(column: np.ndarray, cuts: Ints) -> Ints:
    """Sums between cuts; differences of running sums are exact modulo 2**64, hence exact."""
    running = np.concatenate([[0], np.cumsum(column, dtype=np.int64)])
    found: Ints = running[cuts[1:]] - running[cuts[:-1]]
    return found


def _listed(values: np.ndarray) -> list[Value]:
    return [None if v != v else v for v in values.tolist()]  # noqa: PLR0124 - NaN stands for null
