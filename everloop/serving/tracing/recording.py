"""The spans of one question: the endpoint, and every node of its graph.

Whether a question is traced is decided once, when it arrives: by the caller's `traceparent` (W3C Trace Context, level
1) where there is one, else by the endpoint's share. A question that is not traced costs a look at one header.
"""

import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from everloop.core.errors import EverloopError

HEADER = b"traceparent"
_LEVEL, _SAMPLED = b"00", 1
_HELD = 4096
"""Spans that wait to be told; more are dropped and counted."""
_parent: ContextVar[str] = ContextVar("everloop_span", default="")


@dataclass(frozen=True, slots=True)
class Span:
    """One span that has ended; times are nanoseconds since 1970."""

    trace: str
    """32 hexadecimal digits."""
    id: str
    """16 of them."""
    parent: str
    name: str
    started: int
    ended: int
    attributes: Mapping[str, Any]
    error: str = ""
    root: bool = False


@dataclass(slots=True)
class Trace:
    """A question that is traced."""

    project: str
    id: str
    parent: str
    """The caller's span; empty when it sent none."""
    root: str = field(default_factory=lambda: secrets.token_hex(8))
    spans: list[Span] = field(default_factory=list)
    wall: int = field(default_factory=time.time_ns)
    clock: float = field(default_factory=time.monotonic)

    def add(self, name: str, started: float, attributes: Mapping[str, Any], *, ended: float = 0.0) -> None:
        """A span from `started` to `ended` (`time.monotonic()`; 0: now), below the one that is open."""
        end = ended or time.monotonic()
        above = _parent.get() or self.root
        self.spans.append(
            Span(self.id, secrets.token_hex(8), above, name, self._at(started), self._at(end), attributes)
        )

    @contextmanager
    def inside(self, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        """A span around what is done inside; what is awaited there finds it as its parent."""
        identity, above, started = secrets.token_hex(8), _parent.get() or self.root, time.monotonic()
        token, error = _parent.set(identity), ""
        try:
            yield
        except EverloopError as problem:
            error = problem.message
            raise
        finally:
            _parent.reset(token)
            ends = self._at(started), self._at(time.monotonic())
            self.spans.append(Span(self.id, identity, above, name, *ends, attributes, error))

    def end(self, name: str, started: float, attributes: Mapping[str, Any], error: str = "") -> None:
        """The span of the whole question."""
        ends = self._at(started), self._at(time.monotonic())
        self.spans.append(Span(self.id, self.root, self.parent, name, *ends, attributes, error, root=True))

    def header(self) -> bytes:
        """What says to the caller which trace it is."""
        return b"00-%b-%b-01" % (self.id.encode(), self.root.encode())

    def _at(self, clock: float) -> int:
        return self.wall + int((clock - self.clock) * 1e9)


class Tracer:
    """The traces of one gateway, until somebody takes their spans."""

    def __init__(self) -> None:
        """Nothing was traced yet."""
        self._ended: deque[tuple[str, Span]] = deque()
        self.dropped = 0

    def begun(self, headers: Mapping[bytes, bytes], project: str, share_ppm: int) -> Trace | None:
        """A trace of this question; None for most: the endpoint traces none, or it is not among its share."""
        if not share_ppm:
            return None
        said = headers.get(HEADER)
        above = None if said is None else parsed(said)
        if above is not None:
            trace, parent, sampled = above
            return Trace(project, trace, parent) if sampled else None
        if secrets.randbelow(1_000_000) >= share_ppm:
            return None
        return Trace(project, secrets.token_hex(16), "")

    def ended(self, trace: Trace) -> None:
        """Keep its spans until they are taken."""
        if len(self._ended) + len(trace.spans) > _HELD:
            self.dropped += len(trace.spans)
            return
        self._ended.extend((trace.project, span) for span in trace.spans)

    def take(self) -> dict[str, list[Span]]:
        """The spans that ended since the last time, by project."""
        found: dict[str, list[Span]] = {}
        while self._ended:
            project, span = self._ended.popleft()
            found.setdefault(project, []).append(span)
        return found


def parsed(header: bytes) -> tuple[str, str, bool] | None:
    """(trace, span, sampled) of a `traceparent`; None for a wrong one, which is then as if it were not there."""
    parts = header.strip().split(b"-")
    if len(parts) < 4 or parts[0] == b"ff" or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    if parts[0] == _LEVEL and len(parts) != 4:
        return None
    digits = b"".join(parts[:4])
    if digits.strip(b"0123456789abcdef") or not parts[1].strip(b"0") or not parts[2].strip(b"0"):
        return None
    return parts[1].decode(), parts[2].decode(), bool(int(parts[3], 16) & _SAMPLED)
