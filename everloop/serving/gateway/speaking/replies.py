"""Replies, and what the protocols over HTTP share: bodies, methods, errors, compression."""

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from everloop.core.errors import EverloopError, InvalidInput, NotAuthenticated, Unavailable
from everloop.serving.gateway.passing.relay import Receive, Scope
from everloop.serving.protocol.question import MAX_BODY, decompress

Header = tuple[bytes, bytes]
JSON: Header = (b"content-type", b"application/json")
_WORTH = 4096
"""Bytes from which an answer is compressed for who asks for it: below, the head of a packet costs more."""
_LEVEL = 1


class TooLarge(InvalidInput):
    """The body is larger than the gateway takes."""

    status = 413


class WrongMethod(InvalidInput):
    """The path is known, the method is not."""

    status = 405


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = (JSON,)


def as_json(value: Any, status: int = 200) -> Reply:
    """A reply of JSON."""
    return Reply(status, orjson.dumps(value))


def problem(error: EverloopError) -> Reply:
    """An error where no protocol has a form of its own: RFC 9457."""
    kind = (b"content-type", b"application/problem+json")
    return Reply(error.status, orjson.dumps(error.problem()), (kind, *error_headers(error)[1:]))


def error_headers(error: EverloopError) -> tuple[Header, ...]:
    """Content type, and what the status asks for: when to come again, how to say who one is."""
    if isinstance(error, Unavailable):
        seconds = max(1, math.ceil(float(error.details.get("seconds", 1))))
        return (JSON, (b"retry-after", b"%d" % seconds))
    if isinstance(error, NotAuthenticated):
        return (JSON, (b"www-authenticate", b"Bearer"))
    return (JSON,)


def said(error: EverloopError, address: str = "") -> str:
    """The message with its hint; what is wrong with a question to `address` has one in any case."""
    hint = error.hint
    if not hint and isinstance(error, InvalidInput) and address:
        hint = f"GET /v2/models/{address} shows the inputs"
    return f"{error.message} ({hint})" if hint else error.message


def need_method(scope: Scope, *methods: str) -> None:
    """Raise `WrongMethod` unless the request has one of these methods."""
    if scope["method"] not in methods:
        raise WrongMethod(f"{scope['method'][:20]} is not for this path", hint="use " + methods[0])


async def body_of(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """The whole body, uncompressed; raises `InvalidInput`, `TooLarge`."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidInput("the caller went away")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise TooLarge(f"the body is larger than {MAX_BODY} bytes", hint="ask in several requests")
        body = b"".join(parts)
    coding = headers.get(b"content-encoding")
    return body if coding is None else decompress(body, coding.decode("latin-1"))


def compressed(reply: Reply, headers: Mapping[bytes, bytes]) -> Reply:
    """The reply as the caller wants it; errors and small answers stay as they are, for not every client undoes them."""
    if len(reply.body) < _WORTH or reply.status >= 400:
        return reply
    coding = _coding(headers.get(b"accept-encoding", b"").decode("latin-1"))
    if not coding:
        return reply
    body = gzip.compress(reply.body, _LEVEL) if coding == "gzip" else zlib.compress(reply.body, _LEVEL)
    return replace(reply, body=body, headers=(*reply.headers, (b"content-encoding", coding.encode())))


def _coding(accepted: str) -> str:
    wanted = [part.partition(";") for part in accepted.lower().split(",")]
    able = {name.strip() for name, _, weight in wanted if weight.replace(" ", "") not in ("q=0", "q=0.0")}
    return next((coding for coding in ("gzip", "deflate") if coding in able), "")
