"""Putting redacted objects in the place of those that hold a subject's rows; part identities stay.

Objects are taken in groups: a base and the layered parts that rest on it. A group is rewritten and recorded in one
transaction, so a reader finds all of the old objects or all of the new ones; the old ones are removed later.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from everloop.catalog import facts, placements
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.data.content.encoding import Encoding
from everloop.data.content.files import layered_file, local_object, rows_of
from everloop.data.content.keys import key_text
from everloop.data.content.layers import Layers, layered
from everloop.data.erasure.finding import following
from everloop.data.erasure.finding.filters import filter_id, may_hold
from everloop.data.erasure.finding.subjects import Subject, manifests_of_tables, rows_about
from everloop.data.profiles import part_profile_id, profile_id
from everloop.data.trees.reading import is_tree

ROUNDS = 5
"""Captures that run beside an erasure may rest new parts on an old base: what they made is found in the next round."""


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that are rewritten together."""

    base: str
    placed: Mapping[str, str]
    """{logical: object} of the parts whose object is the base, or rests on it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One part in its new object."""

    logical: str
    old: str
    new: str
    rests: str
    """The base of the new object; empty for a whole one."""
    rows: int
    """Rows that went."""
    first: tuple[str, ...]
    last: tuple[str, ...]


class Tables:
    """Every table of a project as it stands now, for one round."""

    def __init__(self, ctx: Context, subject: Subject) -> None:
        """Read manifests and placements; no part yet."""
        self.ctx, self.subject = ctx, subject
        self.manifests = manifests_of_tables(ctx)
        with ctx.read() as tx:
            self.placed = placements.objects(tx, ctx.project)
            self.bases = placements.rests_of(tx, ctx.project)

    @cached_property
    def versions_of(self) -> dict[str, list[str]]:
        """{logical part: the versions that have it}."""
        found: dict[str, list[str]] = {}
        for version, manifest in self.manifests.items():
            for part in manifest["parts"]:
                found.setdefault(part["logical"], []).append(version)
        return found

    def groups(self) -> Iterator[Group]:
        """The groups of which an object may hold the subject; the others are not read."""
        grouped: dict[str, dict[str, str]] = {}
        for logical in self.versions_of:
            if (identity := self.placed.get(logical)) is not None:
                grouped.setdefault(self.bases.get(identity, identity), {})[logical] = identity
        for base, placed in grouped.items():
            whole = self.texts(placed) or (self.subject.files and any(map(is_tree, map(self.manifest_with, placed))))
            identities = dict.fromkeys([base, *placed.values()])
            if whole or any(may_hold(self.ctx, identity, self.subject) for identity in identities):
                yield Group(base, placed)

    def texts(self, logicals: Iterable[str]) -> tuple[str, ...]:
        """The columns in whose text parts may speak of the subject: no filter helps there."""
        of = {version for logical in logicals for version in self.versions_of[logical]}
        held = [self.held[version] for version in of if version in self.held]
        return tuple(sorted({name for one in held for name in one.texts | one.unsure}))

    @cached_property
    def held(self) -> Mapping[str, following.Holding]:
        """{version: its columns that have to do with subjects}."""
        return following.follow(self.ctx, self.manifests, self.subject.columns)

    def manifest_with(self, logical: str) -> Mapping[str, Any]:
        """The manifest of a version that has the part."""
        return self.manifests[self.versions_of[logical][0]]


def rewrite(ctx: Context, subject: Subject, erasure: str) -> int:
    """Redact every part that holds the subject, in all versions; returns how many parts moved. May be run again."""
    count = 0
    for _ in range(ROUNDS):
        tables = Tables(ctx, subject)
        moved = sum(_rewrite_group(tables, group, erasure) for group in tables.groups())
        count += moved
        if not moved:
            break
    _redact_manifests(ctx, erasure)
    return count


def _rewrite_group(tables: Tables, group: Group, erasure: str) -> int:
    ctx, cache = tables.ctx, tables.ctx.home / "cache"
    base = rows_of(local_object(ctx.store, group.base, cache))
    texts = tables.texts(group.placed)
    about = rows_about(base, tables.subject, texts)
    bare = base.filter(pa.array(~about)) if about.any() else base
    new_base = _store(ctx, bare, []) if about.any() else group.base
    moved = [
        found
        for logical, identity in group.placed.items()
        if (found := _moved(tables, (logical, identity), (group.base, base), (new_base, bare), texts)) is not None
    ]
    if not moved:
        return 0
    _record(tables, group, moved, erasure)
    return len(moved)


