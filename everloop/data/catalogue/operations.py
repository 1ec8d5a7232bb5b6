"""Operations of the catalogue: search, show, annotate, and lineage to the column."""

from typing import Any

from pydantic import Field

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.governance.annotations import Field as Word
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.version import split_key
from everloop.data.catalogue.columns import ColumnLineage, ColumnRef, names_of
from everloop.data.catalogue.documents import KINDS, Document
from everloop.data.catalogue.index import index_of
from everloop.data.sensitive.tags import Tagging

_LONGEST = 200
_MOST_STEPS = 5_000


class Search(Command):
    """Words, all of which must be there; the beginning of a word will do."""

    query: str = Field(max_length=_LONGEST)
    kind: str = ""
    limit: int = Field(default=20, ge=1, le=200)
    offset: int = Field(default=0, ge=0)


class ColumnView(Answer):
    """A column of an asset."""

    name: str
    type: str
    description: str
    tags: list[str]


class AssetView(Answer):
    """An asset as the catalogue knows it."""

    key: str
    kind: str
    name: str
    number: int
    at: int
    owner: str
    description: str
    labels: list[str]
    columns: list[ColumnView]


class HitView(Answer):
    """Something that was found."""

    asset: AssetView
    score: float
    fields: list[str]
    """Where the words were: name, labels, tags, owner, columns, description, about."""


class Hits(Answer):
    """What was found and may be read, the best first."""

    query: str
    total: int
    hits: list[HitView]


class OfAsset(Command):
    """An asset by `kind/name`."""

    asset: str


class Annotate(OfAsset):
    """Say something of an asset, or of one of its columns. What is left out stays as it is; an empty text goes."""

    column: str = ""
    owner: str | None = Field(default=None, max_length=_LONGEST)
    description: str | None = Field(default=None, max_length=10_000)
    labels: list[str] | None = Field(default=None, max_length=50)


class OfColumns(Command):
    """A version, and perhaps one of its columns."""

    version: str
    column: str = ""
    depth: int = Field(default=16, ge=1, le=64)


class ColumnEdge(Answer):
    """`to_column` of `to_asset` is made from `from_column` of `from_asset`."""

    to_asset: str
    to_version: str
    to_column: str
    from_asset: str
    """`kind/name`, or `outside/…` for what is not in the catalog."""
    from_version: str
    from_column: str
    operator: str
    """copy, combine, hash, an aggregation, model; `unknown`: it may be."""


class ColumnsView(Answer):
    """Lineage to the column, and which tags each column carries."""

    version: str
    label: str
    columns: list[str]
    tags: dict[str, list[str]]
    edges: list[ColumnEdge]
    cut: bool = False
    """Whether there are more edges than an answer holds."""


def _on_asset(_ctx: Context, cmd: Any) -> Target:
    kind, _, name = cmd.asset.partition("/")  # whether it is the key of an asset is said to who may ask
    return Target(kind, name)


def _on_version(ctx: Context, cmd: OfColumns) -> Target:
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, cmd.version)
    return Target(row.kind, row.name)


@operation("catalogue.search", needs="read", audit="denied", reads=True)
def search(ctx: Context, cmd: Search) -> Hits:
    """Search names, descriptions, columns, tags, labels, owners and definitions; only what the asker may read."""
    if cmd.kind and cmd.kind not in KINDS:
        raise InvalidInput(f"nothing of kind {cmd.kind!r} is in the catalogue", hint="one of " + ", ".join(KINDS))
    with ctx.read() as tx:
        index = index_of(tx, ctx.project, ctx.catalog.shown)
    found = [
        hit
        for hit in index.search(cmd.query)
        if cmd.kind in {"", hit.document.kind} and ctx.actor.may("read", Target(hit.document.kind, hit.document.name))
    ]
    shown = found[cmd.offset : cmd.offset + cmd.limit]
    return Hits(
        query=cmd.query,
        total=len(found),
        hits=[HitView(asset=_view(h.document), score=round(h.score, 4), fields=list(h.fields)) for h in shown],
    )


