"""Features online: push facts as they become known, look values up at a time.

Loads NumPy and nothing heavier. The value of a feature at `at` is the same as `history` gives for that time, bit
for bit, once every fact known before it has been pushed.
"""

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from everloop.core.clock import Micros, iso
from everloop.core.errors import DataError, InvalidInput
from everloop.core.ports import OnlineStore
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, Value
from everloop.features.states.columns import Column, Ints, columns_of
from everloop.features.states.decode import Decoder, decoder_of
from everloop.features.states.facts import Facts, facts_of
from everloop.features.states.keys import entity_key, entity_keys
from everloop.features.states.layout import Layout, layout_of, records
from everloop.features.states.merge import merge, windowed
from everloop.features.states.packing import pack, pack_spent, unpack
from everloop.features.states.several import Reader, reader_of

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]
_STATE, _SPENT, _WATERMARK = b"s", b"i", b"w"
_WORD = struct.Struct("<q")
_read_word = _WORD.unpack
_SHORT = 90
"""A text of fewer characters has fewer bytes than the longest key."""
_NONE: Mapping[str, int] = MappingProxyType({})
LATE = "after the time of the push"
"""Why a fact of the future is refused."""


def scope_of(project: str, environment: str) -> str:
    """Where the states of an environment lie: what is pushed in a sandbox never reaches production's answers."""
    return f"{project}/{environment}"


@dataclass(frozen=True, slots=True)
class OnlineView:
    """A view version, ready to push to and look up in."""

    space: str
    """`<project>/<environment>/<view version id>`: the key of its state in the store."""
    view: FeatureViewDef
    layout: Layout
    decode: Decoder
    """From a packed state to its values at a time."""
    several: Reader
    """The same for many states, by column."""
    outputs: tuple[str, ...]
    empty: tuple[Value, ...]
    """Its values where there are no facts."""
    column: str
    """Its entity column, if it has only one."""
    alike: str
    """What its values are computed by, whatever its features, entity and source are called."""
    reads: "tuple[OnlineView, ...]" = ()
    """The views that it reads, in the versions that it pins."""

    @classmethod
    def of(cls, scope: str, view_id: str, view: FeatureViewDef) -> "OnlineView":
        """Prepare a view; do it once, not for each request. `scope` is what `scope_of` makes."""
        reads = tuple(cls.of(scope, Version("view", read.name, read.manifest()).id, read) for read in view.reads)
        layout = layout_of(view)
        decode = decoder_of(layout)
        return cls(
            f"{scope}/{view_id}",
            view,
            layout,
            decode,
            reader_of(layout, decode),
            view.outputs,
            layout.empty,
            view.entity[0] if len(view.entity) == 1 else "",
            _computed(view),
            reads,
        )


def _computed(view: FeatureViewDef) -> str:
    said = [{**f.manifest(), "name": ""} for f in view.features]
    return repr((view.slack, said))


