"""Packs: objects that hold the bytes of many files.

Which pack holds a file is no part of any version's identity: a pack may be written again without some of its files
(compaction, erasure), and then only its row changes. A sweep keeps every pack that has a row.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.core import versions
from everloop.catalog.tables.trees import packs
from everloop.core.clock import Micros
from everloop.core.errors import Conflict
from everloop.core.ids import checked_id


@dataclass(frozen=True, slots=True)
class PackRow:
    """One pack."""

    object: str
    dataset: str
    """Whose capture wrote it; any dataset of the project may refer to what it holds."""
    pieces: int
    bytes: int


def put(tx: Tx, project: str, rows: Iterable[PackRow], *, at: Micros) -> None:
    """Record packs whose objects are stored; one that is known stays as it is."""
    values = [
        {
            "project": project,
            "object": checked_id(row.object),
            "dataset": row.dataset,
            "pieces": row.pieces,
            "bytes": row.bytes,
            "at": at,
        }
        for row in rows
    ]
    if values:
        tx.execute(insert_into(tx, packs).on_conflict_do_nothing(), values)


def of(tx: Tx, project: str, dataset: str = "") -> list[PackRow]:
    """The packs of a project, those that `dataset` wrote first, each group newest first."""
    query = select(packs.c.object, packs.c.dataset, packs.c.pieces, packs.c.bytes).where(packs.c.project == project)
    rows = tx.execute(query.order_by((packs.c.dataset == dataset).desc(), packs.c.at.desc(), packs.c.object))
    return [PackRow(row.object, row.dataset, row.pieces, row.bytes) for row in rows]


def hold(tx: Tx, project: str, objects: Collection[str]) -> None:
    """Keep packs from being replaced until the transaction ends; `Conflict` when one was replaced meanwhile."""
    query = select(packs.c.object).where(packs.c.project == project).with_for_update(read=True)
    wanted = sorted(set(objects))
    for start in range(0, len(wanted), 500):
        chunk = wanted[start : start + 500]
        if len(tx.execute(query.where(packs.c.object.in_(chunk))).all()) != len(chunk):
            raise Conflict(
                "files that this capture refers to were moved to other packs meanwhile",
                hint="capture again",
                retry=True,
            )


def replace(tx: Tx, project: str, old: Collection[str], new: Iterable[PackRow], *, at: Micros, seen: int) -> None:
    """Put packs in the place of others. `seen` is `recorded` before the caller looked at which files are wanted.

    Raises `Conflict` when a pack is gone, or a version was recorded since: it may want a file that nobody wanted.
    """
    wanted = sorted(set(old))
    mine = (packs.c.project == project, packs.c.object.in_(wanted))
    if len(tx.execute(select(packs.c.object).where(*mine).with_for_update()).all()) != len(wanted):
        raise Conflict("a pack was replaced by somebody else", hint="look again at which are there")
    if recorded(tx, project) != seen:
        raise Conflict("a version was recorded meanwhile", hint="look again at which files are wanted", retry=True)
    tx.execute(delete(packs).where(*mine))
    put(tx, project, new, at=at)


def recorded(tx: Tx, project: str) -> int:
    """How many data versions the project has."""
    query = select(func.count()).select_from(versions).where(versions.c.project == project, versions.c.kind == "data")
    return int(tx.execute(query).scalar_one())
