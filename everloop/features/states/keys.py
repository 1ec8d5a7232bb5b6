"""Keys of entities in an online store."""

import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from everloop.core.errors import DataError, InvalidInput
from everloop.features.states.columns import Column

_HASHED = b"h"
_LONGEST = 400
_WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_SHORT = 90
"""A text of fewer characters has fewer bytes than the longest key."""


def entity_key(values: Sequence[Any]) -> bytes | None:
    """The key of an entity's value or values (text or integers); None when one is null. Raises `InvalidInput`."""
    parts = []
    for value in values:
        if value is None:
            return None
        if isinstance(value, str):
            parts.append(b"s" + value.encode())
        elif isinstance(value, int | np.integer):
            parts.append(b"i%d" % value)
        else:
            raise InvalidInput(f"{value!r} cannot be an entity", hint="an entity is text or an integer")
    key = parts[0] if len(parts) == 1 else b"".join(struct.pack("<I", len(p)) + p for p in parts)
    return key if len(key) <= _LONGEST else _HASHED + blake3(key).digest()


def whole(text: str) -> int | None:
    """The whole number that a text is, as JSON or a form writes it; None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) else None


def entity_keys(columns: Sequence[Column]) -> list[bytes | None]:
    """The key of each row."""
    listed = []
    for column in columns:
        if column.valid.any() and column.values.dtype.kind != "i":
            raise DataError("an entity column holds numbers with a point", hint="an entity is text or an integer")
        listed.append(column.listed())
    if len(listed) == 1:
        return [_alone(value) for value in listed[0]]
    return [entity_key(values) for values in zip(*listed, strict=True)]


def _alone(value: Any) -> bytes | None:
    """`entity_key` of one value; most are whole numbers or short texts."""
    if type(value) is int:
        return b"i%d" % value
    if type(value) is str and len(value) < _SHORT:
        return b"s" + value.encode()
    return entity_key((value,))
