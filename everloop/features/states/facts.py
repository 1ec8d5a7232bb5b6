"""Facts: what rows contribute to a view's features, as integers, by the one code that batch and online share.

A fact has an event time (what it describes), a start (from when it counts: the later of known and event time), an id
(a hash of its content) and, for each `Lift` that the view's features need, whether it has something and a 64-bit word.
Everything after this module adds, compares and copies integers, so that no order of work can change a result.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError
from everloop.features.definitions import FOREVER, Feature, FeatureViewDef, Filter, Kind, Where
from everloop.features.definitions.feature import SCALED
from everloop.features.definitions.filters import AllOf
from everloop.features.expressions.evaluate import Cells, evaluate
from everloop.features.states.columns import Column, Ints, Mask, Words, column_of, text_word

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": np.isin,
    "not in": lambda value, several: ~np.isin(value, several),
}
_LIMIT = 2.0**63
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FINAL = np.uint64(0xBF58476D1CE4E5B9)
_LAST = np.uint64(0x94D049BB133111EB)
_SHIFT, _FINAL_SHIFT = np.uint64(29), np.uint64(32)
_NULL_WORD, _NOTHING_WORD = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
Flags = npt.NDArray[np.uint8]
NOTHING, VALUE, NULL = 0, 1, 2
"""What a fact has for a lift: it does not count, it has a value, it counts and its value is null."""


@dataclass(frozen=True, slots=True)
class Lift:
    """How a column becomes words; features that read it in the same way share one.

    `one`: counts, no word. `scaled`: the decimal as an integer. `value`: the value itself (float64 bits, integer, hash
    of a text), where a null counts too. `key`: a word that tells values apart, well mixed.
    """

    how: Literal["one", "scaled", "value", "key"]
    column: str = ""
    scale: int = 0
    kind: Kind = "number"
    where: Filter | None = None

    @property
    def always(self) -> bool:
        """Whether every fact has it, so that flags need not be kept."""
        return self.how == "one" and self.where is None


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one view; `lifted[i]` belongs to the i-th of `lifts_of(view)`."""

    event: Ints
    starts: Ints
    id: Words
    lifted: tuple[tuple[Flags, Ints], ...]
    """Flags (`NOTHING`, `VALUE`, `NULL`) and words; a word is 0 where there is no value."""
    texts: Mapping[int, str]
    """The texts that words of text stand for."""

    def take(self, rows: Any) -> "Facts":
        """The facts that a mask or an index array names."""
        lifted = tuple((m[rows], v[rows]) for m, v in self.lifted)
        ids = self.id[rows] if len(self.id) else self.id  # none where they are made later
        return Facts(self.event[rows], self.starts[rows], ids, lifted, self.texts)


def lift_of(feature: Feature) -> Lift:
    """What a feature (not a ratio, which has parts) reads of a fact."""
    if feature.function == "count":
        return Lift("one", where=feature.where)
    if feature.function in SCALED:
        return Lift("scaled", feature.column, feature.scale, where=feature.where)
    if feature.function == "distinct":
        return Lift("key", feature.column, where=feature.where)
    return Lift("value", feature.column, kind=feature.kind, where=feature.where)


def atoms_of(view: FeatureViewDef) -> tuple[Feature, ...]:
    """The features without ratios, and the parts of ratios, in order."""
    return tuple(atom for f in view.features for atom in (f.parts or (f,)))


def lifts_of(view: FeatureViewDef) -> tuple[Lift, ...]:
    """What the view's features read of a fact, each once, in the order of their first use."""
    return tuple(dict.fromkeys(lift_of(atom) for atom in atoms_of(view)))


def facts_of(view: FeatureViewDef, columns: Mapping[str, Column], *, ids: bool = True) -> tuple[Facts, Mask]:
    """Facts of the rows that can ever count, and which rows these are; without `ids` for who makes them later.

    A row without an event time or without a known time (not known yet) is left out. Raises `DataError`
    when a value does not fit the feature's scale or type.
    """
    event, known = columns[view.event_time], columns[view.known_time or view.event_time]
    kept = event.valid & known.valid
    if not kept.all():
        columns = {name: column.take(kept) for name, column in columns.items()}
        event, known = columns[view.event_time], columns[view.known_time or view.event_time]
    columns = {**columns, **_computed(view, columns)}
    texts: dict[int, str] = {}
    passing: dict[Filter | None, Mask] = {None: np.ones(len(event.values), bool)}
    lifted = tuple(_lift(view, lift, columns, passing, texts) for lift in lifts_of(view))
    starts = np.maximum(event.values, known.values)
    made = np.empty(0, np.uint64)
    if ids:
        made = ids_of(event.values, known.values, key_words(view, columns), told_apart(view, lifted))
    return Facts(event.values, starts, made, lifted, texts), kept


