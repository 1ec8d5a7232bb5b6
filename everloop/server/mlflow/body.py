"""What a request asks, read into arguments: the query of a GET, else a JSON object of bounded size."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from everloop.core.errors import InvalidInput
from everloop.server.mlflow.wire import Arguments


async def read_arguments(request: Request, largest: int) -> dict[str, Any]:
    """The arguments of a call; path parameters count among them. Raises `InvalidInput`."""
    if request.method == "GET":
        gathered: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            gathered.setdefault(name, []).append(checked_text(value))
        return {**gathered, **request.path_params}
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise InvalidInput(
                f"Batched logging API requests must be at most {largest} bytes, got a request of more.",
                hint="send several smaller requests",
            )
    return {**_decoded(bytes(body)), **request.path_params}


async def body_arguments(request: Request, largest: int) -> Arguments:
    """The JSON object that a request carries, alone."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise InvalidInput(f"the request has more than {largest} bytes", hint="send a smaller one")
    return Arguments(_decoded(bytes(body)))


def checked_text(text: str) -> str:
    """A text that a database can hold; raises `InvalidInput`."""
    if "\x00" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise InvalidInput("a text holds a NUL or half a character", hint="send clean Unicode, and bytes as artifacts")
    return text


def _decoded(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(body)  # NaN and Infinity as bare words, which some clients write
        except (ValueError, RecursionError) as error:
            raise InvalidInput("the request is not JSON", hint=str(error)) from None
    if not isinstance(value, dict):
        raise InvalidInput("the request is not a JSON object", hint="send an object of arguments")
    if b"\\u" in body or b"\\U" in body:
        _check_texts(value)
    return value


def _check_texts(value: Any) -> None:
    """Refuse texts that a database cannot hold."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            checked_text(one)
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, Mapping):
            waiting.extend(one.keys())
            waiting.extend(one.values())
