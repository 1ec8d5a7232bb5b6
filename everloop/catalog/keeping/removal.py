"""Removal: versions and runs that somebody deleted, whose bytes may go while ids, numbers and history stay.

Deleting says so as a fact (`version.removed`); nothing else happens at once. When a grace period is over, the daily
sweep frees the objects that nothing else refers to, and says that too (`version.freed`, `run.freed`): these are the
tombstones that `verify` accepts. What a pointer, a snapshot, an endpoint's revision, evidence or any other version
that stays refers to is never freed.
"""

import json
from collections.abc import Collection, Iterable

from sqlalchemy import and_, delete, func, or_, select

from everloop.catalog import facts, placements
from everloop.catalog.engine import Tx
from everloop.catalog.facts import Fact
from everloop.catalog.governance import holds
from everloop.catalog.tables.core import edges, names, numbers, refs, versions
from everloop.catalog.tables.core import facts as fact_rows
from everloop.catalog.tables.tracking import artifacts, logged_models, registered_versions, runs
from everloop.catalog.versions import HELD
from everloop.core.clock import Micros

REMOVED, FREED, RUN_FREED = "version.removed", "version.freed", "run.freed"
"""Kinds of facts; the subject is the version's id, or `run/<id>`, or `logged/<id>`."""
_CHUNK = 500


def remove(tx: Tx, project: str, identities: Iterable[str], *, actor: str, at: Micros) -> None:
    """Say that versions are no longer wanted under a name that they had; their bytes stay for the grace period."""
    facts.append_many(tx, project, [Fact(REMOVED, identity, actor, at) for identity in identities])


def expire(tx: Tx, project: str, *, before: Micros, actor: str, at: Micros) -> int:
    """Take the files from runs and logged models that were deleted by `before`, and return how many that were.

    The rows of the runs stay, with parameters, tags and metrics; so do objects that anything else names, and files of
    runs under a legal hold.
    """
    held = holds.runs_held(tx, project)
    hidden = select(runs.c.id).where(runs.c.project == project, runs.c.stage == "deleted", runs.c.deleted <= before)
    models = select(logged_models.c.id).where(
        logged_models.c.project == project, logged_models.c.stage == "deleted", logged_models.c.updated <= before
    )
    count = 0
    for word, owners in (("run", hidden), ("logged", models)):
        mine = (artifacts.c.project == project, artifacts.c.owner.in_(owners))
        listed = select(artifacts.c.owner, func.count()).where(*mine).group_by(artifacts.c.owner)
        found = [(row[0], row[1]) for row in tx.execute(listed.order_by(artifacts.c.owner))]
        for owner, files in found:
            if word == "run" and owner in held:
                continue
            tx.execute(delete(artifacts).where(artifacts.c.project == project, artifacts.c.owner == owner))
            facts.append(tx, project, Fact(RUN_FREED, f"{word}/{owner}", actor, at, {"files": files}))
            count += files
    return count


def release(tx: Tx, project: str, *, before: Micros, actor: str, at: Micros) -> frozenset[str]:
    """The versions removed by `before` that nothing refers to any more; each is said to be freed, once.

    What is under a legal hold, or was sealed of a run that is, stays.
    """
    wanted = removed(tx, project, before) - holds.versions_held(tx, project)
    gone = unreferred(tx, project, wanted - alive(tx, project, wanted))
    said = _subjects(tx, project, FREED)
    facts.append_many(tx, project, [Fact(FREED, identity, actor, at) for identity in sorted(gone - said)])
    return frozenset(gone)


def freed(tx: Tx, project: str) -> frozenset[str]:
    """Versions whose bytes may be gone: freed, and not registered again since."""
    said = _subjects(tx, project, FREED)
    return frozenset(said - alive(tx, project, said))


def is_freed(tx: Tx, project: str, subject: str) -> bool:
    """Whether the files of `run/<id>`, `logged/<id>` or of a version were freed."""
    query = select(fact_rows.c.id).where(
        fact_rows.c.project == project, fact_rows.c.kind.in_((FREED, RUN_FREED)), fact_rows.c.subject == subject
    )
    return tx.execute(query.limit(1)).first() is not None


def removed(tx: Tx, project: str, before: Micros) -> set[str]:
    """Versions that somebody deleted by `before`, and the seals of runs that were."""
    found = _subjects(tx, project, REMOVED, before)
    hidden = ("run-" + runs.c.id).label("name")
    gone = select(hidden).where(runs.c.project == project, runs.c.stage == "deleted", runs.c.deleted <= before)
    sealed = select(numbers.c.version).where(
        numbers.c.project == project, numbers.c.kind == "run", numbers.c.name.in_(gone)
    )
    return found | set(tx.execute(sealed).scalars())


def alive(tx: Tx, project: str, identities: Collection[str]) -> set[str]:
    """Those of some versions that a name still holds: under a number that nobody deleted. Seals of runs never are."""
    own = registered_versions.c
    query = (
        select(numbers.c.version)
        .join(names, HELD)
        .outerjoin(
            registered_versions,
            and_(own.project == numbers.c.project, own.asset == numbers.c.name, own.number == numbers.c.number),
        )
        .where(numbers.c.project == project, numbers.c.kind != "run")
        .where(or_(numbers.c.kind != "model", func.coalesce(own.deleted, 0) == 0))
    )
    listed = sorted(identities)
    return {
        identity
        for start in range(0, len(listed), _CHUNK)
        for identity in tx.execute(query.where(numbers.c.version.in_(listed[start : start + _CHUNK]))).scalars()
    }


def unreferred(tx: Tx, project: str, wanted: Collection[str]) -> set[str]:
    """Those of some versions that no pointer and no version outside of them refers to, however far."""
    free = set(wanted)
    if not free:
        return free
    said: dict[str, set[str]] = {}  # version -> which of the wanted ones its manifest or its lineage names
    for row in tx.execute(select(versions.c.id, versions.c.manifest).where(versions.c.project == project)):
        named = free.intersection(placements.mentioned(json.loads(row.manifest))) - {row.id}
        if named:
            said[row.id] = named
    for edge in tx.execute(select(edges.c.from_id, edges.c.to_id).where(edges.c.project == project)):
        if edge.from_id in free:
            said.setdefault(edge.to_id, set()).add(edge.from_id)
    pinned = free.intersection(tx.execute(select(refs.c.target).where(refs.c.project == project)).scalars())
    pinned |= {one for who, named in said.items() if who not in free for one in named}
    while pinned:
        free -= pinned
        pinned = {one for who in pinned for one in said.get(who, ()) if one in free}
    return free


def _subjects(tx: Tx, project: str, kind: str, before: Micros | None = None) -> set[str]:
    query = select(fact_rows.c.subject).where(fact_rows.c.project == project, fact_rows.c.kind == kind)
    if before is not None:  # the last time counts: it may have come back in between
        query = query.group_by(fact_rows.c.subject).having(func.max(fact_rows.c.at) <= before)
    return set(tx.execute(query).scalars())
