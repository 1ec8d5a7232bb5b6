"""OTLP trace bodies, read into spans: protobuf or JSON, compressed or not, wholly right or refused.

Sources: the OTLP 1.x specification (opentelemetry.io/docs/specs/otlp), the GenAI semantic conventions, and MLflow's own
names of attributes. Attribute texts may be JSON within JSON, as MLflow's own exporter writes them; both are read.
"""

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.json_format import ParseError as WrongJson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

from everloop.catalog.genai.rows import Root, Span
from everloop.core.errors import InvalidInput
from everloop.server.mlflow.wire import number

PROTOBUF, JSON = "application/x-protobuf", "application/json"
INLINE = 16_384
"""Bodies up to this many bytes stay in the catalog; of a larger one it holds the beginnings, the store the whole."""
_TEXT = 1000
_SHOWN = 1000
_NAME = 1000
_INT64 = 2**63
_HINT = "send an ExportTraceServiceRequest"
_IDS = (("traceId", 16), ("spanId", 8), ("parentSpanId", 8), ("trace_id", 16), ("span_id", 8), ("parent_span_id", 8))
_STATUS = {1: "OK", 2: "ERROR"}
_TYPES = {
    "chat": "CHAT_MODEL",
    "text_completion": "LLM",
    "generate_content": "LLM",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "retrieval": "RETRIEVER",
}
_USAGE = {"gen_ai.usage.input_tokens": "input_tokens", "gen_ai.usage.output_tokens": "output_tokens"}
_TAG = "mlflow.traceTag."
_IN, _OUT = "mlflow.spanInputs", "mlflow.spanOutputs"


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its compression; raises `InvalidInput` when it is broken, unknown, or more than `most` bytes."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    widths = {"gzip": (31,), "deflate": (15, -15)}.get(name)
    if widths is None:
        raise InvalidInput(f"Unsupported Content-Encoding: {encoding}", hint="gzip, deflate or none")
    for width in widths:
        inflater = zlib.decompressobj(width)
        try:
            found = inflater.decompress(body, most + 1)
        except zlib.error:
            continue
        if len(found) > most:
            raise InvalidInput(f"the body is more than {most} bytes", hint="send smaller batches")
        if inflater.eof:
            return found
    raise InvalidInput(f"Failed to decompress a body that is said to be {encoding}", hint="check Content-Encoding")


def parsed(body: bytes, media: str) -> ExportTraceServiceRequest:
    """The request; raises `InvalidInput` when it is not one, or holds no spans."""
    request = ExportTraceServiceRequest()
    try:
        if media == JSON:
            ParseDict(_with_base64_ids(orjson.loads(body)), request, ignore_unknown_fields=True)
        else:
            request.ParseFromString(body)
    except (DecodeError, WrongJson, ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"Invalid OpenTelemetry format: {str(error)[:200]}", hint=_HINT) from None
    if not request.resource_spans:
        raise InvalidInput("Invalid OpenTelemetry format - no spans found", hint=_HINT)
    return request


def spans(request: ExportTraceServiceRequest, keep: Callable[[bytes], str]) -> list[Span]:
    """Every span of a request; `keep` stores a large body and returns its id. Raises `InvalidInput` for a wrong one."""
    return [
        _span(message, keep)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for message in scope.spans
    ]


def plain(value: AnyValue) -> Any:
    """An attribute's value as Python's; bytes as base64."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return _clean(value.string_value)
    if kind == "array_value":
        return [plain(part) for part in value.array_value.values]
    if kind == "kvlist_value":
        return {_clean(part.key): plain(part.value) for part in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def _with_base64_ids(data: Any) -> Any:
    """OTLP writes ids in hexadecimal, where protobuf's JSON has base64."""
    for span in _json_spans(data):
        for field, size in _IDS:
            if isinstance(text := span.get(field), str) and text:
                raw = bytes.fromhex(text)
                if len(raw) != size:
                    raise InvalidInput(f"{field} '{text[:64]}' is not {size} bytes", hint="ids are hexadecimal")
                span[field] = base64.b64encode(raw).decode()
        for link in _dicts(span.get("links")):
            for field, _ in _IDS:
                if isinstance(text := link.get(field), str):
                    link[field] = base64.b64encode(bytes.fromhex(text)).decode()
    return data