def key_words(view: FeatureViewDef, columns: Mapping[str, Column]) -> tuple[Words, ...]:
    """Words of the columns by which facts are told apart beside their times.

    The key; of a view that reads views, every column of the source that it reads: the same row is the same fact,
    whenever its features are looked up.
    """
    names = view.stored if view.reads else view.key
    return tuple(_key_word(columns[name]) for name in names if name not in (view.event_time, view.known_time))


def told_apart(view: FeatureViewDef, lifted: Sequence[tuple[Flags, Ints]]) -> Sequence[tuple[Flags, Ints]]:
    """What of a fact's content is in its id beside `key_words`."""
    return () if view.reads else lifted


def ids_of(event: Ints, known: Ints, keys: Sequence[Words], lifted: Sequence[tuple[Flags, Ints]]) -> Words:
    """Ids of facts: a hash of their times, key columns and what was lifted of them."""
    parts = [_bits(event), _bits(known), *keys]
    for flags, word in lifted:
        parts.append(np.where(flags == VALUE, _bits(word), np.where(flags == NULL, _NULL_WORD, _NOTHING_WORD)))
    return _hash(parts)


def _computed(view: FeatureViewDef, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The view's expressions as columns; numbers are int64 or float64 from here on."""
    expressions = view.expressions
    used = {name for node in expressions.values() for name in node.columns}
    cells = {name: _cells(column) for name, column in columns.items() if name in used}
    made = {}
    for name, node in expressions.items():
        try:
            values, valid = evaluate(node, cells)
        except DataError as error:
            raise DataError(f"feature view {view.name}: {error.message}", hint=error.hint) from None
        if values.dtype.kind == "O":
            listed = [v if ok else None for v, ok in zip(values.tolist(), valid.tolist(), strict=True)]
            made[name] = column_of(listed)
        else:
            made[name] = Column(values.astype(np.int64) if values.dtype.kind == "b" else values, valid)
    return made


def _cells(column: Column) -> Cells:
    if column.choices is None:
        return Cells(column.values, column.valid)
    return Cells(np.array([*column.choices, ""], object)[column.values], column.valid)


def until(window: int | None, hop: int, event: Ints) -> Ints:
    """The first time at which facts of these event times no longer count.

    A window of length W at t holds event times from floor(t - W, hop): a fact counts while t < floor(event, hop)
    + hop + W. Without a hop the window is an age, exact, and may be reached.
    """
    if window is None:
        return np.full(len(event), FOREVER, np.int64)
    if hop:
        return event // hop * hop + (hop + window)
    return event + (window + 1)


def _lift(
    view: FeatureViewDef,
    lift: Lift,
    columns: Mapping[str, Column],
    passing: dict[Filter | None, Mask],
    texts: dict[int, str],
) -> tuple[Flags, Ints]:
    if lift.where not in passing and lift.where is not None:
        passing[lift.where] = _passes(view, lift.where, columns)
    mask = passing[lift.where]
    if lift.how == "one":
        return mask.view(np.uint8), np.ones(len(mask), np.int64)
    column = columns[lift.column]
    if lift.how == "key":
        there = mask & column.valid
        return there.view(np.uint8), np.where(there, _mixed(_key_word(column)).view(np.int64), 0)
    if lift.how == "scaled":
        _must_be_numbers(view, lift, column)
        there = mask & column.valid
        return there.view(np.uint8), np.where(there, _scaled(view, lift, column), 0)
    words = _value_words(view, lift, column, texts)
    if lift.where is None and column.valid.all():
        return mask.view(np.uint8), words
    flags = np.where(mask, np.where(column.valid, np.uint8(VALUE), np.uint8(NULL)), np.uint8(NOTHING))
    return flags, np.where(flags == VALUE, words, 0)


def _value_words(view: FeatureViewDef, lift: Lift, column: Column, texts: dict[int, str]) -> Ints:
    if not column.valid.any():
        return np.zeros(len(column.values), np.int64)
    if lift.kind == "text":
        if column.choices is None:
            raise DataError(
                f"feature view {view.name}: {lift.column!r} holds numbers, a feature says text",
                hint='leave kind="text" out',
            )
        words = _text_words(column.choices)
        for word, text in zip(words.view(np.int64).tolist(), column.choices, strict=True):
            if texts.setdefault(word, text) != text:
                raise DataError(f"two texts of {lift.column!r} have the same hash", hint="change one of them")
        found: Ints = words.view(np.int64)[column.values]
        return found
    _must_be_numbers(view, lift, column)
    if lift.kind == "integer":
        whole = column.values.astype(np.int64)
        if column.values.dtype.kind == "f" and (whole != column.values)[column.valid].any():
            raise DataError(
                f"feature view {view.name}: {lift.column!r} holds numbers with a point, a feature says integer",
                hint='leave kind="integer" out',
            )
        return whole
    return (column.values.astype(np.float64) + 0.0).view(np.int64)  # + 0.0 turns -0.0 into 0.0


def _must_be_numbers(view: FeatureViewDef, lift: Lift, column: Column) -> None:
    if column.choices is not None and column.valid.any():
        raise DataError(
            f"feature view {view.name}: a feature needs numbers, {lift.column!r} holds text",
            hint='values are kept as text with kind="text"; encode it as a number, or count it with where=',
        )


def _passes(view: FeatureViewDef, where: Filter, columns: Mapping[str, Column]) -> Mask:
    if not isinstance(where, Where):
        masks = [_passes(view, part, columns) for part in where.parts]
        joined: Mask = (np.logical_and if isinstance(where, AllOf) else np.logical_or).reduce(masks)
        return joined
    column = columns[where.column]
    if not column.valid.any():
        return column.valid
    if where.text != (column.choices is not None):
        raise DataError(
            f"feature view {view.name}: where {where.column!r} compares text with a number", hint="use the same type"
        )
    if column.choices is None:
        passed: Mask = _COMPARE[where.op](column.values, where.value)
        return passed & column.valid
    several = where.op in {"in", "not in"}
    texts = np.array([_holds(text, where, several=several) for text in column.choices], bool)
    held: Mask = texts[column.values]
    return held & column.valid


def _holds(text: str, where: Where, *, several: bool) -> bool:
    if several and isinstance(where.value, tuple):
        return (text in where.value) == (where.op == "in")
    return bool(_COMPARE[where.op](text, where.value))


def _scaled(view: FeatureViewDef, lift: Lift, column: Column) -> Ints:
    values: npt.NDArray[Any] = np.where(column.valid, column.values, 0)
    factor = 10**lift.scale
    if values.dtype.kind == "i":
        bound = (2**63 - 2) // factor  # 2**63 - 1 stands for no minimum in packed states
        fits = (values <= bound) & (values >= -bound)
        scaled: Ints = values * factor
    else:
        rounded = np.rint(values * float(factor))
        fits = np.abs(rounded) < _LIMIT
        scaled = np.where(fits, rounded, 0.0).astype(np.int64)
    if not fits.all():
        worst = values[~fits][0]
        raise DataError(
            f"feature view {view.name}: {worst} in {lift.column!r} does not fit 64 bits at scale {lift.scale}",
            hint="give the feature a smaller scale=, or filter the value out",
        )
    return scaled


def _bits(values: npt.NDArray[Any]) -> Words:
    return np.ascontiguousarray(values).view(np.uint64)


def _text_words(texts: Sequence[str]) -> Words:
    return np.array([text_word(t) for t in texts], np.uint64)


def _key_word(column: Column) -> Words:
    values = column.values
    if column.choices is not None:
        words = _text_words(column.choices)[values]
    elif values.dtype.kind == "f":
        whole = np.where(column.valid & (np.abs(values) < _LIMIT), values, 0.5)
        integral = whole == np.floor(whole)
        words = np.where(integral, np.where(integral, whole, 0.0).astype(np.int64).view(np.uint64), _bits(values))
    else:
        words = _bits(values)
    return np.where(column.valid, words, _NULL_WORD)


def _mixed(words: Words) -> Words:
    """A bijection of 64 bits whose output looks random (the finaliser of SplitMix64)."""
    words = words + _MULTIPLIER
    words = (words ^ (words >> np.uint64(30))) * _FINAL
    words = (words ^ (words >> np.uint64(27))) * _LAST
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed


def _hash(parts: Sequence[Words]) -> Words:
    state = np.full(len(parts[0]), np.uint64(len(parts)))
    for part in parts:
        state = (state ^ part) * _MULTIPLIER
        state ^= state >> _SHIFT
    state *= _FINAL
    hashed: Words = state ^ (state >> _FINAL_SHIFT)
    return hashed
