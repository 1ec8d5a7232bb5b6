"""What is said about assets and their columns beside their definitions: owners, descriptions, labels, tags.

A row is never part of a version: to describe a table better makes no new version of it. Each change is a fact
(`catalogue.annotated`), which the caller appends in the same transaction.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.governance import annotations
from everloop.core.clock import Micros

Field = Literal["owner", "description", "label", "tag", "least"]
"""`least`: how many rows every value of this column is made of at least, as a steward declares."""
State = Literal["code", "said", "found", "confirmed", "dismissed"]
"""`code`: the project's code says it; `said`: a person; `found`: a scan, and nobody has looked at it yet."""
_SINGLE = frozenset({"owner", "description", "least"})


@dataclass(frozen=True, slots=True)
class Annotation:
    """One thing that is said of `kind/name`, or of its column `part`."""

    kind: str
    name: str
    part: str
    field: Field
    value: str
    state: State
    actor: str
    at: Micros
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def put(tx: Tx, project: str, one: Annotation) -> None:
    """Say something; an owner or a description of the same state takes the place of the one before."""
    if one.field in _SINGLE:
        same = (annotations.c.field == one.field, annotations.c.state == one.state)
        tx.execute(delete(annotations).where(*_of(project, one.kind, one.name), annotations.c.part == one.part, *same))
    row = {
        "project": project,
        "kind": one.kind,
        "name": one.name,
        "part": one.part,
        "field": one.field,
        "value": one.value,
        "state": one.state,
        "detail": json.dumps(dict(one.detail), sort_keys=True),
        "actor": one.actor,
        "at": one.at,
    }
    made = insert_into(tx, annotations)
    fresh = {name: made.excluded[name] for name in ("state", "detail", "actor", "at")}
    where = ["project", "kind", "name", "part", "field", "value"]
    tx.execute(made.on_conflict_do_update(index_elements=where, set_=fresh), row)


def forget(tx: Tx, project: str, one: Annotation) -> bool:
    """Take back what was said; whether it was there."""
    mine = (annotations.c.part == one.part, annotations.c.field == one.field, annotations.c.value == one.value)
    return bool(tx.execute(delete(annotations).where(*_of(project, one.kind, one.name), *mine)).rowcount)


def replace_code(tx: Tx, project: str, kind: str, name: str, said: Iterable[Annotation]) -> None:
    """What the project's code says of an asset now, in the place of what it said before."""
    tx.execute(delete(annotations).where(*_of(project, kind, name), annotations.c.state == "code"))
    known = {(one.part, one.field, one.value) for one in of(tx, project, kind, name)}
    for one in said:
        if (one.part, one.field, one.value) not in known:
            put(tx, project, one)


def of(tx: Tx, project: str, kind: str, name: str) -> list[Annotation]:
    """All that is said of one asset, by column, field and value."""
    order = (annotations.c.part, annotations.c.field, annotations.c.value)
    return _rows(tx.execute(select(annotations).where(*_of(project, kind, name)).order_by(*order)))


def all_of(tx: Tx, project: str, *, states: Collection[str] = ()) -> list[Annotation]:
    """All that is said in a project, perhaps only in some states."""
    query = select(annotations).where(annotations.c.project == project)
    if states:
        query = query.where(annotations.c.state.in_(sorted(states)))
    order = (annotations.c.kind, annotations.c.name, annotations.c.part, annotations.c.field, annotations.c.value)
    return _rows(tx.execute(query.order_by(*order)))


def stamp(tx: Tx, project: str) -> int:
    """Changes whenever an annotation does: a digest of all that is said."""
    c = annotations.c
    query = select(c.kind, c.name, c.part, c.field, c.value, c.state).where(c.project == project)
    return hash(frozenset(tuple(row) for row in tx.execute(query)))


def _of(project: str, kind: str, name: str) -> tuple[Any, ...]:
    return annotations.c.project == project, annotations.c.kind == kind, annotations.c.name == name


def _rows(found: Iterable[Any]) -> list[Annotation]:
    return [
        Annotation(r.kind, r.name, r.part, r.field, r.value, r.state, r.actor, r.at, json.loads(r.detail))
        for r in found
    ]
