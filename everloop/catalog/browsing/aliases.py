"""The moves of every alias of a name, also of those that are gone."""

from sqlalchemy import select

from everloop.catalog.engine import Tx
from everloop.catalog.refs import Move, alias_ref
from everloop.catalog.tables.core import ref_log
from everloop.core.clock import Micros


def moves(tx: Tx, project: str, kind: str, name: str, *, limit: int = 200) -> list[Move]:
    """What happened to the aliases of a name, newest first; `Move.name` is the ref's."""
    start = alias_ref(kind, name, "")
    here = (ref_log.c.project == project, ref_log.c.name >= start, ref_log.c.name < start + "\U0010ffff")
    rows = tx.execute(select(ref_log).where(*here).order_by(ref_log.c.at.desc(), ref_log.c.id.desc()).limit(limit))
    return [Move(row.id, row.name, row.old, row.new, row.actor, row.at, row.reason, row.change) for row in rows]


def at(tx: Tx, project: str, kind: str, name: str, time: Micros) -> dict[str, str]:
    """Which version every alias of a name pointed to at that event time, by alias."""
    start = alias_ref(kind, name, "")
    here = (
        ref_log.c.project == project,
        ref_log.c.name >= start,
        ref_log.c.name < start + "\U0010ffff",
        ref_log.c.at <= time,
    )
    found: dict[str, str] = {}
    for row in tx.execute(select(ref_log).where(*here).order_by(ref_log.c.at, ref_log.c.id)):
        if row.new is None:
            found.pop(row.name[len(start) :], None)
        else:
            found[row.name[len(start) :]] = row.new
    return found