@operation("catalogue.show", needs="read", on=_on_asset, audit="denied", reads=True)
def show(ctx: Context, cmd: OfAsset) -> AssetView:
    """What the catalogue knows of one asset."""
    with ctx.read() as tx:
        index = index_of(tx, ctx.project, ctx.catalog.shown)
    found = next((d for d in index.documents if d.key == cmd.asset), None)
    if found is None:
        raise NotFound(f"the catalogue has no {cmd.asset}", hint="everloop search finds what there is")
    return _view(found)


@operation("catalogue.annotate", needs="run.write", on=_on_asset)
def annotate(ctx: Context, cmd: Annotate) -> AssetView:
    """Say who owns an asset, what it and its columns mean, and label it; no version changes by it."""
    kind, name = split_key(cmd.asset)
    if cmd.column and (cmd.owner is not None or cmd.labels is not None):
        raise InvalidInput("a column has a description only", hint="owner and labels belong to the whole asset")
    payload: dict[str, Any] = {"column": cmd.column} if cmd.column else {}
    given: list[tuple[Word, list[str]]] = []
    if cmd.owner is not None:
        given.append(("owner", [cmd.owner.strip()]))
    if cmd.description is not None:
        given.append(("description", [cmd.description.strip()]))
    if cmd.labels is not None:
        given.append(("label", [label.strip() for label in cmd.labels]))
    payload.update(given)
    with ctx.write() as tx:
        versions.find(tx, ctx.project, cmd.asset)
        old = [a for a in annotations.of(tx, ctx.project, kind, name) if a.part == cmd.column and a.state == "said"]
        for word, values in given:
            for one in old:
                if one.field == word:
                    annotations.forget(tx, ctx.project, one)
            for value in filter(None, values):
                said = Annotation(kind, name, cmd.column, word, value, "said", ctx.actor.name, ctx.now())
                annotations.put(tx, ctx.project, said)
        facts.append(tx, ctx.project, ctx.fact("catalogue.annotated", cmd.asset, payload))
    return show(ctx, OfAsset(asset=cmd.asset))


@operation("lineage.columns", needs="read", on=_on_version, audit="denied", reads=True)
def columns(ctx: Context, cmd: OfColumns) -> ColumnsView:
    """What each column is made from, back to the sources; conservative where nothing is known."""
    with ctx.read() as tx:
        tagging = Tagging(tx, ctx.project)
        lineage = tagging.lineage
        subject = versions.find(tx, ctx.project, cmd.version)
        made = lineage.columns(subject)
        names = list(dict.fromkeys([*names_of(subject), *made]))
        if cmd.column and cmd.column not in names:
            raise NotFound(f"{subject.key} has no column {cmd.column!r}", hint="it has " + ", ".join(names[:20]))
        wanted = [cmd.column] if cmd.column else names
        edges = _edges(lineage, subject, wanted, cmd.depth)
        tags = tagging.columns(subject)
    return ColumnsView(
        version=subject.id,
        label=f"{subject.key} v{subject.number}",
        columns=names,
        tags={column: sorted(tags[column]) for column in wanted if column in tags},
        edges=edges[:_MOST_STEPS],
        cut=len(edges) > _MOST_STEPS,
    )


def _edges(lineage: ColumnLineage, subject: versions.VersionRow, names: list[str], depth: int) -> list[ColumnEdge]:
    frontier = [ColumnRef(subject.kind, subject.name, name, subject.id) for name in names]
    seen, edges = set(frontier), []
    for _ in range(depth):
        reached: list[ColumnRef] = []
        for ref in frontier:
            row = lineage.row(ref)
            for one in lineage.columns(row).get(ref.column, ()) if row is not None else ():
                origin = one.origin
                edges.append(
                    ColumnEdge(
                        to_asset=ref.asset,
                        to_version=ref.version,
                        to_column=ref.column,
                        from_asset=origin.asset,
                        from_version=origin.version,
                        from_column=origin.column,
                        operator=one.operator,
                    )
                )
                if origin not in seen:
                    seen.add(origin)
                    reached.append(origin)
            if len(edges) > _MOST_STEPS:
                return edges
        frontier = reached
    return edges


def _view(found: Document) -> AssetView:
    return AssetView(
        key=found.key,
        kind=found.kind,
        name=found.name,
        number=found.number,
        at=found.at,
        owner=found.owner,
        description=found.description,
        labels=list(found.labels),
        columns=[
            ColumnView(name=c.name, type=c.type, description=c.description, tags=list(c.tags)) for c in found.columns
        ],
    )
