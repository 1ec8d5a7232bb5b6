"""Scan a data version for personal data: what is found waits for a person, unless the policy tags it at once.

Every version that is captured, edited or fed is scanned once, where production's policy does not say otherwise
(`scan`). A fact `tag.scanned` says so for each; a version that has none, for its process died before, is scanned when
its source is captured again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import annotations, redactions
from everloop.catalog.governance.annotations import Annotation, State
from everloop.catalog.versions import VersionRow
from everloop.core.errors import EverloopError, InvalidInput
from everloop.data.sensitive import freetext
from everloop.data.sensitive.detect import MOST, Found, detect
from everloop.data.sensitive.tags import declared

SCANNED = "tag.scanned"
_PIECES = 5


def scan(ctx: Context, row: VersionRow, *, text: bool = False) -> tuple[Found, ...]:
    """Look at a sample of a version's rows, from all over it, and write down what its columns seem to hold.

    Columns that carry a tag already, or whose finding was dismissed, are left as they are. Of a version that is pinned
    in a warehouse the names of the columns are looked at. Facts `tag.found` and `tag.scanned`.
    """
    found = detect(_sample(ctx, row), text=text)
    read = freetext.reader() if text else "not read"
    with ctx.write() as tx:
        _write(ctx, tx, row, found)
        facts.append(
            tx, ctx.project, ctx.fact(SCANNED, _subject(row.name, row.id), {"found": len(found), "text": read})
        )
    return found


def scan_new(ctx: Context, name: str, identity: str) -> None:
    """Scan a version that was just made, unless that was done or the policy does not want it; never stops the caller.

    Why one could not be scanned is in its fact.
    """
    with ctx.read() as tx:
        wanted = _policy(tx, ctx.project).get("scan", "new")
        if wanted == "asked" or redactions.latest(tx, ctx.project, (SCANNED,), _subject(name, identity)):
            return
        row = replace(versions.get(tx, ctx.project, identity), name=name)  # two names may hold the same
    try:
        scan(ctx, row, text=wanted == "text")
    except EverloopError as error:
        if wanted == "text" and isinstance(error, InvalidInput):  # presidio is not here: the columns' own values are
            scan(ctx, row)
            return
        with ctx.write() as tx:
            payload = {"found": 0, "error": error.message, "text": "not read"}
            facts.append(tx, ctx.project, ctx.fact(SCANNED, _subject(name, identity), payload))


def tags_at_once(tx: Tx, project: str) -> bool:
    """Whether production's policy says that what a scan finds is a tag without waiting for anybody."""
    return bool(_policy(tx, project).get("found") == "tag")


def _subject(name: str, identity: str) -> str:
    return f"data/{name}@{identity}"


def _sample(ctx: Context, row: VersionRow) -> pl.DataFrame:
    if "external" in row.manifest:
        return pl.DataFrame({name: pl.Series([], dtype=pl.Null) for name, _ in row.manifest["schema_fields"]})
    rows = int(row.manifest["rows"])
    frame = data.read(ctx, row.id)
    size = MOST // _PIECES
    starts = sorted({rows * piece // _PIECES for piece in range(_PIECES)})
    return pl.concat([frame.slice(start, size) for start in starts]).collect()


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


def _policy(tx: Tx, project: str) -> Mapping[str, Any]:
    """What production's policy says; without one nothing is scanned before somebody asks."""
    snapshot = refs.get(tx, project, refs.env_ref("production"))
    entries = {} if snapshot is None else versions.get(tx, project, snapshot).manifest["entries"]
    policy = entries.get("policy/production")
    return {"scan": "asked"} if policy is None else versions.get(tx, project, policy).manifest
