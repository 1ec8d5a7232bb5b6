"""The packed value of one entity in one view: 64-bit integers, little endian, the same bytes for the same facts.

    header     format | newest known time | rows of each section: head, tiers, bags, keeps | words of the text part
    sections   column after column
    texts      how many | hash of each, ascending | length of each in bytes | UTF-8, one after the other, zeros to fill

The text part is there only when a feature keeps text. Packing and reading work on all entities of a batch at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from everloop.core.clock import Micros, iso
from everloop.core.errors import CorruptObject, InvalidInput
from everloop.features.states.columns import Ints
from everloop.features.states.layout import Layout

FORMAT = 2
NEVER = -(2**62)
"""The newest known time of an entity without facts."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one section for many entities: `(width, rows)`, grouped by owner, and whose row each is."""

    columns: Ints
    owner: Ints

    @classmethod
    def nothing(cls, width: int) -> "Rows":
        """No rows."""
        return cls(np.empty((width, 0), np.int64), np.empty(0, np.int64))

    def take(self, rows: Ints) -> "Rows":
        """The rows of an index or mask."""
        return Rows(self.columns[:, rows], self.owner[rows])

    def with_(self, columns: Ints, owner: Ints) -> "Rows":
        """These rows and more."""
        return Rows(np.concatenate([self.columns, columns], axis=1), np.concatenate([self.owner, owner]))


@dataclass(slots=True)
class Batch:
    """States of several entities."""

    newest: Ints
    sections: list[Rows]
    """Head, tiers, bags, keeps, as in the layout."""
    texts: dict[int, str]
    spent: Rows
    """(until, id) of folded facts that a redelivery could still change something by."""


def header_words(layout: Layout) -> int:
    """Words before the sections."""
    return 3 + len(layout.widths)


def too_early(layout: Layout, newest: Micros, at: Micros) -> InvalidInput:
    """That a question is about a time that a state cannot answer any more."""
    view = layout.view
    return InvalidInput(
        f"feature view {view.name} cannot answer for {iso(at)} any more, only from {iso(newest - view.slack)} on",
        hint="ask history for the past, or give the view a longer slack",
    )


