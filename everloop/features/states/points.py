"""The decoder of views that only ask for the newest value: of most look-ups nothing is added up.

`decode.decoder_of` reads any view; this reads those with a third of the work. Their parity tests are the same.
"""

from bisect import bisect_left
from collections.abc import Callable
from struct import Struct, error

from everloop.core.clock import Micros
from everloop.core.errors import CorruptObject
from everloop.features.definitions import Value
from everloop.features.states.facts import VALUE
from everloop.features.states.layout import ID, STARTS, Layout
from everloop.features.states.packing import FORMAT, header_words, too_early

Words = tuple[int, ...]
_STRUCTS: dict[int, Callable[[bytes], Words]] = {}
_MOST_STRUCTS = 4096
_UNSIGNED = 2**64
_double = Struct("<d").unpack_from


def words_of(packed: bytes) -> Words:
    """The 64-bit words of a state. Raises `CorruptObject`."""
    size = len(packed)
    reader = _STRUCTS.get(size)
    if reader is None:
        if len(_STRUCTS) >= _MOST_STRUCTS:
            _STRUCTS.clear()
        reader = _STRUCTS[size] = Struct(f"<{size // 8}q").unpack
    try:
        return reader(packed)
    except error as wrong:
        raise CorruptObject("an online value is no row of words", hint="materialise the view again") from wrong


def only_newest(layout: Layout) -> bool:
    """Whether every feature is the newest value of all facts, and no text."""
    features = layout.view.features
    return not layout.tiers and all(f.function == "last" and f.where is None and f.kind != "text" for f in features)


def newest_decoder(layout: Layout) -> Callable[[bytes, Micros], list[Value]]:
    """`decode.decoder_of` for a layout with `only_newest`."""
    header, width, slack = header_words(layout), layout.width, layout.view.slack
    wanted = [_wanted(layout, index) for index in range(len(layout.atoms))]

    def decode(packed: bytes, at: Micros) -> list[Value]:
        words = words_of(packed)
        begins = _begins(words, header, width)
        if at < words[1] - slack:
            raise too_early(layout, words[1], at)
        rows = words[2]
        newest, place = _newest(words, header, rows, at) if rows else (0, -1)
        values: list[Value] = []
        for keep, has, word, oldest, integer in wanted:
            begin = begins[keep]
            if place >= 0 and (not begin or _younger(words, newest, header + ID * rows + place, begin)):
                event, flag, where = newest, words[header + has * rows + place], header + word * rows + place
            elif begin:
                event, flag, where = words[begin], words[begin + 2], begin + 3
            else:
                flag = event = where = 0
            if flag != VALUE or event < at - oldest:
                values.append(None)
            else:
                values.append(words[where] if integer else _double(packed, 8 * where)[0])
        return values

    return decode


def _wanted(layout: Layout, index: int) -> tuple[int, int, int, Micros, bool]:
    """Of a feature: its keep, its columns of the head, how old it may be, whether it is a whole number."""
    [atom] = layout.atoms[index]
    ttl = atom.feature.window
    oldest = 2**62 if ttl is None else ttl
    return atom.keep, layout.flags[atom.lift], layout.words[atom.lift], oldest, atom.feature.kind == "integer"


def _begins(words: Words, header: int, width: int) -> list[int]:
    """Where each keep's fact begins; 0 where there is none. Raises `CorruptObject`."""
    try:
        begins, end = [], header + words[2] * width
        for rows in words[3 : header - 1]:
            begins.append(end if rows else 0)
            end += 4 * rows
        fits = words[0] == FORMAT and end + words[header - 1] == len(words) and min(words[2:header]) >= 0
    except IndexError as wrong:
        raise CorruptObject("an online value is too short", hint="materialise the view again") from wrong
    if not fits:
        raise CorruptObject("an online value has an unknown form", hint="materialise the view again")
    return begins


def _newest(words: Words, header: int, rows: int, at: Micros) -> tuple[Micros, int]:
    """The greatest event time that a question sees in the head, and its place (-1: none).

    Of equal times that with the greatest id. Facts of the head are ascending by start.
    """
    starts = header + rows * STARTS
    seen = rows if words[starts + rows - 1] < at else bisect_left(words, at, starts, starts + rows) - starts
    if not seen:
        return 0, -1
    events = words[header : header + seen]
    newest = max(events)
    if events.count(newest) == 1:
        return newest, events.index(newest)
    ids = header + ID * rows
    return newest, max((words[ids + i] % _UNSIGNED, i) for i, event in enumerate(events) if event == newest)[1]


def _younger(words: Words, newest: Micros, identity: int, begin: int) -> bool:
    """Whether the head's newest fact comes after the folded one."""
    event = words[begin]
    return newest > event or (newest == event and words[identity] % _UNSIGNED >= words[begin + 1] % _UNSIGNED)
