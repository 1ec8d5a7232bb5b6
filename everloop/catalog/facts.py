"""Facts: the append-only log of a project, written in the transaction of the change that each records.

`append` writes a row; a sealer (`everloop.catalog.chain`) soon gives it a gap-free position and its place in the hash
chain. Who follows the log reads sealed facts by position: the database's own numbers come in another order than
commits, and a reader that trusted them would lose the late ones.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.core import chains, facts
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput
from everloop.core.ids import object_id

PAYLOAD_REDACTED = "data.fact_redacted"
"""An erasure took a subject out of a payload: the subject is the position of that fact, the payload has the digest of
what is left."""
_APPEND = insert(facts)  # built once


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened: `kind` says what (`change.merged`), `subject` to what (`production`, `delay`).

    `at` is event time; `recorded` is wall time, and the sealer gives its own where it is None. `payload` is any JSON
    without NaN; floats are fine, because the digest is that of the text that is stored.
    """

    kind: str
    subject: str
    actor: str
    at: Micros
    payload: Mapping[str, Any] = field(default_factory=dict)
    recorded: Micros | None = None


@dataclass(frozen=True, slots=True)
class SealedFact:
    """A fact in its place. `position` counts from 1 in each project, without a gap; `prev` and `hash` chain it."""

    position: int
    project: str
    kind: str
    subject: str
    actor: str
    at: Micros
    recorded: Micros
    payload: Mapping[str, Any]
    payload_digest: str
    prev: str
    hash: str


def encoded(payload: Mapping[str, Any]) -> str:
    """The text that is stored and hashed; raises `InvalidInput` for what JSON cannot say."""
    try:
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a fact's payload is JSON: {error}", hint="write NaN as null, bytes as an id") from error


def append(tx: Tx, project: str, fact: Fact) -> None:
    """Write a fact in the transaction of the change that it records."""
    append_many(tx, project, (fact,))


def append_many(tx: Tx, project: str, many: Collection[Fact]) -> None:
    """Write several facts, in their order."""
    rows = []
    for fact in many:
        text = encoded(fact.payload)
        rows.append(
            {
                "project": project,
                "kind": fact.kind,
                "subject": fact.subject,
                "actor": fact.actor,
                "at": fact.at,
                "recorded": fact.recorded,
                "payload": text,
                "payload_digest": object_id(text.encode()),
            }
        )
    if rows:
        tx.execute(_APPEND, rows)


def since(tx: Tx, project: str, position: int, limit: int = 1000) -> list[SealedFact]:
    """Sealed facts after `position`, in order: keep the last position and ask again; nothing is ever missed."""
    found = tx.execute(
        select(facts)
        .where(facts.c.project == project, facts.c.position > position)
        .order_by(facts.c.position)
        .limit(limit)
    )
    return [_sealed(row) for row in found]


def heads(tx: Tx) -> dict[str, int]:
    """The last position of every project that has facts: where somebody who follows all of them starts."""
    return {row.project: row.position for row in tx.execute(select(chains.c.project, chains.c.position))}


def tail(
    tx: Tx,
    project: str,
    *,
    kinds: Collection[str] = (),
    subject: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[SealedFact]:
    """The newest sealed facts first, of these kinds (all when empty) and this subject (any when None).

    A kind that ends in `.*` means every kind with that beginning.
    """
    wanted: list[ColumnElement[bool]] = [facts.c.project == project, facts.c.position.is_not(None)]
    if kinds:
        exact = [kind for kind in kinds if not kind.endswith(".*")]
        either: ColumnElement[bool] = facts.c.kind.in_(exact)
        for kind in kinds:
            if kind.endswith(".*"):
                either |= and_(facts.c.kind >= kind[:-1], facts.c.kind < kind[:-2] + "/")  # '/' follows '.'
        wanted.append(either)
    if subject is not None:
        wanted.append(facts.c.subject == subject)
    if before is not None:
        wanted.append(facts.c.position < before)
    found = tx.execute(select(facts).where(*wanted).order_by(facts.c.position.desc()).limit(limit))
    return [_sealed(row) for row in found]


def unsealed(tx: Tx) -> int:
    """How many facts wait for a sealer."""
    counted = select(func.count()).select_from(facts).where(facts.c.position.is_(None))
    return int(tx.execute(counted).scalar_one())


def _sealed(row: Row[Any]) -> SealedFact:
    return SealedFact(
        position=row.position,
        project=row.project,
        kind=row.kind,
        subject=row.subject,
        actor=row.actor,
        at=row.at,
        recorded=row.recorded,
        payload=json.loads(row.payload),
        payload_digest=row.payload_digest,
        prev=row.prev,
        hash=row.hash,
    )
