"""The operations of data: capture, show, list, compare, expect, sample. Every face of Everloop goes through these."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.data.definitions import SourceDef
from everloop.data.expect import MASK
from everloop.data.heads import find_version
from everloop.data.sensitive.masking import column_tags, hidden

_SKETCHES = ("hll", "kll", "counts", "times")
_VALUES = ("min", "max", "mean", "top", "quantiles", "coverage", "shortest", "longest", "length", "characters")
"""Fields of a profile that tell values."""


class Capture(Command):
    """Capture a source: the newest definition of that name in the catalog, or the snapshot's."""

    source: str
    """Name of the source, or the id of its definition."""
    environment: str = ""
    """Whose head to move; empty moves none."""


class CapturedView(Answer):
    """What a capture made."""

    id: str
    name: str
    number: int
    rows: int
    new: bool
    read: bool
    results: list[dict[str, Any]]


class OfData(Command):
    """Name a data version: its id, a name (its head in `environment`), `name@7`, `name@staging`, `name@2026-01-31`."""

    version: str
    environment: str = ""


class DataView(Answer):
    """One data version with its profile."""

    id: str
    name: str
    number: int
    at: int
    actor: str
    rows: int
    parts: int
    columns: list[dict[str, Any]]
    key: list[str]
    event_time: str | None
    known_time: str | None
    tags: dict[str, str]
    """Column -> the tags in force: declared, confirmed, carried; several are parted by commas."""
    masked: list[str]
    """Columns whose values the asker may not see."""
    heads: dict[str, str]
    """Environments whose head this is: {environment: id}."""
    associations: dict[str, Any]
    """How columns go together on a sample: see `data.contracts.associations`; hidden columns are left out."""
    redacted: list[str]
    """Erasures that took rows out of it since: `rows` and the parts' ids are those of before."""


class ListData(Command):
    """All datasets of the project, or the versions of one."""

    name: str = ""
    limit: int = Field(50, ge=1)


class DataRow(Answer):
    """One line of a list."""

    id: str
    name: str
    number: int
    at: int
    rows: int


class DataList(Answer):
    """The newest version of every dataset, or the history of one."""

    items: list[DataRow]


class Compare(Command):
    """Two data versions; either may be named as in `data.show`."""

    old: str
    new: str
    environment: str = ""
    examples: bool = True
    """Whether changed rows are shown, for which parts are read; counts are exact either way."""


class DiffView(Answer):
    """What differs."""

    old: str
    new: str
    rows_old: int
    rows_new: int
    added: int
    removed: int
    changed: int
    columns_added: dict[str, str]
    columns_removed: dict[str, str]
    columns_retyped: dict[str, list[str]]
    changes: dict[str, int]
    examples: list[dict[str, str]]
    parts_shared: int
    parts_new: int


class ExpectationDraft(Answer):
    """Expectations that hold now, as text to paste into a definition: a first draft, for a person to judge."""

    id: str
    lines: list[str]


class Sample(OfData):
    """Some rows, 1,000 at most."""

    rows: int = 10
    offset: int = 0


class SampleView(Answer):
    """Rows as text; values of tagged columns are masked for whoever may not read the tag."""

    id: str
    columns: list[str]
    rows: list[list[str | None]]
    masked: list[str]


def _on(ctx: Context, cmd: OfData) -> Target:
    row = find_version(ctx, cmd.version, cmd.environment)
    return Target("data", row.name, cmd.environment)


def _on_source(ctx: Context, cmd: Capture) -> Target:
    return Target("data", _source(ctx, cmd).name, cmd.environment)


def _source(ctx: Context, cmd: Capture) -> versions.VersionRow:
    spec = cmd.source if cmd.source.startswith(("b3:", "source/")) else f"source/{cmd.source}"
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, spec)
    if row.kind != "source":
        raise InvalidInput(f"{row.kind}/{row.name} is no source", hint="name a version of kind source")
    return row


def _on_list(_ctx: Context, cmd: ListData) -> Target:
    return Target("data", cmd.name or "*")


def _on_compare(ctx: Context, cmd: Compare) -> Target:
    return Target("data", find_version(ctx, cmd.new, cmd.environment).name, cmd.environment)


@operation("data.capture", needs="data.capture", on=_on_source)
def capture_source(ctx: Context, cmd: Capture) -> CapturedView:
    """Read a source into a version, and move the head when its blocking expectations hold."""
    row = _source(ctx, cmd)
    root = ctx.ports.get("root")
    found = data.capture(
        ctx, SourceDef.from_manifest(row.name, row.manifest), cmd.environment, root=Path(root) if root else None
    )
    return CapturedView(
        id=found.id,
        name=row.name,
        number=found.number,
        rows=found.rows,
        new=found.new,
        read=found.read,
        results=[result.payload() for result in found.results],
    )


