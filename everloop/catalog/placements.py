"""Placements: which object holds the bytes of a logical part now.

A table's version names its parts by what they contain; how they are encoded may change (a newer writer, compaction,
redaction), and then only the placement moves. Whoever replaces one has read the new bytes and found the same content.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import delete, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.core import placements
from everloop.core.errors import Conflict
from everloop.core.ids import checked_id

_CHUNK = 500


def put(tx: Tx, project: str, placed: Mapping[str, str]) -> None:
    """Record {logical id: object id}; a part that has a place keeps it."""
    rows = [{"project": project, "logical": checked_id(k), "object": checked_id(v)} for k, v in placed.items()]
    if rows:
        tx.execute(insert_into(tx, placements).on_conflict_do_nothing(), rows)


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


def objects(tx: Tx, project: str) -> dict[str, str]:
    """Every placement of a project."""
    found = tx.execute(select(placements).where(placements.c.project == project))
    return {row.logical: row.object for row in found}
