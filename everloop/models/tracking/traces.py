"""Traces for people: which there are, and one with its tree of spans."""

import json
from typing import Any

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.genai import searching, spans, traces
from everloop.catalog.genai.rows import StoredSpan, Trace
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target
from everloop.models.tracking.table import meant

_MOST_SPANS = 1000
_LONGEST = 4000
_CODES = {1: "OK", 2: "ERROR"}


class ListTraces(Command):
    """Which traces to list, in MLflow's filter language."""

    experiments: tuple[str, ...] = Field(default=(), max_length=1000)
    """Ids or names; none means every experiment."""
    run: str = ""
    filter: str = ""
    limit: int = Field(default=50, ge=1, le=500)
    token: str = ""


class TraceNamed(Command):
    """A trace, by its id."""

    trace: str


class TraceView(Answer):
    """A trace, as people see it. Times in microseconds."""

    id: str
    name: str
    experiment: str
    at: int
    seconds: float | None
    status: str
    request: str
    response: str
    spans: int
    tags: dict[str, str]
    metadata: dict[str, str]


class TracePage(Answer):
    """Some traces, and the token of the next page; empty when this was the last."""

    traces: tuple[TraceView, ...]
    token: str


class SpanView(Answer):
    """A span in its tree: `depth` below the root, `after` seconds after the trace began."""

    id: str
    name: str
    type: str
    status: str
    depth: int
    after: float
    seconds: float | None
    attributes: dict[str, str]
    """Their values as JSON text, long ones cut."""
    error: str


class TraceDetail(Answer):
    """A trace with its spans, a parent before its children."""

    trace: TraceView
    spans: tuple[SpanView, ...]
    cut: bool
    """Whether it has more spans than are shown."""


@operation("traces.list", needs="read", on=lambda _ctx, _cmd: Target("experiment"), reads=True)
def list_traces(ctx: Context, cmd: ListTraces) -> TracePage:
    """List traces, the newest first."""
    mine = f"attributes.run_id = '{cmd.run}'" if cmd.run.isalnum() else ""
    wanted = " AND ".join(part for part in (mine, cmd.filter) if part)
    with ctx.read() as tx:
        names = meant(tx, ctx.project, cmd.experiments)
        found = searching.search(tx, ctx.project, names, filter_text=wanted, limit=cmd.limit, token=cmd.token)
    return TracePage(traces=tuple(_view(one) for one in found.rows), token=found.token)


@operation("traces.show", needs="read", on=lambda _ctx, _cmd: Target("experiment"), reads=True)
def show_trace(ctx: Context, cmd: TraceNamed) -> TraceDetail:
    """Show a trace with its tree of spans."""
    with ctx.read() as tx:
        trace = traces.get(tx, ctx.project, cmd.trace)
        stored = spans.below(tx, ctx.project, trace.number)
    ordered = _in_tree(stored)
    began = min((span.start for span in stored), default=0)
    shown = tuple(_span(span, depth, began) for span, depth in ordered[:_MOST_SPANS])
    return TraceDetail(trace=_view(trace), spans=shown, cut=len(ordered) > len(shown))


def _in_tree(stored: list[StoredSpan]) -> list[tuple[StoredSpan, int]]:
    """The spans with their depth, each below its parent; one whose parent is not there counts as a root."""
    known = {span.id for span in stored}
    below: dict[str, list[StoredSpan]] = {}
    for span in stored:
        below.setdefault(span.parent if span.parent in known else "", []).append(span)
    rows: list[tuple[StoredSpan, int]] = []
    waiting = [(span, 0) for span in reversed(below.get("", []))]
    while waiting:
        span, depth = waiting.pop()
        rows.append((span, depth))
        waiting += [(child, depth + 1) for child in reversed(below.pop(span.id, []))]
    return rows


def _span(span: StoredSpan, depth: int, began: int) -> SpanView:
    body: dict[str, Any] = json.loads(span.body)
    held = body.get("attributes") or []
    attributes = {str(one["key"]): _short(next(iter(one.get("value", {}).values()), "")) for one in held}
    status = dict(body.get("status") or {})
    end = body.get("end_time_unix_nano")
    return SpanView(
        id=span.id,
        name=str(body.get("name", "")),
        type=attributes.get("mlflow.spanType", "").strip('"'),
        status=_CODES.get(status.get("code", 0), ""),
        depth=depth,
        after=(span.start - began) / 1e9,
        seconds=None if end is None else (int(end) - span.start) / 1e9,
        attributes=attributes,
        error=str(status.get("message", "")),
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _view(trace: Trace) -> TraceView:
    return TraceView(
        id=trace.id,
        name=trace.name,
        experiment=trace.experiment,
        at=trace.at,
        seconds=None if trace.duration is None else trace.duration / 1_000_000,
        status=trace.status,
        request=trace.request or "",
        response=trace.response or "",
        spans=trace.spans,
        tags=dict(trace.tags),
        metadata={key: value[:_LONGEST] for key, value in trace.metadata.items()},
    )
