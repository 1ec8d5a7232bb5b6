"""Operations on tags: scan for personal data, see what is tagged, tag, decide about what a scan found."""

from typing import Any, Literal

from pydantic import Field

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.ids import checked_name
from everloop.core.version import split_key
from everloop.data import sensitive
from everloop.data.heads import find_version
from everloop.data.sensitive import freetext
from everloop.data.sensitive.tags import tags_of

_TAGGED = ("data", "view", "service", "model", "endpoint")


class Scan(Command):
    """Look into a data version: its id, a name (its head in `environment`), `name@7`."""

    version: str
    environment: str = ""
    text: bool = False
    """Also read free text, by presidio; that takes minutes, not milliseconds."""


class FoundView(Answer):
    """What a column seems to hold, and how many of the values that were looked at say so; never a value."""

    column: str
    kind: str
    tag: str
    by: str
    confidence: float
    looked_at: int
    passed: int


class Scanned(Answer):
    """What a scan found, new or not."""

    id: str
    name: str
    found: list[FoundView]
    text: str = ""
    """What read free text; it says so where names of persons could not be looked for."""


class OfAsset(Command):
    """An asset by `kind/name`; a table is `data/name`."""

    asset: str


class TagView(Answer):
    """One tag of one column."""

    column: str
    tag: str
    state: str
    """carried or declared (`in force`), or what a person or a scan said: code, said, found, confirmed, dismissed."""
    actor: str = ""
    detail: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it


class TagList(Answer):
    """Tags in force, and words about tags."""

    asset: str
    in_force: dict[str, list[str]]
    said: list[TagView]


class TagColumn(OfAsset):
    """Tag a column, or take back a tag that a person gave."""

    column: str = Field(min_length=1)
    tag: str
    remove: bool = False


class Decide(OfAsset):
    """Say of a tag that a scan found whether it holds."""

    column: str
    tag: str
    decision: Literal["confirm", "dismiss"]
    reason: str = ""


class Declassify(OfAsset):
    """Declare how many rows at least are behind every value of a column; 0 takes it back."""

    column: str = Field(min_length=1)
    least: int = Field(ge=0)
    reason: str = Field(min_length=1)


def _on_version(ctx: Context, cmd: Scan) -> Target:
    return Target("data", find_version(ctx, cmd.version, cmd.environment).name, cmd.environment)


def _on_asset(_ctx: Context, cmd: Any) -> Target:
    kind, _, name = cmd.asset.partition("/")  # whether it is the key of an asset is said to who may ask
    return Target(kind, name)


@operation("sensitive.scan", needs="data.capture", on=_on_version)
def scan_version(ctx: Context, cmd: Scan) -> Scanned:
    """Look for personal data in a sample of a version, column by column."""
    row = find_version(ctx, cmd.version, cmd.environment)
    found = sensitive.scanning.scan(ctx, row, text=cmd.text)
    views = [
        FoundView(
            column=one.column,
            kind=one.kind,
            tag=one.tag,
            by=one.by,
            confidence=one.confidence,
            looked_at=one.looked_at,
            passed=one.passed,
        )
        for one in found
    ]
    return Scanned(id=row.id, name=row.name, found=views, text=freetext.reader() if cmd.text else "")


@operation("sensitive.tags", needs="read", on=_on_asset, audit="denied", reads=True)
def list_tags(ctx: Context, cmd: OfAsset) -> TagList:
    """Tags of the newest version of an asset: in force (declared, confirmed, carried), and what waits."""
    kind, name = _tagged(cmd.asset)
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, cmd.asset)
        force = tags_of(tx, ctx.project, row)
        said = [one for one in annotations.of(tx, ctx.project, kind, name) if one.field in {"tag", "least"}]
    return TagList(
        asset=row.key,
        in_force={column: sorted(tags) for column, tags in sorted(force.items())},
        said=[
            TagView(
                column=one.part,
                tag=one.value if one.field == "tag" else f"at least {one.value} rows",
                state=one.state,
                actor=one.actor,
                detail=dict(one.detail),
            )
            for one in said
        ],
    )


@operation("sensitive.tag", needs="tag.write", on=_on_asset)
def tag_column(ctx: Context, cmd: TagColumn) -> TagList:
    """Tag a column for all versions of a name, those that there are and those to come."""
    kind, name = _tagged(cmd.asset)
    one = Annotation(kind, name, cmd.column, "tag", checked_name(cmd.tag), "said", ctx.actor.name, ctx.now())
    with ctx.write() as tx:
        if cmd.remove and not annotations.forget(tx, ctx.project, one):
            raise NotFound(
                f"{cmd.column} of {cmd.asset} was not tagged {cmd.tag} by hand",
                hint="a tag that code declares goes by a change; a carried one goes where it comes from",
            )
        if not cmd.remove:
            annotations.put(tx, ctx.project, one)
        _told(ctx, tx, cmd.asset, column=cmd.column, tag=cmd.tag, state="removed" if cmd.remove else "said")
    return list_tags(ctx, OfAsset(asset=cmd.asset))


@operation("sensitive.decide", needs="tag.write", on=_on_asset)
def decide_tag(ctx: Context, cmd: Decide) -> TagList:
    """Confirm a tag that a scan found, or dismiss it for good."""
    kind, name = _tagged(cmd.asset)
    with ctx.write() as tx:
        every = annotations.of(tx, ctx.project, kind, name)
        found = next((a for a in every if (a.part, a.field, a.value) == (cmd.column, "tag", cmd.tag)), None)
        if found is None or found.state not in {"found", "confirmed", "dismissed"}:
            raise NotFound(f"no scan found {cmd.tag} in {cmd.column} of {cmd.asset}", hint="sensitive.tags lists all")
        state: Literal["confirmed", "dismissed"] = "confirmed" if cmd.decision == "confirm" else "dismissed"
        detail = {**found.detail, "reason": cmd.reason}
        decided = Annotation(kind, name, cmd.column, "tag", cmd.tag, state, ctx.actor.name, ctx.now(), detail)
        annotations.put(tx, ctx.project, decided)
        _told(ctx, tx, cmd.asset, column=cmd.column, tag=cmd.tag, state=state, reason=cmd.reason)
    return list_tags(ctx, OfAsset(asset=cmd.asset))


@operation("sensitive.declassify", needs="tag.write", on=_on_asset)
def declassify(ctx: Context, cmd: Declassify) -> TagList:
    """Declare that every value of a column is made of so many rows: over enough, a mean is aggregated, not personal."""
    kind, name = _tagged(cmd.asset)
    with ctx.write() as tx:
        for old in annotations.of(tx, ctx.project, kind, name):
            if (old.part, old.field) == (cmd.column, "least"):
                annotations.forget(tx, ctx.project, old)
        if cmd.least:
            detail = {"reason": cmd.reason}
            said = Annotation(
                kind, name, cmd.column, "least", str(cmd.least), "said", ctx.actor.name, ctx.now(), detail
            )
            annotations.put(tx, ctx.project, said)
        _told(ctx, tx, cmd.asset, column=cmd.column, least=cmd.least, reason=cmd.reason)
    return list_tags(ctx, OfAsset(asset=cmd.asset))


def _tagged(asset: str) -> tuple[str, str]:
    kind, name = split_key(asset)
    if kind not in _TAGGED:
        raise InvalidInput(f"a {kind} has no columns to tag", hint="one of " + ", ".join(f"{k}/NAME" for k in _TAGGED))
    return kind, name


def _told(ctx: Context, tx: Any, asset: str, **payload: Any) -> None:
    facts.append(tx, ctx.project, ctx.fact("tag.said", asset, payload))
