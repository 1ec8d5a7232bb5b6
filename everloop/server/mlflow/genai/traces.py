"""Traces: stating, reading, searching, tagging, linking and deleting."""

import re
import time
from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import searching, spans, traces
from everloop.catalog.genai.rows import RUN_METADATA, SIZE_METADATA, Trace
from everloop.catalog.tracking import runs
from everloop.catalog.tracking.rows import Page
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.server.mlflow.endpoint import Endpoint, on_experiment, on_run
from everloop.server.mlflow.genai.writing import info_json, read_trace, span_json
from everloop.server.mlflow.wire import Arguments, bounded, invalid, page

_KEY, _VALUE = 250, 8000
_MOST_TRACES = 500
_MOST_IDS = 5000
_WAITS = (0.1, 0.4, 1.0)
"""Seconds between looks for spans that are still on their way: clients send them by another request than the trace."""
_SPANS_SENT = re.compile(r'"num_spans": ?(\d{1,9})')


def start(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 3.0 traces, which comes when the trace has ended."""
    given = read_trace(args.part("trace").part("trace_info"))
    with ctx.write() as tx:
        made = traces.state(tx, ctx.project, given, at=ctx.now())
    return {"trace": {"trace_info": info_json(made)}}


def get_info(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET 3.0 traces/<id>."""
    with ctx.read() as tx:
        return {"trace": {"trace_info": info_json(traces.get(tx, ctx.project, args.text("trace_id")))}}


def get_whole(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET 3.0 traces/get: with its spans; waits a moment for those that are still on their way."""
    identity, partial = args.text("trace_id"), args.flag("allow_partial")
    found = _whole(ctx, identity)
    for wait in () if partial else _WAITS:
        if _is_complete(found):
            break
        time.sleep(wait)
        found = _whole(ctx, identity)
    if not partial and not _is_complete(found):
        raise NotFound(
            f"Trace with ID {identity} is not fully exported yet, please try again later.", hint="or allow_partial"
        )
    return {"trace": _whole_json(ctx, *found)}


def batch_get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET 3.0 traces/batchGet: those that are there, with their spans, in the order asked."""
    with ctx.read() as tx:
        found = traces.several(tx, ctx.project, _ids(args, _MOST_TRACES), _experiments(args))
        whole = [(trace, spans.below(tx, ctx.project, trace.number)) for trace in found]
    return {"traces": [_whole_json(ctx, *one) for one in whole]}


def batch_infos(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 3.0 traces/batchGetInfos."""
    with ctx.read() as tx:
        found = traces.several(tx, ctx.project, _ids(args, _MOST_IDS), _experiments(args))
    return {"trace_infos": [info_json(trace) for trace in found]}


def search(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 3.0 traces/search."""
    named = _located(args)
    if not named:
        raise InvalidInput(
            "Locations must be specified to search traces", hint="name experiments: other places are not offered"
        )
    found = find_page(ctx, args, named)
    return page("traces", [info_json(trace) for trace in found.rows], found.token)


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST traces/delete-traces, of both versions."""
    identities, until = args.texts("request_ids"), args.has("max_timestamp_millis")
    if bool(identities) == until:
        raise InvalidInput(
            "Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.", hint="say which ones"
        )
    if identities and args.has("max_traces"):
        raise InvalidInput("`max_traces` can't be specified if `trace_ids` is specified.", hint="leave it out")
    most = args.integer("max_traces") if args.has("max_traces") else None
    if most is not None and most < 1:
        raise invalid("max_traces", most, "it must be a positive integer")
    with ctx.write() as tx:
        count = traces.delete_some(
            tx,
            ctx.project,
            args.text("experiment_id"),
            identities=identities,
            until=args.moment("max_timestamp_millis") if until else None,
            most=most,
        )
    return {"traces_deleted": count}


def set_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH traces/<id>/tags, of both versions."""
    key = bounded("key", args.text("key"), _KEY)
    with ctx.write() as tx:
        traces.set_tag(tx, ctx.project, trace_id(args), key, args.text("value", "")[:_VALUE])
    return {}


def delete_tag(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE traces/<id>/tags, of both versions."""
    with ctx.write() as tx:
        traces.delete_tag(tx, ctx.project, trace_id(args), args.text("key"))
    return {}


def link_run(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 2.0 traces/link-to-run."""
    with ctx.write() as tx:
        traces.link_run(tx, ctx.project, args.texts("trace_ids"), args.run())
    return {}


def link_prompts(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST 2.0 traces/link-prompts."""
    named = [(part.text("name"), part.text("version")) for part in args.parts("prompt_versions")]
    with ctx.write() as tx:
        traces.link_prompts(tx, ctx.project, args.text("trace_id"), named)
    return {}


def trace_id(args: Arguments) -> str:
    """The trace that is meant; the second version says `request_id`."""
    return args.text("trace_id", args.text("request_id", "")) or args.text("trace_id")


def on_trace(ctx: Context, args: Arguments) -> Target:
    """Who may write a trace's run may write the trace; one without a run belongs to its experiment."""
    return target_of(ctx, trace_id(args))


def target_of(ctx: Context, identity: str) -> Target:
    """What a trace belongs to; raises `NotFound`."""
    with ctx.read() as tx:
        experiment, run = traces.run_of(tx, ctx.project, identity)
    return belongs(ctx, experiment, run)


def belongs(ctx: Context, experiment: str, run: str) -> Target:
    """The run, when it is one of that experiment; else the experiment."""
    if run:
        with ctx.read() as tx:
            try:
                if runs.find(tx, ctx.project, run).experiment == experiment:
                    return Target("run", run)
            except NotFound:
                pass
    return Target("experiment", experiment)


def _on_stated(ctx: Context, args: Arguments) -> Target:
    """What a trace that is stated now will belong to; one that is there already is changed by whoever may write it."""
    info = args.part("trace").part("trace_info")
    with ctx.read() as tx:
        known = traces.several(tx, ctx.project, [info.text("trace_id")])
    if known:
        return belongs(ctx, known[0].experiment, known[0].run)
    experiment = info.part("trace_location").part("mlflow_experiment").text("experiment_id")
    return belongs(ctx, experiment, info.mapping("trace_metadata").get(RUN_METADATA, ""))


def _located(args: Arguments) -> list[str]:
    return [
        part.part("mlflow_experiment").text("experiment_id")
        for part in args.parts("locations")
        if part.has("mlflow_experiment")
    ]


def _on_locations(_ctx: Context, args: Arguments) -> Target:
    named = _located(args)
    return Target("experiment", named[0] if len(named) == 1 else "*")


def _on_linked(ctx: Context, args: Arguments) -> Target:
    """Linking writes the run; who may not read the traces' experiments cannot name them."""
    for identity in args.texts("trace_ids"):
        ctx.need("read", target_of(ctx, identity))
    return on_run(ctx, args)


def _whole(ctx: Context, identity: str) -> tuple[Trace, list[Any]]:
    with ctx.read() as tx:
        found = traces.get(tx, ctx.project, identity)
        return found, spans.below(tx, ctx.project, found.number)


def _whole_json(ctx: Context, trace: Trace, found: list[Any]) -> dict[str, Any]:
    return {"trace_info": info_json(trace), "spans": [span_json(ctx, span) for span in found]}


def _is_complete(found: tuple[Trace, list[Any]]) -> bool:
    """Whether the root is there, and as many spans as the client says that it sent."""
    trace, stored = found
    stated = _SPANS_SENT.search(trace.metadata.get(SIZE_METADATA, ""))
    return len(stored) >= (int(stated[1]) if stated else 1) and any(not span.parent for span in stored)


def find_page(ctx: Context, args: Arguments, named: list[str]) -> Page[Trace]:
    """The page of traces that a search asks for."""
    with ctx.read() as tx:
        return searching.search(
            tx,
            ctx.project,
            named,
            filter_text=args.text("filter", ""),
            order_by=args.texts("order_by"),
            limit=args.limit(100, 500),
            token=args.text("page_token", ""),
        )


def _ids(args: Arguments, most: int) -> list[str]:
    named = args.texts("trace_ids")
    if len(named) > most:
        raise InvalidInput(f"at most {most} traces are read at once", hint="ask in parts")
    return named


def _experiments(args: Arguments) -> list[str] | None:
    return args.texts("experiment_ids") or None


_NEW = "3.0"
ENDPOINTS = (
    Endpoint("POST", "traces", start, _on_stated, api=_NEW),
    Endpoint("POST", "traces/search", search, _on_locations, reads=True, api=_NEW),
    Endpoint("POST", "traces/delete-traces", delete, on_experiment, audited=True, api=_NEW),
    Endpoint("POST", "traces/batchGetInfos", batch_infos, on_experiment, reads=True, api=_NEW),
    Endpoint("GET", "traces/get", get_whole, on_trace, reads=True, api=_NEW),
    Endpoint("GET", "traces/batchGet", batch_get, on_experiment, reads=True, api=_NEW),
    Endpoint("GET", "traces/{trace_id}", get_info, on_trace, reads=True, api=_NEW),
    Endpoint("PATCH", "traces/{trace_id}/tags", set_tag, on_trace, api=_NEW),
    Endpoint("DELETE", "traces/{trace_id}/tags", delete_tag, on_trace, api=_NEW),
    Endpoint("POST", "traces/link-to-run", link_run, _on_linked),
    Endpoint("POST", "traces/link-prompts", link_prompts, on_trace),
    Endpoint("POST", "traces/delete-traces", delete, on_experiment, audited=True),
    Endpoint("PATCH", "traces/{request_id}/tags", set_tag, on_trace),
    Endpoint("DELETE", "traces/{request_id}/tags", delete_tag, on_trace),
)
