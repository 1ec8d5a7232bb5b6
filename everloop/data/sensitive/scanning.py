"""Scan a data version for personal data: what is found waits for a person, unless the policy tags it at once."""

import polars as pl

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation, State
from everloop.catalog.versions import VersionRow
from everloop.data.sensitive.detect import MOST, Found, detect
from everloop.data.sensitive.tags import declared

_PIECES = 5


def scan(ctx: Context, row: VersionRow, *, text: bool = False) -> tuple[Found, ...]:
    """Look at a sample of a version's rows, from all over it, and write down what its columns seem to hold.

    Columns that carry a tag already, or whose finding was dismissed, are left as they are. Fact `tag.found`.
    """
    rows = int(row.manifest["rows"])
    frame = data.read(ctx, row.id)
    size = MOST // _PIECES
    starts = sorted({rows * piece // _PIECES for piece in range(_PIECES)})
    found = detect(pl.concat([frame.slice(start, size) for start in starts]).collect(), text=text)
    with ctx.write() as tx:
        _write(ctx, tx, row, found)
    return found


def _write(ctx: Context, tx: Tx, row: VersionRow, found: tuple[Found, ...]) -> None:
    known = {(one.part, one.value) for one in annotations.of(tx, ctx.project, "data", row.name) if one.field == "tag"}
    known |= set(declared(row.manifest).items())
    state: State = "confirmed" if tags_at_once(tx, ctx.project) else "found"
    for one in found:
        if (one.column, one.tag) in known:
            continue
        detail = {
            "kind": one.kind,
            "by": one.by,
            "confidence": one.confidence,
            "looked_at": one.looked_at,
            "passed": one.passed,
            "version": row.id,
        }
        annotations.put(
            tx,
            ctx.project,
            Annotation("data", row.name, one.column, "tag", one.tag, state, ctx.actor.name, ctx.now(), detail),
        )
        payload = {"column": one.column, "tag": one.tag, "state": state, **detail}
        facts.append(tx, ctx.project, ctx.fact("tag.found", f"data/{row.name}", payload))


def tags_at_once(tx: Tx, project: str) -> bool:
    """Whether production's policy says that what a scan finds is a tag without waiting for anybody."""
    snapshot = refs.get(tx, project, refs.env_ref("production"))
    if snapshot is None:
        return False
    policy = versions.get(tx, project, snapshot).manifest["entries"].get("policy/production")
    return policy is not None and versions.get(tx, project, policy).manifest.get("found") == "tag"
