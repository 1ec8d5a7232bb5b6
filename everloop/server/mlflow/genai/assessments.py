"""Assessments: feedback on traces and what was expected of them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.genai import assessments, traces
from everloop.core.errors import InvalidInput
from everloop.server.mlflow.endpoint import Endpoint
from everloop.server.mlflow.genai.traces import on_trace
from everloop.server.mlflow.genai.writing import assessment_json, read_assessment, read_value
from everloop.server.mlflow.wire import Arguments, bounded, invalid

_UPDATABLE = frozenset({"assessment_name", "expectation", "feedback", "rationale", "metadata", "valid"})
_KINDS = frozenset({"expectation", "feedback"})


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST traces/<id>/assessments."""
    given, trace = replace(read_assessment(args.part("assessment")), valid=True), args.text("trace_id")
    with ctx.write() as tx:
        number = traces.number_of(tx, ctx.project, trace)
        made = assessments.create(tx, number, assessments.of(given, trace), at=ctx.now())
    return {"assessment": assessment_json(made)}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET traces/<id>/assessments/<assessment>."""
    trace = args.text("trace_id")
    with ctx.read() as tx:
        number = traces.number_of(tx, ctx.project, trace)
        found = assessments.get(tx, number, args.text("assessment_id"), shown=trace)
    return {"assessment": assessment_json(found)}


def update(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH traces/<id>/assessments/<assessment>: the fields that the mask names."""
    trace, part = args.text("trace_id"), args.part("assessment")
    fields = _mask(args)
    if len(fields & _KINDS) > 1:
        raise InvalidInput("Cannot specify both `expectation` and `feedback` parameters.", hint="it has one value")
    with ctx.write() as tx:
        number = traces.number_of(tx, ctx.project, trace)
        old = new = assessments.get(tx, number, args.text("assessment_id"), shown=trace)
        for kind in fields & _KINDS:
            value, error = read_value(part, kind)
            new = replace(new, kind=kind, value=value, error=error)
        if "assessment_name" in fields:
            new = replace(new, name=bounded("assessment_name", part.text("assessment_name"), 250))
        if "rationale" in fields:
            new = replace(new, rationale=part.text("rationale", ""))
        if "metadata" in fields:
            new = replace(new, metadata={**old.metadata, **part.mapping("metadata")})
        if "valid" in fields:
            new = replace(new, valid=part.flag("valid"))
        made = assessments.change(tx, number, old, new, at=ctx.now())
    return {"assessment": assessment_json(made)}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE traces/<id>/assessments/<assessment>; one that is not there is passed over."""
    with ctx.write() as tx:
        number = traces.number_of(tx, ctx.project, args.text("trace_id"))
        assessments.remove(tx, number, args.text("assessment_id"))
    return {}


def _mask(args: Arguments) -> frozenset[str]:
    """The fields to change: protobuf's JSON writes a mask as one text of camelCase names."""
    given = args.json("update_mask")
    paths = given.get("paths") if isinstance(given, dict) else given.split(",") if isinstance(given, str) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise invalid("update_mask", given, "a list of fields is expected")
    named = frozenset(re.sub(r"([A-Z])", r"_\1", path.strip()).lower() for path in paths if path.strip())
    if unknown := named - _UPDATABLE:
        raise invalid("update_mask", sorted(unknown), "one of " + ", ".join(sorted(_UPDATABLE)))
    return named


_ONE = "traces/{trace_id}/assessments/{assessment_id}"
ENDPOINTS = (
    Endpoint("POST", "traces/{trace_id}/assessments", create, on_trace, api="3.0"),
    Endpoint("GET", _ONE, get, on_trace, reads=True, api="3.0"),
    Endpoint("PATCH", _ONE, update, on_trace, api="3.0"),
    Endpoint("DELETE", _ONE, delete, on_trace, api="3.0"),
)
