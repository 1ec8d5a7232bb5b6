"""Entries of a Redis stream, read as one consumer of a group.

An entry stays with the group until it is acknowledged, which is after its commit. The position is the list of entries
of the newest commit: whoever starts acknowledges those first, so whatever the group gives again is not committed.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import redis

from everloop.core.clock import SECOND, Micros, parse_duration
from everloop.core.errors import Unavailable
from everloop.data.streams.arriving import Batch, letters, with_arrival
from everloop.data.streams.decoding import decode_lines, event_of
from everloop.data.streams.origins import RedisStream

_AT_ONCE = 5_000
_CHUNK = 1_000
_HINT = "is the server running, and the binding right?"
Entry = tuple[bytes, Mapping[bytes, bytes] | None]


class RedisEntries:
    """The consumer of a group; its name is that of the machine, so that what it had taken comes back to it."""

    def __init__(self, origin: RedisStream, url: str, schema: pa.Schema) -> None:
        """Make the group, at the beginning of the stream, where there is none. Raises `Unavailable`."""
        self._origin, self._schema = origin, schema
        self._server = redis.Redis.from_url(url, socket_timeout=30)
        self._name = f"everloop-{os.uname().nodename}"
        self._taken: list[str] = []
        self._own, self._claimed = "0", 0.0
        try:
            self._server.xgroup_create(origin.stream, origin.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise Unavailable(f"the stream {origin.stream}: {error}", hint=_HINT) from error
        except redis.RedisError as error:
            raise Unavailable(f"Redis does not answer: {error}", hint=_HINT) from error

    def take(self, seconds: float) -> Sequence[Batch]:
        """First what this machine took before it died, then what others took and died with, then what is new."""
        try:
            entries = self._before() or self._abandoned() or self._new(seconds)
        except redis.RedisError as error:
            raise Unavailable(f"Redis does not answer: {error}", hint=_HINT) from error
        fields = [(identity.decode(), held) for identity, held in entries if held is not None]
        self._taken.extend(identity for identity, _ in fields)
        return [self._batch(fields)] if fields else []

    def position(self) -> Mapping[str, Any]:
        """The entries that were taken and are not acknowledged."""
        return {"entries": list(self._taken)}

    def acknowledge(self, position: Mapping[str, Any]) -> None:
        """Tell the group."""
        entries = [str(identity) for identity in position.get("entries", ())]
        try:
            for start in range(0, len(entries), _CHUNK):
                self._server.xack(self._origin.stream, self._origin.group, *entries[start : start + _CHUNK])
        except redis.RedisError as error:
            raise Unavailable(f"Redis does not answer: {error}", hint=_HINT) from error
        done = set(entries)
        self._taken = [identity for identity in self._taken if identity not in done]

    def waiting(self) -> int:
        """Entries that the group did not give out yet; 0 where Redis cannot tell."""
        try:
            groups: Any = self._server.xinfo_groups(self._origin.stream)
        except redis.RedisError:
            return 0
        here = (group for group in groups if group["name"] == self._origin.group.encode())
        return next((int(group.get("lag") or 0) for group in here), 0)

    def close(self) -> None:
        """Give the connection back."""
        self._server.close()

    def _before(self) -> list[Entry]:
        """What is pending for this consumer, a page at a time, once after the start."""
        if not self._own:
            return []
        found = self._read(self._own, None)
        self._own = found[-1][0].decode() if found else ""
        return found

    def _abandoned(self) -> list[Entry]:
        """What others took long ago."""
        idle = parse_duration(self._origin.claim)
        if time.monotonic() - self._claimed < idle / SECOND / 2:
            return []
        self._claimed = time.monotonic()
        mine = set(self._taken)
        answer: Any = self._server.xautoclaim(
            self._origin.stream, self._origin.group, self._name, min_idle_time=idle // 1000, count=_AT_ONCE
        )
        return [(identity, held) for identity, held in answer[1] if identity.decode() not in mine]

    def _new(self, seconds: float) -> list[Entry]:
        return self._read(">", max(1, int(seconds * 1000)))

    def _read(self, after: str, block: int | None) -> list[Entry]:
        given: Any = self._server.xreadgroup(
            self._origin.group, self._name, {self._origin.stream: after}, count=_AT_ONCE, block=block
        )
        return list(given[0][1]) if given else []

    def _batch(self, entries: Sequence[tuple[str, Mapping[bytes, bytes]]]) -> Batch:
        lines = [self._line(held) for _, held in entries]
        decoded = decode_lines(lines, self._schema)
        at = [_arrived(identity) for identity, _ in entries]
        rows = with_arrival(decoded.rows, self._origin.arrived, [at[number] for number in decoded.kept])
        return Batch(rows, min(at), "", letters(decoded, [identity for identity, _ in entries], at))

    def _line(self, held: Mapping[bytes, bytes]) -> bytes:
        if self._origin.field:
            return held.get(self._origin.field.encode(), b"").replace(b"\n", b" ") or b"null"
        return event_of(held, self._schema)


def _arrived(identity: str) -> Micros:
    """An entry's id begins with the milliseconds at which the server took it."""
    return int(identity.partition("-")[0]) * 1000
