"""Leading an erasure from its first record to its signed receipt; killed anywhere, it is resumed and ends complete.

What is wanted is written down first (`home/erasures/<id>.json`, the key sealed by the workspace's key), then every step
is done so that doing it again changes nothing: parts are redacted group by group, old objects removed, the other places
emptied, the database rewritten. Then the receipt is signed and the note goes.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.catalog.erasing.mentions import telling
from everloop.catalog.facts import Fact
from everloop.catalog.governance import redactions
from everloop.catalog.governance.scrubbing import scrub
from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.core.ids import fresh_id, object_id
from everloop.core.ports import Erasable, Leaving
from everloop.data.erasure import catalogued, folders, rewriting, unsure
from everloop.data.erasure.finding import following
from everloop.data.erasure.finding.subjects import Subject, manifests_of_tables
from everloop.data.erasure.holds import held, standing

RECEIPT = "https://everloop.dev/erasure/v1"
"""Predicate type of the signed receipt."""
_PURPOSE = "erasure"
ERASING = "data.erasing"
"""Kind of the fact that a step of an erasure is told with before it has a kind of its own; never stored as this."""
NOT_COVERED = (
    "what a model learnt: it is not in its bytes as rows; each model that was trained on them waits for a decision",
    "the sources, checked-out folders, backups and copies outside this workspace",
    "what other machines keep of a bucket in their caches, until they are emptied",
    "what is written of somebody in columns that are neither tagged nor made from such as are",
    "names that people gave to assets, and the free blocks of the disk below the file system",
)


@dataclass(frozen=True, slots=True)
class Places:
    """The stores beside the tables: what feeds them is emptied before, what was made of them after."""

    before: Sequence[Erasable] = ()
    after: Sequence[Erasable] = ()
    held: str = ""
    """Why one of them may not be touched: the reason of a legal hold on something that speaks of the subject."""


Finder = Callable[[Context, Subject, Fact], Places]
"""The places of a workspace for a subject; the fact has the actor, the time and the erasure for what they record."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did."""

    erasure: str
    envelope: Mapping[str, Any]
    """DSSE, signed by the workspace; `VerifyKey.open(envelope, RECEIPT)` gives the figures."""
    figures: Mapping[str, Any]


def erase(
    ctx: Context,
    key: str,
    places: Finder | None = None,
    *,
    columns: Sequence[str] = (),
    words: bool | None = None,
    reason: str = "",
) -> Receipt:
    """Remove every row about a subject from the project. Raises `PolicyRefused` while a legal hold stands.

    `columns` may name columns that no table tags; `places` finds the stores beside the tables. `words` says whether the
    key is looked for in free text too; without it its length decides. An erasure that was cut off before is finished
    first.
    """
    if ctx.key is None:
        raise InvalidInput("an erasure needs the workspace's signing key", hint="run it on the workspace's machine")
    resume(ctx, places)
    subject = Subject(key, following.subject_columns(ctx, columns), telling(key) if words is None else words)
    if subject.mentions.in_text(reason):
        raise InvalidInput("the reason names the subject", hint="it stays in the receipt: name a request instead")
    erasure = fresh_id("erasure")
    if hold := held(ctx, key) or _held_table(ctx, subject) or _found(ctx, erasure, subject, places).held:
        raise PolicyRefused(f"a legal hold stands: {hold}", hint="`everloop data hold --release` ends it")
    note = {
        "project": ctx.project,
        "columns": list(subject.columns),
        "words": subject.words,
        "reason": reason,
        "key": ctx.key.seal(_PURPOSE, erasure, key),
        "files": [],
        "packs": [],
    }
    _write(_folder(ctx) / f"{erasure}.json", json.dumps(note).encode())
    return _carry_out(ctx, erasure, note, subject, places)


def _held_table(ctx: Context, subject: Subject) -> str:
    """The reason of a hold on a dataset with a column that may hold the subject; empty when there is none."""
    with ctx.read() as tx:
        tables = [*versions.newest(tx, ctx.project, "data"), *versions.newest(tx, ctx.project, "frame")]
    columns = {row.name: {name for name, _ in row.manifest.get("schema_fields", ())} for row in tables}
    named = {f"{row.kind}/{row.name}" for row in tables if not columns[row.name].isdisjoint(subject.columns)}
    stand = standing(ctx)
    return next((stand[place] for place in sorted(named & stand.keys())), "")


