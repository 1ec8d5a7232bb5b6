"""What gateway and server say to each other so that the bytes of a large file pass through one process only.

The gateway owns the connection to the caller, the server decides. So the gateway asks (by a header that holds the
secret of this start, which callers do not know and whose headers are taken from what they send), and the server, after
it looked at who asks and whether they may, answers with the place of a file instead of its bytes:

- a download: the server's whole answer without its body, and `Sending`;
- an upload: POST with `SIZE` asks for a place, answered by `Receiving`; the gateway writes the body there and hashes
  it on the way; POST with `DONE` says what came, and the server keeps the file under that digest and names it.

A server that does not know the secret answers as it does to anybody; the bytes then stream through both.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hmac import compare_digest

VARIABLE = "EVERLOOP_HAND"
"""The environment variable by which a supervisor gives both the secret."""
ASKED = b"everloop-hand"
"""In a request the secret, in an answer what is to be done."""
SIZE = b"everloop-hand-size"
DONE = b"everloop-hand-done"
HEADERS = frozenset((ASKED, SIZE, DONE))
LEAST = 1 << 20
"""Smaller bodies cost less when they go with their request."""
UPLOADS = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/.+", re.DOTALL)
"""The paths that are asked for uploads."""


@dataclass(frozen=True, slots=True)
class Sending:
    """Bytes `start` up to `stop` of a local file; if `object` is given, they must hash to it."""

    path: str
    start: int
    stop: int
    object: str = ""


@dataclass(frozen=True, slots=True)
class Receiving:
    """An empty file to write to."""

    path: str


@dataclass(frozen=True, slots=True)
class Received:
    """What was written: the file's name, the digest of its bytes and how many they are."""

    name: str
    object: str
    size: int


def told(value: Sending | Receiving | Received) -> bytes:
    """A value as a header's."""
    return json.dumps({type(value).__name__: asdict(value)}).encode()


def of_answer(headers: Iterable[tuple[bytes, bytes]]) -> Sending | Receiving | None:
    """What an answer of the server asks to be done, if it asks for something."""
    text = next((value for name, value in headers if name == ASKED), None)
    if text is None:
        return None
    ((kind, fields),) = json.loads(text).items()
    return Sending(**fields) if kind == "Sending" else Receiving(**fields)


def is_ours(given: str | None, secret: str) -> bool:
    """Whether a request comes from our own gateway, by the header `ASKED`."""
    return bool(secret) and given is not None and compare_digest(given.encode(), secret.encode())
