"""Where events come from: what every kind of feed offers its consumer, and the one that reads what was pushed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from everloop.core.clock import Micros
from everloop.core.errors import DataError
from everloop.data.streams import inbox
from everloop.data.streams.decoding import Decoded, decode, unpacked

Letter = tuple[Micros, str, str, str]
"""A dead letter: when it arrived, where it was, why it is dead, what it said."""
_AT_ONCE = 4 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that arrived together."""

    rows: pa.Table
    arrived: Micros
    """When; for the times of arrival in a broker, the broker's."""
    key: str = ""
    """Under which its sender may send it again; empty where nobody does."""
    dead: tuple[Letter, ...] = ()


class Arrivals(Protocol):
    """A source of events that can be read again from a position. `Unavailable` when it does not answer."""

    def take(self, seconds: float) -> Sequence[Batch]:
        """What came since the last time; waits so long for the first of it."""
        ...

    def position(self) -> Mapping[str, Any]:
        """Where a consumer goes on that has everything taken so far, in JSON."""
        ...

    def acknowledge(self, position: Mapping[str, Any]) -> None:
        """What is before a position is committed: the source may forget it. Safe to do again."""
        ...

    def waiting(self) -> int:
        """How much is there that nobody took: bytes of a push, else messages."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class Follower(Protocol):
    """Goes along with a feed: sees rows as they arrive, before they are committed. `Unavailable` when it cannot now."""

    def take(self, rows: pa.Table) -> Mapping[int, str]:
        """Take rows in; the same may come again after a death. Returns which it refuses and why: dead letters then."""
        ...

    def reached(self, time: Micros) -> None:
        """Everything that had arrived at a time was taken."""
        ...

    def committed(self, rows: pa.Table) -> None:
        """These rows are in a version now."""
        ...


def with_arrival(rows: pa.Table, column: str, at: Sequence[Micros] | Micros) -> pa.Table:
    """`rows` with the column of their arrival, where one is wanted."""
    if not column:
        return rows
    times = [at] * rows.num_rows if isinstance(at, int) else at
    return rows.append_column(pa.field(column, pa.timestamp("us", "UTC")), pa.array(times, pa.timestamp("us", "UTC")))


def letters(decoded: Decoded, places: Sequence[str], at: Sequence[Micros]) -> tuple[Letter, ...]:
    """The dead letters of decoded events, by the place and time of each."""
    return tuple((at[number], places[number], why, text) for number, why, text in decoded.dead)


class Pushed:
    """The inbox of a feed. Files whose frames are all committed are deleted."""

    def __init__(self, folder: Path, schema: pa.Schema, arrived: str, position: Mapping[str, Any]) -> None:
        """Begin behind a position: {file: bytes}."""
        self._folder, self._schema, self._arrived = folder, schema, arrived
        self._position = {str(name): int(end) for name, end in position.items()}
        self._done: dict[str, int] = {}
        self._torn: dict[str, int] = {}

    def take(self, seconds: float) -> Sequence[Batch]:  # noqa: ARG002 - there is nothing to wait on: look again later
        """Frames of all files, some megabytes at most."""
        found: list[Batch] = []
        room = _AT_ONCE
        for path in inbox.files(self._folder):
            if room <= 0:
                break
            begin = end = self._position.get(path.name, 0)
            finished = inbox.is_finished(path)  # asked before reading: so nothing comes after the last frame read
            for frame in inbox.frames(path, begin, room):
                found.append(self._batch(frame, f"{path.name}:{end}"))
                end = frame.end
            room -= end - begin
            self._position[path.name] = end
            if finished and room > 0 and self._ends(path, end):
                self._done[path.name] = end
        return found

    def position(self) -> Mapping[str, Any]:
        """{file: bytes} of the files that are there."""
        return dict(self._position)

    def acknowledge(self, position: Mapping[str, Any]) -> None:
        """Delete finished files that are committed to their end."""
        for name, end in list(self._done.items()):
            if int(position.get(name, 0)) >= end:
                (self._folder / name).unlink(missing_ok=True)
                del self._done[name]
                del self._position[name]

    def waiting(self) -> int:
        """Bytes behind the position."""
        there = sum(path.stat().st_size for path in inbox.files(self._folder))
        return max(0, there - sum(self._position.values()))

    def close(self) -> None:
        """Nothing is open."""

    def _ends(self, path: Path, end: int) -> bool:
        """Whether nothing follows: half a frame is looked at twice, for an erasure may be writing it anew just now."""
        whole = end >= path.stat().st_size or self._torn.get(path.name) == end
        self._torn[path.name] = end
        if whole:
            del self._torn[path.name]
        return whole

    def _batch(self, frame: inbox.Frame, place: str) -> Batch:
        header = frame.header
        at, key = int(header["at"]), str(header.get("key", ""))
        try:
            decoded = decode(unpacked(frame.body, header.get("encoding", "")), header["media"], self._schema)
        except DataError as error:
            decoded = Decoded(self._schema.empty_table(), (), ((0, error.message, ""),))
        dead = tuple((at, f"{place}#{number}", why, text) for number, why, text in decoded.dead)
        return Batch(with_arrival(decoded.rows, self._arrived, at), at, key, dead)