def resume(ctx: Context, places: Finder | None = None) -> list[Receipt]:
    """Finish the project's erasures that were cut off."""
    done = []
    for path in sorted(_folder(ctx).glob("erasure*.json")):
        note = json.loads(path.read_bytes())
        if note["project"] == ctx.project and ctx.key is not None:
            subject = Subject(ctx.key.unseal(_PURPOSE, path.stem, note["key"]), tuple(note["columns"]), note["words"])
            done.append(_carry_out(ctx, path.stem, note, subject, places))
    return done


def _carry_out(ctx: Context, erasure: str, note: dict[str, Any], subject: Subject, places: Finder | None) -> Receipt:
    said, found = ctx.fact(ERASING, erasure, {"erasure": erasure}), _found(ctx, erasure, subject, places)
    elsewhere = {place.place: place.erase(subject.key) for place in found.before}
    subject = _with_files(ctx, erasure, note, subject)
    rewriting.rewrite(ctx, subject, erasure)
    folders.erase(ctx, subject.files)
    elsewhere |= {place.place: place.erase(subject.key) for place in found.after}
    elsewhere |= {"catalog": catalogued.erase(ctx, subject.mentions, said)}
    with ctx.read() as tx:
        moved = redactions.of_project(tx, ctx.project, erasure)
        removed = redactions.removed_by(tx, ctx.project, erasure)
    kept = _remove(ctx, removed | set(note["packs"]))
    with ctx.read() as tx:
        finished = next((r for r in redactions.receipts(tx, ctx.project) if r["erasure"] == erasure), None)
    if finished is None:
        left = _left(ctx, subject, found)
        figures = {"elsewhere": elsewhere, "kept": kept, "files": len(subject.files), "left": left}
        finished = _sign(ctx, erasure, note["reason"], moved, figures)
    database_left = scrub(ctx.catalog)
    (_folder(ctx) / f"{erasure}.json").unlink(missing_ok=True)
    return Receipt(erasure, finished["receipt"], {**finished["figures"], "database_left": database_left})


def _found(ctx: Context, erasure: str, subject: Subject, places: Finder | None) -> Places:
    return Places() if places is None else places(ctx, subject, ctx.fact(ERASING, erasure, {"erasure": erasure}))


def _with_files(ctx: Context, erasure: str, note: dict[str, Any], subject: Subject) -> Subject:
    """The subject with its files of folders, which are noted before the rows that name them go."""
    found = folders.find(ctx, subject, subject.mentions)
    note["files"] = sorted({*note["files"], *found.files})
    note["packs"] = sorted({*note["packs"], *found.packs})
    if note["files"]:
        _write(_folder(ctx) / f"{erasure}.json", json.dumps(note).encode())
    return replace(subject, files=frozenset(note["files"]))


def _left(ctx: Context, subject: Subject, found: "Places") -> list[str]:
    """What still holds the key, and why: said as it is, without the key."""
    said = [line for place in (*found.before, *found.after) if isinstance(place, Leaving) for line in place.left()]
    said += catalogued.left(ctx, subject.mentions)
    said += _in_warehouses(ctx, subject)
    said += unsure.left(ctx, subject)
    if not subject.words:
        said.append("free text was not searched: the key is so short that other things are written like it (--text)")
    return [subject.mentions.without(line) for line in said]


def _in_warehouses(ctx: Context, subject: Subject) -> list[str]:
    """Results that are pinned in a user's warehouse and have a column that may hold the subject."""
    pinned = {
        (pin["binding"], f"{pin['schema']}.{pin['table']}")
        for manifest in manifests_of_tables(ctx).values()
        if (pin := manifest.get("external"))
        and not {name for name, _ in manifest["schema_fields"]}.isdisjoint(subject.columns)
    }
    return [f"{table} in the warehouse {binding}: yours to change or drop" for binding, table in sorted(pinned)]


def _remove(ctx: Context, identities: Iterable[str]) -> list[str]:
    """Remove objects and what caches made of them; returns those that somebody else's version still names."""
    gone = set(identities)
    with ctx.read() as tx:
        needed = placements.reachable(tx) & gone if gone else set()
    for identity in gone:
        for cache in (ctx.home / "cache", ctx.home / "cache" / "packs"):
            for copy in cache.glob(identity.removeprefix("b3:") + ".*"):
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
        else "PostgreSQL: statistics, VACUUM FULL; its write-ahead log holds old rows until its segments are recycled",
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
