"""Traces and assessments as the protocol writes them, and as clients send them."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from everloop.catalog.context import Context
from everloop.catalog.genai.rows import STATES, Assessment, StoredSpan, Trace
from everloop.core.clock import SECOND, Micros, iso, parse_time
from everloop.core.errors import InvalidInput
from everloop.server.mlflow.wire import Arguments, bounded, invalid, millis, pairs

_KEY, _VALUE = 250, 8000
_DURATION = re.compile(r"(?P<whole>-?\d{1,12})(?:\.(?P<part>\d{1,9}))?s")
_SOURCES = {0: "SOURCE_TYPE_UNSPECIFIED", 1: "HUMAN", 2: "LLM_JUDGE", 3: "CODE"}
_CODES = {0: "STATUS_CODE_UNSET", 1: "STATUS_CODE_OK", 2: "STATUS_CODE_ERROR"}
_NUMBERED = dict(enumerate(STATES))


def info_json(trace: Trace) -> dict[str, Any]:
    """What is known of a trace, without its spans."""
    found: dict[str, Any] = {
        "trace_id": trace.id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": trace.experiment},
        },
        "request_time": iso(trace.at),
        "state": trace.status,
        "trace_metadata": dict(trace.metadata),
        "tags": dict(trace.tags),
        "assessments": [assessment_json(one) for one in trace.assessments],
    }
    if trace.duration is not None:
        found["execution_duration"] = duration_json(trace.duration)
    if trace.client_request is not None:
        found["client_request_id"] = trace.client_request
    if trace.request is not None:
        found["request_preview"] = trace.request
    if trace.response is not None:
        found["response_preview"] = trace.response
    return found


def old_info_json(trace: Trace) -> dict[str, Any]:
    """The same for clients of the second version."""
    return {
        "request_id": trace.id,
        "experiment_id": trace.experiment,
        "timestamp_ms": millis(trace.at),
        **({} if trace.duration is None else {"execution_time_ms": millis(trace.duration)}),
        "status": "TRACE_STATUS_UNSPECIFIED" if trace.status == "STATE_UNSPECIFIED" else trace.status,
        "request_metadata": pairs(trace.metadata),
        "tags": pairs(trace.tags),
    }


def span_json(ctx: Context, span: StoredSpan) -> orjson.Fragment:
    """A span, whole: its text goes into the answer as it was stored."""
    return orjson.Fragment(ctx.store.get(span.object) if span.object else span.body.encode())


def file_json(ctx: Context, span: StoredSpan) -> dict[str, Any]:
    """A span as clients write it into `traces.json`: attributes are JSON in texts."""
    stored = orjson.loads(ctx.store.get(span.object) if span.object else span.body)
    status = stored["status"]
    return {
        "trace_id": stored["trace_id"],
        "span_id": stored["span_id"],
        "parent_span_id": stored.get("parent_span_id"),
        "name": stored["name"],
        "start_time_unix_nano": stored["start_time_unix_nano"],
        "end_time_unix_nano": stored.get("end_time_unix_nano"),
        "status": {"code": _CODES.get(status["code"], _CODES[0]), "message": status.get("message", "")},
        "attributes": {one["key"]: json.dumps(_plain(one["value"])) for one in stored["attributes"]},
        "events": [
            {**event, "attributes": {one["key"]: _plain(one["value"]) for one in event["attributes"]}}
            for event in stored.get("events", ())
        ],
    }


def _plain(value: Mapping[str, Any]) -> Any:
    """An attribute's value, out of the protocol's JSON."""
    for kind, found in value.items():
        if kind == "array_value":
            return [_plain(part) for part in found["values"]]
        if kind == "kvlist_value":
            return {one["key"]: _plain(one["value"]) for one in found["values"]}
        return found
    return None


def assessment_json(one: Assessment) -> dict[str, Any]:
    """An assessment for the client."""
    found: dict[str, Any] = {
        "assessment_id": one.id,
        "assessment_name": one.name,
        "trace_id": one.trace,
        "source": {"source_type": one.source_type, "source_id": one.source},
        "create_time": iso(one.created),
        "last_update_time": iso(one.updated),
        "metadata": dict(one.metadata),
        "valid": one.valid,
    }
    if one.span:
        found["span_id"] = one.span
    if one.rationale is not None:
        found["rationale"] = one.rationale
    if one.overrides:
        found["overrides"] = one.overrides
    if one.kind == "expectation":
        found["expectation"] = _expected_json(one.value)
    elif one.kind == "issue":
        found["issue"] = one.value
    else:
        found["feedback"] = {"value": one.value, **({} if one.error is None else {"error": dict(one.error)})}
    return found


def read_trace(args: Arguments) -> Trace:
    """A trace that a client states; raises `InvalidInput`."""
    location = args.part("trace_location")
    experiment = location.part("mlflow_experiment").text("experiment_id")
    duration = args.json("execution_duration")
    return Trace(
        id=bounded("trace_id", args.text("trace_id"), 100),
        experiment=experiment,
        at=read_time(args, "request_time"),
        duration=None if duration is None else _duration(duration),
        status=args.choice("state", _NUMBERED, "STATE_UNSPECIFIED"),
        client_request=args.text("client_request_id", "")[:_KEY] or None,
        request=_preview(args, "request_preview", "request"),
        response=_preview(args, "response_preview", "response"),
        tags=_texts(args, "tags"),
        metadata=_texts(args, "trace_metadata"),
        assessments=tuple(read_assessment(part) for part in args.parts("assessments")),
    )


def read_assessment(args: Arguments) -> Assessment:
    """An assessment that a client states; raises `InvalidInput` unless it has exactly one kind of value."""
    kinds = [kind for kind in ("feedback", "expectation", "issue") if args.has(kind)]
    if len(kinds) != 1:
        raise InvalidInput(
            "Exactly one of `feedback`, `expectation` and `issue` must be set in an assessment",
            hint="say what it is",
        )
    value, error = read_value(args, kinds[0])
    source = args.part("source") if args.has("source") else Arguments({})
    kind = source.json("source_type")  # AI_JUDGE is its name of before 3.0
    return Assessment(
        id=bounded("assessment_id", args.text("assessment_id", ""), 100),
        name=bounded("assessment_name", args.text("assessment_name"), _KEY),
        kind=kinds[0],
        value=value,
        error=error,
        source_type="LLM_JUDGE" if kind == "AI_JUDGE" else source.choice("source_type", _SOURCES, _SOURCES[0]),
        source=bounded("source_id", source.text("source_id", ""), 1000),
        span=bounded("span_id", args.text("span_id", ""), 100),
        rationale=args.text("rationale", "") if args.has("rationale") else None,
        metadata=args.mapping("metadata"),
        overrides=args.text("overrides", ""),
        valid=args.flag("valid") if args.has("valid") else True,
        created=read_time(args, "create_time") if args.has("create_time") else 0,
        updated=read_time(args, "last_update_time") if args.has("last_update_time") else 0,
    )


def read_value(args: Arguments, kind: str) -> tuple[Any, Mapping[str, Any] | None]:
    """The value of an assessment of a kind, and the error instead of one."""
    part = args.part(kind)
    if kind == "issue":
        return {"issue_name": part.text("issue_name", "")}, None
    if kind == "expectation" and part.has("serialized_value"):
        text = part.part("serialized_value").text("value")
        try:
            return json.loads(text), None
        except (ValueError, RecursionError):
            raise invalid("expectation.serialized_value.value", text[:200], "it is not JSON") from None
    error = part.part("error") if part.has("error") else None
    if error is None:
        return part.json("value"), None
    told = {name: error.text(name, "")[:_VALUE] for name in ("error_code", "error_message", "stack_trace")}
    return part.json("value"), {name: text for name, text in told.items() if text}


def read_time(args: Arguments, name: str) -> Micros:
    """A time of RFC 3339."""
    text = args.text(name)
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise invalid(name, text[:100], "a time such as 2025-01-01T00:00:00.000Z is expected") from None


def duration_json(duration: Micros) -> str:
    """A duration in seconds, as protobuf writes it."""
    whole, part = divmod(duration, SECOND)
    return f"{whole}.{part:06d}s" if part else f"{whole}s"


def _duration(value: Any) -> Micros:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise invalid("execution_duration", value, "a duration such as 1.5s is expected")
    return max(0, int(match["whole"]) * SECOND + int((match["part"] or "0").ljust(9, "0")) // 1000)


def _texts(args: Arguments, name: str) -> dict[str, str]:
    return {bounded(name, key, _KEY): value[:_VALUE] for key, value in args.mapping(name).items() if key}


def _preview(args: Arguments, *names: str) -> str | None:
    for name in names:
        if args.has(name):
            return args.text(name, "")[:10_000]
    return None


def _expected_json(value: Any) -> dict[str, Any]:
    """A plain value as it is; one with parts as JSON in a text, as clients do."""
    plain = isinstance(value, str | int | float | bool) or value is None
    if plain or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        return {"value": value}
    return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": json.dumps(value)}}
