"""Sealing: every fact gets a gap-free position in its project and its place in a hash chain.

A record's hash covers its position, its content, the digest of its payload and the hash before it, so that an edit, a
reordering or a hole breaks the chain where it was made. Cutting off the end breaks nothing inside; a signed checkpoint
that is kept elsewhere shows that.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from everloop.catalog.engine import Catalog, Tx, insert_into
from everloop.catalog.facts import PAYLOAD_REDACTED
from everloop.catalog.tables.core import chains, checkpoints, facts
from everloop.core.clock import Clock, Micros
from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ids import PREFIX, manifest_id, object_id
from everloop.core.signing import SigningKey, VerifyKey

GENESIS = PREFIX + "0" * 64
"""What the first record names as the one before it."""
CHECKPOINT = "https://everloop.dev/checkpoint/v1"
"""Predicate type of a signed head."""
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where a project's chain does not hold."""

    project: str
    position: int
    reason: str


def seal(catalog: Catalog, clock: Clock, limit: int = 1000) -> int:
    """Give up to `limit` facts of each project their position; returns how many there were in all.

    Any number of sealers may run: the row of the chain's head is locked before the facts are read, so that on
    PostgreSQL too a fact whose transaction committed late gets a later position, and none is left out.
    """
    with catalog.read() as tx:  # nothing to do is the usual case, and must not queue for the write lock
        waiting = tx.execute(select(facts.c.project).where(facts.c.position.is_(None)).distinct()).scalars().all()
    sealed = 0
    for project in sorted(waiting):
        with catalog.write() as tx:
            sealed += _seal_project(tx, project, clock.wall(), limit)
    return sealed


def _seal_project(tx: Tx, project: str, wall: Micros, limit: int) -> int:
    start = {"project": project, "position": 0, "hash": GENESIS}
    tx.execute(insert_into(tx, chains).on_conflict_do_nothing(), start)
    head = tx.execute(select(chains).where(chains.c.project == project).with_for_update()).one()
    waiting = (
        select(facts).where(facts.c.project == project, facts.c.position.is_(None)).order_by(facts.c.id).limit(limit)
    )
    position, prev = head.position, head.hash
    placed: list[dict[str, Any]] = []
    for row in tx.execute(waiting):
        position += 1
        recorded = wall if row.recorded is None else row.recorded
        digest = record_hash(row, position=position, recorded=recorded, prev=prev)
        placed.append({"fact": row.id, "position": position, "recorded": recorded, "prev": prev, "hash": digest})
        prev = digest
    if placed:
        place = update(facts).where(facts.c.id == bindparam("fact"))
        tx.execute(place.values({name: bindparam(name) for name in ("position", "recorded", "prev", "hash")}), placed)
        tx.execute(update(chains).where(chains.c.project == project).values(position=position, hash=prev))
    return len(placed)


def record_hash(row: Row[Any], *, position: int, recorded: Micros, prev: str) -> str:
    """The hash of a fact's record in its place."""
    return manifest_id(
        {
            "position": position,
            "project": row.project,
            "kind": row.kind,
            "subject": row.subject,
            "actor": row.actor,
            "at": row.at,
            "recorded": recorded,
            "payload_digest": row.payload_digest,
            "prev": prev,
        }
    )


def verify_chain(
    tx: Tx,
    project: str,
    *,
    key: VerifyKey | None = None,
    envelopes: Iterable[Mapping[str, Any]] = (),
) -> Break | None:
    """Walk a project's chain from its start; the first break, or None when all holds.

    With the workspace's public `key`, the stored checkpoints and any `envelopes` that were kept elsewhere are compared
    with the chain, so that an end cut off or a rewritten chain shows.
    """
    pinned = _pinned(tx, project, key, envelopes)
    if isinstance(pinned, Break):
        return pinned
    redacted = _redacted(tx, project)
    position, prev = 0, GENESIS
    while True:
        following = facts.c.position > position
        query = select(facts).where(facts.c.project == project, following).order_by(facts.c.position).limit(_BATCH)
        rows = tx.execute(query).all()
        if not rows:
            break
        for row in rows:
            if reason := _wrong(row, position + 1, prev, redacted):
                return Break(project, position + 1, reason)
            position, prev = row.position, row.hash
            if pinned.pop(position, prev) != prev:
                return Break(project, position, "the record is not the one that the signed checkpoint names")
    if pinned:
        return Break(project, position + 1, f"the records up to the signed checkpoint at {min(pinned)} are missing")
    head = tx.execute(select(chains).where(chains.c.project == project)).first()
    stored = (head.position, head.hash) if head else (0, GENESIS)
    if stored != (position, prev):
        return Break(project, position + 1, f"the chain's head is at {stored[0]}, the last record at {position}")
    return None


def checkpoint(tx: Tx, project: str, key: SigningKey, *, at: Micros) -> dict[str, Any]:
    """Sign the head of a project's chain, keep the envelope and return it; keep a copy somewhere else.

    Raises `NotFound` when nothing is sealed yet.
    """
    envelope = signed_head(tx, project, key, at=at)
    if envelope is None:
        raise NotFound(f"project {project} has no sealed fact", hint="seal first")
    position = key.public.open(envelope, CHECKPOINT)["position"]
    row = {"project": project, "position": position, "envelope": json.dumps(envelope)}
    tx.execute(insert_into(tx, checkpoints).on_conflict_do_nothing(), row)
    return envelope


def signed_head(tx: Tx, project: str, key: SigningKey, *, at: Micros) -> dict[str, Any] | None:
    """The signed head of a project's chain, which is stored nowhere; None when nothing is sealed yet."""
    head = tx.execute(select(chains).where(chains.c.project == project, chains.c.position > 0)).first()
    if head is None:
        return None
    predicate = {"project": project, "position": head.position, "hash": head.hash, "at": at}
    return key.sign(CHECKPOINT, {f"facts/{project}": head.hash}, predicate)


def _pinned(
    tx: Tx, project: str, key: VerifyKey | None, envelopes: Iterable[Mapping[str, Any]]
) -> dict[int, str] | Break:
    """What signed checkpoints say: {position: hash}."""
    if key is None:
        return {}
    pinned: dict[int, str] = {}
    stored = select(checkpoints).where(checkpoints.c.project == project).order_by(checkpoints.c.position)
    for envelope in [*(json.loads(row.envelope) for row in tx.execute(stored)), *envelopes]:
        try:
            said = key.open(envelope, CHECKPOINT)
        except CorruptObject as error:
            return Break(project, 0, f"a checkpoint is not to be trusted: {error.message}")
        if said["project"] != project:
            continue
        if pinned.setdefault(said["position"], said["hash"]) != said["hash"]:
            return Break(project, said["position"], "two signed checkpoints name different records")
    return pinned


def _redacted(tx: Tx, project: str) -> dict[int, str]:
    """{position: digest of what an erasure left of the payload}, as later records of the chain say."""
    said = select(facts.c.subject, facts.c.payload).where(facts.c.project == project, facts.c.kind == PAYLOAD_REDACTED)
    return {int(row.subject): json.loads(row.payload)["digest"] for row in tx.execute(said.order_by(facts.c.id))}


def _wrong(row: Row[Any], position: int, prev: str, redacted: Mapping[int, str]) -> str | None:
    if row.position != position:
        return f"the record is missing; the next one there is {row.position}"
    if object_id(row.payload.encode()) not in (row.payload_digest, redacted.get(position)):
        return "the payload was changed"
    if row.prev != prev:
        return "the record does not follow the one before it"
    if record_hash(row, position=position, recorded=row.recorded, prev=prev) != row.hash:
        return "the record was changed or moved"
    return None
