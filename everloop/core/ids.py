"""Identity: `b3:` and the 64 hexadecimal digits of a BLAKE3 digest (256 bit)."""

import re
import secrets
from typing import Any

from blake3 import blake3

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput

PREFIX = "b3:"
_ID = re.compile(r"b3:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")


def object_id(content: bytes | bytearray | memoryview) -> str:
    """The id of an object: the digest of its bytes."""
    return PREFIX + blake3(content).hexdigest()


def manifest_id(manifest: Any) -> str:
    """The id of a version: the digest of its manifest in canonical JSON."""
    return object_id(canonical_json(manifest))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return _ID.fullmatch(text) is not None


def checked_id(text: str) -> str:
    """Return `text`, or raise `InvalidInput` when it does not have the form of an id."""
    if not is_id(text):
        msg = f"{text!r} is not an id"
        raise InvalidInput(msg, hint="an id is b3: and 64 hexadecimal digits")
    return text


def checked_name(text: str) -> str:
    """Return `text`, or raise `InvalidInput` when it cannot be the name of an asset."""
    if _NAME.fullmatch(text) is None:
        msg = f"{text!r} cannot be a name"
        raise InvalidInput(msg, hint="a letter or underscore, then letters, digits, '_', '.', '-'; 128 at most")
    return text


def short(identity: str) -> str:
    """Twelve digits of an id, for people."""
    return identity.removeprefix(PREFIX)[:12]


def fresh_id(prefix: str) -> str:
    """A random id for a mutable row, `prefix-` and 32 hexadecimal digits (128 bit)."""
    return f"{prefix}-{secrets.token_hex(16)}"
