"""Features online: push facts as they become known, look values up at a time.

Loads NumPy and nothing heavier. The value of a feature at `at` is the same as `history` gives for that time, bit
for bit, once every fact known before it has been pushed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from everloop.core.clock import Micros, iso
from everloop.core.errors import DataError, InvalidInput
from everloop.core.ports import OnlineStore
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, Value
from everloop.features.states.decode import values_at
from everloop.features.states.facts import Column, Facts, Ints, columns_of, facts_of
from everloop.features.states.keys import entity_key, entity_keys
from everloop.features.states.layout import Layout, layout_of, records
from everloop.features.states.merge import merge, read_batch, write_batch

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]
Result = TypeVar("Result")
_STATE, _SPENT = b"s", b"i"


@dataclass(frozen=True, slots=True)
class OnlineView:
    """A view version, ready to push to and look up in."""

    space: str
    """`<project>/<view version id>`: the key of its state in the store."""
    view: FeatureViewDef
    layout: Layout
    outputs: tuple[str, ...]
    empty: tuple[Value, ...]
    """Its values where there are no facts."""

    @classmethod
    def of(cls, project: str, view_id: str, view: FeatureViewDef) -> "OnlineView":
        """Prepare a view; do it once, not for each request."""
        layout = layout_of(view)
        return cls(f"{project}/{view_id}", view, layout, view.outputs, layout.empty)


@dataclass(frozen=True, slots=True)
class OnlineService:
    """A service whose views are pinned by id, ready to look up."""

    service: FeatureServiceDef
    views: tuple[OnlineView, ...]

    @classmethod
    def of(cls, project: str, service: FeatureServiceDef, view_ids: Mapping[str, str]) -> "OnlineService":
        """Prepare a service; `view_ids` gives the version id of each view's name."""
        return cls(service, tuple(OnlineView.of(project, view_ids[v.name], v) for v in service.views))

    @classmethod
    def from_manifest(
        cls, project: str, name: str, manifest: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]
    ) -> "OnlineService":
        """Prepare a service from its manifest and those of the view ids that it pins: all that a gateway needs."""
        return cls.of(project, FeatureServiceDef.from_manifest(name, manifest, manifests), manifest["views"])


@runtime_checkable
class Atomic(Protocol):
    """A store that can make reads and writes one act. Without it, one process at a time may push into a space."""

    def atomically(self, act: Callable[[], Result]) -> Result:
        """Run `act`, perhaps more than once; its reads and writes of the store happen as one."""
        ...


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
    definition = view.view
    columns = columns_of(definition, rows)
    facts, kept = facts_of(definition, columns)
    taken = {name: column.take(kept) for name, column in columns.items()}
    known = taken[definition.known_time or definition.event_time].values
    if now is not None and (known > now + definition.slack).any():
        raise DataError(
            f"feature view {definition.name}: a fact is known at {iso(int(known.max()))}, after the time of the push",
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
        rows, owner, known = rows[there], owner[there], known[there]
    if not len(rows):
        return Pushed(len(keys), 0, 0)

    def act() -> int:
        return _merge_into(store, view, list(code), (rows, owner, known))

    new = store.atomically(act) if isinstance(store, Atomic) else act()
    return Pushed(len(keys), new, len(code))


def _merge_into(store: OnlineStore, view: OnlineView, names: list[bytes], facts: tuple[Ints, Ints, Ints]) -> int:
    stored = store.read(view.space, [kind + name for kind in (_STATE, _SPENT) for name in names])
    batch = read_batch(view.layout, stored[: len(names)], stored[len(names) :])
    new = merge(view.layout, batch, *facts)
    states, spent = write_batch(batch)
    items = [(_STATE + name, state) for name, state in zip(names, states, strict=True)]
    items += [(_SPENT + name, ids) for name, ids in zip(names, spent, strict=True)]
    changed = [item for item, before in zip(items, stored, strict=True) if item[1] != (before or b"")]
    if changed:
        store.write(view.space, changed)
    return new


def advance(store: OnlineStore, view: OnlineView, to: Micros) -> None:
    """Say that every fact known before `to` has been pushed; the watermark never goes back."""
    reached = store.watermark(view.space)
    if reached is None or reached < to:
        store.set_watermark(view.space, to)


def lookup(
    store: OnlineStore, service: OnlineService, entity_rows: Sequence[Mapping[str, Any]], at: Micros
) -> list[dict[str, Value]]:
    """For each row of entity values, `{<view>__<feature>: value}` as known strictly before `at`.

    An entity without facts has the empty values (count 0, sum 0.0, else None). Raises `InvalidInput` when a row
    lacks an entity column, or when `at` lies before what the state can still answer (the newest known fact of the
    entity less the view's slack).
    """
    answers: list[dict[str, Value]] = [{} for _ in entity_rows]
    for view in service.views:
        keys = [_key(view.view, row) for row in entity_rows]
        found = store.read(view.space, [_STATE + (key or b"") for key in keys])
        for answer, key, packed in zip(answers, keys, found, strict=True):
            values = view.empty if packed is None or key is None else values_at(view.layout, packed, at)
            answer.update(zip(view.outputs, values, strict=True))
    return answers


def watermarks(store: OnlineStore, service: OnlineService) -> dict[str, Micros | None]:
    """Up to which known time each view holds every fact."""
    return {v.view.name: store.watermark(v.space) for v in service.views}


def _key(view: FeatureViewDef, row: Mapping[str, Any]) -> bytes | None:
    try:
        return entity_key([row[name] for name in view.entity])
    except KeyError as error:
        raise InvalidInput(
            f"feature view {view.name} needs the entity {error}", hint="name it in the request"
        ) from None
