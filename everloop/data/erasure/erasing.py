"""Leading an erasure from its first record to its signed receipt; killed anywhere, it is resumed and ends complete.

What is wanted is written down first (`home/erasures/<id>.json`, the key sealed by the workspace's key), then every step
is done so that doing it again changes nothing: parts are redacted group by group, old objects removed, the other places
emptied, the database rewritten. Then the receipt is signed and the note goes.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.catalog.governance.scrubbing import scrub
from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.core.ids import fresh_id, object_id
from everloop.core.ports import Erasable
from everloop.data.erasure import rewriting
from everloop.data.erasure.holds import held, holds_dataset
from everloop.data.erasure.subjects import Subject, manifests_of_tables, subject_columns

RECEIPT = "https://everloop.dev/erasure/v1"
"""Predicate type of the signed receipt."""
_PURPOSE = "erasure"
NOT_COVERED = (
    "files that users logged to runs, and models: what a model learnt is not in its bytes as rows",
    "backups and copies outside this workspace",
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did."""

    erasure: str
    envelope: Mapping[str, Any]
    """DSSE, signed by the workspace; `VerifyKey.open(envelope, RECEIPT)` gives the figures."""
    figures: Mapping[str, Any]


def erase(
    ctx: Context, key: str, places: Sequence[Erasable] = (), *, columns: Sequence[str] = (), reason: str = ""
) -> Receipt:
    """Remove every row about a subject from the project. Raises `PolicyRefused` while a legal hold stands.

    `columns` may name columns that no table tags; `places` are stores beside the tables. An erasure that was cut off
    before is finished first.
    """
    if ctx.key is None:
        raise InvalidInput("an erasure needs the workspace's signing key", hint="run it on the workspace's machine")
    resume(ctx, places)
    subject = Subject(key, subject_columns(manifests_of_tables(ctx).values(), columns))
    if hold := held(ctx, key) or _held_table(ctx, subject):
        raise PolicyRefused(f"a legal hold stands: {hold}", hint="`everloop data hold --release` ends it")
    erasure = fresh_id("erasure")
    note = {
        "project": ctx.project,
        "columns": list(subject.columns),
        "reason": reason,
        "key": ctx.key.seal(_PURPOSE, erasure, key),
    }
    _write(_folder(ctx) / f"{erasure}.json", json.dumps(note).encode())
    return _carry_out(ctx, erasure, subject, reason, places)


def _held_table(ctx: Context, subject: Subject) -> str:
    """The reason of a hold on a dataset with a column that may hold the subject; empty when there is none."""
    with ctx.read() as tx:
        tables = [*versions.newest(tx, ctx.project, "data"), *versions.newest(tx, ctx.project, "frame")]
    columns = {row.name: {name for name, _ in row.manifest.get("schema_fields", ())} for row in tables}
    named = {name for name, found in columns.items() if not found.isdisjoint(subject.columns)}
    return next((reason for name in sorted(named) if (reason := holds_dataset(ctx, name))), "")


def resume(ctx: Context, places: Sequence[Erasable] = ()) -> list[Receipt]:
    """Finish the project's erasures that were cut off."""
    done = []
    for path in sorted(_folder(ctx).glob("erasure*.json")):
        note = json.loads(path.read_bytes())
        if note["project"] == ctx.project and ctx.key is not None:
            subject = Subject(ctx.key.unseal(_PURPOSE, path.stem, note["key"]), tuple(note["columns"]))
            done.append(_carry_out(ctx, path.stem, subject, note["reason"], places))
    return done


def _carry_out(ctx: Context, erasure: str, subject: Subject, reason: str, places: Sequence[Erasable]) -> Receipt:
    rewriting.rewrite(ctx, subject, erasure)
    with ctx.read() as tx:
        moved = redactions.of_project(tx, ctx.project, erasure)
    kept = _remove(ctx, {identity for redaction in moved for identity in redaction.removed})
    elsewhere = {place.place: place.erase(subject.key) for place in places}
    with ctx.read() as tx:
        finished = next((r for r in redactions.receipts(tx, ctx.project) if r["erasure"] == erasure), None)
    if finished is None:
        finished = _sign(ctx, erasure, reason, moved, {"elsewhere": elsewhere, "kept": kept})
    left = scrub(ctx.catalog)
    (_folder(ctx) / f"{erasure}.json").unlink(missing_ok=True)
    return Receipt(erasure, finished["receipt"], {**finished["figures"], "database_left": left})


def _remove(ctx: Context, identities: Iterable[str]) -> list[str]:
    """Remove objects and what caches made of them; returns those that somebody else's version still names."""
    gone = set(identities)
    with ctx.read() as tx:
        needed = set(placements.of_rows(tx)) & gone
    for identity in gone:
        for copy in (ctx.home / "cache").glob(identity.removeprefix("b3:") + ".*"):
            copy.unlink(missing_ok=True)
    ctx.store.remove(sorted(gone - needed))  # type: ignore[attr-defined]
    return sorted(needed)


def _sign(
    ctx: Context, erasure: str, reason: str, moved: list[redactions.Redaction], more: Mapping[str, Any]
) -> dict[str, Any]:
    """The receipt, recorded with the erasure: no word of the subject in it."""
    assert ctx.key is not None
    logicals = {redaction.logical for redaction in moved if redaction.rows}
    affected = [
        version
        for version, manifest in manifests_of_tables(ctx).items()
        if any(part["logical"] in logicals for part in manifest["parts"])
    ]
    figures = {
        "at": ctx.wall(),
        "actor": ctx.actor.name,
        "reason": reason,
        "versions": sorted(affected),
        "rows": sum(redaction.rows for redaction in moved),
        "redactions": [[r.logical, r.old, r.new, r.rows] for r in moved],
        "models": models_from(ctx, affected),
        "database": "SQLite: secure_delete, VACUUM, empty write-ahead log"
        if ctx.catalog.dialect == "sqlite"
        else "PostgreSQL: VACUUM FULL; its write-ahead log holds old rows until its segments are recycled",
        "not_covered": list(NOT_COVERED),
        **more,
    }
    receipt = ctx.key.sign(RECEIPT, {erasure: object_id(erasure.encode())}, figures)
    payload = {"erasure": erasure, "figures": figures, "receipt": receipt}
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact(redactions.ERASED, erasure, payload))
    return payload


def models_from(ctx: Context, affected: Sequence[str]) -> list[str]:
    """The models that were trained on any of these versions, by lineage."""
    found: dict[str, None] = {}
    with ctx.read() as tx:
        for version in affected:
            for edge in versions.downstream(tx, ctx.project, version):
                found.setdefault(edge.to_id)
        return sorted(i for i in found if versions.get(tx, ctx.project, i).kind == "model")


def _folder(ctx: Context) -> Path:
    return ctx.home / "erasures"


def _write(path: Path, content: bytes) -> None:
    """A file for its owner only, whole or not at all, on the disk when this returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    half.replace(path)