def _json_spans(data: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(data, dict):
        raise InvalidInput("Invalid OpenTelemetry format: not an object", hint=_HINT)
    for resource in _dicts(data.get("resourceSpans", data.get("resource_spans"))):
        for scope in _dicts(resource.get("scopeSpans", resource.get("scope_spans"))):
            yield from _dicts(scope.get("spans"))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _span(message: Message, keep: Callable[[bytes], str]) -> Span:
    if len(message.trace_id) != 16 or not any(message.trace_id):
        raise InvalidInput("Cannot convert OpenTelemetry span: trace_id is not 16 bytes", hint=_HINT)
    if len(message.span_id) != 8 or len(message.parent_span_id) not in {0, 8}:
        raise InvalidInput("Cannot convert OpenTelemetry span: span_id is not 8 bytes", hint=_HINT)
    if max(message.start_time_unix_nano, message.end_time_unix_nano) >= _INT64:
        raise InvalidInput("Cannot convert OpenTelemetry span: its time is beyond the range", hint="nanoseconds")
    known = {_clean(one.key): plain(one.value) for one in message.attributes}
    whole = _json(message)
    body = orjson.dumps(whole)
    large = len(body) > INLINE
    parent = message.parent_span_id.hex() if any(message.parent_span_id) else ""
    return Span(
        trace=f"tr-{message.trace_id.hex()}",
        id=message.span_id.hex(),
        parent=parent,
        name=_clean(message.name)[:_NAME],
        type=(_text(known, "mlflow.spanType") or _TYPES.get(_text(known, "gen_ai.operation.name"), "UNKNOWN"))[:_NAME],
        status=_STATUS.get(message.status.code, "UNSET"),
        start=message.start_time_unix_nano,
        end=message.end_time_unix_nano or None,
        body=(orjson.dumps(_beginnings(whole)) if large else body).decode(),
        object=keep(body) if large else "",
        model=_text(known, "mlflow.llm.model", "gen_ai.response.model", "gen_ai.request.model")[:_NAME] or None,
        provider=_text(known, "mlflow.llm.provider", "gen_ai.provider.name", "gen_ai.system")[:_NAME] or None,
        cost=_cost(known),
        usage=_usage(known),
        session=_text(known, "session.id", "gen_ai.conversation.id")[:250],
        user=_text(known, "user.id")[:250],
        root=None if parent else _root(known),
    )


def _json(message: Message) -> dict[str, Any]:
    """A span as protobuf writes JSON, under the names of the schema."""
    found: dict[str, Any] = {
        "trace_id": base64.b64encode(message.trace_id).decode(),
        "span_id": base64.b64encode(message.span_id).decode(),
        "name": _clean(message.name),
        "kind": message.kind,
        "start_time_unix_nano": message.start_time_unix_nano,
        "status": {"message": _clean(message.status.message), "code": message.status.code},
        "attributes": _pairs(message.attributes),
    }
    if any(message.parent_span_id):
        found["parent_span_id"] = base64.b64encode(message.parent_span_id).decode()
    if message.end_time_unix_nano:
        found["end_time_unix_nano"] = message.end_time_unix_nano
    if message.trace_state:
        found["trace_state"] = _clean(message.trace_state)
    if message.events:
        found["events"] = [
            {
                "time_unix_nano": event.time_unix_nano,
                "name": _clean(event.name),
                "attributes": _pairs(event.attributes),
            }
            for event in message.events
        ]
    if message.links:
        found["links"] = [
            {
                "trace_id": base64.b64encode(link.trace_id).decode(),
                "span_id": base64.b64encode(link.span_id).decode(),
                "attributes": _pairs(link.attributes),
            }
            for link in message.links
        ]
    return found


def _pairs(attributes: Any) -> list[dict[str, Any]]:
    pairs: list[KeyValue] = list(attributes)
    return [{"key": _clean(one.key), "value": _value_json(one.value)} for one in pairs]


def _value_json(value: AnyValue) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    if kind is None:
        return {}
    found: Any = getattr(value, kind)
    if kind == "string_value":
        found = _clean(found)
    elif kind == "array_value":
        found = {"values": [_value_json(part) for part in found.values]}
    elif kind == "kvlist_value":
        found = {"values": _pairs(found.values)}
    elif kind == "bytes_value":
        found = base64.b64encode(found).decode()
    elif kind == "double_value":
        found = number(found)
    return {kind: found}


def _beginnings(whole: Mapping[str, Any]) -> dict[str, Any]:
    """A span of which every text is cut, inputs and outputs first, for searches: it is JSON of the same shape."""
    kept, left = [], INLINE
    pairs: list[dict[str, Any]] = whole["attributes"]
    for pair in sorted(pairs, key=lambda one: one["key"] not in {_IN, _OUT}):
        value = pair["value"]
        text = value.get("string_value")
        if text is None and len(as_text := orjson.dumps(value).decode()) > _TEXT:
            text = as_text
        cut = {"key": pair["key"][:_SHOWN], "value": value if text is None else {"string_value": text[:_TEXT]}}
        left -= len(orjson.dumps(cut))
        if left < 0:
            break
        kept.append(cut)
    shown = {name: part for name, part in whole.items() if name not in {"events", "links", "trace_state"}}
    return {**shown, "name": whole["name"][:_NAME], "status": {"code": whole["status"]["code"]}, "attributes": kept}


def _root(known: Mapping[str, Any]) -> Root:
    tags = {
        name.removeprefix(_TAG)[:250]: _as_text(_inner(value))[:8000]
        for name, value in known.items()
        if name.startswith(_TAG) and name != _TAG
    }
    return Root(request=_preview(known.get(_IN)), response=_preview(known.get(_OUT)), tags=tags)


def _preview(value: Any) -> str | None:
    return None if value is None else _as_text(value)[:_SHOWN]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(known: Mapping[str, Any], *names: str) -> str:
    """The first of these attributes that is a text."""
    for name in names:
        value = _inner(known.get(name))
        if isinstance(value, str) and value:
            return value
    return ""


def _inner(value: Any) -> Any:
    """A value that may be JSON in a text."""
    if isinstance(value, str) and value[:1] in {'"', "{", "["}:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _cost(known: Mapping[str, Any]) -> dict[str, float]:
    stated = _inner(known.get("mlflow.llm.cost"))
    if not isinstance(stated, dict):
        return {}
    return {
        str(kind): float(amount)
        for kind, amount in stated.items()
        if kind in {"input_cost", "output_cost", "total_cost"}
        and isinstance(amount, int | float)
        and math.isfinite(amount)
    }


def _usage(known: Mapping[str, Any]) -> dict[str, int]:
    stated = _inner(known.get("mlflow.chat.tokenUsage"))
    if isinstance(stated, dict):
        counts = {str(kind): count for kind, count in stated.items()}
    else:
        counts = {kind: known.get(name) for name, kind in _USAGE.items()}
    found = {
        kind: int(count)
        for kind, count in counts.items()
        if isinstance(count, int | float) and not isinstance(count, bool) and 0 <= count < _INT64
    }
    if found and not isinstance(stated, dict):
        found["total_tokens"] = sum(found.values())
    return found


def _clean(text: str) -> str:
    """A text that a database can hold."""
    return text.replace("\x00", "\ufffd")