@dataclass(frozen=True, slots=True)
class OnlineService:
    """A service whose views are pinned by id, ready to look up."""

    service: FeatureServiceDef
    views: tuple[OnlineView, ...]
    lists: Mapping[str, tuple[str, ...]]
    """Features that are lists -> the columns that a model reads them by."""

    @classmethod
    def of(cls, scope: str, service: FeatureServiceDef, view_ids: Mapping[str, str]) -> "OnlineService":
        """Prepare a service; `view_ids` gives the version id of each view's name."""
        views = tuple(OnlineView.of(scope, view_ids[v.name], v) for v in service.views)
        return cls(service, views, service.lists)

    @classmethod
    def alone(cls, view: OnlineView) -> "OnlineService":
        """One view, asked by itself."""
        return cls(FeatureServiceDef(view.view.name, (view.view,)), (view,), view.view.lists)

    @classmethod
    def from_manifest(
        cls, scope: str, name: str, manifest: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]
    ) -> "OnlineService":
        """Prepare a service from its manifest and those of the view ids that it pins: all that a gateway needs."""
        return cls.of(scope, FeatureServiceDef.from_manifest(name, manifest, manifests), manifest["views"])


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: facts given, facts that were new, entities touched."""

    facts: int
    new: int
    entities: int


def push(store: OnlineStore, view: OnlineView, rows: Rows, *, now: Micros | None = None) -> Pushed:
    """Merge facts into the view's state: any order, any number of times, all of `rows` or none.

    `rows` are mappings, or one mapping of columns, with the columns of the source that the view reads. Facts without
    entity, event time or known time are passed over. With `now`, a fact known later than `now` plus the view's slack
    is refused (`DataError`): it would close the past for its entity. Raises `DataError` for a wrong column.
    """
    return push_facts(store, view, *lift(view, rows, now=now))


def lift(view: OnlineView, rows: Rows, *, now: Micros | None = None) -> tuple[Facts, dict[str, Column]]:
    """Check rows and make facts of them, for `push_facts`; nothing is written. Raises what `push` raises."""
    return lift_columns(view, columns_of(view.view, rows), now=now)


def lift_columns(
    view: OnlineView, columns: Mapping[str, Column], *, now: Micros | None = None
) -> tuple[Facts, dict[str, Column]]:
    """`lift` for columns that are made already."""
    definition = view.view
    facts, kept = facts_of(definition, columns)
    taken = {name: column.take(kept) for name, column in columns.items()}
    known = taken[definition.known_time or definition.event_time].values
    if now is not None and (known > now + definition.slack).any():
        raise DataError(
            f"feature view {definition.name}: a fact is known at {iso(int(known.max()))}, {LATE}",
            hint="push facts when they are known, or correct " + (definition.known_time or definition.event_time),
        )
    return facts, taken


def push_facts(store: OnlineStore, view: OnlineView, facts: Facts, columns: Mapping[str, Column]) -> Pushed:
    """`push` for facts that are lifted already; `columns` holds the same rows."""
    definition = view.view
    known = columns[definition.known_time or definition.event_time].values
    keys = entity_keys([columns[name] for name in definition.entity])
    code: dict[bytes, int] = {}
    owner = np.array([-1 if key is None else code.setdefault(key, len(code)) for key in keys], np.int64)
    rows = records(view.layout, facts)
    if (owner < 0).any():
        there = owner >= 0
        rows, owner, known = rows[:, there], owner[there], known[there]
    if not len(owner):
        return Pushed(len(keys), 0, 0)

    def act() -> int:
        return _merge_into(store, view, list(code), (rows, owner, known), facts.texts)

    return Pushed(len(keys), store.atomically(act), len(code))


def _merge_into(
    store: OnlineStore,
    view: OnlineView,
    names: list[bytes],
    facts: tuple[Ints, Ints, Ints],
    texts: Mapping[int, str],
) -> int:
    kinds = (_STATE, _SPENT) if windowed(view.layout) else (_STATE,)  # nothing is spent without windows
    (stored,) = store.read([(view.space, [kind + name for kind in kinds for name in names])])
    batch = unpack(view.layout, stored[: len(names)], stored[len(names) :])
    new = merge(view.layout, batch, facts, texts)
    items = [(_STATE + name, state) for name, state in zip(names, pack(view.layout, batch), strict=True)]
    if len(kinds) > 1:
        items += [(_SPENT + name, ids) for name, ids in zip(names, pack_spent(batch), strict=True)]
    changed = [item for item, before in zip(items, stored, strict=True) if item[1] != (before or b"")]
    if changed:
        store.write(view.space, changed)
    return new


def advance(store: OnlineStore, view: OnlineView, to: Micros) -> None:
    """Say that every fact known before `to` has been pushed; the watermark never goes back."""

    def act() -> None:
        reached = watermark(store, view)
        if reached is None or reached < to:
            store.write(view.space, [(_WATERMARK, _WORD.pack(to))])

    store.atomically(act)


def watermark(store: OnlineStore, view: OnlineView) -> Micros | None:
    """Up to which known time a view holds every fact; None when it was never materialised."""
    return watermarks(store, [view])[0]


def watermarks(store: OnlineStore, views: Sequence[OnlineView]) -> list[Micros | None]:
    """The watermarks of several views, in one read."""
    return [_time(found) for (found,) in store.read([(view.space, (_WATERMARK,)) for view in views])]


def _time(packed: bytes | None) -> Micros | None:
    return None if packed is None else int(_WORD.unpack(packed)[0])


class Found(NamedTuple):
    """The answer to a look-up."""

    values: list[dict[str, Value]]
    """For each row of entity values, `{<view>__<feature>: value}`."""
    reached: tuple[Micros | None, ...]
    """The watermark of each view of the service, of the same read; None: never materialised."""
    unknown: Mapping[str, int] = _NONE
    """View -> how many rows are of entities that it has no fact of; views that know them all are left out."""


class FoundColumns(NamedTuple):
    """The answer to a look-up by column."""

    columns: dict[str, list[Value]]
    """`{<view>__<feature>: values}`, in the order of the entities."""
    reached: tuple[Micros | None, ...]
    """As in `Found`."""
    unknown: Mapping[str, int] = _NONE
    """As in `Found`."""


def lookup(
    store: OnlineStore, service: OnlineService, entity_rows: Sequence[Mapping[str, Any]], at: Micros
) -> list[dict[str, Value]]:
    """For each row of entity values, `{<view>__<feature>: value}` as known strictly before `at`.

    An entity without facts has the empty values (count 0, sum 0.0, else None). Raises `InvalidInput` when a row
    lacks an entity column, or when `at` lies before what the state can still answer (the newest known fact of the
    entity less the view's slack).
    """
    return find(store, service, entity_rows, at).values


def find(store: OnlineStore, service: OnlineService, entity_rows: Sequence[Mapping[str, Any]], at: Micros) -> Found:
    """`lookup`, and how far each view has been filled: one read of the store for all views and rows."""
    if len(entity_rows) == 1:
        return _find_one(store, service, entity_rows[0], at)
    keys = [[state_key(view, row) for row in entity_rows] for view in service.views]
    columns, reached, unknown = _find_keys(store, service, keys, at)
    names = tuple(columns)
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Found(values, reached, unknown)


def find_columns(
    store: OnlineStore, service: OnlineService, entities: Mapping[str, Sequence[Any]], at: Micros
) -> FoundColumns:
    """`find` by column: values of each entity column in, values of each feature out, without an object a row.

    Raises `InvalidInput` when an entity column is missing or of another length, and what `lookup` raises.
    """
    lengths = set(map(len, entities.values()))
    if len(lengths) > 1:
        raise InvalidInput("the columns of entities are of different lengths", hint="one value of each for every row")
    if lengths == {1}:
        row = {name: values[0] for name, values in entities.items()}
        (found,), reached, unknown = _find_one(store, service, row, at)
        return FoundColumns({name: [value] for name, value in found.items()}, reached, unknown)
    return _find_keys(store, service, [state_keys(view, entities) for view in service.views], at)


def spread(lists: Mapping[str, Sequence[str]], columns: Mapping[str, Sequence[Value]]) -> dict[str, Sequence[Value]]:
    """Columns as a model reads them: a list is a column for each place, null where it is shorter."""
    found: dict[str, Sequence[Value]] = {}
    for name, values in columns.items():
        places = lists.get(name, ())
        if places:
            rows = [value if isinstance(value, list) else [] for value in values]
            found |= {c: [row[i] if i < len(row) else None for row in rows] for i, c in enumerate(places)}
        else:
            found[name] = values
    return found


def _find_keys(store: OnlineStore, service: OnlineService, keys: Sequence[Sequence[bytes]], at: Micros) -> FoundColumns:
    views = service.views
    found = store.read([(view.space, [_WATERMARK, *mine]) for view, mine in zip(views, keys, strict=True)])
    reached = tuple(_time(packed.pop(0)) for packed in found)
    columns: dict[str, list[Value]] = {}
    for view, values in zip(views, _values(views, found, at), strict=True):
        columns.update(zip(view.outputs, values, strict=True))
    absent = {view.view.name: count for view, some in zip(views, found, strict=True) if (count := some.count(None))}
    return FoundColumns(columns, reached, absent)


def _values(
    views: Sequence[OnlineView], packed: Sequence[Sequence[bytes | None]], at: Micros
) -> list[list[list[Value]]]:
    """Values of each feature of each view; views that compute the same of their entities are read together."""
    alike: dict[str, list[int]] = {}
    for i, view in enumerate(views):
        alike.setdefault(view.alike, []).append(i)
    values: list[list[list[Value]]] = [[]] * len(views)
    for some in alike.values():
        if len(some) > 1:
            with suppress(InvalidInput):  # which view it is that cannot answer is told below
                together = views[some[0]].several([p for i in some for p in packed[i]], at)
                size = len(packed[some[0]])
                for n, i in enumerate(some):
                    values[i] = [column[n * size : (n + 1) * size] for column in together]
                continue
        for i in some:
            values[i] = views[i].several(packed[i], at)
    return values


def _find_one(store: OnlineStore, service: OnlineService, row: Mapping[str, Any], at: Micros) -> Found:
    """One entity: the path of most requests, without arrays."""
    views = service.views
    read = store.read([(view.space, (_WATERMARK, state_key(view, row))) for view in views])
    answer: dict[str, Value] = {}
    reached = []
    unknown = _NONE
    for view, (mark, packed) in zip(views, read, strict=True):
        reached.append(None if mark is None else _read_word(mark)[0])
        if packed is None:
            unknown = {**unknown, view.view.name: 1}
            values: Sequence[Value] = view.empty
        else:
            values = view.decode(packed, at)
        if len(values) == 1:  # of one feature, a loop costs more than its value
            answer[view.outputs[0]] = values[0]
        else:
            answer.update(zip(view.outputs, values, strict=True))
    return Found([answer], tuple(reached), unknown)


def state_key(view: OnlineView, row: Mapping[str, Any]) -> bytes:
    """The key of a row's state; of an entity with a null, one under which nothing is."""
    if view.column:
        value = row.get(view.column)
        if type(value) is str and len(value) < _SHORT:
            return b"ss" + value.encode()
        if type(value) is int:
            return b"si%d" % value
    return _STATE + (_key(view.view, row) or b"")


def state_keys(view: OnlineView, entities: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """`state_key` of each row of columns. Raises `InvalidInput`."""
    names = view.view.entity
    missing = next((name for name in names if name not in entities), None)
    if missing is not None:
        raise _no_entity(view.view, repr(missing))
    if view.column:
        column = entities[view.column]
        if set(map(type, column)) == {int}:
            return [b"si%d" % value for value in column]
        return [state_key(view, {view.column: value}) for value in column]
    keys = map(entity_key, zip(*(entities[name] for name in names), strict=True))
    return [_STATE + (key or b"") for key in keys]


def _key(view: FeatureViewDef, row: Mapping[str, Any]) -> bytes | None:
    try:
        return entity_key([row[name] for name in view.entity])
    except KeyError as error:
        raise _no_entity(view, str(error)) from None


def _no_entity(view: FeatureViewDef, name: str) -> InvalidInput:
    return InvalidInput(f"feature view {view.name} needs the entity {name}", hint="name it in the request")
