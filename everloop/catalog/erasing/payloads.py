"""A subject goes from payloads of sealed facts and from manifests; the chain and the ids hold as before.

A record of the chain covers the digest of its payload, not the payload: what is left of one after an erasure is named
by another fact, with its own digest, so that `chain.verify_chain` still tells damage from erasure. The same is done
for manifests (`governance.redactions`).
"""

import json
from typing import Any

from sqlalchemy import or_, select, update

from everloop.catalog import facts as log
from everloop.catalog.engine import Tx
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.facts import PAYLOAD_REDACTED, Fact
from everloop.catalog.governance import redactions
from everloop.catalog.tables.core import facts, versions
from everloop.core.ids import object_id


def erase_facts(tx: Tx, project: str, mentions: Mentions, said: Fact) -> int:
    """Redact the payloads of sealed facts; `said` has the actor, the time and the erasure. Returns how many."""
    holding = or_(*(facts.c.payload.contains(form, autoescape=True) for form in mentions.forms))
    sealed = select(facts.c.position, facts.c.payload).where(
        facts.c.project == project, facts.c.position.is_not(None), holding
    )
    count = 0
    for row in tx.execute(sealed).all():
        left = mentions.without(row.payload)
        if left == row.payload:
            continue
        where = (facts.c.project == project, facts.c.position == row.position)
        tx.execute(update(facts).where(*where).values(payload=left))
        payload = {**said.payload, "digest": object_id(left.encode())}
        fact = Fact(PAYLOAD_REDACTED, str(row.position), said.actor, said.at, payload, recorded=said.recorded)
        log.append(tx, project, fact)
        count += 1
    return count


def manifests(tx: Tx, project: str, mentions: Mentions) -> dict[str, dict[str, Any]]:
    """The manifests of versions of any kind that speak of the subject, by id; ends of parts of tables apart."""
    holding = or_(*(versions.c.manifest.contains(form, autoescape=True) for form in mentions.forms))
    query = select(versions.c.id, versions.c.manifest).where(versions.c.project == project, holding)
    found = {row.id: json.loads(row.manifest) for row in tx.execute(query)}
    return {identity: manifest for identity, manifest in found.items() if mentions.in_value(without_parts(manifest))}


def erase_manifest(tx: Tx, project: str, version: str, mentions: Mentions, said: Fact) -> None:
    """Put a manifest without the subject in the place of the stored one, and say so."""
    row = tx.execute(
        select(versions.c.manifest).where(versions.c.project == project, versions.c.id == version).with_for_update()
    ).one()
    manifest = json.loads(row.manifest)
    left = mentions.value_without(without_parts(manifest))
    redactions.redact_manifest(tx, project, version, {**manifest, **left}, said)


def without_parts(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what other steps of an erasure take care of, and without what its place rests on."""
    return {name: value for name, value in manifest.items() if name not in {"parts", "kind", "files", "name"}}
