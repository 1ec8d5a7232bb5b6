"""Reading predictions back as tables: a stretch of time as a frame, or sealed into a dataset version."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Label, PredictionRow
from everloop.core.clock import DAY, HOUR, Micros, iso, parse_time
from everloop.data.codec import DataCodec
from everloop.data.definitions import Contract
from everloop.serving import log
from everloop.serving.log import Entry
from everloop.serving.segments import answers_of, entries, inputs_of

_TIME = pl.Datetime("us", "UTC")
_LONGEST: Micros = 31 * DAY
_EVER: Micros = 2**62


@dataclass(frozen=True, slots=True)
class Sealed:
    """A stretch of predictions as a dataset version; empty id when there were none."""

    id: str
    rows: int


def window(
    ctx: Context,
    endpoint: str,
    start: Micros,
    until: Micros,
    *,
    known: Micros | None = None,
    revision: str = "",
) -> pl.DataFrame:
    """Predictions of an endpoint with start <= at < until, by (at, id).

    Columns: `prediction_id, at, recorded, revision, micros, fallback`, the entity keys, the model's inputs by their
    names, `answer` (or `answer_<output>` when there are several), `label` and `label_at` (null when there is none;
    with `known`, labels as they were known at that event time).
    """
    with ctx.read() as tx:
        rows = predictions.window(tx, ctx.project, endpoint, start, until)
        if revision:
            rows = [row for row in rows if row.revision == revision]
        labels = predictions.labels_of(tx, ctx.project, [row.id for row in rows], known=known)
    order = {row.id: index for index, row in enumerate(rows)}
    listed: list[dict[str, Any]] = [{} for _ in rows]
    decoded: tuple[Entry, dict[str, Any], dict[str, Any]] | None = None
    for row, entry in entries(ctx.home, sorted(rows, key=lambda r: (r.gateway, r.segment, r.position, r.row))):
        if decoded is None or decoded[0] is not entry:
            decoded = (entry, inputs_of(entry), answers_of(entry))
        columns = {**entry.keys, **decoded[1], **decoded[2]}
        listed[order[row.id]] = _record(row, columns, labels.get(row.id))
    frame = pl.DataFrame(listed, infer_schema_length=None)
    times = [name for name in ("at", "recorded", "label_at") if name in frame.columns]
    return frame.with_columns(pl.col(name).cast(pl.Int64).cast(_TIME) for name in times)


def _record(row: PredictionRow, columns: Mapping[str, Any], label: Label | None) -> dict[str, Any]:
    return {
        "prediction_id": row.id,
        "at": row.at,
        "recorded": row.recorded,
        "revision": row.revision,
        "micros": row.micros,
        "fallback": row.fallback,
        **{name: values[row.row] for name, values in columns.items()},
        "label": None if label is None else label.value,
        "label_at": None if label is None else label.at,
    }


def pairs(ctx: Context, endpoint: str, revision: str) -> pl.DataFrame:
    """What a revision answered as a shadow, beside what callers got, by prediction.

    Columns: `prediction_id, at, revision` (who answered the caller), `answer…` and `shadow…` (one column an output).
    Predictions that were erased, or not read into the catalog yet, are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    folders = sorted((ctx.home / "serving" / "shadow").glob("*"))
    for path in (path for folder in folders for path in log.segments(folder)):
        for _, _, entry in log.read(path.read_bytes()):
            if (entry.project, entry.endpoint, entry.revision) == (ctx.project, endpoint, revision):
                said = answers_of(entry)
                for place, identity in enumerate(entry.row_ids()):
                    found[identity] = {name.replace("answer", "shadow", 1): v[place] for name, v in said.items()}
    with ctx.read() as tx:
        rows = predictions.window(tx, ctx.project, endpoint, 0, _EVER)
    rows = sorted((r for r in rows if r.id in found), key=lambda r: (r.gateway, r.segment, r.position, r.row))
    listed = []
    for row, entry in entries(ctx.home, rows):
        real = {name: values[row.row] for name, values in answers_of(entry).items()}
        listed.append({"prediction_id": row.id, "at": row.at, "revision": row.revision, **real, **found[row.id]})
    return pl.DataFrame(listed, infer_schema_length=None)


CONTRACT = Contract(key=("prediction_id",), event_time="at")
"""Of a dataset of predictions."""


def seal(ctx: Context, endpoint: str, start: Micros, until: Micros) -> Sealed:
    """Make the version `data/predictions.<endpoint>` of the predictions with start <= at < until."""
    frame = window(ctx, endpoint, start, until)
    if frame.is_empty():
        return Sealed("", 0)
    name = f"predictions.{endpoint}"
    saved = DataCodec(CONTRACT).save(frame, name, ctx.store, {})
    with ctx.write() as tx:
        placements.put(tx, ctx.project, saved.placements)
        put = versions.put(tx, ctx.project, saved.version, actor=ctx.actor.name, at=ctx.now())
        if put.new:
            span = {"from": iso(start), "until": iso(until), "rows": len(frame), "version": saved.version.id}
            facts.append(tx, ctx.project, ctx.fact("predictions.sealed", endpoint, span))
    return Sealed(saved.version.id, len(frame))


def seal_whole_hours(ctx: Context, endpoint: str) -> list[Sealed]:
    """Seal what was predicted since the last sealing, up to the last full hour; a month at most in one version."""
    with ctx.read() as tx:
        last = facts.tail(tx, ctx.project, kinds=("predictions.sealed",), subject=endpoint, limit=1)
        first = predictions.window(tx, ctx.project, endpoint, 0, ctx.now(), limit=1)
    if not first:
        return []
    start = parse_time(last[0].payload["until"]) if last else first[0].at // HOUR * HOUR
    ended = ctx.now() // HOUR * HOUR
    made = []
    while start < ended:
        until = min(start + _LONGEST, ended)
        made.append(seal(ctx, endpoint, start, until))
        start = until
    return made
