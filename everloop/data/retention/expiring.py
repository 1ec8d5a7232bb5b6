"""What rules let go: planned without touching anything, then let go in one transaction a version.

A version that expires keeps its id, number, lineage and profile; its rows cannot be read any more and every reader is
told so. Bytes that no other version needs go with the next sweep, after its grace. What a pointer or an environment's
snapshot names stays whatever a rule says, and so does what is under a legal hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop.catalog import facts, placements, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import redactions
from everloop.core.clock import DAY
from everloop.data.erasure.holds import standing
from everloop.data.retention.rules import Retention
from everloop.data.sensitive.tags import tags_of

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Expiring:
    """One version that the rules let go."""

    id: str
    name: str
    number: int
    parts: tuple[str, ...]
    """Logical ids of the parts that no version which stays has."""
    bytes: int


def plan(ctx: Context, rules: Sequence[Retention]) -> list[Expiring]:
    """The versions that may go now, oldest first in each name; nothing is changed."""
    with ctx.read() as tx:
        named = [
            (kind, name, _history(tx, ctx.project, kind, name))
            for kind in sorted({rule.kind for rule in rules} & set(redactions.TABLES))
            for name in versions.names(tx, ctx.project, kind)
        ]
        gone, kept_ids = redactions.expired(tx, ctx.project), _pointed(tx, ctx.project)
        tables, placed = redactions.tables(tx, ctx.project), placements.objects(tx, ctx.project)
    held = standing(ctx)
    free = [(kind, name, rows) for kind, name, rows in named if f"{kind}/{name}" not in held]
    going = [r for kind, name, rows in free for r in _going(ctx, (kind, name), rows, rules) if r.id not in kept_ids]
    going = [row for row in going if row.id not in gone]
    leaving = gone | {row.id for row in going}
    needed = {part["logical"] for i, m in tables.items() if i not in leaving for part in m["parts"]}
    found = []
    for row in going:
        parts = tuple(p["logical"] for p in row.manifest["parts"] if p["logical"] not in needed)
        needed.update(parts)  # counted once, with the version that goes first
        size = sum(_size(ctx, placed[logical]) for logical in parts if logical in placed)
        found.append(Expiring(row.id, row.name, row.number, parts, size))
    return found


def expire(ctx: Context, rules: Sequence[Retention]) -> list[Expiring]:
    """Let go what `plan` says; a version that was pointed to since stays. May be run again after a crash."""
    done = []
    for one in plan(ctx, rules):
        with ctx.write() as tx:
            if one.id in _pointed(tx, ctx.project):
                continue
            placed = placements.resolve(tx, ctx.project, one.parts)
            placements.forget(tx, ctx.project, one.parts)
            placements.raise_up(tx, ctx.project, list(placed.values()))
            payload = {"number": one.number, "bytes": one.bytes}
            facts.append(tx, ctx.project, ctx.fact(redactions.EXPIRED, one.id, payload))
        done.append(one)
    return done


def _history(tx: Tx, project: str, kind: str, name: str) -> list[versions.VersionRow]:
    found: list[versions.VersionRow] = []
    while rows := versions.history(tx, project, kind, name, limit=_PAGE, before=found[-1].number if found else None):
        found += rows
    return found


def _going(
    ctx: Context, asset: tuple[str, str], rows: list[versions.VersionRow], rules: Sequence[Retention]
) -> list[versions.VersionRow]:
    """The versions of a name that some rule covers and none of those that cover it keeps, oldest first."""
    kind, name = asset
    named = [rule for rule in rules if rule.kind == kind and rule.names(name)]
    going = []
    for place, row in enumerate(rows if named else []):
        tags = _tags(ctx, row) if any(rule.tag for rule in named) else frozenset()
        mine = [rule for rule in named if not rule.tag or rule.tag in tags]
        age = ctx.now() - row.at
        if mine and all(place >= rule.versions and age > rule.days * DAY for rule in mine):
            going.append(row)
    return going[::-1]


def _tags(ctx: Context, row: versions.VersionRow) -> frozenset[str]:
    """The tags of a version's columns: declared, said or confirmed, and carried here."""
    with ctx.read() as tx:
        return frozenset().union(*tags_of(tx, ctx.project, row).values())


def _pointed(tx: Tx, project: str) -> set[str]:
    """What pointers name, themselves or through the manifests of snapshots."""
    targets = set(refs.all(tx, project, "").values())
    mentioned = {i for m in versions.manifests(tx, project, sorted(targets)).values() for i in _ids(m)}
    return targets | mentioned


def _ids(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [found for part in inner for found in _ids(part)]


def _size(ctx: Context, identity: str) -> int:
    return int(ctx.store.size(identity)) if ctx.store.has(identity) else 0  # type: ignore[attr-defined]