def pack(layout: Layout, batch: Batch) -> list[bytes]:
    """Packed states of the entities, in order; the rows of each section are grouped by entity, in order."""
    entities, width = len(batch.newest), header_words(layout)
    counts = np.stack([np.bincount(s.owner, minlength=entities) for s in batch.sections], axis=1)
    texts = _text_parts(layout, batch) if layout.texts else [b""] * entities
    header = np.empty((entities, width), np.int64)
    header[:, 0], header[:, 1], header[:, 2:-1] = FORMAT, batch.newest, counts
    header[:, -1] = [len(t) // 8 for t in texts]
    sizes = counts * np.array(layout.widths)
    lengths = width + sizes.sum(axis=1)
    begins = np.cumsum(lengths) - lengths
    flat = np.empty(int(lengths.sum()), np.int64)
    flat[begins[:, None] + np.arange(width)] = header
    starts = begins[:, None] + width + np.cumsum(sizes, axis=1) - sizes
    for s, rows in enumerate(batch.sections):
        if len(rows.owner):
            place, step = _places(starts[:, s], counts[:, s], rows.owner)
            for column in rows.columns:
                flat[place] = column
                place += step
    whole = flat.tobytes()
    ends = (8 * (begins + lengths)).tolist()
    states = [whole[a:b] for a, b in pairwise([0, *ends])]
    return [s + t for s, t in zip(states, texts, strict=True)] if layout.texts else states


def pack_spent(batch: Batch) -> list[bytes]:
    """Packed ids of folded facts, in order."""
    whole = np.ascontiguousarray(batch.spent.columns.T).tobytes()
    cuts = (16 * np.searchsorted(batch.spent.owner, np.arange(len(batch.newest) + 1))).tolist()
    return [whole[a:b] for a, b in pairwise(cuts)]


def unpack(layout: Layout, packed: Sequence[bytes | None], spent: Sequence[bytes | None] = ()) -> Batch:
    """Read the states of several entities; None is an entity without facts.

    Raises `CorruptObject` when a value has another form.
    """
    widths = layout.widths
    newest = np.full(len(packed), NEVER, np.int64)
    there = [i for i, p in enumerate(packed) if p is not None]
    found = [p for p in packed if p is not None]
    sections = [Rows.nothing(w) for w in widths]
    texts: dict[int, str] = {}
    if found:
        header, starts, flat = headers(found, np.array([*widths, 1]))
        owners = np.array(there)
        newest[owners] = header[1]
        for s, (width, counts) in enumerate(zip(widths, header[2:-1], strict=True)):
            if counts.any():
                local = np.repeat(np.arange(len(found)), counts)
                place, step = _places(starts[s], counts, local)
                columns = flat[place + np.arange(width)[:, None] * step]
                sections[s] = Rows(columns, owners[local])
        for state, words in zip(found, header[-1].tolist(), strict=True):
            if words:
                texts |= read_texts(state[len(state) - 8 * words :])
    return Batch(newest, sections, texts, _read_spent(spent))


def read_texts(part: bytes) -> dict[int, str]:
    """Hash -> text, of a text part. Raises `CorruptObject`."""
    words = np.frombuffer(part, np.int64)
    count = int(words[0])
    lengths = words[1 + count : 1 + 2 * count].tolist()
    try:
        blob, found, at = part[8 * (1 + 2 * count) :], {}, 0
        for word, length in zip(words[1 : 1 + count].tolist(), lengths, strict=True):
            found[word] = blob[at : at + length].decode()
            at += length
    except ValueError as error:
        raise CorruptObject("an online value holds a broken text", hint="materialise the view again") from error
    return found


def headers(found: Sequence[bytes], widths: Ints, *, end: bytes = b"") -> tuple[Ints, Ints, Ints]:
    """Headers (`(words, states)`), where each section begins (`(sections, states)`), all words and then `end`.

    `widths` are those of the layout and then 1, for the texts. Raises `CorruptObject` for another form or length.
    """
    width = 2 + len(widths)
    bytes_of = np.fromiter(map(len, found), np.int64, len(found))
    flat = np.frombuffer(b"".join([*found, end]), np.int64) if not (bytes_of & 7).any() else np.empty(0, np.int64)
    lengths = bytes_of >> 3
    if not len(flat) or lengths.min() < width:
        raise CorruptObject("an online value has no whole header", hint="materialise the view again")
    begins = np.cumsum(lengths) - lengths
    header = flat.take(begins + np.arange(width)[:, None])
    said = header[2:]
    sizes = said * widths[:, None]
    ends = np.cumsum(sizes, axis=0)  # where each section ends, the texts the last
    if (
        (header[0] != FORMAT).any()
        or said.min() < 0
        or said.max() > lengths.max()  # so that no product of it is wrapped
        or (width + ends[-1] != lengths).any()
    ):
        raise CorruptObject("an online value has an unknown format or length", hint="materialise the view again")
    return header, (ends - sizes)[:-1] + (begins + width), flat


def _places(starts: Ints, counts: Ints, owner: Ints) -> tuple[Ints, Ints]:
    """Where the first column of each row lies, and how far the next column's value is from it."""
    before = np.cumsum(counts) - counts
    rank = np.arange(len(owner)) - before[owner]
    return starts[owner] + rank, counts[owner]


def _text_parts(layout: Layout, batch: Batch) -> list[bytes]:
    """The text part of each entity: what its rows name, and nothing else."""
    named: list[tuple[Ints, Ints]] = []
    tiers = 1 + len(layout.tiers)
    for lift in layout.texts:
        head = batch.sections[0]
        has = head.columns[layout.flags[lift]] == 1
        named.append((head.owner[has], head.columns[layout.words[lift]][has]))
        for s, bag in enumerate(layout.bags, tiers):
            if bag.lift == lift and not bag.once:
                named.append((batch.sections[s].owner, batch.sections[s].columns[1]))
        for s, keep in enumerate(layout.keeps, tiers + len(layout.bags)):
            if keep.lift == lift:
                rows = batch.sections[s]
                has = rows.columns[2] == 1
                named.append((rows.owner[has], rows.columns[3][has]))
    owner, word = (np.concatenate(parts) for parts in zip(*named, strict=True))
    pairs = sorted(set(zip(owner.tolist(), word.tolist(), strict=True)))
    mine: list[list[int]] = [[] for _ in range(len(batch.newest))]
    for o, w in pairs:
        mine[o].append(w)
    return [_text_part(words, batch.texts) for words in mine]


def _text_part(words: Sequence[int], texts: Mapping[int, str]) -> bytes:
    if not words:
        return b""
    blobs = [texts[w].encode() for w in words]
    numbers = np.array([len(words), *words, *map(len, blobs)], np.int64)
    blob = b"".join(blobs)
    return numbers.tobytes() + blob + bytes(-len(blob) % 8)


def _read_spent(spent: Iterable[bytes | None]) -> Rows:
    found = [(i, b) for i, b in enumerate(spent) if b]
    if not found:
        return Rows.nothing(2)
    words = np.frombuffer(b"".join(b for _, b in found), np.int64).reshape(-1, 2).T
    return Rows(words, np.repeat([i for i, _ in found], [len(b) // 16 for _, b in found]))
