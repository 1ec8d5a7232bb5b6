"""Placements: which object holds the bytes of a logical part now.

A table's version names its parts by what they contain; how they are encoded may change (a newer writer, compaction,
redaction), and then only the placement moves. Whoever replaces one has read the new bytes and found the same content.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import delete, select, update

from everloop.catalog.engine import Tx, insert_new
from everloop.catalog.tables import metadata
from everloop.catalog.tables.core import placements, rests, versions
from everloop.core.errors import Conflict
from everloop.core.ids import checked_id, is_id

OBJECT_FIELDS = frozenset({"object", "profile", "report", "card", "diff"})
"""Fields of a manifest that hold an object's id; those under `files` {path: id} do, too."""

_CHUNK = 500


def put(tx: Tx, project: str, placed: Mapping[str, str]) -> None:
    """Record {logical id: object id}; a part that has a place keeps it."""
    rows = [{"project": project, "logical": checked_id(k), "object": checked_id(v)} for k, v in placed.items()]
    if rows:
        tx.execute(insert_new(tx.dialect.name, placements), rows)


def resolve(tx: Tx, project: str, logicals: Collection[str]) -> dict[str, str]:
    """The object of each logical id that has a place."""
    wanted = list(logicals)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        query = select(placements).where(placements.c.project == project, placements.c.logical.in_(chunk))
        found.update((row.logical, row.object) for row in tx.execute(query))
    return found


def replace(tx: Tx, project: str, logical: str, *, old: str, new: str) -> None:
    """Move a part to another object, whose content the caller has verified; `Conflict` when it is not at `old`."""
    at_old = (placements.c.project == project, placements.c.logical == logical, placements.c.object == old)
    if tx.execute(update(placements).where(*at_old).values(object=checked_id(new))).rowcount != 1:
        raise Conflict(f"part {logical} is not at {old}", hint="somebody else moved it; resolve it again")


def forget(tx: Tx, project: str, logicals: Collection[str]) -> None:
    """Remove places, when the bytes are erased; the ids in the manifests stay."""
    for logical in logicals:
        tx.execute(delete(placements).where(placements.c.project == project, placements.c.logical == logical))


def rest(tx: Tx, project: str, bases: Mapping[str, str]) -> None:
    """Record {object: base}: the object is read together with its base, which a sweep keeps as long as this is so."""
    rows = [{"project": project, "object": checked_id(k), "base": checked_id(v)} for k, v in bases.items()]
    if rows:
        tx.execute(insert_new(tx.dialect.name, rests), rows)


def resting(tx: Tx, project: str, base: str) -> list[str]:
    """The objects that rest on one."""
    query = select(rests.c.object).where(rests.c.project == project, rests.c.base == base).order_by(rests.c.object)
    return list(tx.execute(query).scalars())


def rests_of(tx: Tx, project: str) -> dict[str, str]:
    """{object: base} of everything in a project that rests on something."""
    return {row.object: row.base for row in tx.execute(select(rests).where(rests.c.project == project))}


def raise_up(tx: Tx, project: str, objects: Collection[str]) -> None:
    """Objects that rest on nothing any more: nobody reads them, or they were written whole."""
    for identity in objects:
        tx.execute(delete(rests).where(rests.c.project == project, rests.c.object == identity))


def raise_unplaced(tx: Tx, project: str, identity: str) -> None:
    """An object that was written whole rests on nothing any more, unless another part still lies in it."""
    placed = select(placements.c.logical).where(placements.c.project == project, placements.c.object == identity)
    tx.execute(delete(rests).where(rests.c.project == project, rests.c.object == identity, ~placed.exists()))


def objects(tx: Tx, project: str) -> dict[str, str]:
    """Every placement of a project."""
    found = tx.execute(select(placements).where(placements.c.project == project))
    return {row.logical: row.object for row in found}


def objects_of(manifest: Any) -> Iterator[str]:
    """The ids of the objects that a manifest says are stored: under `files` and in `OBJECT_FIELDS`, however deep."""
    if isinstance(manifest, Mapping):
        for name, value in manifest.items():
            if name == "files" and isinstance(value, Mapping):
                yield from (identity for identity in value.values() if isinstance(identity, str) and is_id(identity))
            elif name in OBJECT_FIELDS and isinstance(value, str):
                if is_id(value):
                    yield value
            else:
                yield from objects_of(value)
    elif isinstance(manifest, list | tuple):
        for value in manifest:
            yield from objects_of(value)


def of_rows(tx: Tx, project: str | None = None) -> dict[str, str]:
    """Objects that rows name in columns marked `STORED`, each with a table that names it; by default all of them."""
    found: dict[str, str] = {}
    for table in metadata.sorted_tables:
        for column in table.c:
            if column.info.get("stored") and (project is None or "project" in table.c):
                named = select(column).where(column != "").distinct()
                if project is not None:
                    named = named.where(table.c.project == project)
                found.update(dict.fromkeys(tx.execute(named).scalars(), table.name))
    return found


def reachable(tx: Tx, project: str | None = None, *, freed: Collection[tuple[str, str]] = ()) -> set[str]:
    """Every id that a sweep must keep for a project, or for all of them: what rows name, and what manifests mention.

    It is generous on purpose: an id in a manifest is kept whether or not it is known to be an object. `freed` are
    (project, version) whose manifests keep nothing: deleted, and referred to by nothing (`keeping.removal`).
    """
    kept = set(of_rows(tx, project))
    manifests = select(versions.c.project, versions.c.id, versions.c.manifest)
    if project is not None:
        manifests = manifests.where(versions.c.project == project)
    for row in tx.execute(manifests):
        if (row.project, row.id) not in freed:
            kept.update(mentioned(json.loads(row.manifest)))
    return kept


def mentioned(value: Any) -> Iterator[str]:
    """Every id in a manifest, of whatever it is."""
    if isinstance(value, str):
        if is_id(value):
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from mentioned(part)
    elif isinstance(value, list):
        for part in value:
            yield from mentioned(part)