def _moved(
    tables: Tables,
    part: tuple[str, str],
    old: tuple[str, pa.Table],
    new: tuple[str, pa.Table],
    texts: Sequence[str],
) -> Moved | None:
    """The part in a new object; None when it and its base hold nothing of the subject."""
    ctx, (logical, identity) = tables.ctx, part
    manifest = tables.manifest_with(logical)
    names, key = [name for name, _ in manifest["schema_fields"]], list(manifest["key"])
    path = local_object(ctx.store, identity, ctx.home / "cache")
    if not layered_file(path):
        gone = old[1].num_rows - new[1].num_rows
        return Moved(logical, identity, new[0], "", gone, *_span(new[1], key)) if gone else None
    layers = Layers.decode(path.read_bytes())
    rows = layers.fold(old[1], names, key)
    about = rows_about(rows, tables.subject, texts)
    own = [table for table in (layers.columns, layers.patch) if table is not None]
    if (
        old[0] == new[0]
        and not about.any()
        and not any(rows_about(table, tables.subject, texts).any() for table in own)
    ):
        return None
    kept = rows.filter(pa.array(~about))
    made = layered(kept, new[1], key, new[0])
    if made is not None and made.fold(new[1], names, key).equals(kept.combine_chunks()):
        return Moved(logical, identity, ctx.store.put(made.encode()), new[0], int(about.sum()), *_span(kept, key))
    return Moved(logical, identity, _store(ctx, kept, key), "", int(about.sum()), *_span(kept, key))


def _store(ctx: Context, table: pa.Table, key: list[str]) -> str:
    return ctx.store.put(Encoding.of(table, key).encode(table))


def _span(table: pa.Table, key: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not key or not table.num_rows:
        return (), ()
    first, last = ([key_text(table[name][row].as_py()) for name in key] for row in (0, table.num_rows - 1))
    return tuple(first), tuple(last)


def _record(tables: Tables, group: Group, moved: list[Moved], erasure: str) -> None:
    """Move the placements of a group, and say so: all in one transaction."""
    ctx, project = tables.ctx, tables.ctx.project
    with ctx.write() as tx:
        for part in moved:
            placements.replace(tx, project, part.logical, old=part.old, new=part.new)
        placements.raise_up(tx, project, [part.old for part in moved])
        placements.rest(tx, project, {part.new: part.rests for part in moved if part.rests})
        for part in moved:
            derived = [filter_id(identity, tables.subject.columns) for identity in {part.old, group.base}]
            derived += [
                identity
                for version in tables.versions_of[part.logical]
                for identity in (profile_id(version), part_profile_id(part.logical, tables.manifests[version]["tags"]))
            ]
            placed = placements.resolve(tx, project, derived)
            placements.forget(tx, project, list(placed))
            removed = sorted({part.old, *placed.values(), *([group.base] if part.rests != group.base else [])})
            payload = {"erasure": erasure, "old": part.old, "new": part.new, "rows": part.rows, "removed": removed}
            facts.append(tx, project, ctx.fact(redactions.PART, part.logical, payload))


def _redact_manifests(ctx: Context, erasure: str) -> None:
    """Where a manifest says a key that went as the end of a part's range, the next key that is left takes its place."""
    with ctx.read() as tx:
        moved = {r.logical for r in redactions.of_project(tx, ctx.project, erasure)}
    ends: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for version, manifest in manifests_of_tables(ctx).items():
        parts = [dict(part) for part in manifest["parts"]]
        ranged = [part for part in parts if part["logical"] in moved and "key_min" in part]
        with ctx.read() as tx:
            placed = placements.resolve(tx, ctx.project, [part["logical"] for part in ranged])
        for part in ranged:
            if part["logical"] not in ends:
                ends[part["logical"]] = _ends(ctx, placed.get(part["logical"]), manifest)
            for end, text in zip(("key_min", "key_max"), ends[part["logical"]], strict=True):
                part.pop(end, None)
                if text:
                    part[end] = list(text)
        if parts != manifest["parts"]:
            with ctx.write() as tx:
                fact = ctx.fact(redactions.MANIFEST, version, {"erasure": erasure})
                redactions.redact_manifest(tx, ctx.project, version, {**manifest, "parts": parts}, fact)


def _ends(ctx: Context, identity: str | None, manifest: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if identity is None:
        return (), ()
    cache, key = ctx.home / "cache", list(manifest["key"])
    path = local_object(ctx.store, identity, cache)
    if not layered_file(path):
        return _span(rows_of(path), key)
    layers = Layers.decode(path.read_bytes())
    rows = layers.fold(
        rows_of(local_object(ctx.store, layers.base, cache)), [name for name, _ in manifest["schema_fields"]], key
    )
    return _span(rows, key)


def rows_left(ctx: Context, subject: Subject) -> int:
    """Rows of the subject that tables still hold, read part by part: zero after an erasure."""
    tables = Tables(ctx, subject)
    found = 0
    for group in tables.groups():
        base = rows_of(local_object(ctx.store, group.base, ctx.home / "cache"))
        found += int(np.count_nonzero(rows_about(base, subject)))
        for identity in set(group.placed.values()) - {group.base}:
            layers = Layers.decode(local_object(ctx.store, identity, ctx.home / "cache").read_bytes())
            own = [table for table in (layers.columns, layers.patch) if table is not None]
            found += sum(int(np.count_nonzero(rows_about(table, subject))) for table in own)
    return found
