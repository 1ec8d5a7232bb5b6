"""Spans: recording a batch, all of it or nothing, and reading those of a trace."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.genai import summary, traces
from everloop.catalog.genai.rows import (
    COST_METADATA,
    NAME_TAG,
    SESSION_METADATA,
    USAGE_METADATA,
    USER_METADATA,
    Span,
    StoredSpan,
)
from everloop.catalog.tables.genai import span_bodies, span_objects, spans, trace_metadata, trace_tags
from everloop.catalog.tables.genai import traces as table
from everloop.catalog.tracking import experiments, runs
from everloop.catalog.tracking.points import chunks
from everloop.core.errors import NotFound

_NANO = 1000
_COSTS = ("input_cost", "output_cost", "total_cost")


def record(tx: Tx, project: str, experiment: str, batch: Sequence[Span]) -> list[str]:
    """Store spans and bring their traces up to date; returns the ids of traces whose root has ended.

    A span that is there already is replaced. Raises `NotFound` for an unknown experiment, `InvalidInput` when a trace
    is one of another experiment; then nothing of the batch is stored.
    """
    root = experiments.artifact_root(tx, project, experiment)
    by_trace: dict[str, dict[str, Span]] = defaultdict(dict)
    for span in batch:
        by_trace[span.trace][span.id] = span
    starts = {trace: min(span.start for span in of.values()) // _NANO for trace, of in by_trace.items()}
    rows = traces.begin(tx, project, experiment, starts, root)
    known = _known(tx, {rows[trace].number: list(of) for trace, of in by_trace.items()})
    _write(tx, project, [(rows[trace].number, span) for trace, of in by_trace.items() for span in of.values()])
    ended = []
    for trace, of in by_trace.items():
        new = sum(1 for identity in of if (rows[trace].number, identity) not in known)
        if _summarise(tx, rows[trace], list(of.values()), new):
            ended.append(trace)
    return ended


def below(tx: Tx, project: str, trace: int) -> list[StoredSpan]:
    """The spans of a trace, by their start."""
    statement = (
        select(spans.c.id, spans.c.parent, spans.c.start, span_bodies.c.body, span_objects.c.object)
        .join(span_bodies, (span_bodies.c.trace == spans.c.trace) & (span_bodies.c.id == spans.c.id))
        .outerjoin(
            span_objects,
            (span_objects.c.trace == spans.c.trace)
            & (span_objects.c.id == spans.c.id)
            & (span_objects.c.project == project),
        )
        .where(spans.c.trace == trace)
        .order_by(spans.c.start, spans.c.id)
    )
    return [StoredSpan(row.id, row.parent, row.start, row.body, row.object or "") for row in tx.execute(statement)]


def require(tx: Tx, trace: int, span: str) -> None:
    """Raise `NotFound` unless the trace has this span."""
    here = (spans.c.trace == trace, spans.c.id == span)
    if tx.execute(select(spans.c.id).where(*here)).first() is None:
        raise NotFound(f"Span with ID '{span}' not found", hint="is it a span of this trace?")


def _known(tx: Tx, wanted: Mapping[int, Sequence[str]]) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for number, identities in wanted.items():
        for part in chunks(identities):
            here = (spans.c.trace == number, spans.c.id.in_(part))
            found.update((number, row.id) for row in tx.execute(select(spans.c.id).where(*here)))
    return found


def _write(tx: Tx, project: str, placed: Sequence[tuple[int, Span]]) -> None:
    rows = [_row(number, span) for number, span in placed]
    put = insert_into(tx, spans)
    fresh = {column.name: put.excluded[column.name] for column in spans.c if not column.primary_key}
    tx.execute(put.on_conflict_do_update(index_elements=["trace", "id"], set_=fresh), rows)
    bodies = [{"trace": number, "id": span.id, "body": span.body} for number, span in placed]
    write = insert_into(tx, span_bodies)
    tx.execute(write.on_conflict_do_update(index_elements=["trace", "id"], set_={"body": write.excluded.body}), bodies)
    for number in {number for number, _ in placed}:
        for part in chunks([span.id for where, span in placed if where == number]):
            tx.execute(delete(span_objects).where(span_objects.c.trace == number, span_objects.c.id.in_(part)))
    large = [
        {"project": project, "trace": number, "id": span.id, "object": span.object}
        for number, span in placed
        if span.object
    ]
    if large:
        tx.execute(insert_into(tx, span_objects), large)


def _row(number: int, span: Span) -> dict[str, Any]:
    return {
        "trace": number,
        "id": span.id,
        "parent": span.parent,
        "name": span.name,
        "type": span.type,
        "status": span.status,
        "start": span.start,
        "duration": None if span.end is None else max(0, span.end - span.start),
        "model": span.model,
        "provider": span.provider,
        **{cost: span.cost.get(cost) for cost in _COSTS},
        "usage": json.dumps(dict(span.usage)) if span.usage else None,
    }


def _summarise(tx: Tx, row: Row[Any], arrived: Sequence[Span], new: int) -> bool:
    """Bring a trace's row, tags and metadata up to date with spans that arrived; whether its root has ended.

    The whole tree is summed when its root has ended, which it does last; so a trace of many spans that arrive one by
    one is not read again for each.
    """
    roots = [span for span in arrived if not span.parent]
    ended = [span for span in roots if span.end is not None]
    complete = bool(ended) or row.status in {"OK", "ERROR"}
    values: dict[str, Any] = {"spans": row.spans + new}
    if not row.stated:
        values |= _times(row, arrived)
        values["status"] = summary.state(span.status for span in ended) or row.status
    tags: dict[str, str] = {}
    for span in roots:
        tags |= span.root.tags if span.root else {}
        if not row.name:
            tags.setdefault(NAME_TAG, span.name)
        if span.root and row.request is None and not row.stated:
            values |= {"request": span.root.request, "response": span.root.response}
    tx.execute(update(table).where(table.c.number == row.number).values(**values))
    _say(tx, row, tags, _metadata(tx, row, arrived, complete=complete))
    return complete


def _times(row: Row[Any], arrived: Sequence[Span]) -> dict[str, Any]:
    start = min(row.at, *(span.start // _NANO for span in arrived))
    ends = [span.end // _NANO for span in arrived if span.end is not None]
    if row.duration is not None:
        ends.append(row.at + row.duration)
    return {"at": start, "duration": max(0, max(ends) - start) if ends else None}


def _metadata(tx: Tx, row: Row[Any], arrived: Sequence[Span], *, complete: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for span in arrived:
        if span.session:
            found.setdefault(SESSION_METADATA, span.session)
        if span.user:
            found.setdefault(USER_METADATA, span.user)
    if complete:
        columns = (spans.c.id, spans.c.parent, spans.c.usage, *(spans.c[cost] for cost in _COSTS))
        stored = tx.execute(select(*columns).where(spans.c.trace == row.number)).all()
        usage = summary.total([summary.Node(s.id, s.parent, json.loads(s.usage) if s.usage else {}) for s in stored])
        if usage:
            found[USAGE_METADATA] = json.dumps({kind: int(amount) for kind, amount in usage.items()})
        costs = summary.total([summary.Node(s.id, s.parent, _cost(s)) for s in stored])
        if costs:
            found[COST_METADATA] = json.dumps(costs)
    return found


def _cost(row: Row[Any]) -> dict[str, float]:
    return {cost: row._mapping[cost] for cost in _COSTS if row._mapping[cost] is not None}  # noqa: SLF001 - public API


def _say(tx: Tx, row: Row[Any], tags: dict[str, str], metadata: dict[str, str]) -> None:
    """Write tags and metadata that spans tell, but for what a client said of the whole trace."""
    if row.stated:
        there = runs.values_below(tx, trace_tags, [row.number]).get(row.number, {})
        tags = {key: value for key, value in tags.items() if key not in there}
        said = runs.values_below(tx, trace_metadata, [row.number]).get(row.number, {})
        metadata = {key: value for key, value in metadata.items() if key not in said}
    traces.put_tags(tx, row.number, tags)
    traces.put_metadata(tx, row.number, metadata)
