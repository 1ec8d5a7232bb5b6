"""Frames between a gateway and its model workers: a fixed header, then raw tensors. No pickle, no JSON per request.

    to a worker     length:u32  kind:u8  id:u64  rows:u32  payload (`Layout.pack`)
    from a worker   length:u32  kind:u8  id:u64  rows:u32  payload (`pack_answer`, UTF-8 text, or JSON)

`length` counts everything behind itself. Numbers are little-endian.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HEADER = struct.Struct("<IBQI")
MAX_FRAME = 512 * 1024 * 1024

ASK = 1
"""Predict for these rows."""
ANSWER = 2
"""The outputs of one request."""
FAILED = 3
"""The model raised: the payload is the message, behind the microseconds (i32) of the `rows` fused steps before it."""
HELLO = 4
"""The worker is warm: the payload is JSON (`outputs`, `pid`, `seconds`, `engine`)."""
UNFIT = 5
"""The worker cannot serve: the payload says why; it exits."""
FORGET = 6
"""To a worker: nobody waits for the request of this id any more."""

STREAM = 7
"""As ASK, of one row, for an answer in parts where the model yields them."""
PART = 8
"""One part: the payload is a value in MessagePack. ANSWER, with the whole, ends them."""
MORE = 9
"""To a worker: so many more parts (`rows`) may be sent for this id."""

SIZE = 10
"""To a bridge: the replicas that a part may have changed, the payload is JSON `[least, most]`."""
TOLD = 11
"""From a bridge: how many replicas answer (`rows`)."""
GONE = 12
"""From a bridge: those who were asked died, and nobody else answered."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    id: int
    rows: int
    payload: bytes


def encode(kind: int, identity: int, rows: int, payload: bytes) -> bytes:
    """The bytes of a frame."""
    return HEADER.pack(HEADER.size - 4 + len(payload), kind, identity, rows) + payload


def joined(frames: Iterable[Frame]) -> bytes:
    """The bytes of frames, one after the other."""
    parts = []
    for frame in frames:
        parts.append(HEADER.pack(HEADER.size - 4 + len(frame.payload), frame.kind, frame.id, frame.rows))
        parts.append(frame.payload)
    return b"".join(parts)


def kind_of(encoded: bytes) -> int:
    """The kind of a frame of `encode`."""
    return encoded[4]


class Reader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = bytearray()

    def feed(self, content: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole now; raises `ValueError` on a length that no frame has."""
        rest = self._rest
        rest += content
        offset = 0
        while len(rest) - offset >= HEADER.size:
            length, kind, identity, rows = HEADER.unpack_from(rest, offset)
            if not HEADER.size - 4 <= length <= MAX_FRAME:
                msg = f"a frame of {length} bytes"
                raise ValueError(msg)
            end = offset + 4 + length
            if end > len(rest):
                break
            yield Frame(kind, identity, rows, bytes(rest[offset + HEADER.size : end]))
            offset = end
        del rest[:offset]
