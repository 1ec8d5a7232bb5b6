"""The door that spans come in by (OTLP over HTTP), and the spans of a trace as a file."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.genai import spans, traces
from everloop.catalog.genai.rows import RUN_METADATA
from everloop.catalog.tracking import runs
from everloop.core.errors import InvalidInput, PermissionDenied
from everloop.core.grants import Target
from everloop.server.mlflow import genai
from everloop.server.mlflow.answers import json_answer
from everloop.server.mlflow.endpoint import Endpoint, call
from everloop.server.mlflow.files import artifacts
from everloop.server.mlflow.genai.traces import belongs, on_trace, trace_id
from everloop.server.mlflow.genai.writing import file_json
from everloop.server.mlflow.wire import Arguments

EXPERIMENT_HEADER, RUN_HEADER = "x-mlflow-experiment-id", "x-mlflow-run-id"
LARGEST = 64 << 20
"""Bytes of a body, packed or not."""
_MEDIA = ("application/x-protobuf", "application/json")
_MOST_LINKS = 100


async def export_spans(ctx: Context, request: Request) -> Response:
    """POST /v1/traces: the whole batch is stored, or nothing of it."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in _MEDIA:
        raise InvalidInput(
            f"Invalid Content-Type: {media or 'none'}. Expected: {' or '.join(_MEDIA)}",
            hint="see the OTLP specification",
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise InvalidInput(f"the body is more than {LARGEST} bytes", hint="send smaller batches")
    arguments = {
        "experiment_id": request.headers.get(EXPERIMENT_HEADER, ""),
        "run_id": request.headers.get(RUN_HEADER, ""),
    }
    encoding = request.headers.get("content-encoding", "")
    handler = partial(_record, body=bytes(body), media=media, encoding=encoding)
    operation = Endpoint("POST", "otlp/traces", handler, _on_sent).operation
    await run_in_threadpool(call, ctx, operation, arguments)
    return json_answer({}) if media == _MEDIA[1] else Response(b"", media_type=_MEDIA[0])


def _record(ctx: Context, args: Arguments, *, body: bytes, media: str, encoding: str) -> Mapping[str, Any]:
    request = genai.otlp.parsed(genai.otlp.unpacked(body, encoding, LARGEST), media)
    batch = genai.otlp.spans(request, ctx.store.put)
    experiment, run = args.text("experiment_id"), args.text("run_id", "")
    named = sorted({span.trace for span in batch})
    if not named:
        return {}
    with ctx.write() as tx:
        if run:
            runs.find(tx, ctx.project, run)
        known = traces.several(tx, ctx.project, named)
        for trace in known:
            if not _may(ctx, belongs(ctx, trace.experiment, trace.run)) and trace.run != run:
                raise PermissionDenied(f"{ctx.actor.name} may not write trace {trace.id}", hint="it is another run's")
        spans.record(tx, ctx.project, experiment, batch)
        if run:
            fresh = set(named) - {trace.id for trace in known}
            for identity in sorted(fresh):
                traces.put_metadata(tx, traces.number_of(tx, ctx.project, identity), {RUN_METADATA: run})
            for start in range(0, len(named), _MOST_LINKS):
                traces.link_run(tx, ctx.project, named[start : start + _MOST_LINKS], run)
    return {}


def _may(ctx: Context, target: Target) -> bool:
    return ctx.actor.may("run.write", target)


def _on_sent(ctx: Context, args: Arguments) -> Target:
    return belongs(ctx, args.text("experiment_id"), args.text("run_id", ""))


async def trace_artifact(ctx: Context, request: Request) -> Response:
    """GET get-trace-artifact?request_id=&path=: the spans of a trace as one file, or another of its artifacts."""
    identity, path = request.query_params.get("request_id", ""), request.query_params.get("path", "")
    found = await run_in_threadpool(call, ctx, _READ, {"request_id": identity})
    if path or not found["spans"]:
        whole = f"{found['experiment']}/traces/{identity}/artifacts/{'attachments/' + path if path else 'traces.json'}"
        return await artifacts.download(ctx, whole)
    headers = {"Content-Disposition": "attachment; filename=traces.json", "X-Content-Type-Options": "nosniff"}
    return json_answer({"spans": found["spans"]}, headers=headers)


def _read(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    with ctx.read() as tx:
        trace = traces.find(tx, ctx.project, trace_id(args))
        found = spans.below(tx, ctx.project, trace.number)
    return {"experiment": trace.experiment, "spans": [file_json(ctx, span) for span in found]}


_READ = Endpoint("GET", "traces/artifact", _read, on_trace, reads=True).operation