@operation("data.show", needs="read", on=_on, audit="denied", reads=True, engine=True)
def show(ctx: Context, cmd: OfData) -> DataView:
    """One version: schema, profile, where it is the head."""
    row = find_version(ctx, cmd.version, cmd.environment)
    manifest = data.manifest_of(ctx, row.id)
    profile = data.profile_of(ctx, row.id)
    sketched = profile.json()["columns"]
    with ctx.read() as tx:
        pointers = refs.all(tx, ctx.project, "head/")
        redacted = redactions.of_manifest(tx, ctx.project, manifest)
    tags = column_tags(ctx, row)
    masked = hidden(ctx, "data", row.name, cmd.environment, tags)
    shown = [
        {"name": name, **_told(sketched[name], masked=name in masked), "type": type_}
        for name, type_ in manifest["schema_fields"]
    ]
    ending = f"/{row.name}"
    return DataView(
        id=row.id,
        name=row.name,
        number=row.number,
        at=row.at,
        actor=row.actor,
        rows=manifest["rows"],
        parts=len(manifest["parts"]),
        columns=shown,
        key=list(manifest["key"]),
        event_time=manifest["event_time"],
        known_time=manifest["known_time"],
        tags={column: ", ".join(sorted(carried)) for column, carried in sorted(tags.items())},
        masked=sorted(masked),
        heads={
            name.removeprefix("head/").removesuffix(ending): target
            for name, target in pointers.items()
            if name.endswith(ending) and target == row.id
        },
        associations=_together(profile.associations, masked),
        redacted=redacted,
    )


def _together(found: Mapping[str, Any], masked: Collection[str]) -> dict[str, Any]:
    told = dict(found)
    for kind in ("numbers", "values"):
        if kind in told:
            columns = [name for name in told[kind]["columns"] if name not in masked]
            pairs = [pair for pair in told[kind]["pairs"] if not {pair[0], pair[1]} & set(masked)]
            told[kind] = {"columns": columns, "pairs": pairs}
    return told


def _told(sketch: dict[str, Any], *, masked: bool) -> dict[str, Any]:
    left_out = (*_SKETCHES, *_VALUES) if masked else _SKETCHES
    told = {field: value for field, value in sketch.items() if field not in left_out}
    return {**told, "masked": True} if masked else told


@operation("data.list", needs="read", on=_on_list, audit="denied", reads=True)
def list_data(ctx: Context, cmd: ListData) -> DataList:
    """The datasets of the project, or the versions of one, newest first."""
    with ctx.read() as tx:
        if cmd.name:
            rows = versions.history(tx, ctx.project, "data", cmd.name, limit=cmd.limit)
        else:
            rows = versions.newest(tx, ctx.project, "data")
    items = [DataRow(id=r.id, name=r.name, number=r.number, at=r.at, rows=int(r.manifest.get("rows", 0))) for r in rows]
    return DataList(items=items)


@operation(
    "data.compare",
    needs="read",
    on=_on_compare,
    audit="denied",
    reads=True,
    engine=True,
)
def compare_data(ctx: Context, cmd: Compare) -> DiffView:
    """What differs between two versions: schema, rows by key, columns."""
    old, new = (find_version(ctx, which, cmd.environment) for which in (cmd.old, cmd.new))
    if old.name != new.name:
        ctx.need("read", Target("data", old.name, cmd.environment))
    found = data.compare(ctx, old.id, new.id, examples=cmd.examples)
    masked = frozenset[str]().union(
        *(hidden(ctx, "data", row.name, cmd.environment, column_tags(ctx, row)) for row in (old, new))
    )
    return DiffView(
        old=found.old,
        new=found.new,
        rows_old=found.rows_old,
        rows_new=found.rows_new,
        added=found.added,
        removed=found.removed,
        changed=found.changed,
        columns_added=dict(found.columns_added),
        columns_removed=dict(found.columns_removed),
        columns_retyped={name: list(pair) for name, pair in found.columns_retyped.items()},
        changes=dict(found.changes or {}),
        examples=[{n: MASK if n in masked else v for n, v in example.items()} for example in found.examples],
        parts_shared=found.parts_shared,
        parts_new=found.parts_new,
    )


@operation("data.expect", needs="read", on=_on, audit="denied", reads=True, engine=True)
def expect_draft(ctx: Context, cmd: OfData) -> ExpectationDraft:
    """A first draft of expectations, inferred from the profile of a version; masked columns get none."""
    row = find_version(ctx, cmd.version, cmd.environment)
    manifest = data.manifest_of(ctx, row.id)
    masked = hidden(ctx, "data", row.name, cmd.environment, column_tags(ctx, row))
    seen = data.profile_of(ctx, row.id)
    for name in masked & set(seen.columns):
        seen.columns[name].masked = True
    return ExpectationDraft(id=row.id, lines=data.draft_expectations(manifest, seen))


def _on_sample(ctx: Context, cmd: Sample) -> Target:
    return _on(ctx, cmd)


@operation("data.sample", needs="read", on=_on_sample, audit="denied", reads=True, engine=True)
def sample(ctx: Context, cmd: Sample) -> SampleView:
    """Some rows of a version; values of tagged columns are masked for whoever may not read the tag."""
    row = find_version(ctx, cmd.version, cmd.environment)
    masked = hidden(ctx, "data", row.name, cmd.environment, column_tags(ctx, row))
    frame = data.read(ctx, row.id).slice(max(cmd.offset, 0), min(max(cmd.rows, 0), 1000)).collect()
    rows = [
        [None if v is None else MASK if n in masked else str(v) for n, v in zip(frame.columns, values, strict=True)]
        for values in frame.iter_rows()
    ]
    return SampleView(id=row.id, columns=frame.columns, rows=rows, masked=sorted(masked & set(frame.columns)))
