"""Versions, their names and numbers, and the lineage between them.

A version is immutable and known by the id of its manifest. A name gives it a number ("delay v7"): the number counts up
in each (kind, name, incarnation), and `retire` ends an incarnation, so that a name which comes back starts at 1 again.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    insert,
    select,
    update,
)

from everloop.catalog.engine import Tx, insert_for, insert_new
from everloop.catalog.tables.core import edges, numbers, versions
from everloop.catalog.tables.core import names as name_rows
from everloop.core.canonical import canonical_json
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import PREFIX, is_id
from everloop.core.version import Version, split_key

_NUMBERED = re.compile(r"(?P<key>[a-z]+/[^@]+)(?:@v?(?P<number>[0-9]+))?")
_PREFIX = re.compile(r"(?:b3:)?[0-9a-f]{6,64}")
_CHUNK = 500  # ids in one IN list

HELD = and_(
    name_rows.c.project == numbers.c.project,
    name_rows.c.kind == numbers.c.kind,
    name_rows.c.name == numbers.c.name,
    name_rows.c.incarnation == numbers.c.incarnation,
    name_rows.c.retired.is_(False),
)
"""A join of names and numbers: the number is of the name as it is held now, not of an earlier incarnation."""

# Built once: building a statement costs more than running it.
_COUNT_UP = (
    update(name_rows)
    .where(
        name_rows.c.project == bindparam("p"), name_rows.c.kind == bindparam("k"), name_rows.c.name == bindparam("n")
    )
    .values(incarnation=bindparam("i"), last=bindparam("l"), retired=False)
)
_GIVE = insert(numbers)
_MANIFESTS = select(versions.c.id, versions.c.manifest).where(
    versions.c.project == bindparam("p"), versions.c.id.in_(bindparam("ids", expanding=True))
)
_THERE = _MANIFESTS.with_only_columns(versions.c.id)
_FIRST = (numbers.c.at, numbers.c.kind, numbers.c.name, numbers.c.incarnation, numbers.c.number)
_NEWEST = (numbers.c.incarnation.desc(), numbers.c.number.desc())
_NUMBERS = select(numbers).where(
    numbers.c.project == bindparam("p"), numbers.c.version.in_(bindparam("ids", expanding=True))
)
_LABELS = _NUMBERS.order_by(*_FIRST)
_NAMES = select(name_rows).where(
    name_rows.c.project == bindparam("p"), name_rows.c.name.in_(bindparam("names", expanding=True))
)


@dataclass(frozen=True, slots=True)
class Numbered:
    """What `put` made of a version: the number it goes by, and whether it is new under this name."""

    id: str
    kind: str
    name: str
    number: int
    incarnation: int
    new: bool


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version as it is stored, under one of its names."""

    id: str
    kind: str
    name: str
    number: int
    incarnation: int
    manifest: Mapping[str, Any]
    at: Micros
    actor: str

    @property
    def key(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """Lineage: `to_id` was made from `from_id`, which played `role`."""

    from_id: str
    to_id: str
    role: str


def put(tx: Tx, project: str, version: Version, *, actor: str, at: Micros) -> Numbered:
    """Store a version, its edges and its number; doing it again changes nothing and gives the same number.

    Raises `NotFound` when it names an input that the project does not hold.
    """
    (numbered,) = put_many(tx, project, (version,), actor=actor, at=at)
    return numbered


def put_many(tx: Tx, project: str, many: Iterable[Version], *, actor: str, at: Micros) -> list[Numbered]:
    """Store versions in any order, though they name each other as inputs; numbers follow the given order."""
    listed = list(many)
    if not listed:
        return []
    tx.execute(
        insert_new(tx.dialect.name, versions),
        [
            {
                "project": project,
                "id": version.id,
                "kind": version.kind,
                "manifest": canonical_json(version.manifest).decode(),
                "at": at,
                "actor": actor,
            }
            for version in sorted(listed, key=lambda version: version.id)
        ],
    )
    _connect(tx, project, listed)
    return _number(tx, project, listed, actor=actor, at=at)


def get(tx: Tx, project: str, identity: str) -> VersionRow:
    """The version with this id, under the first name it was given; raises `NotFound`."""
    row = tx.execute(_named(project).where(versions.c.id == identity).order_by(*_FIRST).limit(1)).first()
    if row is None:
        raise NotFound(f"no version {identity} in project {project}", hint="check the id, or name it as kind/name")
    return _row(row)


def find(tx: Tx, project: str, spec: str) -> VersionRow:
    """The version that `spec` means: an id, the beginning of one, `kind/name` (the newest) or `kind/name@7`.

    Raises `NotFound`, and `InvalidInput` for a text of no such form or a beginning that several ids share.
    """
    if is_id(spec):
        return get(tx, project, spec)
    if _PREFIX.fullmatch(spec):
        return _by_prefix(tx, project, PREFIX + spec.removeprefix(PREFIX))
    match = _NUMBERED.fullmatch(spec)
    if match is None:
        raise InvalidInput(
            f"{spec!r} names no version", hint="an id, 6 or more digits of one, kind/name or kind/name@7"
        )
    kind, name = split_key(match["key"])
    query = _named(project).where(numbers.c.kind == kind, numbers.c.name == name)
    if match["number"] is not None:
        query = query.where(numbers.c.number == int(match["number"]))
    row = tx.execute(query.order_by(*_NEWEST).limit(1)).first()
    if row is None:
        raise NotFound(f"no version {spec} in project {project}", hint=_nearby(tx, project, kind))
    return _row(row)


def manifests(tx: Tx, project: str, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """The manifests of those of `ids` that the project holds."""
    found: dict[str, Mapping[str, Any]] = {}
    for chunk in _chunks(ids):
        rows = tx.execute(_MANIFESTS, {"p": project, "ids": chunk})
        found.update((identity, json.loads(manifest)) for identity, manifest in rows)
    return found


def history(
    tx: Tx, project: str, kind: str, name: str, *, limit: int = 50, before: int | None = None
) -> list[VersionRow]:
    """Versions of a name in its current incarnation, newest first; `before` is the number to go on from."""
    query = _named(project).where(
        numbers.c.kind == kind, numbers.c.name == name, numbers.c.incarnation == name_rows.c.incarnation
    )
    if before is not None:
        query = query.where(numbers.c.number < before)
    return [_row(row) for row in tx.execute(query.order_by(numbers.c.number.desc()).limit(limit))]


def newest(tx: Tx, project: str, kind: str) -> list[VersionRow]:
    """The newest version of every name of a kind that is not retired, by name."""
    query = _named(project).where(
        numbers.c.kind == kind,
        name_rows.c.retired.is_(False),
        numbers.c.incarnation == name_rows.c.incarnation,
        numbers.c.number == name_rows.c.last,
    )
    return [_row(row) for row in tx.execute(query.order_by(numbers.c.name))]


def stamp(tx: Tx, project: str) -> tuple[int, ...]:
    """Changes whenever a name of the project gets a version, is retired or comes back."""
    retired = func.sum(case((name_rows.c.retired, 1), else_=0))
    query = select(func.count(), func.sum(name_rows.c.last), func.sum(name_rows.c.incarnation), retired)
    return tuple(int(value or 0) for value in tx.execute(query.where(name_rows.c.project == project)).one())


def known_as(tx: Tx, project: str, identity: str) -> list[tuple[str, int]]:
    """Every name and number of a version, as (`kind/name`, number), first given first."""
    query = select(numbers).where(numbers.c.project == project, numbers.c.version == identity).order_by(*_FIRST)
    return [(f"{row.kind}/{row.name}", row.number) for row in tx.execute(query)]


def labels(tx: Tx, project: str, ids: Collection[str]) -> dict[str, str]:
    """How people call these versions: `kind/name v7`, by id."""
    found: dict[str, str] = {}
    for chunk in _chunks(ids):
        for row in tx.execute(_LABELS, {"p": project, "ids": chunk}):
            found.setdefault(row.version, f"{row.kind}/{row.name} v{row.number}")
    return found


def names(tx: Tx, project: str, kind: str) -> list[str]:
    """Names of a kind that are in use, sorted."""
    query = select(name_rows.c.name).where(
        name_rows.c.project == project, name_rows.c.kind == kind, name_rows.c.retired.is_(False)
    )
    return list(tx.execute(query.order_by(name_rows.c.name)).scalars())


def retire(tx: Tx, project: str, kind: str, name: str) -> None:
    """End the incarnation of a name; its versions stay. Raises `NotFound`."""
    done = tx.execute(update(name_rows).where(*_is_name(project, kind, name)).values(retired=True))
    if done.rowcount == 0:
        raise NotFound(f"no {kind}/{name} in project {project}", hint=_nearby(tx, project, kind))


def upstream(tx: Tx, project: str, identity: str, depth: int = 64) -> list[Edge]:
    """The lineage that leads to a version, nearest first, `depth` edges far at most."""
    return _walk(tx, project, identity, depth, known=edges.c.to_id, reached=edges.c.from_id)


def downstream(tx: Tx, project: str, identity: str, depth: int = 64) -> list[Edge]:
    """What was made from a version, nearest first, `depth` edges far at most."""
    return _walk(tx, project, identity, depth, known=edges.c.from_id, reached=edges.c.to_id)


def _walk(tx: Tx, project: str, start: str, depth: int, *, known: Column[Any], reached: Column[Any]) -> list[Edge]:
    found: list[Edge] = []
    seen, frontier = {start}, [start]
    for _ in range(depth):
        step: list[Edge] = []
        for chunk in _chunks(frontier):
            query = (
                select(edges).where(edges.c.project == project, known.in_(chunk)).order_by(known, edges.c.role, reached)
            )
            step.extend(Edge(row.from_id, row.to_id, row.role) for row in tx.execute(query))
        found.extend(step)
        frontier = list(dict.fromkeys(getattr(edge, reached.name) for edge in step))
        frontier = [identity for identity in frontier if identity not in seen]
        seen.update(frontier)
        if not frontier:
            break
    return found


def _connect(tx: Tx, project: str, many: list[Version]) -> None:
    wanted = {
        (version.id, role, source): {"project": project, "to_id": version.id, "role": role, "from_id": source}
        for version in many
        for role, source in version.inputs
    }
    if not wanted:
        return
    sources = {source for _, _, source in wanted}
    held: set[str] = set()
    for chunk in _chunks(sources):
        held.update(tx.execute(_THERE, {"p": project, "ids": chunk}).scalars())
    if missing := sorted(sources - held):
        raise NotFound(
            f"an input of the version is not in project {project}: {missing[0]}",
            hint="put the inputs first, or together with it; inputs are versions, not objects",
        )
    tx.execute(insert_new(tx.dialect.name, edges), list(wanted.values()))


def _number(tx: Tx, project: str, listed: list[Version], *, actor: str, at: Micros) -> list[Numbered]:
    """Give the next number under its name to each version that has none there, in the given order.

    The rows of names are locked in one order, so that two writers cannot wait for each other. The number of statements
    does not grow with the number of versions.
    """
    keys = sorted({(version.kind, version.name) for version in listed})
    first = [{"project": project, "kind": kind, "name": name} for kind, name in keys]
    tx.execute(_locking(tx.dialect.name), [{**key, "incarnation": 1, "last": 0, "retired": False} for key in first])
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for chunk in _chunks({name for _, name in keys}):
        for row in tx.execute(_NAMES, {"p": project, "names": chunk}):
            last[row.kind, row.name] = (row.incarnation + 1, 0) if row.retired else (row.incarnation, row.last)
    held: dict[tuple[str, str, int, str], int] = {}
    for chunk in _chunks({version.id for version in listed}):
        for row in tx.execute(_NUMBERS, {"p": project, "ids": chunk}):
            held[row.kind, row.name, row.incarnation, row.version] = row.number
    given: list[dict[str, Any]] = []
    found: list[Numbered] = []
    for version in listed:
        incarnation, number = last[version.kind, version.name]
        known = held.get((version.kind, version.name, incarnation, version.id))
        if known is None:
            number += 1
            last[version.kind, version.name] = incarnation, number
            held[version.kind, version.name, incarnation, version.id] = number
            named = {"project": project, "kind": version.kind, "name": version.name, "incarnation": incarnation}
            given.append({**named, "number": number, "version": version.id, "at": at, "actor": actor})
        found.append(Numbered(version.id, version.kind, version.name, known or number, incarnation, new=known is None))
    if given:
        counted = sorted({(row["kind"], row["name"]) for row in given})
        ups = [{"p": project, "k": k, "n": n, "i": last[k, n][0], "l": last[k, n][1]} for k, n in counted]
        tx.execute(_COUNT_UP, ups)
        tx.execute(_GIVE, given)
    return found


@lru_cache(maxsize=2)
def _locking(dialect: str) -> Executable:
    """Writes the rows of names and locks those that are there."""
    made = insert_for(dialect, name_rows)
    return made.on_conflict_do_update(index_elements=["project", "kind", "name"], set_={"last": name_rows.c.last})


def _named(project: str) -> Select[Any]:
    joined = versions.join(
        numbers, and_(numbers.c.project == versions.c.project, numbers.c.version == versions.c.id)
    ).join(
        name_rows,
        and_(
            name_rows.c.project == numbers.c.project,
            name_rows.c.kind == numbers.c.kind,
            name_rows.c.name == numbers.c.name,
        ),
    )
    chosen = (
        versions.c.id,
        versions.c.manifest,
        numbers.c.kind,
        numbers.c.name,
        numbers.c.number,
        numbers.c.incarnation,
    )
    return select(*chosen, numbers.c.at, numbers.c.actor).select_from(joined).where(versions.c.project == project)


def _is_name(project: str, kind: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return (name_rows.c.project == project, name_rows.c.kind == kind, name_rows.c.name == name)


def _by_prefix(tx: Tx, project: str, prefix: str) -> VersionRow:
    query = select(versions.c.id).where(
        versions.c.project == project, versions.c.id >= prefix, versions.c.id < prefix + "g"
    )
    found = list(tx.execute(query.limit(2)).scalars())
    if not found:
        raise NotFound(
            f"no version starts with {prefix} in project {project}", hint="check the id, or name it as kind/name"
        )
    if len(found) > 1:
        raise InvalidInput(f"{prefix} is the beginning of more than one id", hint="give more digits")
    return get(tx, project, found[0])


def _nearby(tx: Tx, project: str, kind: str) -> str:
    known = names(tx, project, kind)[:8]
    return f"there are: {', '.join(known)}" if known else f"the project has no {kind} yet"


def _chunks(ids: Collection[str]) -> Iterable[list[str]]:
    listed = list(ids)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))


def _row(row: Row[Any]) -> VersionRow:
    return VersionRow(
        id=row.id,
        kind=row.kind,
        name=row.name,
        number=row.number,
        incarnation=row.incarnation,
        manifest=json.loads(row.manifest),
        at=row.at,
        actor=row.actor,
    )
