"""Traces as clients of the protocol's second version begin, end and find them."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import traces
from everloop.catalog.genai.rows import RUN_METADATA, STATES, Trace
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint
from everloop.server.mlflow.genai.figures import on_experiments
from everloop.server.mlflow.genai.traces import belongs, find_page, on_trace, trace_id
from everloop.server.mlflow.genai.writing import old_info_json
from everloop.server.mlflow.wire import Arguments, page

_OLD_STATES = {0: "TRACE_STATUS_UNSPECIFIED", 1: "OK", 2: "ERROR", 3: "IN_PROGRESS"}


def search_old(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET 2.0 traces."""
    found = find_page(ctx, args, args.texts("experiment_ids"))
    return page("traces", [old_info_json(trace) for trace in found.rows], found.token)


def start_old(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 2.0 traces: the trace begins, and its id is made here."""
    given = Trace(
        id=f"tr-{secrets.token_hex(16)}",
        experiment=args.text("experiment_id"),
        at=args.moment("timestamp_ms"),
        tags=args.tags(),
        metadata=args.tags("request_metadata"),
    )
    with ctx.write() as tx:
        return {"trace_info": old_info_json(traces.state(tx, ctx.project, given, at=ctx.now()))}


def end_old(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH 2.0 traces/<id>: it has ended."""
    state = args.choice("status", _OLD_STATES, _OLD_STATES[0])
    until = args.moment("timestamp_ms")
    with ctx.write() as tx:
        old = traces.find(tx, ctx.project, trace_id(args))
        ended = replace(
            old,
            duration=max(0, until - old.at),
            status=state if state in STATES else STATES[0],
            tags=args.tags(),
            metadata=args.tags("request_metadata"),
        )
        return {"trace_info": old_info_json(traces.state(tx, ctx.project, ended, at=ctx.now()))}


def get_old(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET 2.0 traces/<id>/info."""
    with ctx.read() as tx:
        return {"trace_info": old_info_json(traces.find(tx, ctx.project, trace_id(args)))}


def _on_started(ctx: Context, args: Arguments) -> Target:
    return belongs(ctx, args.text("experiment_id"), args.tags("request_metadata").get(RUN_METADATA, ""))


ENDPOINTS = (
    Endpoint("POST", "traces", start_old, _on_started),
    Endpoint("GET", "traces", search_old, on_experiments, reads=True),
    Endpoint("PATCH", "traces/{request_id}", end_old, on_trace),
    Endpoint("GET", "traces/{request_id}/info", get_old, on_trace, reads=True),
)
