"""Canonical JSON for identity: RFC 8785 restricted to what hashes the same everywhere.

Identity fields hold no floats (a float prints differently across languages and rounds silently),
so the only number is an integer within ±(2**53 - 1). Keys are sorted by UTF-16 code units, as the
RFC says. Write measured values as strings or as scaled integers.
"""

import json
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import InvalidInput

_SAFE_INTEGER = 2**53 - 1
_ASCII = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: Any) -> bytes:
    """Return the canonical UTF-8 bytes of `value`.

    Raises `InvalidInput` for a float, an integer beyond ±(2**53 - 1), a key that is no string, a
    lone surrogate, or a type that JSON does not have; the message gives the path to it.
    """
    if _plain(value):
        text = _ASCII(value)
        if "\\u" not in text:  # all of it is printable ASCII, of which every order and form is the same
            return text.encode("ascii")
    return _encode(_checked(value, "$"))


def _plain(value: Any) -> bool:
    """Whether a value has a canonical form and is made of the usual types; the slow way says what is wrong with it."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_SAFE_INTEGER <= value <= _SAFE_INTEGER)
    if kind is dict:
        return all(type(key) is str and (type(one) is str or _plain(one)) for key, one in value.items())
    return (kind is list or kind is tuple) and all(type(one) is str or _plain(one) for one in value)


def _encode(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _checked(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value, path)
    if isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            msg = f"{path}: {value} is beyond the safe integers of JSON"
            raise InvalidInput(msg, hint="write it as a string")
        return value
    if isinstance(value, Mapping):
        pairs = ((_checked_key(k, path), v) for k, v in value.items())
        ordered = sorted(pairs, key=lambda pair: pair[0].encode("utf-16-be"))
        return {k: _checked(v, f"{path}.{k}") for k, v in ordered}
    if isinstance(value, list | tuple):
        return [_checked(v, f"{path}[{i}]") for i, v in enumerate(value)]
    msg = f"{path}: {type(value).__name__} has no canonical form"
    raise InvalidInput(msg, hint="identity fields hold strings, integers, booleans, lists and maps")


def _checked_key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        msg = f"{path}: the key {key!r} is not a string"
        raise InvalidInput(msg)
    return _checked_text(key, path)


def _checked_text(text: str, path: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        msg = f"{path}: the text holds a lone surrogate"
        raise InvalidInput(msg, hint="store undecodable bytes as an object and name its id") from None
    return str(text)
