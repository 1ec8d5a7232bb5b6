"""What erasures left behind: which part's bytes were replaced, which manifests no longer say all that they did.

Each is a fact of the audit chain and names no person. A redacted manifest's id stays that of what it once said; the
record holds the digest of what it says now, so `verify` still tells damage from erasure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from everloop.catalog import facts
from everloop.catalog.engine import Tx
from everloop.catalog.facts import Fact
from everloop.catalog.tables.core import facts as rows
from everloop.catalog.tables.core import versions
from everloop.core.canonical import canonical_json
from everloop.core.clock import Micros
from everloop.core.ids import object_id

TABLES = ("data", "frame")
PART, FILE = "data.redacted", "data.file_redacted"
MANIFEST, ERASED = "data.manifest_redacted", "data.erased"
EXPIRED = "data.expired"
"""A retention rule let a version's bytes go."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """One part whose bytes were replaced."""

    erasure: str
    logical: str
    old: str
    new: str
    rows: int
    """Rows that went."""
    removed: tuple[str, ...]
    """Objects that nobody may read any more: the old one, filters, profiles."""
    at: Micros


def of_project(tx: Tx, project: str, erasure: str = "") -> list[Redaction]:
    """Every redacted part of a project, or of one erasure, oldest first."""
    query = select(rows.c.subject, rows.c.at, rows.c.payload).where(rows.c.project == project, rows.c.kind == PART)
    found = []
    for subject, at, text in tx.execute(query.order_by(rows.c.id)):
        p = json.loads(text)
        if not erasure or p["erasure"] == erasure:
            found.append(Redaction(p["erasure"], subject, p["old"], p["new"], p["rows"], tuple(p["removed"]), at))
    return found


def removed_by(tx: Tx, project: str, erasure: str) -> set[str]:
    """Every object of which an erasure said that nobody may read it any more."""
    query = select(rows.c.payload).where(rows.c.project == project, rows.c.kind.in_((PART, FILE)))
    said = (json.loads(text) for text in tx.execute(query).scalars())
    return {identity for payload in said if payload["erasure"] == erasure for identity in payload["removed"]}


def of_manifest(tx: Tx, project: str, manifest: Mapping[str, Any]) -> list[str]:
    """The erasures that took rows out of a version, oldest first."""
    logicals = {part["logical"] for part in manifest.get("parts", ())}
    mine = (r.erasure for r in of_project(tx, project) if r.logical in logicals and r.rows)
    return list(dict.fromkeys(mine))


def tables(tx: Tx, project: str) -> dict[str, dict[str, Any]]:
    """The manifest of every version that is a table, of names that were retired too, by id."""
    query = select(versions.c.id, versions.c.manifest).where(versions.c.project == project, versions.c.kind.in_(TABLES))
    found = {row.id: json.loads(row.manifest) for row in tx.execute(query)}
    return {identity: manifest for identity, manifest in found.items() if "parts" in manifest}


def ids_of_kind(tx: Tx, project: str, kind: str) -> list[str]:
    """Every version of a kind, of names that were retired too."""
    query = select(versions.c.id).where(versions.c.project == project, versions.c.kind == kind)
    return list(tx.execute(query.order_by(versions.c.id)).scalars())


def redact_manifest(tx: Tx, project: str, version: str, manifest: Mapping[str, Any], fact: Fact) -> None:
    """Store what a manifest says now, with the record of it; `fact` carries the actor, the time and the erasure."""
    text = canonical_json(manifest)
    content = text.decode() if isinstance(text, bytes) else text
    tx.execute(update(versions).where(versions.c.project == project, versions.c.id == version).values(manifest=content))
    payload = {**fact.payload, "digest": object_id(content.encode())}
    facts.append(tx, project, Fact(MANIFEST, version, fact.actor, fact.at, payload, recorded=fact.recorded))


def manifest_digests(tx: Tx, project: str) -> dict[str, str]:
    """{version: digest of what its manifest says since the last redaction}."""
    query = select(rows.c.subject, rows.c.payload).where(rows.c.project == project, rows.c.kind == MANIFEST)
    return {subject: json.loads(text)["digest"] for subject, text in tx.execute(query.order_by(rows.c.id))}


def expired(tx: Tx, project: str) -> set[str]:
    """The versions whose bytes a retention rule let go."""
    query = select(rows.c.subject).where(rows.c.project == project, rows.c.kind == EXPIRED)
    return set(tx.execute(query).scalars())


def rules(tx: Tx, project: str, kind: str) -> dict[str, dict[str, Any]]:
    """The newest payload of the facts of a kind, by subject."""
    query = select(rows.c.subject, rows.c.payload).where(rows.c.project == project, rows.c.kind == kind)
    return {subject: json.loads(text) for subject, text in tx.execute(query.order_by(rows.c.id))}


def receipts(tx: Tx, project: str) -> list[dict[str, Any]]:
    """The payload of every finished erasure, oldest first: its number, figures and signed receipt."""
    query = select(rows.c.payload).where(rows.c.project == project, rows.c.kind == ERASED)
    return [json.loads(text) for text in tx.execute(query.order_by(rows.c.id)).scalars()]


def latest(tx: Tx, project: str, kinds: tuple[str, ...], subject: str) -> tuple[str, dict[str, Any]] | None:
    """The newest fact of these kinds about a subject: its kind and payload, sealed or not."""
    query = select(rows.c.kind, rows.c.payload).where(
        rows.c.project == project, rows.c.kind.in_(kinds), rows.c.subject == subject
    )
    row = tx.execute(query.order_by(rows.c.id.desc()).limit(1)).first()
    return None if row is None else (row.kind, json.loads(row.payload))
