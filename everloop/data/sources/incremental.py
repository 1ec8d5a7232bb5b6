"""Capture from where the last one stopped: rows that came since then are put on the version before.

How far a capture got (its progress: the files that it read, the last value of the cursor) lies with the step that
recorded it, so it belongs to the version that it made, in every environment.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.core.ports import Source
from everloop.core.version import Version
from everloop.data.content.ordering import MEMORY, distinct, ordered
from everloop.data.content.parts import Stored
from everloop.data.content.schema import plain, plain_schema
from everloop.data.definitions import SourceDef
from everloop.data.editing.applying import next_version
from everloop.data.heads import head
from everloop.data.sources.cursor import CursorSource
from everloop.data.sources.files import FileSource

_EDITS = 256
"""So many edits by hand are looked through for the capture that they began at."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a capture makes, before it is recorded."""

    version: Version
    stored: Stored
    progress: Mapping[str, Any] = field(default_factory=dict)
    """How far it got; empty for a source that is read from the start each time."""


def progress_of(opened: Source, state: Mapping[str, Any]) -> dict[str, Any]:
    """How far a source was read, by its state before that; empty where it is not read in steps."""
    if isinstance(opened, CursorSource):
        return {"cursor": opened.reached()} if opened.reached() else {}
    if isinstance(opened, FileSource) and opened.files.only_new:
        return dict(state)
    return {}


def step_on(ctx: Context, source: SourceDef, opened: Source, state: Mapping[str, Any], environment: str) -> Step | None:
    """Read what is new and put it on the version before; None when everything has to be read.

    That is the first time, after a change of the definition, when a file that was read changed or went, when columns
    came or went, and when there is more than fits in memory. Raises `DataError`.
    """
    if not isinstance(opened, CursorSource | FileSource) or (isinstance(opened, FileSource) and not state):
        return None
    if isinstance(opened, FileSource) and not opened.files.only_new:
        return None
    found = _before(ctx, source, environment)
    if found is None:
        return None
    before, progress = found
    narrowed = _narrowed(opened, progress, state)
    given = None if narrowed is None else _rows(narrowed)
    if narrowed is None or given is None:
        return None
    if set(given.column_names) != {name for name, _ in before.manifest["schema_fields"]}:
        return None
    if source.key:
        scratch = ctx.home / "scratch"
        _, tables = ordered(given.to_batches(), plain_schema(given.schema), source.key, scratch=scratch)
        given = pa.concat_tables(distinct(tables, source.key))
    version, stored, _ = next_version(ctx, before, given, "upsert" if source.key else "append")
    made_of = [("source", source.version().id)] + ([("before", before.id)] if version.id != before.id else [])
    return Step(Version("data", version.name, version.manifest, tuple(made_of)), stored, progress_of(narrowed, state))


def _before(ctx: Context, source: SourceDef, environment: str) -> tuple[versions.VersionRow, Mapping[str, Any]] | None:
    """The version to go on from, and how far its capture got; edits by hand since then stay."""
    definition = source.version().id
    at = head(ctx, environment, source.name) if environment else None
    with ctx.read() as tx:
        if at is None:
            newest = versions.history(tx, ctx.project, "data", source.name, limit=1)
            at = newest[0].id if newest else None
        start: str | None = at
        for _ in range(_EDITS):
            if at is None or start is None:
                return None
            rows = steps.of_output(tx, ctx.project, at)
            progress = next((row.params for row in rows if row.code == definition and row.params), None)
            if progress is not None:
                return versions.get(tx, ctx.project, start), progress
            at = _edited(versions.upstream(tx, ctx.project, at, 1), bool(rows))
    return None


def _edited(edges: Iterable[versions.Edge], captured: bool) -> str | None:
    """The version that an edit by hand began at; None for one that a capture made."""
    return None if captured else next((edge.from_id for edge in edges if edge.role == "before"), None)


def _narrowed(
    opened: CursorSource | FileSource, progress: Mapping[str, Any], state: Mapping[str, Any]
) -> CursorSource | FileSource | None:
    """The source without what was read already; None when that cannot be told apart."""
    if isinstance(opened, CursorSource):
        return opened.since(progress["cursor"]) if "cursor" in progress else None
    old, new = ({tuple(file) for file in of.get("files", ())} for of in (progress, state))
    return opened.narrowed([name for name, *_ in sorted(new - old)]) if old and old <= new else None


def _rows(opened: CursorSource | FileSource) -> pa.Table | None:
    """What the source gives, in plain layout; None when it is more than `MEMORY` bytes."""
    held: list[pa.Table] = []
    with closing(opened.read()) as batches:
        for batch in batches:
            held.append(plain(pa.Table.from_batches([batch])))
            if sum(table.nbytes for table in held) > MEMORY:
                return None
    return pa.concat_tables(held) if held else None
